//! `describe`: an object told in full, as text; the related objects are fetched by the command.
//!
//! [`text`] chooses by kind; a kind without a description of its own gets all its fields.

use serde_json::Value;

use crate::commands::age;
use crate::tabs;
use crate::value::{list, map, number, shown, text as string};

mod generic;
mod node;
mod pod;
mod simple;
mod workload;

pub use pod::template_text as pod_template_text;

/// What is told beside the object itself.
#[derive(Debug, Default)]
pub struct Related {
    /// None leaves events out.
    pub events: Option<Vec<Value>>,
    /// Pods, replica sets, endpoint slices …, by plural name.
    pub objects: std::collections::BTreeMap<&'static str, Vec<Value>>,
}

impl Related {
    fn of(&self, plural: &str) -> &[Value] {
        self.objects.get(plural).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Lines with tab-separated cells, indented by level.
#[derive(Default)]
struct Page {
    done: String,
    lines: String,
}

impl Page {
    fn line(&mut self, level: usize, text: &str) {
        self.lines.extend(std::iter::repeat_n("  ", level));
        self.lines.push_str(text);
        self.lines.push('\n');
    }

    fn field(&mut self, level: usize, title: &str, value: impl std::fmt::Display) {
        self.line(level, &format!("{title}:\t{value}"));
    }

    /// A field only if there is something in it.
    fn field_if(&mut self, level: usize, title: &str, value: &str) {
        if !value.is_empty() {
            self.field(level, title, value);
        }
    }

    /// What follows aligns by itself.
    fn flush(&mut self) {
        self.done += &tabs::DESCRIBE.align(&std::mem::take(&mut self.lines));
    }

    fn labels(&mut self, title: &str, labels: Option<&serde_json::Map<String, Value>>) {
        let pairs: Vec<String> = labels
            .into_iter()
            .flatten()
            .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
            .collect();
        self.several(title, &pairs);
    }

    fn annotations(&mut self, object: &Value) {
        let annotations = map(object, "/metadata/annotations");
        let hidden = crate::commands::apply::LAST_APPLIED;
        let pairs: Vec<String> = annotations
            .into_iter()
            .flatten()
            .filter(|(key, _)| *key != hidden)
            .map(|(key, value)| annotation(key, value.as_str().unwrap_or_default()))
            .collect();
        self.several("Annotations", &pairs);
    }

    /// A title with one value per line.
    fn several(&mut self, title: &str, values: &[String]) {
        match values.split_first() {
            None => self.field(0, title, "<none>"),
            Some((first, rest)) => {
                self.field(0, title, first);
                rest.iter().for_each(|value| self.line(0, &format!("\t{value}")));
            }
        }
    }

    fn head(&mut self, object: &Value) {
        self.field(0, "Name", string(object, "/metadata/name"));
        if map(object, "/metadata").is_some_and(|m| m.contains_key("namespace")) {
            self.field(0, "Namespace", string(object, "/metadata/namespace"));
        }
    }

    fn meta(&mut self, object: &Value) {
        self.labels("Labels", map(object, "/metadata/labels"));
        self.annotations(object);
    }

    fn finish(mut self, related: &Related) -> String {
        if let Some(events) = &related.events {
            self.events(events);
        }
        self.flush();
        self.done
    }

    fn events(&mut self, events: &[Value]) {
        if events.is_empty() {
            self.field(0, "Events", "<none>");
            return;
        }
        self.flush();
        self.line(0, "Events:");
        self.line(1, "Type\tReason\tAge\tFrom\tMessage");
        self.line(1, "----\t------\t----\t----\t-------");
        let mut events: Vec<&Value> = events.iter().collect();
        events.sort_by_key(|event| last_seen(event).to_owned());
        for event in events {
            let source = match string(event, "/source/component") {
                "" => string(event, "/reportingComponent"),
                source => source,
            };
            let mut message = string(event, "/message").trim().to_owned();
            let field = string(event, "/involvedObject/fieldPath");
            if !field.is_empty() {
                message = format!("{field}: {message}");
            }
            let message = message.replace(['\n', '\t'], " ");
            let (kind, reason) = (string(event, "/type"), string(event, "/reason"));
            self.line(1, &format!("{kind}\t{reason}\t{}\t{source}\t{message}", event_age(event)));
        }
    }
}

fn annotation(key: &str, value: &str) -> String {
    let value = value.trim_end_matches('\n');
    // A long or many-lined value stands below its key.
    if value.contains('\n') || value.len() > 140 {
        let short: String = value.chars().take(140).collect();
        let cut = if short.len() < value.len() { "..." } else { "" };
        return format!("{key}:\n\t  {}{cut}", short.replace('\n', "\n\t  "));
    }
    format!("{key}: {value}")
}

/// When an event was last seen.
pub fn last_seen(event: &Value) -> &str {
    ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]
        .iter()
        .map(|field| string(event, field))
        .find(|time| !time.is_empty())
        .unwrap_or_default()
}

/// `5s (x3 over 2m)`.
pub fn event_age(event: &Value) -> String {
    let first = match string(event, "/eventTime") {
        "" => age(string(event, "/firstTimestamp")),
        time => age(time),
    };
    let (series, count) = (number(event, "/series/count"), number(event, "/count"));
    if series > 0 {
        format!("{} (x{series} over {first})", age(string(event, "/series/lastObservedTime")))
    } else if count > 1 {
        format!("{} (x{count} over {first})", age(string(event, "/lastTimestamp")))
    } else {
        first
    }
}

/// A time as RFC 1123 writes it with a numeric zone.
fn time(value: &str) -> String {
    match keelson_api_types::meta::parse_time(value) {
        Some(time) => {
            time.to_zoned(jiff::tz::TimeZone::system()).strftime("%a, %d %b %Y %H:%M:%S %z").to_string()
        }
        None => "<unset>".to_owned(),
    }
}

/// The controller that owns an object, `ReplicaSet/web-1`.
fn controller(object: &Value) -> String {
    let owners = list(object, "/metadata/ownerReferences");
    let owner = owners.iter().find(|o| crate::value::flag(o, "/controller"));
    owner.map(|o| format!("{}/{}", string(o, "/kind"), string(o, "/name"))).unwrap_or_default()
}

/// A table of a status' conditions with these columns beside the type.
///
/// Upstream sets a space behind the first `spaced` cells of its rows, which shows in the columns' widths.
fn conditions(page: &mut Page, object: &Value, columns: &[(&str, &str)], spaced: usize) {
    let conditions = list(object, "/status/conditions");
    if conditions.is_empty() {
        return;
    }
    page.line(0, "Conditions:");
    let titles: Vec<&str> = std::iter::once("Type").chain(columns.iter().map(|(title, _)| *title)).collect();
    page.line(1, &titles.join("\t"));
    let rules: Vec<String> = titles.iter().map(|title| "-".repeat(title.len())).collect();
    page.line(1, &rules.join("\t"));
    for condition in conditions {
        let cells = columns.iter().map(|(title, field)| {
            let value = shown(condition.get(*field));
            if title.ends_with("Time") {
                time(&value)
            } else if value == "<none>" {
                String::new()
            } else {
                value
            }
        });
        let mut cells: Vec<String> =
            std::iter::once(string(condition, "/type").to_owned()).chain(cells).collect();
        cells.iter_mut().take(spaced).for_each(|cell| cell.push(' '));
        page.line(1, &cells.join("\t"));
    }
}

/// The description of an object.
pub fn text(group: &str, kind: &str, object: &Value, related: &Related) -> String {
    match (group, kind) {
        ("", "Pod") => pod::describe(object, related),
        ("", "Node") => node::describe(object, related),
        ("", "Service") => simple::service(object, related),
        ("", "Namespace") => simple::namespace(object, related),
        ("", "ConfigMap") => simple::config_map(object, related),
        ("", "Secret") => simple::secret(object),
        ("", "ServiceAccount") => simple::service_account(object, related),
        ("", "ResourceQuota") => simple::quota(object),
        ("", "PersistentVolumeClaim") => simple::claim(object, related),
        ("apps", "Deployment") => workload::deployment(object, related),
        ("apps", "ReplicaSet") | ("", "ReplicationController") => workload::replica_set(object, related),
        ("apps", "StatefulSet") => workload::stateful_set(object, related),
        ("apps", "DaemonSet") => workload::daemon_set(object, related),
        ("batch", "Job") => workload::job(object, related),
        ("batch", "CronJob") => workload::cron_job(object, related),
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => simple::role(object),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => simple::binding(object),
        ("networking.k8s.io", "Ingress") => simple::ingress(object, related),
        _ => generic::describe(object, related),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_kinds_show_their_fields() {
        let object = json!({"apiVersion": "a/v1", "kind": "Thing", "metadata": {"name": "x", "uid": "u"},
            "spec": {"someField": 1, "list": ["a", {"b": true}]}});
        let related = Related { events: Some(Vec::new()), ..Related::default() };
        let expected = "\
Name:         x
Namespace:    
Labels:       <none>
Annotations:  <none>
API Version:  a/v1
Kind:         Thing
Metadata:
  UID:  u
Spec:
  List:
    a
    B:         true
  Some Field:  1
Events:        <none>
";
        assert_eq!(text("a", "Thing", &object, &related), expected);
    }

    #[test]
    fn events_come_last_and_in_order() {
        let event = |reason: &str, time: &str| json!({"type": "Normal", "reason": reason, "message": "m", "source": {"component": "c"}, "lastTimestamp": time});
        let related = Related {
            events: Some(vec![
                event("Second", "2026-01-02T00:00:01Z"),
                event("First", "2026-01-02T00:00:00Z"),
            ]),
            ..Related::default()
        };
        let text = text("", "ConfigMap", &json!({"metadata": {"name": "x"}, "data": {"k": "v"}}), &related);
        let (first, second) = (text.find("First").expect("first"), text.find("Second").expect("second"));
        assert!(first < second && text.contains("k:\n----\nv\n"), "{text}");
    }
}
