//! `/debug/pprof/`: what the server spends its time on, for `go tool pprof`.

mod profile;

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_DISPOSITION, LOCATION};
use http::{HeaderValue, StatusCode};
use keelson_api_types::StatusError;
use pprof::{ProfilerGuard, ProfilerGuardBuilder, Report};
use prost::Message;

use crate::app::{App, Call};
use crate::body::Response;
use crate::response::text;
use profile::{Function, Line, Location, Profile, Sample, ValueType};

const ROOT: &str = "/debug/pprof";
const TEXT: &str = "text/plain; charset=utf-8";
/// Samples per second of CPU time, and how long they are taken, as Go has it.
const FREQUENCY: i32 = 100;
const SECONDS: u64 = 30;
/// Where a signal must not unwind.
const BLOCKED: [&str; 4] = ["libc", "libgcc", "pthread", "vdso"];
const INDEX: &str = "<html>\n<head>\n<title>/debug/pprof/</title>\n</head>\n<body>\n/debug/pprof/\n<ul>\n\
    <li><a href=\"profile?seconds=30\">profile</a>: CPU time, for <code>go tool pprof</code></li>\n\
    <li><a href=\"cmdline\">cmdline</a>: how the program was started</li>\n\
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
        "/profile" => {
            let asked = call.query.get("seconds").and_then(|s| s.parse().ok()).filter(|s| *s > 0);
            return Some(cpu(Duration::from_secs(asked.unwrap_or(SECONDS))).await);
        }
        name if name.starts_with('/') => refused(
            StatusCode::NOT_FOUND,
            "Unknown profile: there are profile, cmdline and symbol\n".to_owned(),
        ),
        _ => return None,
    }))
}

/// As Go refuses, in words that its tool shows.
fn refused(status: StatusCode, why: String) -> Response {
    let mut answer = text(status, TEXT, why.into_bytes());
    answer.headers_mut().insert("x-go-pprof", HeaderValue::from_static("1"));
    answer
}

async fn cpu(time: Duration) -> Result<Response, StatusError> {
    let guard = match ProfilerGuardBuilder::default().frequency(FREQUENCY).blocklist(&BLOCKED).build() {
        Ok(guard) => guard,
        Err(error) => {
            let why = match error {
                pprof::Error::Running => "cpu profiling already in use".to_owned(),
                other => other.to_string(),
            };
            return Ok(refused(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("Could not enable CPU profiling: {why}\n"),
            ));
        }
    };
    tokio::time::sleep(time).await;
    // To find the names takes long.
    let packed = tokio::task::spawn_blocking(move || packed(&guard, time)).await;
    let packed = packed.map_err(StatusError::internal)?.map_err(StatusError::internal)?;
    let mut answer = text(StatusCode::OK, "application/octet-stream", packed);
    let name = HeaderValue::from_static("attachment; filename=\"profile\"");
    answer.headers_mut().insert(CONTENT_DISPOSITION, name);
    Ok(answer)
}

fn packed(guard: &ProfilerGuard<'_>, time: Duration) -> Result<Vec<u8>, crate::body::BoxError> {
    let profile = profile_of(&guard.report().build()?, time);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&profile.encode_to_vec())?;
    Ok(encoder.finish()?)
}

/// A profile of the form that Go's have: samples by count and by time.
fn profile_of(report: &Report, time: Duration) -> Profile {
    let mut strings = Strings::default();
    let unit = |strings: &mut Strings, r#type: &str, unit: &str| ValueType {
        r#type: strings.id(r#type),
        unit: strings.id(unit),
    };
    let period = 1_000_000_000 / i64::from(FREQUENCY);
    let started = report.timing.start_time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut profile = Profile {
        sample_type: vec![unit(&mut strings, "samples", "count"), unit(&mut strings, "cpu", "nanoseconds")],
        period_type: Some(unit(&mut strings, "cpu", "nanoseconds")),
        period,
        time_nanos: started.as_nanos() as i64,
        duration_nanos: time.as_nanos() as i64,
        ..Profile::default()
    };
    let mut known: HashMap<(i64, i64), u64> = HashMap::new();
    for (stack, count) in &report.data {
        let mut sample = Sample { value: vec![*count as i64, *count as i64 * period], ..Sample::default() };
        for symbol in stack.frames.iter().flatten() {
            let (name, line) = (strings.id(&symbol.name()), i64::from(symbol.lineno.unwrap_or_default()));
            let id = *known.entry((name, line)).or_insert_with(|| {
                let id = profile.location.len() as u64 + 1;
                let (system_name, filename) =
                    (strings.id(&symbol.sys_name()), strings.id(&symbol.filename()));
                profile.function.push(Function { id, name, system_name, filename });
                profile.location.push(Location { id, line: vec![Line { function_id: id, line }] });
                id
            });
            sample.location_id.push(id);
        }
        profile.sample.push(sample);
    }
    profile.string_table = strings.0.into_iter().collect();
    profile
}

/// Each text once; the first is empty.
struct Strings(Vec<String>, HashMap<String, i64>);

impl Default for Strings {
    fn default() -> Self {
        Self(vec![String::new()], HashMap::from([(String::new(), 0)]))
    }
}

impl Strings {
    fn id(&mut self, text: &str) -> i64 {
        if let Some(id) = self.1.get(text) {
            return *id;
        }
        let id = self.0.len() as i64;
        self.0.push(text.to_owned());
        self.1.insert(text.to_owned(), id);
        id
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[inline(never)]
    fn spin_for_the_profile(until: &AtomicBool) -> u64 {
        let mut n = 1u64;
        while !until.load(Ordering::Relaxed) {
            n = std::hint::black_box(n.wrapping_mul(6364136223846793005).wrapping_add(1));
        }
        n
    }

    #[tokio::test]
    async fn a_profile_tells_where_the_time_went() {
        static DONE: AtomicBool = AtomicBool::new(false);
        let busy = tokio::task::spawn_blocking(|| spin_for_the_profile(&DONE));
        let (answer, other) = tokio::join!(cpu(Duration::from_secs(1)), cpu(Duration::from_secs(1)));
        DONE.store(true, Ordering::Relaxed);
        busy.await.unwrap();
        let other = other.unwrap();
        assert_eq!(
            (other.status().as_u16(), &other.headers()["x-go-pprof"]),
            (500, &HeaderValue::from_static("1"))
        );
        let body = http_body_util::BodyExt::collect(answer.unwrap().into_body()).await.unwrap().to_bytes();
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
        let profile = Profile::decode(&plain[..]).unwrap();
        let text = |id: i64| profile.string_table[id as usize].as_str();
        let types: Vec<_> = profile.sample_type.iter().map(|t| (text(t.r#type), text(t.unit))).collect();
        assert_eq!(types, [("samples", "count"), ("cpu", "nanoseconds")]);
        assert_eq!((profile.period, profile.duration_nanos, text(0)), (10_000_000, 1_000_000_000, ""));
        let function = |location: &u64| {
            let location = &profile.location[*location as usize - 1];
            text(profile.function[location.line[0].function_id as usize - 1].name)
        };
        let spun = profile
            .sample
            .iter()
            .any(|s| s.location_id.iter().any(|l| function(l).contains("spin_for_the_profile")));
        assert!(spun, "{:?}", profile.string_table);
        assert!(profile.sample.iter().all(|s| s.value[1] == s.value[0] * profile.period));
    }
}
