//! Slices of a pool: what devices a driver offers, and where.

use std::sync::LazyLock;

use keelson_api_types::{FieldError, names};
use regex::Regex;
use serde_json::Value;

use super::csi_driver;
use crate::strategies::check::{At, Errors, Path};
use crate::strategies::edit::{self, default};
use crate::strategies::pod::{resources, scheduling};
use crate::strategies::{Selectable, Strategy};

const MAX_DEVICES: usize = 128;
/// With taints, counters or lists of values.
const MAX_RICH_DEVICES: usize = 64;
const MAX_COUNTER_SETS: usize = 8;
const MAX_COUNTERS: usize = 32;
const MAX_CONSUMPTIONS: usize = 2;
const MAX_PROPERTIES: usize = 32;
const MAX_VALUES: usize = 48;
const MAX_TAINTS: usize = 16;
const MAX_BINDING_CONDITIONS: usize = 4;
const MAX_VALUE_LENGTH: usize = 64;
const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];

/// Version 2.0.0 of semver.org.
static SEMVER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let part = "(0|[1-9][0-9]*)";
    let pre = "(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)";
    let build = "[0-9a-zA-Z-]+";
    Regex::new(&format!(r"^{part}\.{part}\.{part}(-{pre}(\.{pre})*)?(\+{build}(\.{build})*)?$")).ok()
});

pub struct ResourceSlice;

impl Strategy for ResourceSlice {
    fn default(&self, object: &mut Value) {
        let now = keelson_api_types::meta::now_rfc3339();
        let Some(spec) = edit::ensure(object, "spec") else { return };
        for taint in edit::each(spec, "devices").flat_map(|device| edit::each(device, "taints")) {
            default(taint, "timeAdded", now.as_str());
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        csi_driver(&spec.f("driver"), &mut e);
        let pool = spec.f("pool");
        e.pool_name(&pool.f("name"));
        if pool.f("resourceSliceCount").i() <= 0 {
            e.invalid_value(
                &pool.path.field("resourceSliceCount"),
                pool.f("resourceSliceCount").i(),
                "must be greater than zero",
            );
        }
        if pool.f("generation").i() < 0 {
            e.invalid(&pool.f("generation"), "must be greater than or equal to zero");
        }
        nodes(&spec, &mut e);
        if spec.f("sharedCounters").has() && spec.f("devices").has() {
            e.invalid_value(&spec.path, "", "only one of `sharedCounters` or `devices` is allowed");
        }
        let devices = spec.f("devices");
        let rich = devices.each().any(|device| is_rich(&device));
        let per_device = spec.f("perDeviceNodeSelection").b();
        let max = if rich { MAX_RICH_DEVICES } else { MAX_DEVICES };
        e.items(&devices, max, |at, e| device(at, per_device, e));
        e.unique(&devices, |device| device.f("name").s().to_owned());
        let sets = spec.f("sharedCounters");
        e.items(&sets, MAX_COUNTER_SETS, |set, e| {
            e.required_label(&set.f("name"));
            counters(&set.f("counters"), e);
        });
        e.unique(&sets, |set| set.f("name").s().to_owned());
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        e.extend(self.validate(object));
        let (spec, before) = (At::root(object).f("spec"), At::root(old).f("spec"));
        for path in [&["pool", "name"][..], &["driver"], &["nodeName"]] {
            e.immutable(&spec.dig(path), &before.dig(path));
        }
        e.into_vec()
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        &["spec.nodeName", "spec.driver"]
    }

    fn selectable_fields<'a>(&self, object: &'a Value) -> Selectable<'a> {
        let spec = At::root(object).f("spec");
        vec![("spec.nodeName", spec.f("nodeName").s().into()), ("spec.driver", spec.f("driver").s().into())]
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let driver = At::root(object).dig(&["spec", "driver"]).s();
        let upper = driver.chars().any(char::is_uppercase);
        let text = || {
            format!("spec.driver: driver names should be lowercase; {driver:?} contains uppercase characters")
        };
        upper.then(text).into_iter().collect()
    }
}

fn is_rich(device: &At<'_>) -> bool {
    let lists = |attribute: At<'_>| LISTS.iter().any(|list| attribute.f(list).has());
    !device.f("taints").is_empty()
        || !device.f("consumesCounters").is_empty()
        || device.f("attributes").entries().any(|(_, attribute)| lists(attribute))
}

/// Names, in order, of the ways in which `at` says which nodes it is for; what is set to nothing is refused.
fn ways(at: &At<'_>, fields: &[&'static str], e: &mut Errors) -> Vec<String> {
    let mut set = Vec::new();
    for field in fields {
        let Some(way) = at.get(field) else { continue };
        match way.value {
            Value::String(name) if name.is_empty() => {
                e.invalid(&way, "must be either unset or set to a non-empty string");
                continue;
            }
            Value::String(name) => {
                names::dns1123_subdomain(name).into_iter().for_each(|message| e.invalid(&way, message));
            }
            Value::Bool(false) => {
                e.invalid(&way, "must be either unset or set to true");
                continue;
            }
            Value::Object(_) => scheduling::node_selector(&way, e),
            _ => {}
        }
        set.push(format!("`{field}`"));
    }
    set
}

fn nodes(spec: &At<'_>, e: &mut Errors) {
    const ONE: &str =
        "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let set = ways(spec, &["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"], e);
    let terms = spec.dig(&["nodeSelector", "nodeSelectorTerms"]);
    if spec.f("nodeSelector").has() && terms.len() != 1 {
        e.invalid(&terms, "must have exactly one node selector term");
    }
    one_way(&spec.path, &set, ONE, e);
}

fn one_way(path: &Path<'_>, set: &[String], rule: &str, e: &mut Errors) {
    match set.len() {
        0 => e.required(path, rule),
        1 => {}
        _ => {
            let value = format!("{{{}}}", set.join(", "));
            e.invalid_value(path, value, format!("{rule}, but multiple fields are set"));
        }
    }
}

fn device(at: &At<'_>, per_device: bool, e: &mut Errors) {
    e.required_label(&at.f("name"));
    let (attributes, capacity) = (at.f("attributes"), at.f("capacity"));
    let properties = attributes.len() + capacity.len();
    if properties > MAX_PROPERTIES {
        let detail =
            format!("the total number of attributes and capacities must not exceed {MAX_PROPERTIES}");
        e.invalid_value(&at.path, properties, detail);
    }
    let lengths = |attribute: At<'_>| LISTS.iter().map(|list| attribute.f(list).len()).sum::<usize>().max(1);
    let values: usize = attributes.entries().map(|(_, attribute)| lengths(attribute)).sum();
    if values > MAX_VALUES {
        let detail = format!("the total number of attribute values must not exceed {MAX_VALUES}");
        e.invalid_value(&at.path, values, detail);
    }
    for (name, value) in attributes.entries() {
        e.device_property(&attributes.path, name);
        attribute(&value, e);
    }
    for (name, value) in capacity.entries() {
        e.device_property(&capacity.path, name);
        let policy = value.f("requestPolicy");
        if policy.has() && !at.f("allowMultipleAllocations").b() {
            e.forbidden(&policy.path, "allowMultipleAllocations must be true");
        }
    }
    e.items(&at.f("taints"), MAX_TAINTS, taint);
    let consumed = at.f("consumesCounters");
    e.items(&consumed, MAX_CONSUMPTIONS, |consumption, e| {
        e.required_label(&consumption.f("counterSet"));
        counters(&consumption.f("counters"), e);
    });
    e.unique(&consumed, |consumption| consumption.f("counterSet").s().to_owned());
    device_nodes(at, per_device, e);
    for field in ["bindingConditions", "bindingFailureConditions"] {
        e.items(&at.f(field), MAX_BINDING_CONDITIONS, |condition, e| e.qualified_name(condition));
    }
    mappings(&at.f("nodeAllocatableResourceMappings"), &capacity, e);
}

fn device_nodes(at: &At<'_>, per_device: bool, e: &mut Errors) {
    const FIELDS: [&str; 3] = ["nodeName", "nodeSelector", "allNodes"];
    if per_device {
        let rule = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
                    `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        one_way(&at.path, &ways(at, &FIELDS, e), rule, e);
    } else if FIELDS.iter().any(|field| at.f(field).has()) {
        let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set \
                      to true in the ResourceSlice spec";
        e.invalid_without_value(&at.path, detail);
    }
}

fn attribute(at: &At<'_>, e: &mut Errors) {
    let set =
        ["bool", "int", "string", "version"].iter().chain(&LISTS).filter(|kind| at.f(kind).has()).count();
    text_value(&at.f("string"), false, e);
    text_value(&at.f("version"), true, e);
    for list in LISTS.iter().filter_map(|list| at.get(list)) {
        if list.is_empty() {
            e.invalid(&list, "must not be empty if specified");
        }
    }
    at.f("strings").each().for_each(|item| text_value(&item, false, e));
    at.f("versions").each().for_each(|item| text_value(&item, true, e));
    if set != 1 {
        e.invalid(at, "exactly one value must be specified");
    }
}

fn text_value(at: &At<'_>, version: bool, e: &mut Errors) {
    if !at.has() {
        return;
    }
    if version && SEMVER.as_ref().is_some_and(|pattern| !pattern.is_match(at.s())) {
        e.invalid(at, "must be a string compatible with semver.org spec 2.0.0");
    }
    if at.len() > MAX_VALUE_LENGTH {
        e.too_long(&at.path, MAX_VALUE_LENGTH);
    }
}

fn taint(at: &At<'_>, e: &mut Errors) {
    e.qualified_name(&at.f("key"));
    if at.f("value").has() {
        e.messages(&at.f("value"), names::label_value(at.f("value").s()));
    }
    if e.required_string(&at.f("effect")) {
        e.one_of(&at.f("effect"), &["NoExecute", "NoSchedule", "None"]);
    }
}

fn counters(at: &At<'_>, e: &mut Errors) {
    if at.is_empty() {
        e.required(&at.path, "");
    } else if at.len() > MAX_COUNTERS {
        e.too_many(&at.path, at.len(), MAX_COUNTERS);
    } else {
        for (name, _) in at.entries() {
            names::dns1123_label(name)
                .into_iter()
                .for_each(|message| e.invalid_value(&at.path, name, message));
        }
    }
}

/// What of a node's own resources a device takes.
fn mappings(at: &At<'_>, capacity: &At<'_>, e: &mut Errors) {
    for (name, mapping) in at.entries() {
        if !resources::is_native(name) {
            e.invalid_value(&mapping.path, name, "must be a node allocatable resource name");
        }
        let (multiplier, key) = (mapping.f("allocationMultiplier"), mapping.f("capacityKey"));
        if !multiplier.has() && !key.has() {
            e.invalid_value(
                &mapping.path,
                "",
                "at least one of allocationMultiplier or capacityKey must be set",
            );
        }
        if multiplier.quantity().is_some_and(|q| q.sign() <= 0) {
            e.invalid(&multiplier, "must be positive");
        }
        if key.has() && key.is_empty() {
            e.invalid(&key, "capacityKey must not be an empty string");
        } else if key.has() && !capacity.f(key.s()).has() {
            e.not_found(&key.path, key.s());
        }
    }
}
