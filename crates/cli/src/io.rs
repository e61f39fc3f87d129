//! Standard output that may be a pipe whose reader leaves.

use std::io::Write;

/// Writes to standard output at once; a reader that left ends the program quietly, as `ctl get … | head` should.
pub fn print(text: &str) {
    write(text.as_bytes());
}

/// [`print`] of what need not be text.
pub fn write(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    if written.is_err() {
        std::process::exit(141);
    }
}

/// `println!` by way of [`print`].
#[macro_export]
macro_rules! outln {
    () => { $crate::io::print("\n") };
    ($($arg:tt)*) => { $crate::io::print(&format!("{}\n", format_args!($($arg)*))) };
}
