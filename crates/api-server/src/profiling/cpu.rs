//! What the server spends its time on.

use std::time::Duration;

use http::StatusCode;
use keelson_api_types::StatusError;
use pprof::{ProfilerGuard, ProfilerGuardBuilder};

use super::builder::{Builder, Unit};
use super::{file, refused};
use crate::body::Response;
use crate::request::Query;

/// Samples per second of CPU time, and how long they are taken, as Go has it.
const FREQUENCY: i32 = 100;
const SECONDS: u64 = 30;
const PERIOD: i64 = 1_000_000_000 / FREQUENCY as i64;
const TIME: Unit = ("cpu", "nanoseconds");
/// Where a signal must not unwind.
const BLOCKED: [&str; 4] = ["libc", "libgcc", "pthread", "vdso"];

/// The profile of as many `seconds`.
pub async fn serve(query: &Query) -> Result<Response, StatusError> {
    let asked = query.get("seconds").and_then(|s| s.parse().ok()).filter(|s| *s > 0);
    profiled(Duration::from_secs(asked.unwrap_or(SECONDS))).await
}

async fn profiled(time: Duration) -> Result<Response, StatusError> {
    let guard = match ProfilerGuardBuilder::default().frequency(FREQUENCY).blocklist(&BLOCKED).build() {
        Ok(guard) => guard,
        Err(error) => {
            let why = match error {
                pprof::Error::Running => "cpu profiling already in use".to_owned(),
                other => other.to_string(),
            };
            let why = format!("Could not enable CPU profiling: {why}");
            return Ok(refused(StatusCode::INTERNAL_SERVER_ERROR, &why));
        }
    };
    tokio::time::sleep(time).await;
    // To find the names takes long.
    let packed = tokio::task::spawn_blocking(move || packed(&guard, time)).await;
    file("profile", packed.map_err(StatusError::internal)?.map_err(StatusError::internal)?)
}

/// A profile of the form that Go's have: samples by count and by time.
fn packed(guard: &ProfilerGuard<'_>, time: Duration) -> Result<Vec<u8>, crate::body::BoxError> {
    let report = guard.report().build()?;
    let mut builder = Builder::new(&[("samples", "count"), TIME], (TIME, PERIOD));
    for (stack, count) in &report.data {
        let places = stack.frames.iter().flatten().map(|symbol| builder.place(symbol)).collect();
        builder.sample(places, vec![*count as i64, *count as i64 * PERIOD]);
    }
    Ok(builder.packed(report.timing.start_time, time.as_nanos() as i64)?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::atomic::{AtomicBool, Ordering};

    use http::HeaderValue;
    use prost::Message;

    use super::super::profile::Profile;
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
        let (answer, other) =
            tokio::join!(profiled(Duration::from_secs(1)), profiled(Duration::from_secs(1)));
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
