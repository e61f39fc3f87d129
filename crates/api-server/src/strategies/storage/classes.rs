//! StorageClasses, CSI drivers and nodes, attachments and capacities.

use std::collections::BTreeSet;

use keelson_api_types::{FieldError, names};
use serde_json::{Value, json};

use super::volumes::csi_driver;
use crate::strategies::Strategy;
use crate::strategies::check::{At, Errors, Path};
use crate::strategies::common::immutable_spec;
use crate::strategies::edit::{self, default, same};
use crate::strategies::pod::warnings::node_label;

const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETERS_SIZE: usize = 256 * 1024;

fn provisioner(at: &At<'_>, e: &mut Errors) {
    if e.required_string(at) {
        for message in names::qualified_name(&at.s().to_lowercase()) {
            e.invalid_value(&at.path, at.s().to_lowercase(), message);
        }
    }
}

fn parameters(at: &At<'_>, may_be_empty: bool, e: &mut Errors) {
    if at.len() > MAX_PARAMETERS {
        e.too_long(&at.path, MAX_PARAMETERS);
        return;
    }
    let mut size = 0;
    for (key, value) in at.entries() {
        if key.is_empty() {
            e.invalid_value(&at.path, key, "field can not be empty.");
        }
        size += key.len() + value.len();
    }
    if size > MAX_PARAMETERS_SIZE {
        e.too_long(&at.path, MAX_PARAMETERS_SIZE);
    }
    if !may_be_empty && at.is_empty() {
        e.required(&at.path, "must contain at least one key/value pair");
    }
}

pub struct StorageClass;

impl Strategy for StorageClass {
    fn default(&self, object: &mut Value) {
        default(object, "reclaimPolicy", "Delete");
        default(object, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        provisioner(&at.f("provisioner"), &mut e);
        parameters(&at.f("parameters"), true, &mut e);
        if !at.f("reclaimPolicy").is_empty() {
            e.optional_one_of(&at.f("reclaimPolicy"), &["Delete", "Retain"]);
        }
        e.one_of(&at.f("volumeBindingMode"), &["Immediate", "WaitForFirstConsumer"]);
        topologies(&at.f("allowedTopologies"), &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let (at, before, mut e) = (At::root(object), At::root(old), Errors::new());
        for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            e.immutable(&at.f(field), &before.f(field));
        }
        e.into_vec()
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let terms = At::root(object).f("allowedTopologies");
        let keys = terms.each().flat_map(|term| term.f("matchLabelExpressions").each().map(|e| e.f("key")));
        keys.filter_map(|key| Some(format!("{}: {}", key.path, node_label(key.s())?))).collect()
    }
}

fn topologies(at: &At<'_>, e: &mut Errors) {
    let mut seen: Vec<BTreeSet<String>> = Vec::new();
    for term in at.each() {
        let expressions = term.f("matchLabelExpressions");
        let mut keys = Vec::new();
        let mut identity = BTreeSet::new();
        for requirement in expressions.each() {
            let (key, values) = (requirement.f("key"), requirement.f("values"));
            if values.is_empty() {
                e.required(&values.path, "");
            }
            let mut known = Vec::new();
            for value in values.each() {
                if known.contains(&value.s()) {
                    e.duplicate(&value.path, value.s());
                }
                known.push(value.s());
                identity.insert(format!("{}={}", key.s(), value.s()));
            }
            e.qualified_name(&key);
            if keys.contains(&key.s()) {
                e.duplicate(&key.path, key.s());
            }
            keys.push(key.s());
        }
        if seen.contains(&identity) {
            e.duplicate(&expressions.path, "");
        }
        seen.push(identity);
    }
}

pub struct CsiDriver;

impl Strategy for CsiDriver {
    fn default(&self, object: &mut Value) {
        let Some(spec) = edit::ensure(object, "spec") else { return };
        default(spec, "attachRequired", true);
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            default(spec, field, false);
        }
        default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        edit::default_zero(spec, "volumeLifecycleModes", json!(["Persistent"]));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        e.optional_one_of(&spec.f("fsGroupPolicy"), &["File", "None", "ReadWriteOnceWithFSType"]);
        let mut audiences = Vec::new();
        for request in spec.f("tokenRequests").each() {
            let (audience, seconds) = (request.f("audience"), request.f("expirationSeconds"));
            if audiences.contains(&audience.s()) {
                e.duplicate(&audience.path, audience.s());
                continue;
            }
            audiences.push(audience.s());
            if seconds.has() && seconds.i() < 600 {
                e.invalid(&seconds, "may not specify a duration less than 10 minutes");
            }
            if seconds.i() > 1 << 32 {
                e.invalid(&seconds, "may not specify a duration larger than 2^32 seconds");
            }
        }
        let modes = spec.f("volumeLifecycleModes");
        for mode in modes.each().filter(|mode| !["Persistent", "Ephemeral"].contains(&mode.s())) {
            e.not_supported(&mode.under(modes.path.clone()), &["Persistent", "Ephemeral"]);
        }
        let period = spec.f("nodeAllocatableUpdatePeriodSeconds");
        if period.has() && period.i() < 10 {
            e.invalid(&period, "must be greater than or equal to 10 seconds");
        }
        let tokens = spec.f("serviceAccountTokenInSecrets");
        if tokens.has() && spec.f("tokenRequests").is_empty() {
            let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
            e.invalid(&tokens, detail);
        }
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        e.extend(self.validate(object));
        let (spec, before) = (At::root(object).f("spec"), At::root(old).f("spec"));
        let attach = spec.f("attachRequired").under(spec.path.field("attachedRequired"));
        e.immutable(&attach, &before.f("attachRequired"));
        e.immutable(&spec.f("volumeLifecycleModes"), &before.f("volumeLifecycleModes"));
        e.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let spec = At::root(object).f("spec");
        let requests = spec.f("tokenRequests");
        let before = |old| At::root(old).dig(&["spec", "tokenRequests"]);
        let unchanged = old.is_some_and(|old| same(requests.value, before(old).value));
        if requests.is_empty() || unchanged || spec.f("serviceAccountTokenInSecrets").has() {
            return Vec::new();
        }
        let text = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent \
                    possible logging of tokens in volume attributes";
        vec![text.to_owned()]
    }
}

pub struct CsiNode;

impl Strategy for CsiNode {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        let mut seen = Vec::new();
        for driver in At::root(object).dig(&["spec", "drivers"]).each() {
            let (name, id) = (driver.f("name"), driver.f("nodeID"));
            csi_driver(&name, &mut e);
            e.required_string(&id);
            if id.len() > 256 {
                e.invalid(&id, "must be 256 characters or less");
            }
            e.nonnegative(&driver.dig(&["allocatable", "count"]));
            if seen.contains(&name.s()) {
                e.duplicate(&name.path, name.s());
            }
            seen.push(name.s());
            let mut keys = Vec::new();
            for key in driver.f("topologyKeys").each() {
                let key = key.under(driver.path.clone());
                e.required_string(&key);
                if keys.contains(&key.s()) {
                    e.duplicate(&key.path, key.s());
                }
                keys.push(key.s());
                e.qualified_name(&key);
            }
        }
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        e.extend(self.validate(object));
        let drivers = |object| At::root(object).dig(&["spec", "drivers"]);
        let fixed = |driver: &At<'_>| {
            let mut value = driver.value.clone();
            edit::unset(&mut value, "allocatable");
            value
        };
        for before in drivers(old).each() {
            for now in drivers(object).each().filter(|now| now.f("name").s() == before.f("name").s()) {
                if !same(&fixed(&now), &fixed(&before)) {
                    let path = Path::of(&["spec", "drivers"]);
                    e.invalid_value(&path, fixed(&now), crate::strategies::common::IMMUTABLE);
                }
            }
        }
        e.into_vec()
    }
}

pub struct VolumeAttachment;

impl Strategy for VolumeAttachment {
    fn default(&self, object: &mut Value) {
        if let Some(status) = edit::ensure(object, "status") {
            default(status, "attached", false);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        csi_driver(&spec.f("attacher"), &mut e);
        let source = spec.f("source");
        let (volume, inline) = (source.f("persistentVolumeName"), source.f("inlineVolumeSpec"));
        const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        match (volume.has(), inline.has()) {
            (false, false) => e.required(&source.path, ONE),
            (true, true) => e.forbidden(&source.path, ONE),
            (true, false) if volume.is_empty() => {
                e.required(&volume.path, "must specify non empty persistentVolumeName");
            }
            (true, false) => e.dns_subdomain(&volume),
            (false, true) if !inline.f("csi").has() => {
                let detail = "has to be specified in the context of inline volumes";
                e.required(&inline.path.field("csi"), detail);
            }
            (false, true) => {}
        }
        e.dns_subdomain(&spec.f("nodeName"));
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        immutable_spec(self.validate(object), object, old)
    }
}

pub struct CsiStorageCapacity;

impl Strategy for CsiStorageCapacity {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        e.label_selector(&at.f("nodeTopology"));
        e.dns_subdomain(&at.f("storageClassName"));
        if let Some(amount) = at.f("capacity").quantity().filter(|q| q.sign() < 0) {
            let detail = crate::strategies::common::NOT_NEGATIVE;
            e.invalid_value(&Path::of(&["capacity"]), amount.to_string(), detail);
        }
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let (at, before, mut e) = (At::root(object), At::root(old), Errors::new());
        for field in ["nodeTopology", "storageClassName"] {
            e.immutable(&at.f(field), &before.f(field));
        }
        e.into_vec()
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let topology = At::root(object).f("nodeTopology");
        let keys = topology.f("matchExpressions").each().map(|expression| expression.f("key"));
        let expressions =
            keys.filter_map(|key| Some(format!("{}: {} is {}", key.path, key.s(), node_label(key.s())?)));
        let labels = topology.f("matchLabels");
        let fixed = labels
            .entries()
            .filter_map(|(key, _)| Some(format!("{}: {}", labels.path.field(key), node_label(key)?)));
        expressions.chain(fixed).collect()
    }
}

pub struct VolumeAttributesClass;

impl Strategy for VolumeAttributesClass {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        provisioner(&at.f("driverName"), &mut e);
        parameters(&at.f("parameters"), false, &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let (at, before, mut e) = (At::root(object), At::root(old), Errors::new());
        for field in ["driverName", "parameters"] {
            if !same(at.f(field).value, before.f(field).value) {
                e.forbidden(&at.f(field).path, format!("updates to {field} are forbidden."));
            }
        }
        e.into_vec()
    }
}
