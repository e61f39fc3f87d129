//! The demo app: an HTTP server that answers every request with its pod's name.
//!
//! `PORT` (8080) is where it listens; `VERSION`, when set, follows the name, so that a rolling update
//! can be watched. On SIGTERM it turns unready (`/readyz` answers 503), goes on serving while the
//! Service's rules forget it (`DRAIN_SECONDS`, 2), and ends: no request fails during an update.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

fn main() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    // Blocked before any thread exists, so that every thread inherits the mask and only this one waits.
    signals.thread_block().expect("block SIGTERM and SIGINT");

    let port = number("PORT", 8080);
    let port = u16::try_from(port).expect("PORT is a TCP port");
    let listener = match TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port))) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("hello: cannot listen on port {port}: {error}");
            std::process::exit(1);
        }
    };
    let body = body();
    let draining = Arc::new(AtomicBool::new(false));
    let serving = Arc::clone(&draining);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (body, draining) = (body.clone(), Arc::clone(&serving));
            std::thread::spawn(move || serve(stream, &body, &draining));
        }
    });
    println!("hello: serving on port {port}");
    signals.wait().expect("wait for a signal");
    draining.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(number("DRAIN_SECONDS", 2)));
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn body() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok()).unwrap_or_default();
    match std::env::var("VERSION") {
        Ok(version) => format!("{name} {version}\n"),
        Err(_) => format!("{name}\n"),
    }
}

/// Answers the requests of one connection until the peer closes it, asks to, or sends no whole request in time.
fn serve(stream: TcpStream, body: &str, draining: &AtomicBool) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Some((path, keep_alive)) = read_request(&mut reader) {
        let ending = draining.load(Ordering::Relaxed);
        let status = if ending && path == "/readyz" { "503 Service Unavailable" } else { "200 OK" };
        let connection = if keep_alive && !ending { "keep-alive" } else { "close" };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{body}",
            body.len()
        );
        if writer.write_all(answer.as_bytes()).is_err() || connection == "close" {
            return;
        }
    }
}

/// Reads one request head (bodies are not expected): its path, and whether the connection stays open after it.
fn read_request(reader: &mut impl BufRead) -> Option<(String, bool)> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let path = words.nth(1)?.to_owned();
    let mut keep_alive = words.next() == Some("HTTP/1.1");
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).ok()? == 0 {
            return None;
        }
        let header = header.trim().to_ascii_lowercase();
        match header.as_str() {
            "" => return Some((path, keep_alive)),
            "connection: close" => keep_alive = false,
            "connection: keep-alive" => keep_alive = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::read_request;

    #[test]
    fn a_request_head_gives_its_path_and_connection() {
        let check = |head: &str, want: Option<(&str, bool)>| {
            let got = read_request(&mut head.as_bytes());
            assert_eq!(got, want.map(|(path, keep)| (path.to_owned(), keep)), "{head:?}");
        };
        check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Some(("/", true)));
        check("GET /readyz HTTP/1.0\r\n\r\n", Some(("/readyz", false)));
        check("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", Some(("/", false)));
        check("GET / HTTP/1.1\r\nHost: cut", None);
        check("", None);
    }
}
