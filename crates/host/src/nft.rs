//! nftables: scripts that take effect at once or not at all.

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::error::{Error, Result};

/// Applies nft scripts.
pub trait Nft: Send + Sync + 'static {
    /// All of the script or nothing of it.
    fn apply(&self, script: &str) -> Result<()>;

    fn table_exists(&self, family: &str, table: &str) -> Result<bool>;

    fn delete_table(&self, family: &str, table: &str) -> Result<()>;
}

/// The kernel's rules, through the `nft` program.
#[derive(Debug, Default, Clone)]
pub struct Kernel;

impl Kernel {
    fn run(args: &[&str], input: &str) -> Result<std::process::Output> {
        let failed = |source: io::Error| Error::new("run", "nft (Debian package nftables)", source);
        let mut child = Command::new("nft")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends before it has read everything says why on its standard error.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output().map_err(failed)
    }
}

impl Nft for Kernel {
    fn apply(&self, script: &str) -> Result<()> {
        let output = Self::run(&["-f", "-"], script)?;
        if output.status.success() {
            return Ok(());
        }
        Err(refused(String::from_utf8_lossy(&output.stderr).trim()))
    }

    fn table_exists(&self, family: &str, table: &str) -> Result<bool> {
        Ok(Self::run(&["-t", "list", "table", family, table], "")?.status.success())
    }

    fn delete_table(&self, family: &str, table: &str) -> Result<()> {
        self.apply(&format!("add table {family} {table}\ndelete table {family} {table}\n"))
    }
}

fn refused(message: &str) -> Error {
    Error::new("apply", "an nft script", io::Error::other(message.to_owned()))
}

/// Remembers the scripts.
#[derive(Debug, Default)]
pub struct Fake {
    applied: Mutex<Vec<String>>,
    /// The next script is refused with this message.
    pub refuse_next: Mutex<Option<String>>,
}

impl Fake {
    /// The scripts since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.applied.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Nft for Fake {
    fn apply(&self, script: &str) -> Result<()> {
        let refusal = self.refuse_next.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(message) = refusal {
            return Err(refused(&message));
        }
        self.applied.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(script.to_owned());
        Ok(())
    }

    fn table_exists(&self, _: &str, _: &str) -> Result<bool> {
        Ok(false)
    }

    fn delete_table(&self, family: &str, table: &str) -> Result<()> {
        self.apply(&format!("delete table {family} {table}\n"))
    }
}
