//! Each test has a process of its own, and with it the allocator.

use std::alloc::System;
use std::hint::black_box;

use keelson_host::heap::{self, Amount, Sampling};

#[global_allocator]
static ALLOCATOR: Sampling<System> = Sampling(System);

/// So large that it is a sample but once in 10^27 times.
const LARGE: usize = 64 * heap::RATE;

/// What is live, and what was ever allocated.
fn total() -> (Amount, Amount) {
    let mut total = (Amount::default(), Amount::default());
    for site in heap::sites() {
        total.0 += site.live;
        total.1 += site.allocated;
    }
    total
}

fn large_blocks() -> i64 {
    (total().0.bytes / LARGE as f64) as i64
}

#[test]
fn what_is_held_is_known_until_it_is_freed() {
    drop(black_box(vec![0u8; LARGE]));
    assert_eq!(heap::sites().len(), 0, "nothing is sampled before it is asked for");
    heap::enable();
    let held: Vec<Vec<u8>> = (0..3).map(|_| black_box(vec![0u8; LARGE])).collect();
    assert_eq!(large_blocks(), 3);
    drop(held);
    assert_eq!((large_blocks(), (total().1.bytes / LARGE as f64) as i64), (0, 3));
}

#[test]
fn a_block_that_grows_and_shrinks_keeps_its_content() {
    heap::enable();
    // Each step is sampled or not by chance, and comes from one that was or was not.
    let mut block: Vec<u8> = Vec::new();
    let mut random = 1u64;
    for _ in 0..60 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
        let size = (random >> 33) as usize % (2 * heap::RATE);
        block.truncate(size);
        block.shrink_to_fit();
        block.reserve_exact(size - block.len());
        (block.len()..size).for_each(|at| block.push((at % 251) as u8));
        let wrong = block.iter().enumerate().position(|(at, byte)| *byte != (at % 251) as u8);
        assert_eq!(wrong, None, "of {size}");
    }
    drop(block);
    let mut zeroed = vec![0u8; LARGE];
    assert!(zeroed.iter().all(|byte| *byte == 0));
    zeroed.resize(LARGE + 1, 0);
    zeroed.shrink_to(LARGE / 2);
    assert!((total().0.bytes as usize) < 2 * LARGE, "{:?}", total().0);
}

#[test]
fn small_blocks_of_many_threads_are_estimated() {
    heap::enable();
    const EACH: usize = 800_000;
    let block = |n| Some(black_box(Box::new([n; 16]))).filter(|_| n % 4 == 0);
    let spawn = |_| std::thread::spawn(move || (0..EACH).filter_map(block).collect::<Vec<_>>());
    let threads: Vec<_> = (0..4).map(spawn).collect();
    let held: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    // 3,200,000 blocks of 128 bytes are about 195 samples, and those of a fourth of them are held: four deviations.
    let (live, allocated) = total();
    let share = allocated.objects / (4 * EACH) as f64;
    assert!((0.7..1.3).contains(&share), "{share}");
    let share = live.objects / EACH as f64;
    assert!((0.4..1.6).contains(&share), "{share}");
    // Freed by another thread than the one that allocated them.
    std::thread::spawn(move || drop(held)).join().unwrap();
    assert!(total().0.bytes < 16.0 * heap::RATE as f64, "{:?}", total().0);
}

#[test]
fn stacks_lead_to_who_allocated() {
    #[inline(never)]
    fn holder() -> Vec<u8> {
        black_box(vec![1u8; LARGE])
    }
    heap::enable();
    let _held = holder();
    let site = heap::sites().into_iter().find(|site| site.live.bytes >= LARGE as f64).unwrap();
    let mut names = Vec::new();
    for address in &*site.stack {
        backtrace::resolve(*address as *mut _, |symbol| names.extend(symbol.name().map(|n| n.to_string())));
    }
    assert!(names.iter().any(|name| name.contains("stacks_lead_to_who_allocated::holder")), "{names:?}");
}
