//! What the allocator gives is what was asked for.

use std::alloc::{GlobalAlloc, Layout};

use keelson_host::allocator::Mimalloc;

#[test]
#[allow(unsafe_code)]
fn blocks_have_the_alignment_asked_for_and_keep_their_bytes() {
    for alignment in (0..14).map(|power| 1usize << power) {
        for size in [1, 2, 7, 8, 9, 15, 16, 17, 24, 40, 48, 100, 1000, 1025, 5000, 16_000, 70_000, 3 << 20] {
            let layout = Layout::from_size_align(size, alignment).unwrap();
            // SAFETY: no size is zero, and each block is written to and given back as it was asked for.
            unsafe {
                let zeroed = Mimalloc.alloc_zeroed(layout);
                assert!(zeroed.addr().is_multiple_of(alignment), "{layout:?}");
                assert!((0..size).all(|at| *zeroed.add(at) == 0), "{layout:?}");
                let block = Mimalloc.alloc(layout);
                assert!(block.addr().is_multiple_of(alignment), "{layout:?}");
                block.write_bytes(7, size);
                let grown = Mimalloc.realloc(block, layout, size * 3);
                assert!(grown.addr().is_multiple_of(alignment), "{layout:?}");
                assert!((0..size).all(|at| *grown.add(at) == 7), "{layout:?}");
                Mimalloc.dealloc(grown, Layout::from_size_align(size * 3, alignment).unwrap());
                Mimalloc.dealloc(zeroed, layout);
            }
        }
    }
}
