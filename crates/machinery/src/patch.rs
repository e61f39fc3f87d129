//! The three patches of the API: JSON patch (RFC 6902), JSON merge patch (RFC 7386) and strategic merge patch.

mod directives;
mod order;
mod strategic;

use keelson_api_types::{FieldError, GroupKind, Reason, StatusError};
use serde_json::{Map, Value};

pub use strategic::strategic;
pub(crate) use strategic::{Mode, lookup, merge_map};

/// Upstream's limit on the operations of one JSON patch.
const MAX_OPERATIONS: usize = 10_000;
/// Upstream's limit on what the copies of one JSON patch add, in bytes.
const MAX_COPIED: usize = 3 << 20;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed.
    #[error("{0}")]
    Malformed(String),
    /// A well-formed patch that does not apply to this object.
    #[error("{0}")]
    DoesNotApply(String),
    #[error("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooManyOperations(usize),
}

impl PatchError {
    /// The Status that upstream answers with.
    pub fn to_status(&self) -> StatusError {
        match self {
            PatchError::Malformed(message) => StatusError::bad_request(message.as_str()),
            PatchError::DoesNotApply(message) => StatusError::new(
                422,
                Reason::Invalid,
                format!("the server rejected our request due to an error in our request: {message}"),
            ),
            PatchError::TooManyOperations(_) => StatusError::request_too_large(self),
        }
    }
}

/// The 422 for a patch whose result is no object of the kind; upstream shows the result, or the patch as Go prints it.
pub fn invalid_result(shown: String, problem: &str) -> StatusError {
    let error = FieldError::invalid("patch", shown, problem);
    StatusError::invalid(&GroupKind::default(), "", vec![error])
}

/// Applies a JSON patch (an array of operations) to a copy of `original`.
pub fn json_patch(original: &Value, patch: &Value) -> Result<Value, PatchError> {
    if let Some(count) = patch.as_array().map(Vec::len).filter(|n| *n > MAX_OPERATIONS) {
        return Err(PatchError::TooManyOperations(count));
    }
    let operations: json_patch::Patch = serde::Deserialize::deserialize(patch)
        .map_err(|e: serde_json::Error| PatchError::Malformed(format!("error decoding patch: {e}")))?;
    let mut out = original.clone();
    let mut copied = 0;
    for operation in &operations.0 {
        if let json_patch::PatchOperation::Copy(copy) = operation {
            // Of little text, copies of copies would make any amount.
            copied += out.pointer(copy.from.as_str()).map_or(0, |from| crate::encode::canonical(from).len());
            if copied > MAX_COPIED {
                return Err(PatchError::DoesNotApply(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the \
                     limit {MAX_COPIED}"
                )));
            }
        }
        json_patch::patch(&mut out, std::slice::from_ref(operation))
            .map_err(|e| PatchError::DoesNotApply(operation_error(operation, &e)))?;
    }
    Ok(out)
}

/// Words a failed operation as upstream's library does.
fn operation_error(operation: &json_patch::PatchOperation, e: &json_patch::PatchError) -> String {
    let verb = match operation {
        json_patch::PatchOperation::Add(_) => "add",
        json_patch::PatchOperation::Remove(_) => "remove",
        json_patch::PatchOperation::Replace(_) => "replace",
        json_patch::PatchOperation::Move(_) => "move",
        json_patch::PatchOperation::Copy(_) => "copy",
        json_patch::PatchOperation::Test(_) => {
            return format!("testing value {} failed: test failed", e.path);
        }
    };
    let path = keelson_api_types::gofmt::quote(&e.path.to_string());
    format!("{verb} operation does not apply: doc is missing path: {path}: missing value")
}

/// Applies a JSON merge patch to a copy of `original`.
pub fn merge_patch(original: &Value, patch: &Value) -> Value {
    let mut out = original.clone();
    merge_into(&mut out, patch);
    out
}

fn merge_into(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return };
    for (key, change) in changes {
        match map.get_mut(key) {
            _ if change.is_null() => {
                map.remove(key);
            }
            Some(value) => merge_into(value, change),
            None => {
                let mut value = Value::Null;
                merge_into(&mut value, change);
                map.insert(key.clone(), value);
            }
        }
    }
}
