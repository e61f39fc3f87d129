//! `/debug/pprof/`: what the server spends its time and its memory on, for `go tool pprof`.

mod builder;
mod counts;
mod cpu;
mod profile;

use http::header::{CONTENT_DISPOSITION, LOCATION};
use http::{HeaderValue, StatusCode};
use keelson_api_types::StatusError;

use crate::app::{App, Call};
use crate::body::Response;
use crate::response::text;
use counts::Counted;

const ROOT: &str = "/debug/pprof";
const TEXT: &str = "text/plain; charset=utf-8";
const INDEX: &str = "<html>\n<head>\n<title>/debug/pprof/</title>\n</head>\n<body>\n/debug/pprof/\n<ul>\n\
    <li><a href=\"allocs?debug=1\">allocs</a>: sampled memory that was ever allocated</li>\n\
    <li><a href=\"block?debug=1\">block</a>: empty, waits are not measured</li>\n\
    <li><a href=\"cmdline\">cmdline</a>: how the program was started</li>\n\
    <li><a href=\"goroutine?debug=1\">goroutine</a>: what the threads are at; tasks that wait have no stack</li>\n\
    <li><a href=\"heap?debug=1\">heap</a>: sampled memory that is held</li>\n\
    <li><a href=\"mutex?debug=1\">mutex</a>: empty, contention is not measured</li>\n\
    <li><a href=\"profile?seconds=30\">profile</a>: CPU time, for <code>go tool pprof</code></li>\n\
    <li><a href=\"symbol\">symbol</a>: none to look up, profiles carry their names</li>\n\
    </ul>\n</body>\n</html>\n";

/// Answers what is below `/debug/pprof`, where profiling is enabled; `None` for other paths.
pub async fn serve(app: &App, call: &Call) -> Option<Result<Response, StatusError>> {
    let name = call.info.path.strip_prefix(ROOT).filter(|_| app.config.enable_profiling)?;
    Some(Ok(match name {
        "" => {
            let mut answer = text(StatusCode::FOUND, TEXT, "");
            answer.headers_mut().insert(LOCATION, HeaderValue::from_static("/debug/pprof/"));
            answer
        }
        "/" => text(StatusCode::OK, "text/html; charset=utf-8", INDEX),
        "/cmdline" => {
            let line: Vec<String> =
                std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
            text(StatusCode::OK, TEXT, line.join("\0").into_bytes())
        }
        "/symbol" => text(StatusCode::OK, TEXT, "num_symbols: 0\n"),
        "/profile" => return Some(cpu::serve(&call.query).await),
        name => match (Counted::named(name), name.starts_with('/')) {
            (Some(counted), _) => return Some(counted.serve(&call.query).await),
            (None, true) => refused(
                StatusCode::NOT_FOUND,
                "Unknown profile: there are allocs, block, cmdline, goroutine, heap, mutex, profile and symbol",
            ),
            (None, false) => return None,
        },
    }))
}

/// As Go refuses, in words that its tool shows.
fn refused(status: StatusCode, why: &str) -> Response {
    let mut answer = text(status, TEXT, format!("{why}\n").into_bytes());
    answer.headers_mut().insert("x-go-pprof", HeaderValue::from_static("1"));
    answer
}

fn file(name: &str, content: Vec<u8>) -> Result<Response, StatusError> {
    let mut answer = text(StatusCode::OK, "application/octet-stream", content);
    let name = format!("attachment; filename=\"{name}\"").try_into().map_err(StatusError::internal)?;
    answer.headers_mut().insert(CONTENT_DISPOSITION, name);
    Ok(answer)
}
