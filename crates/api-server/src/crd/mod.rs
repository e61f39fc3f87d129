//! Establishes CustomResourceDefinitions: accepts their names, serves their versions, and empties
//! them before they go.

mod finalizer;
mod names;
mod status;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::meta::string;
use keelson_api_types::{Gvr, StatusError};
use serde_json::{Value, json};

use crate::app::App;
use crate::custom::{self, Served};
use crate::meta;
use crate::types::{Change, Objects};
use names::Taken;

pub use finalizer::begin as begin_deletion;
pub use status::{Approval, approval, is_established};

/// Follows the definitions until shutdown.
pub async fn run(app: Arc<App>) {
    let mut changes = app.subscribe(&definitions());
    let mut controller = Controller { app: app.clone(), known: BTreeMap::new(), serving: HashMap::new() };
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            () = app.shutdown.cancelled() => None,
        };
        let Some(change) = change else { return };
        controller.take(change);
        while let Ok(more) = changes.try_recv() {
            controller.take(more);
        }
        controller.reconcile().await;
    }
}

fn definitions() -> Gvr {
    Gvr::new("apiextensions.k8s.io", "v1", "customresourcedefinitions")
}

struct Controller {
    app: Arc<App>,
    known: BTreeMap<String, Value>,
    serving: HashMap<String, Serving>,
}

/// A definition that is served, and what its rows were made of.
struct Serving {
    made_of: Value,
    served: Served,
}

impl Controller {
    fn take(&mut self, change: Change) {
        match change {
            Change::Snapshot(all) => {
                self.known = all.iter().filter_map(|o| Some((o.name.to_string(), o.parse().ok()?))).collect();
            }
            Change::Put(object) => {
                if let Ok(value) = object.parse() {
                    self.known.insert(object.name.to_string(), value);
                }
            }
            Change::Delete(object) => drop(self.known.remove(&*object.name)),
        }
    }

    /// Serves what may be served, then says so in the definitions' status.
    async fn reconcile(&mut self) {
        let mut by_age: Vec<(&String, &Value)> = self.known.iter().collect();
        by_age.sort_by_key(|(_, d)| (!is_established(d), meta::text(d, "creationTimestamp").to_owned()));
        let mut taken = Taken::by(&self.app, self.known.values());
        let mut rows = Vec::new();
        let mut verdicts = Vec::new();
        for (name, definition) in by_age {
            let verdict = taken.settle(definition);
            if verdict.is_accepted() || is_established(definition) {
                let made_of = json!([meta::text(definition, "uid"), definition["spec"], verdict.names]);
                let serving = match self.serving.remove(name) {
                    Some(serving) if serving.made_of == made_of => serving,
                    before => {
                        close(before);
                        let served = custom::serve(
                            definition,
                            &verdict.names,
                            &self.app.caches,
                            &self.app.conversions,
                        );
                        Serving { made_of, served }
                    }
                };
                serving.served.versions.terminating.store(meta::is_deleting(definition), Ordering::Relaxed);
                rows.extend(serving.served.rows.iter().cloned());
                self.serving.insert(name.clone(), serving);
            } else {
                close(self.serving.remove(name));
            }
            verdicts.push((name, definition, verdict));
        }
        self.app.registry.set_custom(rows);
        let gone: Vec<String> =
            self.serving.keys().filter(|name| !self.known.contains_key(*name)).cloned().collect();
        gone.iter().for_each(|name| close(self.serving.remove(name)));
        for (name, definition, verdict) in verdicts {
            let outcome = match meta::is_deleting(definition) {
                true => {
                    let storage = self.serving.get(name).and_then(|s| s.served.storage.clone());
                    finalizer::start(&self.app, definition, storage);
                    Ok(())
                }
                false => establish(&self.app, definition, &verdict).await,
            };
            if let Err(error) = outcome {
                tracing::warn!(definition = name, error = error.message(), "could not establish");
            }
        }
        if let Err(error) = crate::aggregation::local::reconcile(&self.app, false).await {
            tracing::warn!(error = error.message(), "could not write the APIServices");
        }
    }
}

/// Ends the watches of what is served otherwise from now on, or not at all.
fn close(serving: Option<Serving>) {
    if let Some(serving) = serving {
        serving.served.versions.closed.cancel();
    }
}

/// Writes the status that follows from the names and the schema.
async fn establish(app: &App, definition: &Value, verdict: &names::Verdict) -> Result<(), StatusError> {
    let mut wanted = definition.clone();
    status::set(&mut wanted, verdict);
    if wanted.get("status") == definition.get("status") {
        return Ok(());
    }
    match app.update(&definitions(), "", "status", wanted).await {
        // The change that was in between comes to us as well.
        Err(error) if matches!(error.code(), 404 | 409) => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// A list of names in a definition's `names`.
fn list<'a>(names: &'a Value, field: &str) -> Vec<&'a str> {
    names[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn group(definition: &Value) -> &str {
    string(&definition["spec"], "group")
}
