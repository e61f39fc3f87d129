//! Named health checks behind `/livez`, `/readyz` and `/healthz`, answered in upstream's form.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use parking_lot::RwLock;
use std::sync::Arc;

type Check = dyn Fn() -> Result<(), String> + Send + Sync;

/// The health checks of a daemon. Cheap to clone; `ping` is always there.
#[derive(Clone, Default)]
pub struct Health {
    checks: Arc<RwLock<Vec<Named>>>,
}

struct Named {
    name: String,
    /// Whether a failure means that a restart helps.
    live: bool,
    check: Arc<Check>,
}

impl Health {
    /// A check of liveness and readiness. Its error is logged, never shown to the caller.
    pub fn add(
        &self,
        name: impl Into<String>,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.put(name.into(), true, Arc::new(check));
    }

    /// A check of readiness alone: what it waits for comes without a restart.
    pub fn add_ready(
        &self,
        name: impl Into<String>,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.put(name.into(), false, Arc::new(check));
    }

    fn put(&self, name: String, live: bool, check: Arc<Check>) {
        let mut checks = self.checks.write();
        checks.retain(|c| c.name != name);
        checks.push(Named { name, live, check });
    }

    /// Whether all checks of readiness pass.
    pub fn is_ready(&self) -> bool {
        self.selected("readyz").iter().all(|(_, check)| check().is_ok())
    }

    /// Answers `/livez`, `/readyz`, `/healthz` and one check below them (`/livez/ping`), with `?verbose`
    /// and `?exclude=NAME`; `None` for any other path or check.
    pub fn respond(&self, path: &str, query: Option<&str>) -> Option<Response<Full<Bytes>>> {
        let mut parts = path.trim_start_matches('/').splitn(2, '/');
        let kind = parts.next().filter(|k| matches!(*k, "livez" | "readyz" | "healthz"))?;
        let checks = self.selected(kind);
        if let Some(one) = parts.next().filter(|p| !p.is_empty()) {
            let (name, check) = checks.iter().find(|(name, _)| name == one)?;
            return Some(match run(kind, name, check) {
                true => text(StatusCode::OK, "ok".to_owned()),
                false => text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("internal server error: {name} failed: reason withheld\n"),
                ),
            });
        }
        Some(report(kind, &checks, query.unwrap_or_default()))
    }

    fn selected(&self, kind: &str) -> Vec<(String, Arc<Check>)> {
        let ping: (String, Arc<Check>) = ("ping".to_owned(), Arc::new(|| Ok(())));
        let checks = self.checks.read();
        let chosen = checks.iter().filter(|c| c.live || kind != "livez");
        std::iter::once(ping).chain(chosen.map(|c| (c.name.clone(), c.check.clone()))).collect()
    }
}

fn report(kind: &str, checks: &[(String, Arc<Check>)], query: &str) -> Response<Full<Bytes>> {
    let mut excluded = Vec::new();
    let mut verbose = false;
    for pair in query.split('&') {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("verbose", _) => verbose = true,
            ("exclude", name) => excluded.push(name),
            _ => {}
        }
    }
    let mut lines = String::new();
    let mut good = true;
    for (name, check) in checks {
        if excluded.contains(&name.as_str()) {
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
        } else if run(kind, name, check) {
            lines.push_str(&format!("[+]{name} ok\n"));
        } else {
            good = false;
            lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
        }
    }
    for name in excluded.iter().filter(|e| !checks.iter().any(|(name, _)| name == *e)) {
        lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {name:?}\n"));
    }
    match (good, verbose) {
        (false, _) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{kind} check failed\n")),
        (true, true) => text(StatusCode::OK, format!("{lines}{kind} check passed\n")),
        (true, false) => text(StatusCode::OK, "ok".to_owned()),
    }
}

fn run(kind: &str, name: &str, check: &Arc<Check>) -> bool {
    match check() {
        Ok(()) => true,
        Err(reason) => {
            tracing::info!(kind, check = name, reason, "health check failed");
            false
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .body(Full::from(body))
        .expect("a status and two constant headers make a response")
}
