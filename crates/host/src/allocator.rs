//! mimalloc as a program's allocator.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned,
};

/// Every block of mimalloc's that is at least so large has this alignment.
const ALIGNMENT: usize = 16;

/// mimalloc, asked for an alignment only where it would not give it anyway: who asks is served from the blocks of the next
/// power of two, or from larger ones that are cut to fit.
pub struct Mimalloc;

fn aligned_anyway(size: usize, alignment: usize) -> bool {
    alignment <= ALIGNMENT && alignment <= size
}

// SAFETY: mimalloc's blocks have the size asked for and, by size or because it is asked for, the alignment; a block is
// given back however it was asked for.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Mimalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, alignment) = (layout.size(), layout.align());
        match aligned_anyway(size, alignment) {
            true => unsafe { mi_malloc(size) }.cast(),
            false => unsafe { mi_malloc_aligned(size, alignment) }.cast(),
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, alignment) = (layout.size(), layout.align());
        match aligned_anyway(size, alignment) {
            true => unsafe { mi_zalloc(size) }.cast(),
            false => unsafe { mi_zalloc_aligned(size, alignment) }.cast(),
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        unsafe { mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let alignment = layout.align();
        match aligned_anyway(size, alignment) {
            true => unsafe { mi_realloc(block.cast(), size) }.cast(),
            false => unsafe { mi_realloc_aligned(block.cast(), size, alignment) }.cast(),
        }
    }
}
