//! Establishes CustomResourceDefinitions: accepts their names, serves their versions, and empties
//! them before they go.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::meta::string;
use keelson_api_types::{Gvr, StatusError};
use serde_json::{Value, json};

use crate::app::App;
use crate::custom::{self, Names};
use crate::meta;
use crate::subresources::binding::set_condition;
use crate::types::{Change, Objects, UserInfo};
use crate::verbs::delete;

const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
const RETRY: Duration = Duration::from_millis(200);

/// Follows the definitions until shutdown.
pub async fn run(app: Arc<App>) {
    let mut changes = app.subscribe(&definitions());
    let mut known: BTreeMap<String, Value> = BTreeMap::new();
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            () = app.shutdown.cancelled() => None,
        };
        let Some(change) = change else { return };
        take(&mut known, change);
        while let Ok(more) = changes.try_recv() {
            take(&mut known, more);
        }
        reconcile(&app, &known).await;
    }
}

fn definitions() -> Gvr {
    Gvr::new("apiextensions.k8s.io", "v1", "customresourcedefinitions")
}

fn take(known: &mut BTreeMap<String, Value>, change: Change) {
    match change {
        Change::Snapshot(all) => {
            *known = all.iter().filter_map(|o| Some((o.name.to_string(), o.parse().ok()?))).collect();
        }
        Change::Put(object) => {
            if let Ok(value) = object.parse() {
                known.insert(object.name.to_string(), value);
            }
        }
        Change::Delete(object) => drop(known.remove(&*object.name)),
    }
}

/// Serves what may be served, then says so in the definitions' status.
async fn reconcile(app: &Arc<App>, known: &BTreeMap<String, Value>) {
    let mut by_age: Vec<&Value> = known.values().collect();
    by_age.sort_by_key(|d| (!is_established(d), meta::text(d, "creationTimestamp").to_owned()));
    let mut taken: BTreeMap<String, (HashSet<String>, HashSet<String>)> = BTreeMap::new();
    for builtin in app.registry.builtin() {
        let (resources, kinds) = taken.entry(builtin.gvr.group.clone()).or_default();
        resources.extend([builtin.gvr.resource.clone(), builtin.singular.clone()]);
        kinds.extend([builtin.gvk.kind.clone(), builtin.list_kind.clone()]);
    }
    let mut served = Vec::new();
    let mut verdicts = Vec::new();
    for definition in by_age {
        let (resources, kinds) = taken.entry(string(&definition["spec"], "group").to_owned()).or_default();
        let claims = Names::of(definition).claims();
        let conflict = claims.0.intersection(resources).chain(claims.1.intersection(kinds)).next().cloned();
        if conflict.is_none() {
            resources.extend(claims.0);
            kinds.extend(claims.1);
            served.extend(custom::resources(definition, &app.caches).into_iter().map(Arc::new));
        }
        verdicts.push((definition, conflict));
    }
    app.registry.set_custom(served);
    for (definition, conflict) in verdicts {
        let outcome = match meta::is_deleting(definition) {
            true => start_emptying(app, definition),
            false => establish(app, definition, conflict).await,
        };
        if let Err(error) = outcome {
            tracing::warn!(
                definition = meta::text(definition, "name"),
                error = error.message(),
                "could not establish"
            );
        }
    }
    if let Err(error) = crate::apiservices::reconcile(app).await {
        tracing::warn!(error = error.message(), "could not write the APIServices");
    }
}

fn is_established(definition: &Value) -> bool {
    let conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| string(c, "type") == "Established" && string(c, "status") == "True")
}

/// Writes the status that follows from the names, and the finalizer that lets us empty it later.
async fn establish(app: &App, definition: &Value, conflict: Option<String>) -> Result<(), StatusError> {
    let mut wanted = definition.clone();
    if conflict.is_none() && !meta::finalizers(definition).contains(&FINALIZER) {
        let mut all: Vec<String> = meta::finalizers(definition).iter().map(|f| (*f).to_owned()).collect();
        all.push(FINALIZER.to_owned());
        meta::set_finalizers(&mut wanted, &all);
        wanted = match app.update(&definitions(), "", "", wanted).await {
            // The change that was in between comes to us as well.
            Err(error) if matches!(error.code(), 404 | 409) => return Ok(()),
            outcome => outcome?,
        };
    }
    let before = wanted.get("status").cloned().unwrap_or(Value::Null);
    set_status(&mut wanted, conflict);
    if wanted.get("status") == Some(&before) {
        return Ok(());
    }
    match app.update(&definitions(), "", "status", wanted).await {
        Err(error) if matches!(error.code(), 404 | 409) => Ok(()),
        outcome => outcome.map(drop),
    }
}

fn set_status(definition: &mut Value, conflict: Option<String>) {
    let spec = definition["spec"].clone();
    let stored =
        spec["versions"].as_array().into_iter().flatten().find(|v| v["storage"] == Value::Bool(true));
    let stored = stored.map(|v| string(v, "name").to_owned()).unwrap_or_default();
    let status = &mut definition["status"];
    if !status.is_object() {
        *status = json!({});
    }
    let mut versions = status["storedVersions"].as_array().cloned().unwrap_or_default();
    if !stored.is_empty() && !versions.iter().any(|v| *v == stored) {
        versions.push(stored.into());
    }
    status["storedVersions"] = versions.into();
    if conflict.is_none() {
        let names = Names(&spec["names"]);
        let mut accepted = spec["names"].clone();
        accepted["singular"] = names.singular().into();
        accepted["listKind"] = names.list_kind().into();
        status["acceptedNames"] = accepted;
    } else if !status["acceptedNames"].is_object() {
        status["acceptedNames"] = json!({"plural": "", "kind": ""});
    }
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    let condition = |kind: &str, good: bool, reason: &str, message: String| json!({"type": kind, "status": if good { "True" } else { "False" }, "reason": reason, "message": message});
    match conflict {
        None => {
            set_condition(
                conditions,
                condition("NamesAccepted", true, "NoConflicts", "no conflicts found".into()),
            );
            let message = "the initial names have been accepted".into();
            set_condition(conditions, condition("Established", true, "InitialNamesAccepted", message));
        }
        Some(name) => {
            let message = format!("{name:?} is already in use");
            set_condition(conditions, condition("NamesAccepted", false, "NameConflict", message));
            let message = "not all names are accepted".into();
            set_condition(conditions, condition("Established", false, "NotAccepted", message));
        }
    }
}

/// A definition that is being deleted loses its objects first, then our finalizer.
fn start_emptying(app: &Arc<App>, definition: &Value) -> Result<(), StatusError> {
    if !meta::finalizers(definition).contains(&FINALIZER) {
        return Ok(());
    }
    let name = meta::text(definition, "name").to_owned();
    if !app.emptying.lock().insert(name.clone()) {
        return Ok(());
    }
    let (app, definition) = (app.clone(), definition.clone());
    tokio::spawn(async move {
        let work = async {
            while let Err(error) = empty(&app, &definition).await {
                tracing::warn!(definition = name, error = error.message(), "could not empty");
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = app.shutdown.cancelled() => {}
        }
        app.emptying.lock().remove(&name);
    });
    Ok(())
}

async fn empty(app: &Arc<App>, definition: &Value) -> Result<(), StatusError> {
    let cache = app.caches.cache(&custom::storage_of(definition));
    let resource = custom::resources(definition, &app.caches).into_iter().next().map(Arc::new);
    let user = UserInfo::loopback();
    let mut changed = cache.changed();
    loop {
        app.caches.fresh().await?;
        let left = cache.list("", None, 0, |_| true).entries;
        let (Some(resource), false) = (&resource, left.is_empty()) else { break };
        for entry in &left {
            let options = crate::options::DeleteOptions::default();
            let (namespace, name) = (entry.namespace(), entry.name());
            let outcome =
                delete::delete(app, resource, &user, namespace, name, &options, true, &mut Vec::new()).await;
            match outcome {
                Err(error) if error.code() != 404 => return Err(error),
                _ => {}
            }
        }
        // What has finalizers of its own goes when their owners let it.
        app.caches.fresh().await?;
        if !cache.is_empty() {
            let _ = changed.changed().await;
        }
    }
    let name = meta::text(definition, "name");
    let Some(now) = app.get_fresh(&definitions(), "", name).await? else { return Ok(()) };
    let mut now = Value::clone(&now);
    let rest: Vec<String> =
        meta::finalizers(&now).into_iter().filter(|f| *f != FINALIZER).map(str::to_owned).collect();
    meta::set_finalizers(&mut now, &rest);
    match app.update(&definitions(), "", "", now).await {
        Err(error) if error.code() == 404 => Ok(()),
        outcome => outcome.map(drop),
    }
}
