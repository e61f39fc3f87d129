//! What admission counts of each plug-in, webhook and policy, under upstream's names.

use std::sync::OnceLock;
use std::time::Duration;

use keelson_daemon::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::Histograms;
use crate::types::Operation;

const PLUGINS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const WEBHOOKS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
const POLICIES: [f64; 5] = [0.000_000_5, 0.001, 0.01, 0.1, 1.0];
/// Higher ones, which only a broken webhook sends, are counted as this.
const MAX_CODE: u16 = 600;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Handler {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    rejected: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    code: u16,
    rejected: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejection {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    error_type: &'static str,
    rejection_code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailOpen {
    name: String,
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Mutation {
    policy: String,
    policy_binding: String,
    error_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Validation {
    policy: String,
    policy_binding: String,
    error_type: &'static str,
    enforcement_action: &'static str,
}

/// The counters of one chain.
pub struct AdmissionMetrics {
    plugins: Histograms<Handler>,
    /// Those of each plug-in, at hand because every write goes by all of them.
    known: Vec<[OnceLock<Histogram>; 16]>,
    webhooks: Histograms<Handler>,
    requests: Family<Request, Counter>,
    /// No counters, whose names end in `_total`: these do not upstream.
    rejections: Family<Rejection, Gauge>,
    fail_open: Family<FailOpen, Gauge>,
    mutations: (Family<Mutation, Counter>, Histograms<Mutation>),
    validations: (Family<Validation, Counter>, Histograms<Validation>),
}

/// How the call of a webhook ended.
#[derive(Debug, Clone, Copy)]
pub enum Called {
    Allowed,
    /// The webhook refuses, with this HTTP status.
    Rejected(u16),
    /// It could not be asked, which its failure policy minds or not.
    Failed {
        code: u16,
        tolerated: bool,
    },
    /// The server itself could not go on.
    Internal,
}

impl AdmissionMetrics {
    /// For a chain of so many plug-ins.
    pub fn new(plugins: usize) -> Self {
        let policies = || Histogram::new(POLICIES);
        Self {
            plugins: Family::new_with_constructor(|| Histogram::new(PLUGINS)),
            known: (0..plugins).map(|_| [const { OnceLock::new() }; 16]).collect(),
            webhooks: Family::new_with_constructor(|| Histogram::new(WEBHOOKS)),
            requests: Family::default(),
            rejections: Family::default(),
            fail_open: Family::default(),
            mutations: (Family::default(), Family::new_with_constructor(policies)),
            validations: (Family::default(), Family::new_with_constructor(policies)),
        }
    }

    pub fn register(&self, metrics: &Metrics) {
        metrics.register(|all| {
            let api = all.sub_registry_with_prefix("apiserver");
            let help = "Time that a plug-in took";
            api.register("admission_controller_admission_duration_seconds", help, self.plugins.clone());
            let help = "Time that a webhook took";
            api.register("admission_webhook_admission_duration_seconds", help, self.webhooks.clone());
            let help = "Calls of webhooks by how they end";
            api.register("admission_webhook_request", help, self.requests.clone());
            let help = "Requests refused by a webhook, or because of one";
            api.register("admission_webhook_rejection_count", help, self.rejections.clone());
            let help = "Webhooks that could not be asked, and need not be";
            api.register("admission_webhook_fail_open_count", help, self.fail_open.clone());
            let (total, duration) = self.mutations.clone();
            api.register("mutating_admission_policy_check", "Mutations by policies", total);
            let help = "Time that a policy's mutation took";
            api.register("mutating_admission_policy_check_duration_seconds", help, duration);
            let (total, duration) = self.validations.clone();
            let help = "Validations by policies that did not hold, by what came of it";
            api.register("validating_admission_policy_check", help, total);
            let help = "Time that a policy's validation took";
            api.register("validating_admission_policy_check_duration_seconds", help, duration);
        });
    }

    /// Notes that the plug-in of an index has had a request in one of the two passes.
    pub fn plugin(
        &self,
        (index, name): (usize, &str),
        mutates: bool,
        operation: Operation,
        rejected: bool,
        took: Duration,
    ) {
        let own = || {
            let r#type = if mutates { "admit" } else { "validate" };
            let (name, operation) = (name.to_owned(), operation.as_str());
            self.plugins.get_or_create_owned(&Handler { name, r#type, operation, rejected: truth(rejected) })
        };
        let slot = operation as usize * 4 + usize::from(mutates) * 2 + usize::from(rejected);
        self.known[index][slot].get_or_init(own).observe(took.as_secs_f64());
    }

    /// Notes how a call of a webhook ended.
    pub fn webhook(&self, name: &str, mutating: bool, operation: Operation, ended: Called, took: Duration) {
        let (code, error) = match ended {
            Called::Allowed => (200, None),
            Called::Rejected(code) => (code, Some("no_error")),
            Called::Failed { code, tolerated } => {
                (code, Some("calling_webhook_error").filter(|_| !tolerated))
            }
            Called::Internal => (0, Some("apiserver_internal_error")),
        };
        let (code, rejected) = (code.min(MAX_CODE), truth(error.is_some()));
        let (name, operation) = (name.to_owned(), operation.as_str());
        let r#type = if mutating { "admit" } else { "validating" };
        if let Some(error_type) = error {
            let name = name.clone();
            let labels = Rejection { name, r#type, operation, error_type, rejection_code: code };
            self.rejections.get_or_create(&labels).inc();
        } else if !matches!(ended, Called::Allowed) {
            self.fail_open.get_or_create(&FailOpen { name: name.clone(), r#type }).inc();
        }
        let labels = Request { name: name.clone(), r#type, operation, code, rejected };
        self.requests.get_or_create(&labels).inc();
        let labels = Handler { name, r#type, operation, rejected };
        self.webhooks.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Notes one mutation of a policy; `problem` is why it failed.
    pub fn mutation(&self, policy: &str, binding: &str, problem: Option<&str>, took: Duration) {
        let (policy, policy_binding) = (policy.to_owned(), binding.to_owned());
        let labels = Mutation { policy, policy_binding, error_type: problem.map_or("no_error", error_type) };
        self.mutations.0.get_or_create(&labels).inc();
        self.mutations.1.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Notes one validation of a policy that did not hold or failed, and what came of it: `allow`, `deny`, `warn` or
    /// `audit`.
    pub fn validation(&self, policy: &str, binding: &str, why: &str, action: &'static str, took: Duration) {
        let (policy, policy_binding) = (policy.to_owned(), binding.to_owned());
        let labels =
            Validation { policy, policy_binding, error_type: error_type(why), enforcement_action: action };
        self.validations.0.get_or_create(&labels).inc();
        self.validations.1.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

fn truth(yes: bool) -> &'static str {
    if yes { "true" } else { "false" }
}

/// Upstream tells errors apart by how they begin; a plain denial is among the last.
fn error_type(why: &str) -> &'static str {
    if why.starts_with("compilation") {
        "compile_error"
    } else if why.starts_with("validation failed due to running out of cost budget") {
        "out_of_budget"
    } else {
        "invalid_error"
    }
}
