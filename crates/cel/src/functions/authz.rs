//! Asking the authorizer.

use super::{Outcome, Row, fail, mismatch};
use crate::authorizer::{Authorizer, Check, Decision, Subject};
use crate::value::{Opaque, Value};
use keelson_api_types::names;
use std::sync::Arc;

pub(super) const ROWS: &[Row] = &[
    ("path", "authorizer_path", "authorizer.(string) -> pathcheck", |a| match a {
        [Value::Opaque(Opaque::Authorizer(..)), Value::String(path)] if path.trim().is_empty() => {
            fail("path must not be empty")
        }
        [Value::Opaque(Opaque::Authorizer(authorizer, subject)), Value::String(path)] => {
            Ok(Value::Opaque(Opaque::PathCheck(*authorizer, subject.clone(), (&**path).into())))
        }
        _ => mismatch(),
    }),
    ("group", "authorizer_group", "authorizer.(string) -> groupcheck", |a| match a {
        [Value::Opaque(Opaque::Authorizer(authorizer, subject)), Value::String(group)] => {
            Ok(Value::Opaque(Opaque::GroupCheck(*authorizer, subject.clone(), (&**group).into())))
        }
        _ => mismatch(),
    }),
    (
        "serviceAccount",
        "authorizer_serviceaccount",
        "authorizer.(string, string) -> authorizer",
        |a| match a {
            [
                Value::Opaque(Opaque::Authorizer(authorizer, _)),
                Value::String(namespace),
                Value::String(name),
            ] => {
                if !names::dns1123_subdomain(name).is_empty() {
                    return fail("Invalid service account name");
                }
                if !names::dns1123_label(namespace).is_empty() {
                    return fail("Invalid service account namespace");
                }
                let (namespace, name) = ((&**namespace).into(), (&**name).into());
                Ok(Value::Opaque(Opaque::Authorizer(
                    *authorizer,
                    Subject::ServiceAccount { namespace, name },
                )))
            }
            _ => mismatch(),
        },
    ),
    ("resource", "groupcheck_resource", "groupcheck.(string) -> resourcecheck", |a| match a {
        [Value::Opaque(Opaque::GroupCheck(..)), Value::String(resource)] if resource.trim().is_empty() => {
            fail("resource must not be empty")
        }
        [Value::Opaque(Opaque::GroupCheck(authorizer, subject, group)), Value::String(resource)] => {
            let check = Check {
                subject: subject.clone(),
                group: group.to_string(),
                resource: resource.to_string(),
                ..Check::default()
            };
            Ok(Value::resource_check(*authorizer, check))
        }
        _ => mismatch(),
    }),
    ("subresource", "resourcecheck_subresource", "resourcecheck.(string) -> resourcecheck", |a| {
        with(a, |check, text| check.subresource = text)
    }),
    ("namespace", "resourcecheck_namespace", "resourcecheck.(string) -> resourcecheck", |a| {
        with(a, |check, text| check.namespace = text)
    }),
    ("name", "resourcecheck_name", "resourcecheck.(string) -> resourcecheck", |a| {
        with(a, |check, text| check.name = text)
    }),
    ("fieldSelector", "authorizer_fieldselector", "resourcecheck.(string) -> resourcecheck", |a| {
        with(a, |check, text| check.field_selector = text)
    }),
    ("labelSelector", "authorizer_labelselector", "resourcecheck.(string) -> resourcecheck", |a| {
        with(a, |check, text| check.label_selector = text)
    }),
    ("check", "pathcheck_check", "pathcheck.(string) -> decision", |a| match a {
        [Value::Opaque(Opaque::PathCheck(authorizer, subject, path)), Value::String(verb)] => {
            let check = Check { subject: subject.clone(), path: Some(path.to_string()), ..Check::default() };
            decide(*authorizer, check, verb)
        }
        _ => mismatch(),
    }),
    ("check", "resourcecheck_check", "resourcecheck.(string) -> decision", |a| match a {
        [Value::Opaque(Opaque::ResourceCheck(authorizer, check)), Value::String(verb)] => {
            decide(*authorizer, Check::clone(check), verb)
        }
        _ => mismatch(),
    }),
    ("errored", "decision_errored", "decision.() -> bool", |a| decision(a, |d| d.error.is_some().into())),
    ("error", "decision_error", "decision.() -> string", |a| {
        decision(a, |d| d.error.as_deref().unwrap_or_default().into())
    }),
    ("allowed", "decision_allowed", "decision.() -> bool", |a| decision(a, |d| d.allowed.into())),
    ("reason", "decision_reason", "decision.() -> string", |a| decision(a, |d| d.reason.as_str().into())),
];

fn with<'a>(args: &[Value<'a>], set: fn(&mut Check, String)) -> Outcome<'a> {
    let [Value::Opaque(Opaque::ResourceCheck(authorizer, check)), Value::String(text)] = args else {
        return mismatch();
    };
    let mut check = Check::clone(check);
    set(&mut check, text.to_string());
    Ok(Value::resource_check(*authorizer, check))
}

fn decide<'a>(authorizer: &'a dyn Authorizer, check: Check, verb: &str) -> Outcome<'a> {
    let decision = authorizer.authorize(&Check { verb: verb.to_owned(), ..check });
    Ok(Value::Opaque(Opaque::Decision(Arc::new(decision))))
}

fn decision<'a>(args: &[Value<'a>], f: fn(&Decision) -> Value<'static>) -> Outcome<'a> {
    match args {
        [Value::Opaque(Opaque::Decision(decision))] => Ok(f(decision)),
        _ => mismatch(),
    }
}
