//! Events in a file, one a line; full files are put aside and in time removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::LogConfig;

/// Opens the file and writes what comes through the queue, until that is closed.
pub fn start(config: &LogConfig, mut queue: mpsc::Receiver<Arc<str>>) -> io::Result<()> {
    let mut writer = Writer::open(config.clone())?;
    // Files block; a thread of their own keeps that away from requests.
    std::thread::Builder::new().name("audit-log".into()).spawn(move || {
        while let Some(line) = queue.blocking_recv() {
            let mut outcome = writer.write(&line);
            while let (Ok(()), Ok(line)) = (&outcome, queue.try_recv()) {
                outcome = writer.write(&line);
            }
            if let Err(error) = outcome.and_then(|()| writer.out.flush()) {
                tracing::error!(%error, path = %writer.config.path.display(), "cannot write the audit log");
            }
        }
    })?;
    Ok(())
}

struct Writer {
    config: LogConfig,
    out: BufWriter<Box<dyn Write + Send>>,
    size: u64,
}

impl Writer {
    fn open(config: LogConfig) -> io::Result<Self> {
        if config.path == Path::new("-") {
            return Ok(Self { config, out: BufWriter::new(Box::new(io::stdout())), size: 0 });
        }
        let (file, size) = append(&config.path)?;
        Ok(Self { config, out: BufWriter::new(Box::new(file)), size })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        let length = line.len() as u64 + 1;
        let limit = self.config.max_size << 20;
        if limit > 0 && self.size > 0 && self.size + length > limit && self.config.path != Path::new("-") {
            self.rotate()?;
        }
        self.out.write_all(line.as_bytes())?;
        self.out.write_all(b"\n")?;
        self.size += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.out.flush()?;
        let path = &self.config.path;
        let now = Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S%.3f").to_string();
        let mut aside = named(path, &now);
        for n in 1.. {
            if !aside.exists() {
                break;
            }
            aside = named(path, &format!("{now}.{n}"));
        }
        fs::rename(path, aside)?;
        let (file, size) = append(path)?;
        self.out = BufWriter::new(Box::new(file));
        self.size = size;
        self.remove_old()
    }

    fn remove_old(&self) -> io::Result<()> {
        let path = &self.config.path;
        let (prefix, suffix) = (stem(path) + "-", extension(path));
        let mut full: Vec<PathBuf> = Vec::new();
        for entry in
            fs::read_dir(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?
        {
            let entry = entry?.path();
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(&prefix) && name.ends_with(&suffix) {
                full.push(entry);
            }
        }
        // Their names sort by time, the newest first.
        full.sort_by(|a, b| b.cmp(a));
        let oldest = (self.config.max_age > 0)
            .then(|| SystemTime::now() - Duration::from_secs(self.config.max_age * 24 * 3600));
        for (i, file) in full.iter().enumerate() {
            let aged = oldest.is_some_and(|oldest| {
                fs::metadata(file).and_then(|m| m.modified()).is_ok_and(|modified| modified < oldest)
            });
            if aged || self.config.max_backups > 0 && i >= self.config.max_backups {
                fs::remove_file(file)?;
            }
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn extension(path: &Path) -> String {
    path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default()
}

/// `audit.log` at some time: `audit-TIME.log`.
fn named(path: &Path, time: &str) -> PathBuf {
    path.with_file_name(format!("{}-{time}{}", stem(path), extension(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_files_are_put_aside_and_the_oldest_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/audit.log");
        let config = LogConfig { path: path.clone(), max_size: 1, max_age: 0, max_backups: 2 };
        let mut writer = Writer::open(config.clone()).unwrap();
        let line = "x".repeat(400_000);
        for _ in 0..11 {
            writer.write(&line).unwrap();
        }
        drop(writer);
        let mut sizes: Vec<u64> = fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap().len())
            .collect();
        sizes.sort_unstable();
        // Two lines fill a file; of five full ones two are left beside the one that is written.
        assert_eq!(sizes, [400_001, 800_002, 800_002]);
        let mut writer = Writer::open(config).unwrap();
        assert_eq!(writer.size, 400_001);
        writer.write("y").unwrap();
    }
}
