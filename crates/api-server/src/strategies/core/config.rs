//! ConfigMaps, Secrets and ServiceAccounts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use keelson_api_types::FieldError;
use serde_json::Value;

use crate::strategies::check::{At, Errors, Path};
use crate::strategies::edit::{self, default_zero, same};
use crate::strategies::{Ctx, Selectable, Strategy, carry};

const MAX_SIZE: usize = 1024 * 1024;
const ONCE_IMMUTABLE: &str = "field is immutable when `immutable` is set";

pub struct ConfigMap;

impl Strategy for ConfigMap {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        let (data, binary) = (at.f("data"), at.f("binaryData"));
        let mut size = 0;
        for (key, value) in data.entries() {
            e.text_key(key, &value);
            if binary.f(key).has() {
                e.invalid_value(&value.path, key, "duplicate of key present in binaryData");
            }
            size += value.len();
        }
        for (key, value) in binary.entries() {
            e.text_key(key, &value);
            size += decoded_size(&value);
        }
        if size > MAX_SIZE {
            e.too_long(&Path::default(), MAX_SIZE);
        }
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        frozen(object, old, &["data", "binaryData"], &mut e);
        e.extend(self.validate(object));
        e.into_vec()
    }
}

impl Errors {
    /// The key of an entry that becomes a file name.
    fn text_key(&mut self, key: &str, at: &At<'_>) {
        for message in keelson_api_types::names::config_map_key(key) {
            self.invalid_value(&at.path, key, message);
        }
    }
}

fn decoded_size(at: &At<'_>) -> usize {
    let padding = at.s().bytes().rev().take_while(|b| *b == b'=').count();
    (at.len() / 4 * 3).saturating_sub(padding)
}

/// Once `immutable` is set, neither it nor these change.
fn frozen(object: &Value, old: &Value, fields: &[&'static str], e: &mut Errors) {
    let (now, before) = (At::root(object), At::root(old));
    if !before.f("immutable").b() {
        return;
    }
    if !now.f("immutable").b() {
        e.forbidden(&Path::of(&["immutable"]), ONCE_IMMUTABLE);
    }
    for field in fields {
        if !same(now.f(field).value, before.f(field).value) {
            e.forbidden(&now.f(field).path, ONCE_IMMUTABLE);
        }
    }
}

pub struct Secret;

impl Strategy for Secret {
    fn default(&self, object: &mut Value) {
        merge_string_data(object);
        default_zero(object, "type", "Opaque");
    }

    fn prepare_update(&self, _ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        if At::root(object).f("type").is_empty() {
            carry(object, old, "type");
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        let data = at.f("data");
        let mut size = 0;
        for (key, value) in data.entries() {
            e.text_key(key, &value);
            size += decoded_size(&value);
        }
        if size > MAX_SIZE {
            e.too_long(&data.path, MAX_SIZE);
        }
        contents(&at, &data, &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        e.immutable(&At::root(object).f("type"), &At::root(old).f("type"));
        frozen(object, old, &["data"], &mut e);
        e.extend(self.validate(object));
        e.into_vec()
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn selectable_fields<'a>(&self, object: &'a Value) -> Selectable<'a> {
        vec![("type", At::root(object).f("type").s().into())]
    }
}

/// `stringData` is a convenience of writing: it ends up in `data` and is never stored.
fn merge_string_data(object: &mut Value) {
    let Some(Value::Object(plain)) = edit::unset(object, "stringData") else { return };
    let Some(data) = edit::map(object, "data").filter(|_| !plain.is_empty()) else { return };
    for (key, value) in plain {
        data.insert(key, BASE64.encode(value.as_str().unwrap_or_default()).into());
    }
}

/// What each type of secret must hold.
fn contents(at: &At<'_>, data: &At<'_>, e: &mut Errors) {
    let mut require = |key: &'static str| {
        if !data.f(key).has() {
            e.required(&data.path.key(key), "");
        }
        data.f(key).has()
    };
    let json = match at.f("type").s() {
        "kubernetes.io/service-account-token" => {
            let annotations = at.dig(&["metadata", "annotations"]);
            let key = "kubernetes.io/service-account.name";
            if annotations.f(key).is_empty() {
                e.required(&annotations.path.key(key), "");
            }
            return;
        }
        "kubernetes.io/dockercfg" => require(".dockercfg").then_some(".dockercfg"),
        "kubernetes.io/dockerconfigjson" => require(".dockerconfigjson").then_some(".dockerconfigjson"),
        "kubernetes.io/basic-auth" => {
            if !data.has_any(&["username", "password"]) {
                require("username");
                require("password");
            }
            None
        }
        "kubernetes.io/ssh-auth" => {
            if data.f("ssh-privatekey").is_empty() {
                e.required(&data.path.key("ssh-privatekey"), "");
            }
            None
        }
        "kubernetes.io/tls" => {
            require("tls.crt");
            require("tls.key");
            None
        }
        _ => None,
    };
    let Some(key) = json else { return };
    let decoded = BASE64.decode(data.f(key).s()).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&decoded) {
        e.invalid_value(&data.path.key(key), "<secret contents redacted>", error.to_string());
    }
}

pub struct ServiceAccount;

impl Strategy for ServiceAccount {
    fn prepare_create(&self, _ctx: &Ctx<'_>, object: &mut Value) {
        names_only(object);
    }

    fn prepare_update(&self, _ctx: &Ctx<'_>, object: &mut Value, _old: &Value) {
        names_only(object);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let key = "kubernetes.io/enforce-mountable-secrets";
        let has = |object: &Value| At::root(object).dig(&["metadata", "annotations"]).f(key).has();
        if !has(object) || old.is_some_and(has) {
            return Vec::new();
        }
        vec![format!(
            "metadata.annotations[{key}]: deprecated in v1.32+; prefer separate namespaces to isolate access to \
             mounted secrets"
        )]
    }
}

/// Secrets are referred to by name alone.
fn names_only(object: &mut Value) {
    for secret in edit::each(object, "secrets") {
        if let Some(map) = secret.as_object_mut() {
            map.retain(|key, _| key == "name");
        }
    }
}
