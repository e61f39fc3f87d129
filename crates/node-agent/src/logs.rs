//! Containers' logs in the runtime interface's format: a line is time, stream, `F` or `P` (a part of a longer
//! line), and text. Reading for clients, the tail for termination messages, and rotation.

use crate::context::Context;
use bytes::Bytes;
use keelson_cri::v1::{ContainerFilter, ContainerState, ContainerStateValue};
use keelson_host::folder::Folder;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader, SeekFrom};
use tokio::sync::mpsc;

const ROTATE_EVERY: Duration = Duration::from_secs(10);
/// While somebody follows a log, how often it is asked whether more will come. What is written wakes the reader.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
const BLOCK: u64 = 64 << 10;

/// What a reader wants.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub follow: bool,
    pub tail: Option<u64>,
    pub since: Option<jiff::Timestamp>,
    pub timestamps: bool,
    pub limit: Option<u64>,
    /// `Stdout` or `Stderr` alone.
    pub stream: Option<&'static str>,
}

/// One entry of the file.
#[derive(Debug, PartialEq, Eq)]
struct Entry<'a> {
    time: &'a str,
    stream: &'a str,
    partial: bool,
    text: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let tags = parts.next()?;
    Some(Entry {
        time,
        stream,
        partial: tags.split(|b| *b == b':').next() == Some(b"P"),
        text: parts.next().unwrap_or_default(),
    })
}

/// The last lines of a log as text, at most `bytes` of them.
pub fn tail(path: &str, lines: usize, bytes: usize) -> String {
    let Ok(content) = std::fs::read(path) else { return String::new() };
    let from = content.len().saturating_sub(256 << 10);
    let all: Vec<&[u8]> = content[from..].split_inclusive(|b| *b == b'\n').collect();
    let mut out = Vec::new();
    for line in &all[all.len().saturating_sub(lines)..] {
        if let Some(entry) = parse(line) {
            out.extend_from_slice(entry.text);
            if !entry.partial {
                out.push(b'\n');
            }
        }
    }
    let start = out.len().saturating_sub(bytes);
    String::from_utf8_lossy(&out[start..]).into_owned()
}

/// The offset at which the last `lines` lines before `end` begin.
async fn tail_start(file: &mut File, mut end: u64, lines: u64) -> io::Result<u64> {
    if lines == 0 {
        return Ok(end);
    }
    let mut left = lines;
    let mut block = vec![0; BLOCK as usize];
    let mut last = true;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let n = (end - start) as usize;
        file.seek(SeekFrom::Start(start)).await?;
        file.read_exact(&mut block[..n]).await?;
        for at in (0..n).rev() {
            // The newline at the very end closes the last line and begins none.
            let closes = std::mem::take(&mut last);
            if block[at] == b'\n' && !closes {
                left -= 1;
                if left == 0 {
                    return Ok(start + at as u64 + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

/// Reads a log as `options` say and sends pieces of it to `sink`, until the end, or until `alive` says that no
/// more will come, or until the sink is closed.
pub async fn read<F>(
    path: &Path,
    options: &Options,
    sink: &mpsc::Sender<Bytes>,
    mut alive: impl FnMut() -> F,
) -> io::Result<()>
where
    F: Future<Output = bool>,
{
    let mut file = File::open(path).await?;
    // Before the first look at the file, so that nothing is written unseen in between.
    let mut folder = path.parent().filter(|_| options.follow).and_then(watch);
    let meta = file.metadata().await?;
    let start = match options.tail {
        Some(lines) => tail_start(&mut file, meta.len(), lines).await?,
        None => 0,
    };
    file.seek(SeekFrom::Start(start)).await?;
    let mut inode = meta.ino();
    // What is written from here on is for those who follow: it would be more than the tail that was asked for.
    let most = if options.follow { u64::MAX } else { meta.len() - start };
    let mut reader = BufReader::with_capacity(BLOCK as usize, file.take(most));
    let mut left = options.limit.unwrap_or(u64::MAX);
    let mut line = Vec::new();
    let mut out = Vec::new();
    let mut ending = false;
    let mut drained = false;
    let mut asked = tokio::time::interval(ALIVE_EVERY);
    asked.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let n = reader.read_until(b'\n', &mut line).await?;
        if n > 0 && line.ends_with(b"\n") {
            write(&line, options, &mut out);
            line.clear();
        }
        let flush = n == 0 || out.len() >= BLOCK as usize;
        if flush && !out.is_empty() {
            out.truncate(left.min(out.len() as u64) as usize);
            left -= out.len() as u64;
            if sink.send(std::mem::take(&mut out).into()).await.is_err() || left == 0 {
                return Ok(());
            }
        }
        if n > 0 {
            continue;
        }
        if !options.follow || ending {
            return Ok(());
        }
        if let Ok(meta) = tokio::fs::metadata(path).await
            && meta.ino() != inode
        {
            // What came into the old file before the runtime turned to the new one is read first.
            if !std::mem::replace(&mut drained, true) {
                continue;
            }
            (inode, drained) = (meta.ino(), false);
            reader = BufReader::with_capacity(BLOCK as usize, File::open(path).await?.take(u64::MAX));
            line.clear();
            continue;
        }
        tokio::select! {
            () = changed(&mut folder) => {}
            // What was written before the container ended may come after it was last read.
            _ = asked.tick() => ending = !alive().await,
            () = sink.closed() => return Ok(()),
        }
    }
}

/// A folder that cannot be watched (the kernel has only so many watches) is looked at now and then.
fn watch(path: &Path) -> Option<Folder> {
    let error = match Folder::watch(path) {
        Ok(folder) => return Some(folder),
        Err(error) => error,
    };
    tracing::info!(error = &error as &dyn std::error::Error, "following a log without being woken");
    None
}

async fn changed(folder: &mut Option<Folder>) {
    let Some(watched) = folder else { return std::future::pending().await };
    if let Err(error) = watched.changed().await {
        tracing::info!(error = &error as &dyn std::error::Error, "following a log without being woken");
        *folder = None;
    }
}

fn write(line: &[u8], options: &Options, out: &mut Vec<u8>) {
    let Some(entry) = parse(line) else { return };
    if options.stream.is_some_and(|s| !s.eq_ignore_ascii_case(entry.stream)) {
        return;
    }
    if let Some(since) = options.since
        && entry.time.parse::<jiff::Timestamp>().is_ok_and(|t| t < since)
    {
        return;
    }
    if options.timestamps {
        out.extend_from_slice(entry.time.as_bytes());
        out.push(b' ');
    }
    out.extend_from_slice(entry.text);
    if !entry.partial {
        out.push(b'\n');
    }
}

/// Rotates the logs of running containers that have grown too large.
pub async fn rotate_forever(ctx: Arc<Context>) {
    loop {
        tokio::time::sleep(ROTATE_EVERY).await;
        let state = ContainerStateValue { state: ContainerState::ContainerRunning as i32 };
        let filter = ContainerFilter { state: Some(state), ..Default::default() };
        // A directory listing tells cheaply whether anything has to be done at all.
        let large = large_logs(&ctx);
        if large.is_empty() {
            continue;
        }
        let Ok(containers) = ctx.runtime.list_containers(filter).await else { continue };
        for container in containers {
            let Ok(status) = ctx.runtime.container_status(&container.id).await else { continue };
            if large.contains(&status.log_path) {
                rotate(&ctx, &container.id, Path::new(&status.log_path)).await;
            }
        }
    }
}

fn large_logs(ctx: &Context) -> Vec<String> {
    let limit = ctx.config.container_log.max_bytes();
    let list = |dir: &Path| {
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect::<Vec<_>>()
    };
    let containers = list(&ctx.config.pod_logs()).into_iter().flat_map(|pod| list(&pod));
    let files = containers.flat_map(|container| list(&container));
    files
        .filter(|f| f.extension().is_some_and(|e| e == "log"))
        .filter(|f| std::fs::metadata(f).is_ok_and(|m| m.len() > limit))
        .map(|f| f.to_string_lossy().into_owned())
        .collect()
}

async fn rotate(ctx: &Context, id: &str, path: &Path) {
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
    let rotated = format!("{}.{stamp}", path.display());
    if let Err(error) = std::fs::rename(path, &rotated) {
        tracing::warn!(log = %path.display(), %error, "could not rotate");
        return;
    }
    if let Err(e) = ctx.runtime.reopen_container_log(id).await {
        tracing::warn!(container = id, error = e.user_message(), "could not reopen a log");
        let _ = std::fs::rename(&rotated, path);
        return;
    }
    let Some(dir) = path.parent() else { return };
    let name = path.file_name().map(|n| format!("{}.", n.to_string_lossy())).unwrap_or_default();
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut old: Vec<_> = entries
        .map(|e| e.path())
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&name)))
        .collect();
    old.sort();
    let keep = ctx.config.container_log.max_files.saturating_sub(1) as usize;
    for file in &old[..old.len().saturating_sub(keep)] {
        let _ = std::fs::remove_file(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:00.000000001Z stdout F one\n\
                       2026-01-01T00:00:01.000000001Z stderr P tw\n\
                       2026-01-01T00:00:01.000000002Z stderr F o\n\
                       2026-01-01T00:00:02.000000001Z stdout F three\n";

    async fn check(options: Options) -> String {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).expect("writes");
        let (sink, mut pieces) = mpsc::channel(8);
        read(&path, &options, &sink, || async { false }).await.expect("reads");
        drop(sink);
        let mut out = Vec::new();
        while let Some(piece) = pieces.recv().await {
            out.extend_from_slice(&piece);
        }
        String::from_utf8(out).expect("text")
    }

    #[tokio::test]
    async fn parts_of_a_line_are_joined() {
        assert_eq!(check(Options::default()).await, "one\ntwo\nthree\n");
    }

    #[tokio::test]
    async fn the_tail_counts_lines_of_the_file() {
        assert_eq!(check(Options { tail: Some(1), ..Default::default() }).await, "three\n");
        assert_eq!(check(Options { tail: Some(3), ..Default::default() }).await, "two\nthree\n");
        assert_eq!(check(Options { tail: Some(0), ..Default::default() }).await, "");
        assert_eq!(check(Options { tail: Some(99), ..Default::default() }).await, "one\ntwo\nthree\n");
    }

    #[tokio::test]
    async fn time_limit_and_stream_select() {
        let since = Some("2026-01-01T00:00:02Z".parse().expect("a time"));
        assert_eq!(check(Options { since, ..Default::default() }).await, "three\n");
        assert_eq!(check(Options { limit: Some(5), ..Default::default() }).await, "one\nt");
        assert_eq!(check(Options { stream: Some("Stderr"), ..Default::default() }).await, "two\n");
        let stamped = check(Options { timestamps: true, tail: Some(1), ..Default::default() }).await;
        assert_eq!(stamped, "2026-01-01T00:00:02.000000001Z three\n");
    }

    #[tokio::test]
    async fn what_is_written_while_it_is_read_is_for_followers() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("0.log");
        let line = |text: &str| format!("2026-01-01T00:00:03Z stdout F {text}\n");
        // More than fits on the way: the reader waits long before the end.
        std::fs::write(&path, line("early").repeat(64 << 10)).expect("writes");
        let (sink, mut pieces) = mpsc::channel(1);
        let reader = {
            let path = path.clone();
            tokio::spawn(async move { read(&path, &Options::default(), &sink, || async { true }).await })
        };
        let mut out = pieces.recv().await.expect("a piece").to_vec();
        let file = std::fs::OpenOptions::new().append(true).open(&path);
        std::io::Write::write_all(&mut file.expect("opens"), line("late").as_bytes()).expect("writes");
        while let Some(piece) = pieces.recv().await {
            out.extend_from_slice(&piece);
        }
        reader.await.expect("no panic").expect("reads");
        assert!(out == "early\n".repeat(64 << 10).as_bytes(), "{} bytes", out.len());
    }

    #[tokio::test]
    async fn following_ends_with_the_container() {
        assert_eq!(check(Options { follow: true, ..Default::default() }).await, "one\ntwo\nthree\n");
    }

    #[tokio::test]
    async fn what_is_written_reaches_a_follower_through_rotation() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).expect("writes");
        let (sink, mut pieces) = mpsc::channel(8);
        let options = Options { follow: true, ..Default::default() };
        let reader = {
            let path = path.clone();
            tokio::spawn(async move { read(&path, &options, &sink, || async { true }).await })
        };
        let mut next = async || {
            let piece = tokio::time::timeout(Duration::from_secs(20), pieces.recv()).await;
            String::from_utf8(piece.expect("in time").expect("a piece").to_vec()).expect("text")
        };
        let line = |text: &str| format!("2026-01-01T00:00:03Z stdout F {text}\n");
        let append = |text: &str| {
            let file = std::fs::OpenOptions::new().append(true).open(&path);
            std::io::Write::write_all(&mut file.expect("opens"), line(text).as_bytes()).expect("writes");
        };
        assert_eq!(next().await, "one\ntwo\nthree\n");
        append("more");
        assert_eq!(next().await, "more\n");
        std::fs::rename(&path, dir.path().join("0.log.1")).expect("renames");
        std::fs::write(&path, line("rotated")).expect("writes");
        assert_eq!(next().await, "rotated\n");
        drop(pieces);
        reader.await.expect("no panic").expect("ends with its reader");
    }

    #[test]
    fn the_last_words_come_from_the_end() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).expect("writes");
        assert_eq!(tail(&path.to_string_lossy(), 2, 100), "o\nthree\n");
        assert_eq!(tail(&path.to_string_lossy(), 9, 6), "three\n");
    }
}
