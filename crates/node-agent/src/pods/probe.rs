//! Probes: startup first, then liveness and readiness side by side, one task per container.

use super::hooks::{self, plain};
use super::plan::Health;
use super::spec;
use super::worker::Shared;
use crate::api::reference;
use crate::context::Context;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use keelson_client::EventType;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior};

/// What one attempt said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure(String),
    /// Whether the container is well could not be found out; counts neither way.
    Unknown(String),
}

/// A container whose probes run.
pub struct Watched {
    pub ctx: Arc<Context>,
    pub shared: Arc<Shared>,
    pub pod: Arc<Pod>,
    pub container: Container,
    pub id: String,
    pub pod_ip: String,
    /// When it started, on the clock of this process.
    pub started: Instant,
    /// What was known of it before this agent started.
    pub known: Option<Health>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// Runs until the container has failed for good, or the task is aborted.
pub async fn watch(w: Watched) {
    let known = w.known.clone().unwrap_or_default();
    if let Some(probe) = w.container.startup_probe.clone().filter(|_| !known.started) {
        let passed = cycle(&w, Kind::Startup, &probe, false).await;
        if !passed {
            return;
        }
    }
    let ready = w.container.readiness_probe.is_none() || known.ready;
    set(&w, |h| {
        h.started = true;
        h.ready = ready;
    });
    let liveness = async {
        if let Some(probe) = &w.container.liveness_probe {
            cycle(&w, Kind::Liveness, probe, true).await;
        }
    };
    let readiness = async {
        if let Some(probe) = &w.container.readiness_probe {
            cycle(&w, Kind::Readiness, probe, ready).await;
        }
    };
    tokio::join!(liveness, readiness);
}

fn set(w: &Watched, change: impl FnOnce(&mut Health)) {
    let changed = {
        let mut memory = w.shared.memory.lock();
        let health = memory.health.entry(w.id.clone()).or_default();
        let before = health.clone();
        change(health);
        *health != before
    };
    if changed {
        w.shared.wake.notify_one();
    }
}

/// Probes by the period. Ends when a startup probe has passed (true), or when startup or liveness failed
/// often enough (false).
async fn cycle(w: &Watched, kind: Kind, probe: &Probe, initial: bool) -> bool {
    let seconds = |value: Option<i32>, default: i32| value.filter(|v| *v > 0).unwrap_or(default) as u64;
    let period = Duration::from_secs(seconds(probe.period_seconds, 10));
    let failures_wanted = seconds(probe.failure_threshold, 3);
    let successes_wanted = seconds(probe.success_threshold, 1);
    let delay = Duration::from_secs(probe.initial_delay_seconds.unwrap_or(0).max(0) as u64);
    let mut ticks = tokio::time::interval_at((w.started + delay).max(Instant::now()), period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut good, mut bad) = (0, 0);
    let mut ready = initial;
    loop {
        ticks.tick().await;
        if w.shared.terminating.load(Ordering::Relaxed) && kind != Kind::Readiness {
            return false;
        }
        match attempt(w, probe).await {
            Outcome::Success => (good, bad) = (good + 1, 0),
            Outcome::Failure(message) => {
                (good, bad) = (0, bad + 1);
                event(w, &format!("{} probe failed: {message}", kind.name()));
            }
            Outcome::Unknown(message) => {
                event(w, &format!("{} probe errored and resulted in unknown state: {message}", kind.name()));
                continue;
            }
        }
        match kind {
            Kind::Startup if good >= successes_wanted => return true,
            Kind::Startup | Kind::Liveness if bad >= failures_wanted => {
                let word = kind.name().to_lowercase();
                let message =
                    format!("Container {} failed {word} probe, will be restarted", w.container.name);
                let grace = probe.termination_grace_period_seconds;
                set(w, |h| {
                    h.failed = Some(message);
                    h.ready = false;
                });
                if let Some(grace) = grace {
                    w.shared.graces.lock().insert(w.id.clone(), grace);
                }
                return false;
            }
            Kind::Readiness if good >= successes_wanted && !ready => {
                ready = true;
                set(w, |h| h.ready = true);
            }
            Kind::Readiness if bad >= failures_wanted && ready => {
                ready = false;
                set(w, |h| h.ready = false);
            }
            _ => {}
        }
    }
}

fn event(w: &Watched, message: &str) {
    let about = reference(&w.pod, spec::field_path(&w.pod, &w.container.name));
    w.ctx.api.event(about, EventType::Warning, "Unhealthy", message);
}

async fn attempt(w: &Watched, probe: &Probe) -> Outcome {
    let limit = Duration::from_secs(probe.timeout_seconds.filter(|t| *t > 0).unwrap_or(1) as u64);
    if let Some(exec) = &probe.exec {
        return exec_probe(w, exec.command.clone().unwrap_or_default(), limit).await;
    }
    if let Some(get) = &probe.http_get {
        return match hooks::http_get(get, &w.container, &w.pod_ip, limit).await {
            Ok((status, _)) if (200..400).contains(&status) => Outcome::Success,
            Ok((status, _)) => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
            Err(message) => Outcome::Failure(message),
        };
    }
    if let Some(tcp) = &probe.tcp_socket {
        let host = tcp.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(&w.pod_ip);
        let port = match hooks::port(&tcp.port, &w.container) {
            Ok(port) => port,
            Err(message) => return Outcome::Unknown(message),
        };
        return match tokio::time::timeout(limit, TcpStream::connect((host, port))).await {
            Ok(Ok(_)) => Outcome::Success,
            Ok(Err(e)) => Outcome::Failure(format!("dial tcp {host}:{port}: {}", plain(&e))),
            Err(_) => Outcome::Failure(format!("dial tcp {host}:{port}: i/o timeout")),
        };
    }
    if let Some(grpc) = &probe.grpc {
        let service = grpc.service.clone().unwrap_or_default();
        let check = health::check(&w.pod_ip, grpc.port as u16, service);
        return match tokio::time::timeout(limit, check).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failure(format!(
                "timeout: failed to connect service \"{}:{}\" within {limit:?}: context deadline exceeded",
                w.pod_ip, grpc.port
            )),
        };
    }
    Outcome::Success
}

async fn exec_probe(w: &Watched, command: Vec<String>, limit: Duration) -> Outcome {
    let run = w.ctx.runtime.exec_sync(&w.id, command.clone(), limit);
    let timed_out =
        || Outcome::Failure(format!("command timed out: {:?} timed out after {limit:?}", command.join(" ")));
    match tokio::time::timeout(limit + Duration::from_secs(1), run).await {
        Ok(Ok(answer)) if answer.exit_code == 0 => Outcome::Success,
        Ok(Ok(answer)) => {
            let mut output = answer.stdout;
            output.extend_from_slice(&answer.stderr);
            output.truncate(10 << 10);
            Outcome::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        Ok(Err(e)) if e.is_deadline() || e.user_message().contains("timeout") => timed_out(),
        Ok(Err(e)) => Outcome::Unknown(e.user_message()),
        Err(_) => timed_out(),
    }
}

/// The health service of gRPC, whose two messages are small enough to stand here.
mod health {
    use super::Outcome;
    use tonic::codegen::http::uri::PathAndQuery;
    use tonic::transport::Endpoint;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct HealthCheckRequest {
        #[prost(string, tag = "1")]
        pub service: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct HealthCheckResponse {
        #[prost(int32, tag = "1")]
        pub status: i32,
    }

    const SERVING: i32 = 1;

    pub async fn check(host: &str, port: u16, service: String) -> Outcome {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let failed = |what: &str, e: &dyn std::error::Error| {
            Outcome::Failure(format!("{what}: {}", crate::volumes::chain(e)))
        };
        let endpoint = match Endpoint::from_shared(format!("http://{host}:{port}")) {
            Ok(endpoint) => endpoint,
            Err(e) => return Outcome::Unknown(e.to_string()),
        };
        let channel = match endpoint.connect().await {
            Ok(channel) => channel,
            Err(e) => return failed(&format!("failed to connect service \"{host}:{port}\""), &e),
        };
        let mut client = tonic::client::Grpc::new(channel);
        if let Err(e) = client.ready().await {
            return failed("service is not ready", &e);
        }
        let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let request = tonic::Request::new(HealthCheckRequest { service });
        match client.unary(request, path, codec).await {
            Ok(answer) if answer.get_ref().status == SERVING => Outcome::Success,
            Ok(answer) => {
                let word = match answer.get_ref().status {
                    2 => "NOT_SERVING",
                    3 => "SERVICE_UNKNOWN",
                    _ => "UNKNOWN",
                };
                Outcome::Failure(format!("service unhealthy (responded with {word:?})"))
            }
            Err(status) => {
                Outcome::Failure(format!("rpc error: code = {:?} desc = {}", status.code(), status.message()))
            }
        }
    }
}
