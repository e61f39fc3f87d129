//! Namespaces.

use keelson_api_types::{FieldError, names};
use serde_json::{Value, json};

use crate::strategies::check::{At, Errors, Path};
use crate::strategies::edit::{self, default_zero};
use crate::strategies::{Ctx, Selectable, Strategy, carry, keep_only};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub struct Namespace;

impl Strategy for Namespace {
    fn default(&self, object: &mut Value) {
        let name = keelson_api_types::meta::name(object).to_owned();
        if let (false, Some(meta)) = (name.is_empty(), edit::ensure(object, "metadata"))
            && let Some(labels) = edit::map(meta, "labels")
        {
            labels.insert(NAME_LABEL.to_owned(), name.into());
        }
        edit::ensure(object, "spec");
        if let Some(status) = edit::ensure(object, "status") {
            default_zero(status, "phase", "Active");
        }
    }

    fn prepare_create(&self, _ctx: &Ctx<'_>, object: &mut Value) {
        edit::set(object, "status", json!({"phase": "Active"}));
        // The name may have been generated only now.
        self.default(object);
        let Some(spec) = edit::ensure(object, "spec") else { return };
        let mut finalizers: Vec<Value> = spec["finalizers"].as_array().cloned().unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == "kubernetes") {
            finalizers.push("kubernetes".into());
        }
        edit::set(spec, "finalizers", finalizers);
    }

    fn prepare_update(&self, _ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        edit::carry(object, old, &["spec", "finalizers"]);
        carry(object, old, "status");
    }

    fn prepare_subresource_update(&self, ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        if ctx.subresource == "finalize" {
            keep_only(object, old, &["spec"]);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        finalizers(object, &mut e);
        e.into_vec()
    }

    fn validate_status_update(&self, object: &Value, _old: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        let phase = at.dig(&["status", "phase"]);
        let path = Path::of(&["status", "Phase"]);
        let deleted = at.dig(&["metadata", "deletionTimestamp"]).has();
        if !deleted && phase.s() != "Active" {
            e.invalid_value(&path, phase.s(), "may only be 'Active' if `deletionTimestamp` is empty");
        } else if deleted && phase.s() != "Terminating" {
            e.invalid_value(
                &path,
                phase.s(),
                "may only be 'Terminating' if `deletionTimestamp` is not empty",
            );
        }
        e.into_vec()
    }

    fn validate_subresource_update(
        &self,
        _subresource: &str,
        object: &Value,
        _old: &Value,
    ) -> Vec<FieldError> {
        self.validate(object)
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        &["status.phase"]
    }

    fn selectable_fields<'a>(&self, object: &'a Value) -> Selectable<'a> {
        vec![("status.phase", At::root(object).dig(&["status", "phase"]).s().into())]
    }
}

fn finalizers(object: &Value, e: &mut Errors) {
    for finalizer in At::root(object).dig(&["spec", "finalizers"]).each() {
        e.messages(&finalizer, names::qualified_name(finalizer.s()));
        let standard = ["kubernetes", "orphan", "foregroundDeletion"];
        if !finalizer.s().contains('/') && !standard.contains(&finalizer.s()) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            e.invalid(&finalizer, detail);
        }
    }
}
