//! Whose the heap is: an allocator that keeps the stack of one allocation in [`RATE`] bytes.
//!
//! What is not sampled costs a countdown per thread when it comes and a look at its address when it goes: samples start
//! on a page, and few others do.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering, compiler_fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes from one sample to the next, in the mean. Four times Go's `MemProfileRate`: futures make deep stacks, and at Go's
/// rate to unwind them was a twentieth of a write.
pub const RATE: usize = 2 << 20;
/// Frames kept of a stack, from the allocation outwards.
const DEPTH: usize = 64;
/// Stacks that are told apart; those that come later are counted as one without frames.
const STACKS: usize = 1 << 14;
const PAGE: usize = 4096;
/// A countdown that no program gets to the end of: the thread is at work on samples.
const PAUSED: isize = isize::MAX;

static ENABLED: AtomicBool = AtomicBool::new(false);
static RANDOM: AtomicU64 = AtomicU64::new(0);
static TABLE: Mutex<Table> = Mutex::new(Table::new());
/// Samples by their page's number, modulo: most pages that go are known for none without the table's lock.
static PAGES: [AtomicU16; 1 << 13] = [const { AtomicU16::new(0) }; 1 << 13];

thread_local! {
    /// Bytes until the next sample; negative in a thread that has not drawn yet. Without a destructor, so that it is
    /// there for what other thread-locals' destructors allocate.
    static LEFT: Cell<isize> = const { Cell::new(-1) };
}

/// What was allocated, or is still held; estimates.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Amount {
    pub objects: f64,
    pub bytes: f64,
}

/// What one stack has allocated since sampling began, and how much of it is live.
#[derive(Clone, Debug)]
pub struct Site {
    /// Return addresses, the allocation's first.
    pub stack: Arc<[usize]>,
    pub allocated: Amount,
    pub live: Amount,
}

/// A global allocator that samples what it has another one allocate, once [`enable`] was called.
pub struct Sampling<A>(pub A);

/// From now on allocations are sampled.
pub fn enable() {
    ENABLED.store(true, Ordering::Relaxed);
}

/// All that was sampled so far. A later answer has the same stacks in the same order, and then its new ones.
pub fn sites() -> Vec<Site> {
    paused(|| {
        let table = table();
        let mut sites = table.sites.clone();
        for &(site, size) in table.live.values() {
            sites[site].live += Amount::sampled(size);
        }
        sites
    })
}

impl Amount {
    /// What a sample stands for: a block of this size is sampled with a probability of 1 - exp(-size / rate).
    fn sampled(size: usize) -> Self {
        let objects = -1.0 / (-(size as f64) / RATE as f64).exp_m1();
        Self { objects, bytes: objects * size as f64 }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}

// SAFETY: every call is handed on with the layout that the block was allocated with. A block that the table has was
// allocated on a page, is always found (the table's own memory, which is all that a paused thread frees, is never
// sampled), and is not in it any more when another block may get its address.
#[allow(unsafe_code)]
unsafe impl<A: GlobalAlloc> GlobalAlloc for Sampling<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if due(layout.size()) {
            return noted(layout, |layout| unsafe { self.0.alloc(layout) });
        }
        unsafe { self.0.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if due(layout.size()) {
            return noted(layout, |layout| unsafe { self.0.alloc_zeroed(layout) });
        }
        unsafe { self.0.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let sampled = on_page(block) && look_up(block, Table::forget);
        unsafe { self.0.dealloc(block, if sampled { paged(layout) } else { layout }) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let sampled = on_page(block) && look_up(block, |table, block| table.live.contains_key(&block));
        let due = due(size);
        if !sampled && !due {
            return unsafe { self.0.realloc(block, layout, size) };
        }
        // SAFETY: the caller answers for the new size with this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let alloc = |layout| unsafe { self.0.alloc(layout) };
        let moved = if due { noted(wanted, alloc) } else { alloc(wanted) };
        if !moved.is_null() {
            // SAFETY: both blocks have as many bytes, and the new one overlaps nothing.
            unsafe {
                block.copy_to_nonoverlapping(moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
        }
        moved
    }
}

/// Counts down; says whether these bytes are a sample.
#[inline(always)]
fn due(size: usize) -> bool {
    let left = LEFT.get() - size as isize;
    LEFT.set(left);
    left < 0 && draw(left, size as isize)
}

#[cold]
#[inline(never)]
fn draw(left: isize, size: isize) -> bool {
    if left + size < 0 {
        // A new thread's first bytes are no likelier a sample than others.
        let left = interval() - size;
        if left >= 0 {
            LEFT.set(left);
            return false;
        }
    }
    LEFT.set(interval());
    ENABLED.load(Ordering::Relaxed)
}

/// Bytes to the next sample, of exponential distribution: every byte is as likely one as any other. The random numbers
/// are splitmix64's.
fn interval() -> isize {
    let mut bits = RANDOM.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    let uniform = ((bits >> 11) + 1) as f64 / (1u64 << 53) as f64;
    (-uniform.ln() * RATE as f64) as isize
}

/// Allocates a sample.
#[cold]
#[inline(never)]
fn noted(layout: Layout, alloc: impl FnOnce(Layout) -> *mut u8) -> *mut u8 {
    let block = alloc(paged(layout));
    if !block.is_null() {
        paused(|| {
            let mut frames = [0; DEPTH];
            let stack = captured(&mut frames);
            table().note(stack, block as usize, layout.size());
        });
    }
    block
}

fn paged(layout: Layout) -> Layout {
    // What cannot be rounded up to a page cannot be allocated either.
    layout.align_to(PAGE).unwrap_or(layout)
}

#[inline(always)]
fn on_page(block: *mut u8) -> bool {
    (block as usize).is_multiple_of(PAGE)
}

fn page(block: usize) -> &'static AtomicU16 {
    &PAGES[block / PAGE % PAGES.len()]
}

#[cold]
#[inline(never)]
fn look_up(block: *mut u8, what: impl FnOnce(&mut Table, usize) -> bool) -> bool {
    // Who frees a sample was told of it by who allocated it, and so sees it counted.
    page(block as usize).load(Ordering::Relaxed) > 0
        && LEFT.get() < PAUSED / 2
        && paused(|| what(&mut table(), block as usize))
}

/// What the thread allocates meanwhile, be it in a signal's handler, is not sampled, and what it frees is not looked
/// up: it may have the table locked.
fn paused<R>(work: impl FnOnce() -> R) -> R {
    let left = LEFT.replace(PAUSED);
    compiler_fence(Ordering::SeqCst);
    let done = work();
    compiler_fence(Ordering::SeqCst);
    LEFT.set(left);
    done
}

/// For those who paused.
fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Table {
    sites: Vec<Site>,
    /// Their places by stack.
    stacks: HashMap<Arc<[usize]>, usize, BuildHasherDefault<DefaultHasher>>,
    /// The site and the size of each sample that is held, by its address.
    live: HashMap<usize, (usize, usize), BuildHasherDefault<DefaultHasher>>,
}

impl Table {
    const fn new() -> Self {
        Self {
            sites: Vec::new(),
            stacks: HashMap::with_hasher(BuildHasherDefault::new()),
            live: HashMap::with_hasher(BuildHasherDefault::new()),
        }
    }

    fn note(&mut self, stack: &[usize], block: usize, size: usize) {
        let stack = if self.sites.len() < STACKS || self.stacks.contains_key(stack) { stack } else { &[] };
        let site = self.stacks.get(stack).copied().unwrap_or_else(|| {
            let stack: Arc<[usize]> = stack.into();
            self.stacks.insert(stack.clone(), self.sites.len());
            let none = Amount::default();
            self.sites.push(Site { stack, allocated: none, live: none });
            self.sites.len() - 1
        });
        self.sites[site].allocated += Amount::sampled(size);
        self.live.insert(block, (site, size));
        page(block).fetch_add(1, Ordering::Relaxed);
    }

    fn forget(&mut self, block: usize) -> bool {
        let known = self.live.remove(&block).is_some();
        if known {
            page(block).fetch_sub(1, Ordering::Relaxed);
        }
        known
    }
}

fn captured(frames: &mut [usize; DEPTH]) -> &[usize] {
    let mut depth = 0;
    // SAFETY: what is not synchronized is the search for names, and none is made here.
    #[allow(unsafe_code)]
    unsafe {
        backtrace::trace_unsynchronized(|frame| {
            frames[depth] = frame.ip() as usize;
            depth += 1;
            depth < DEPTH
        });
    }
    &frames[..depth]
}
