//! Events, as the core group and as `events.k8s.io` see them: one storage, two sets of rules.

use keelson_api_types::FieldError;
use serde_json::Value;

use crate::strategies::check::{At, Errors, Path};
use crate::strategies::{Selectable, Strategy};

const REASON_LIMIT: usize = 128;
const NOTE_LIMIT: usize = 1024;

/// An Event in its stored form (core/v1), written through either group.
pub struct Event {
    /// Through `events.k8s.io/v1`, which is stricter.
    pub modern: bool,
}

impl Strategy for Event {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        self.shared(&at, &mut e);
        if self.modern {
            series(&at, &mut e);
            e.required_string(&at.f("eventTime"));
            if !["Normal", "Warning"].contains(&at.f("type").s()) {
                let detail = format!("has invalid value: {}", at.f("type").s());
                e.invalid_value(&Path::of(&["type"]), "", detail);
            }
            for field in ["firstTimestamp", "lastTimestamp", "count"] {
                if !crate::strategies::edit::is_zero(at.f(field).value) {
                    e.invalid_value(&at.f(field).path, "", "needs to be unset");
                }
            }
            let source = at.f("source");
            if !source.f("component").is_empty() || !source.f("host").is_empty() {
                e.invalid_value(&source.path, "", "needs to be unset");
            }
        }
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let (at, before, mut e) = (At::root(object), At::root(old), Errors::new());
        self.shared(&at, &mut e);
        if !self.modern {
            return e.into_vec();
        }
        if at.f("series").value != before.f("series").value {
            series(&at, &mut e);
        }
        for field in [
            "involvedObject",
            "reason",
            "message",
            "source",
            "firstTimestamp",
            "lastTimestamp",
            "count",
            "type",
            "eventTime",
            "action",
            "related",
        ] {
            e.immutable(&at.f(field), &before.f(field));
        }
        for (stored, reported) in
            [("reportingComponent", "reportingController"), ("reportingInstance", "reportingInstance")]
        {
            e.immutable(&at.f(stored).under(Path::of(&[reported])), &before.f(stored));
        }
        e.into_vec()
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ]
    }

    fn selectable_fields<'a>(&self, object: &'a Value) -> Selectable<'a> {
        let at = At::root(object);
        let involved = at.f("involvedObject");
        let component = at.f("reportingComponent").s();
        let source = match at.dig(&["source", "component"]).s() {
            "" => component,
            source => source,
        };
        vec![
            ("involvedObject.kind", involved.f("kind").s().into()),
            ("involvedObject.namespace", involved.f("namespace").s().into()),
            ("involvedObject.name", involved.f("name").s().into()),
            ("involvedObject.uid", involved.f("uid").s().into()),
            ("involvedObject.apiVersion", involved.f("apiVersion").s().into()),
            ("involvedObject.resourceVersion", involved.f("resourceVersion").s().into()),
            ("involvedObject.fieldPath", involved.f("fieldPath").s().into()),
            ("reason", at.f("reason").s().into()),
            ("reportingComponent", component.into()),
            ("source", source.into()),
            ("type", at.f("type").s().into()),
        ]
    }
}

impl Event {
    fn shared(&self, at: &At<'_>, e: &mut Errors) {
        let own = at.dig(&["metadata", "namespace"]).s();
        let involved = at.dig(&["involvedObject", "namespace"]);
        const ELSEWHERE: &str = "does not match event.namespace";
        if at.f("eventTime").is_empty() {
            let fits = match involved.s() {
                "" => ["", "default"].contains(&own),
                namespace => namespace == own,
            };
            if !fits {
                e.invalid_value(&involved.path, involved.s(), ELSEWHERE);
            }
            return;
        }
        if involved.is_empty() && !["default", "kube-system"].contains(&own) {
            e.invalid_value(&involved.path, "", ELSEWHERE);
        }
        let name = if self.modern { "reportingController" } else { "reportingComponent" };
        let controller = at.f("reportingComponent").under(Path::of(&[name]));
        e.required_string(&controller);
        e.qualified_name(&controller);
        let fields = ["reportingInstance", "action", "reason"];
        for field in fields.iter().map(|field| at.f(field)) {
            e.required_string(&field);
            if field.len() > REASON_LIMIT {
                let detail = format!("can have at most {REASON_LIMIT} characters");
                e.invalid_value(&field.path, "", detail);
            }
        }
        if at.f("message").len() > NOTE_LIMIT {
            let detail = format!("can have at most {NOTE_LIMIT} characters");
            e.invalid_value(&Path::of(&["message"]), "", detail);
        }
    }
}

fn series(at: &At<'_>, e: &mut Errors) {
    let Some(series) = at.get("series") else { return };
    if series.f("count").i() < 2 {
        e.invalid_value(&Path::of(&["series.count"]), "", "should be at least 2");
    }
    if series.f("lastObservedTime").is_empty() {
        e.required(&Path::of(&["series.lastObservedTime"]), "");
    }
}
