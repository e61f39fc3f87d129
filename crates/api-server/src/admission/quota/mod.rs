//! ResourceQuota: what a namespace may hold. A write that fits is counted into the quotas' status before
//! it happens, so that two at a time cannot both take the last place; the quota controller recounts.

mod usage;

use std::collections::HashMap;
use std::sync::Arc;

use keelson_api_types::{Reason, StatusError, meta};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::quantities::{Amounts, add, amounts};
use super::{core, items};
use crate::types::{AdmissionRequest, Objects, Operation};

const ATTEMPTS: u32 = 8;

/// One lock per namespace that has quotas: checks of one namespace follow one another.
#[derive(Default)]
pub struct Quotas {
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Quotas {
    pub async fn validate(&self, objects: &dyn Objects, r: &AdmissionRequest<'_>) -> Result<(), StatusError> {
        if r.namespace.is_empty() || !usage::counts(r) {
            return Ok(());
        }
        let gvr = core("resourcequotas");
        if objects.list(&gvr, r.namespace).is_empty() {
            return Ok(());
        }
        let lock = self.locks.lock().entry(r.namespace.to_owned()).or_default().clone();
        let _guard = lock.lock().await;
        let names: Vec<String> =
            objects.list(&gvr, r.namespace).iter().map(|q| meta::name(q).to_owned()).collect();
        // All must have room before any is charged.
        for name in &names {
            if let Some(quota) = objects.get_fresh(&gvr, r.namespace, name).await? {
                charge(r, &quota)?;
            }
        }
        if r.dry_run {
            return Ok(());
        }
        for name in &names {
            take(objects, r, name).await?;
        }
        Ok(())
    }
}

/// Writes the new usage of one quota; the controller may write its status at the same time.
async fn take(objects: &dyn Objects, r: &AdmissionRequest<'_>, name: &str) -> Result<(), StatusError> {
    let gvr = core("resourcequotas");
    for attempt in 1.. {
        let Some(quota) = objects.get_fresh(&gvr, r.namespace, name).await? else { return Ok(()) };
        let Some(charged) = charge(r, &quota)? else { return Ok(()) };
        match objects.update(&gvr, r.namespace, "status", charged).await {
            Err(e) if e.reason() == Reason::Conflict && attempt < ATTEMPTS => {}
            other => return other.map(|_| ()),
        }
    }
    Ok(())
}

/// The quota with the request counted in; None if it does not concern it.
fn charge(r: &AdmissionRequest<'_>, quota: &Value) -> Result<Option<Value>, StatusError> {
    let Some(object) = r.object.as_deref() else { return Ok(None) };
    if !usage::in_scopes(r, quota, object) {
        return Ok(None);
    }
    let hard = amounts(&quota["status"]["hard"]);
    let used = amounts(&quota["status"]["used"]);
    let mut delta = usage::of(r, object);
    delta.retain(|name, _| hard.contains_key(name));
    let tracked = usage::tracked(r, &hard);
    if tracked.is_empty() {
        return Ok(None);
    }
    let name = meta::name(quota);
    usage::constraints(r, &tracked, object)
        .map_err(|why| r.forbidden(format!("failed quota: {name}: {why}")))?;
    if tracked.iter().any(|t| !used.contains_key(t)) {
        let why = format!("status unknown for quota: {name}, resources: {}", tracked.join(","));
        return Err(r.forbidden(why));
    }
    let negative: Vec<&str> = delta.iter().filter(|(_, q)| q.sign() < 0).map(|(n, _)| n.as_str()).collect();
    if !negative.is_empty() {
        let why = format!("quota usage is negative for resource(s): {}", negative.join(","));
        return Err(r.forbidden(why));
    }
    if r.op == Operation::Update
        && let Some(old) = r.old
        && usage::in_scopes(r, quota, old)
    {
        subtract(&mut delta, &usage::of(r, old));
    }
    delta.retain(|_, amount| !amount.is_zero());
    if delta.is_empty() {
        return Ok(None);
    }
    let mut total = used.clone();
    add(&mut total, &delta);
    let exceeded: Vec<&String> = delta.keys().filter(|k| total[*k].nanos() > hard[*k].nanos()).collect();
    // A status tells what is the case already.
    if !exceeded.is_empty() && r.subresource != "status" {
        return Err(r.forbidden(format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            pick(&delta, &exceeded),
            pick(&used, &exceeded),
            pick(&hard, &exceeded)
        )));
    }
    let mut charged = quota.clone();
    let texts: serde_json::Map<String, Value> =
        total.iter().map(|(k, v)| (k.clone(), json!(v.to_string()))).collect();
    charged["status"]["used"] = texts.into();
    Ok(Some(charged))
}

fn subtract(delta: &mut Amounts, before: &Amounts) {
    for (name, amount) in delta.iter_mut() {
        if let Some(old) = before.get(name) {
            let rest = amount.sub(old);
            // What becomes free is the controller's to count.
            *amount = if rest.sign() < 0 { amount.sub(amount) } else { rest };
        }
    }
}

fn pick(from: &Amounts, names: &[&String]) -> String {
    let texts: Vec<String> = names.iter().filter_map(|n| from.get(*n).map(|q| format!("{n}={q}"))).collect();
    texts.join(",")
}

/// The scopes of a quota as selector terms: name, operator, values.
fn scopes(quota: &Value) -> Vec<(String, String, Vec<String>)> {
    let plain = items(&quota["spec"]["scopes"]).iter().filter_map(Value::as_str);
    let mut terms: Vec<_> = plain.map(|s| (s.to_owned(), "Exists".to_owned(), Vec::new())).collect();
    for term in items(&quota["spec"]["scopeSelector"]["matchExpressions"]) {
        let text = |key: &str| term[key].as_str().unwrap_or_default().to_owned();
        let values = crate::token::request::string_list(&term["values"]);
        terms.push((text("scopeName"), text("operator"), values));
    }
    terms
}
