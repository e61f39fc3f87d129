use std::sync::mpsc;

use keelson_host::threads;

#[inline(never)]
fn waits_for_the_end(begun: &mpsc::Sender<()>, end: &mpsc::Receiver<()>) {
    begun.send(()).unwrap();
    let _ = std::hint::black_box(end.recv());
}

#[test]
fn every_thread_tells_its_stack_and_goes_on() {
    let (begun, has_begun) = mpsc::channel();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (begun, (end, ended)) = (begun.clone(), mpsc::channel());
            (end, std::thread::spawn(move || waits_for_the_end(&begun, &ended)))
        })
        .collect();
    threads.iter().for_each(|_| has_begun.recv().unwrap());
    let waiting = |stack: &Vec<usize>| {
        let mut names = String::new();
        for address in stack {
            backtrace::resolve(*address as *mut _, |s| names.extend(s.name().map(|n| n.to_string())));
        }
        names.contains("waits_for_the_end")
    };
    for _ in 0..3 {
        let stacks = threads::stacks().unwrap();
        assert_eq!(stacks.iter().filter(|stack| waiting(stack)).count(), 8);
    }
    for (end, thread) in threads {
        drop(end);
        thread.join().unwrap();
    }
    assert!(!threads::stacks().unwrap().iter().any(waiting));
}
