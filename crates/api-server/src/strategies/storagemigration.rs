//! StorageVersionMigrations.

use keelson_api_types::{FieldError, names};
use serde_json::Value;

use super::Strategy;
use super::check::{At, Errors};
use super::common::{IMMUTABLE, immutable_spec};
use super::edit;

pub struct StorageVersionMigration;

impl Strategy for StorageVersionMigration {
    fn default(&self, object: &mut Value) {
        edit::ensure(object, "status");
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (of, mut e) = (At::root(object).dig(&["spec", "resource"]), Errors::new());
        let (group, resource) = (of.f("group"), of.f("resource"));
        let messages = names::dns1035_label(resource.s());
        if resource.is_empty() {
            e.required(&resource.path, "resource is required to be set");
        } else if !messages.is_empty() {
            e.invalid(&resource, messages.join(","));
        }
        let messages = names::dns1123_subdomain(group.s());
        if !group.is_empty() && !messages.is_empty() {
            e.invalid(&group, messages.join(","));
        }
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        immutable_spec(self.validate(object), object, old)
    }

    fn validate_status_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let (status, before) = (At::root(object).f("status"), At::root(old).f("status"));
        let mut e = Errors::new();
        let revision = status.f("resourceVersion");
        if !revision.is_empty() && !is_revision(revision.s()) {
            e.invalid(&revision, format!("resource version is not well formed: {}", revision.s()));
        }
        let conditions = status.f("conditions");
        e.conditions(&conditions);
        let noted = before.f("resourceVersion");
        if !noted.is_empty() && noted.s() != revision.s() {
            e.invalid_value(&revision.path, revision.s(), IMMUTABLE);
        }
        if holds(&status, "Succeeded") && holds(&status, "Failed") {
            e.invalid(&conditions, "Both success and failed conditions cannot be true at the same time");
        }
        for (condition, name) in [("Succeeded", "Success"), ("Failed", "Failed")] {
            if holds(&before, condition) && !holds(&status, condition) {
                let detail = format!("{name} condition cannot be set to false once it is true");
                e.invalid(&conditions, detail);
            }
        }
        e.into_vec()
    }
}

fn holds(status: &At<'_>, condition: &str) -> bool {
    let mut all = status.f("conditions").each();
    all.find(|c| c.f("type").s() == condition).is_some_and(|c| c.f("status").s() == "True")
}

/// A positive number without leading zeros.
fn is_revision(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit())
}
