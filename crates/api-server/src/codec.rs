//! Bodies into objects and objects into bytes, with the machinery that knows the schema.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use keelson_api_types::{Gvk, StatusError};
use keelson_machinery::apply::{self, Manager};
use keelson_machinery::{DecodeError, FieldValidation, cbor, decode, encode, proto, prune};
use keelson_schema::Type;
use serde_json::Value;

use crate::app::Call;
use crate::options::{DeleteOptions, WriteOptions};
use crate::registry::Resource;
use crate::verbs::write::Writer;

/// The largest body of a request, as upstream has it.
const BODY_LIMIT: usize = 3 << 20;
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
pub const CBOR: &str = "application/cbor";
/// What bodies may be in; custom resources have no messages.
const ACCEPTED: [&str; 4] = [JSON, YAML, PROTOBUF, CBOR];
const ACCEPTED_CUSTOM: [&str; 3] = [JSON, YAML, CBOR];

/// Reads a body whole, up to the limit.
pub async fn read_body(mut body: Incoming) -> Result<Bytes, StatusError> {
    let too_large = || StatusError::request_too_large(format!("limit is {BODY_LIMIT}"));
    if body.size_hint().lower() > BODY_LIMIT as u64 {
        return Err(too_large());
    }
    let mut first: Option<Bytes> = None;
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| StatusError::bad_request(format!("error reading the body: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.is_none() && whole.is_empty() {
            // Most bodies come in one piece.
            first = Some(data);
            continue;
        }
        if let Some(start) = first.take() {
            whole.extend_from_slice(&start);
        }
        whole.extend_from_slice(&data);
        if whole.len() > BODY_LIMIT {
            return Err(too_large());
        }
    }
    Ok(first.unwrap_or_else(|| whole.freeze()))
}

/// Decodes by content type; the second part are duplicate keys.
fn decode_any(
    content_type: &str,
    body: &[u8],
    expected: &Gvk,
    ty: &Type,
) -> Result<(Value, Vec<String>), StatusError> {
    let decoded = match content_type {
        PROTOBUF if ty.as_object().is_some_and(|o| o.layout().is_empty()) => {
            return Err(StatusError::unsupported_media_type(&ACCEPTED_CUSTOM));
        }
        PROTOBUF => proto::decode_object(ty, body).map(|object| (object, Vec::new())),
        JSON | "" => decode::json_strict(body),
        YAML => decode::yaml(body),
        CBOR => cbor::decode(Some(ty), body).map(|object| (object, Vec::new())),
        _ => return Err(StatusError::unsupported_media_type(&ACCEPTED)),
    };
    let decoded = decoded.and_then(|(object, duplicates)| match object {
        Value::Object(_) => Ok((object, duplicates)),
        Value::Null => Ok((Value::Object(Default::default()), duplicates)),
        other => Err(DecodeError::Json(format!(
            "json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \
             \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
            prune::kind_of(&other)
        ))),
    });
    // By then CBOR has been looked into for its kind, which is this one by default.
    let version = if content_type == CBOR { &*expected.version } else { "" };
    decoded.map_err(|e| StatusError::bad_request(e.request_message(version, &expected.kind, body)))
}

/// What strict decoding has against a body: of a built-in kind in JSON as it stands there, else duplicates first.
fn problems(
    content_type: &str,
    body: &[u8],
    ty: &Type,
    unknown: Vec<String>,
    mut duplicates: Vec<String>,
) -> Vec<String> {
    let builtin = ty.as_object().is_some_and(|o| !o.name.is_empty());
    let some = !unknown.is_empty() || !duplicates.is_empty();
    if some && builtin && matches!(content_type, JSON | "") {
        return decode::strict::problems(Some(ty), body);
    }
    duplicates.extend(unknown);
    duplicates
}

pub fn write_options(call: &Call, kind: &str) -> Result<WriteOptions, StatusError> {
    WriteOptions::parse(kind, &call.query, call.user_agent(), FieldValidation::Warn)
}

/// The object of a create or update, in the served version, without fields that its schema does not know.
pub async fn decode_object(
    call: &mut Call,
    resource: &Resource,
    options: &WriteOptions,
) -> Result<Value, StatusError> {
    let body = call.body().await?;
    let kind = resource.gvk.clone();
    let mut warnings = Vec::new();
    let object = decode_as(call.content_type(), &body, &kind, &resource.ty, options, &mut warnings)?;
    call.warnings.append(&mut warnings);
    Ok(object)
}

/// Decodes a body as a kind that may differ from the resource's own (Scale, Binding, Eviction).
pub fn decode_as(
    content_type: &str,
    body: &[u8],
    expected: &Gvk,
    ty: &Type,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Value, StatusError> {
    let (mut object, duplicates) = decode_any(content_type, body, expected, ty)?;
    check_kind(&mut object, expected)?;
    let fail = |error: DecodeError| {
        StatusError::bad_request(error.request_message(&expected.version, &expected.kind, body))
    };
    let unknown = prune::check(ty, &mut object, options.validation).map_err(fail)?;
    let problems = problems(content_type, body, ty, unknown, duplicates);
    warnings.extend(prune::strict(options.validation, problems).map_err(fail)?);
    Ok(object)
}

/// What an object says it is must be what the path is for; what it leaves out is filled in.
fn check_kind(object: &mut Value, expected: &Gvk) -> Result<(), StatusError> {
    let api_version = expected.api_version();
    let given = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    if given("apiVersion") == api_version && given("kind") == expected.kind {
        return Ok(());
    }
    let text = |field: &str| given(field).to_owned();
    let (given_version, given_kind) = (text("apiVersion"), text("kind"));
    let given = Gvk::from_api_version(
        if given_version.is_empty() { &api_version } else { &given_version },
        if given_kind.is_empty() { &expected.kind } else { &given_kind },
    );
    let known = |gvk: &Gvk| keelson_schema::builtin().for_gvk(gvk).is_some();
    if given.group != expected.group && known(expected) && !known(&given) {
        return Err(StatusError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: no kind {:?} is registered for version {:?} in scheme \
             \"pkg/api/legacyscheme/scheme.go:30\"",
            given.kind,
            given.version,
            expected.kind,
            given.kind,
            given.api_version()
        )));
    }
    if !given_version.is_empty() && given_version != api_version {
        return Err(StatusError::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )));
    }
    if !given_kind.is_empty() && given_kind != expected.kind {
        return Err(StatusError::bad_request(format!(
            "{given_kind} in version {:?} cannot be handled as a {}: converting ({given}) to ({expected}): unknown conversion",
            expected.version, expected.kind
        )));
    }
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".into(), api_version.into());
        map.insert("kind".into(), expected.kind.as_str().into());
    }
    Ok(())
}

/// DeleteOptions from the body, where there is one, or the query.
pub async fn delete_options(call: &mut Call) -> Result<DeleteOptions, StatusError> {
    let body = call.body().await?;
    let body = match body.is_empty() {
        true => None,
        false => {
            let ty = keelson_schema::builtin().by_name("meta.v1.DeleteOptions");
            let ty = ty.ok_or_else(|| StatusError::internal("no schema of DeleteOptions"))?;
            let kind = Gvk::new("", "v1", "DeleteOptions");
            let (mut options, _) = decode_any(call.content_type(), &body, &kind, ty)?;
            prune::check(ty, &mut options, FieldValidation::Ignore)
                .map_err(|e| StatusError::bad_request(e.request_message("v1", "DeleteOptions", &body)))?;
            Some(options)
        }
    };
    DeleteOptions::parse(body, &call.query)
}

/// The stored form: canonical JSON without the revision, which the store gives.
pub fn encode(object: &Value) -> Vec<u8> {
    encode_with(object, &[])
}

/// The same, with [`owner_of_new`] where the object was left without it.
pub fn encode_with(object: &Value, managed_fields: &[u8]) -> Vec<u8> {
    let has_revision = object.get("metadata").is_some_and(|m| m.get("resourceVersion").is_some());
    if !has_revision {
        return encode::canonical_with(object, managed_fields);
    }
    let mut object = object.clone();
    crate::meta::meta_mut(&mut object).remove("resourceVersion");
    encode::canonical_with(&object, managed_fields)
}

pub fn to_yaml(object: &Value) -> Option<String> {
    Some(encode::yaml(object))
}

/// Enters a write, given in the stored version, into `metadata.managedFields`: in the version that it was made in.
///
/// # Errors
/// What others own cannot be compared in their version (yet); `new` is as it was.
pub fn track(writer: &Writer<'_>, old: Option<&Value>, new: &mut Value) -> Result<(), StatusError> {
    let resource = writer.resource;
    as_manager(writer, |manager| {
        if resource.conversion.is_identity() {
            return apply::track_update(&resource.ty, old, new, manager);
        }
        let served = |object: &Value| resource.conversion.to_served(object.clone());
        let mut converted = served(new);
        apply::track_update(&resource.ty, old.map(served).as_ref(), &mut converted, manager)?;
        let metadata = crate::meta::meta_mut(new);
        match crate::meta::meta_mut(&mut converted).remove("managedFields") {
            Some(managed) => metadata.insert("managedFields".into(), managed),
            None => metadata.remove("managedFields"),
        };
        Ok(())
    })
}

/// The JSON of a new object's `managedFields`, where it brings none and is written as it is stored.
pub fn owner_of_new(writer: &Writer<'_>, new: &Value) -> Option<Vec<u8>> {
    let resource = writer.resource;
    let brings = new.get("metadata").is_some_and(|metadata| metadata.get("managedFields").is_some());
    (resource.conversion.is_identity() && !brings)
        .then(|| as_manager(writer, |manager| apply::owner_of_new(&resource.ty, new, manager)))
}

fn as_manager<T>(writer: &Writer<'_>, act: impl FnOnce(&Manager<'_>) -> T) -> T {
    let resource = writer.resource;
    act(&Manager {
        name: &writer.options.field_manager,
        api_version: &resource.gvr.api_version(),
        subresource: writer.subresource,
        resets: resource.traits.resets(writer.subresource),
        versions: writer.versions(),
        now: &keelson_api_types::meta::now_rfc3339(),
    })
}
