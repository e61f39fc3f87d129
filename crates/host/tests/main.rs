//! The backends on fixture trees and on this machine's kernel.

mod allocator;
mod cgroup;
mod heap;
mod threads;
