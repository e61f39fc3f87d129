//! A definition that is deleted loses its objects first, then our finalizer.

use std::sync::Arc;
use std::time::Duration;

use keelson_api_types::StatusError;
use serde_json::Value;

use super::{definitions, status};
use crate::app::App;
use crate::meta;
use crate::options::DeleteOptions;
use crate::registry::Resource;
use crate::types::{Objects, UserInfo};
use crate::verbs::delete;

const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
const RETRY: Duration = Duration::from_millis(200);

/// What the delete of a definition changes in it at once.
pub fn begin(definition: &mut Value) {
    let mut finalizers: Vec<String> = meta::finalizers(definition).into_iter().map(str::to_owned).collect();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
        meta::set_finalizers(definition, &finalizers);
    }
    if !definition["status"].is_object() {
        definition["status"] = serde_json::json!({});
    }
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    status::add(&mut definition["status"], "Terminating", "True", "InstanceDeletionPending", message);
}

/// Starts emptying a definition, unless that is under way. `resource` is its storage version's, if it was served.
pub fn start(app: &Arc<App>, definition: &Value, resource: Option<Arc<Resource>>) {
    let name = meta::text(definition, "name").to_owned();
    if !meta::finalizers(definition).contains(&FINALIZER) || !app.emptying.lock().insert(name.clone()) {
        return;
    }
    let app = app.clone();
    tokio::spawn(async move {
        let work = async {
            while let Err(error) = finish(&app, &name, resource.as_ref()).await {
                tracing::warn!(definition = name, error = error.message(), "could not empty");
                let _ = report(&app, &name, "True", "InstanceDeletionFailed", error.message(), false).await;
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = app.shutdown.cancelled() => {}
        }
        app.emptying.lock().remove(&name);
    });
}

async fn finish(app: &Arc<App>, name: &str, resource: Option<&Arc<Resource>>) -> Result<(), StatusError> {
    let Some(resource) = resource else {
        return report(app, name, "False", "NeverEstablished", "resource was never established", true).await;
    };
    let message = "CustomResource deletion is in progress";
    report(app, name, "True", "InstanceDeletionInProgress", message, false).await?;
    empty(app, resource).await?;
    report(app, name, "False", "InstanceDeletionCompleted", "removed all instances", true).await
}

async fn empty(app: &Arc<App>, resource: &Arc<Resource>) -> Result<(), StatusError> {
    let user = UserInfo::loopback();
    let mut changed = resource.cache.changed();
    loop {
        app.caches.fresh().await?;
        let left = resource.cache.list("", None, 0, |_| true).entries;
        if left.is_empty() {
            return Ok(());
        }
        for entry in &left {
            let options = DeleteOptions::default();
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
        if !resource.cache.is_empty() {
            let _ = changed.changed().await;
        }
    }
}

/// Sets the Terminating condition; the last one takes the finalizer along.
async fn report(
    app: &Arc<App>,
    name: &str,
    value: &str,
    reason: &str,
    message: &str,
    last: bool,
) -> Result<(), StatusError> {
    loop {
        let Some(now) = app.get_fresh(&definitions(), "", name).await? else { return Ok(()) };
        let mut now = Value::clone(&now);
        status::add(&mut now["status"], "Terminating", value, reason, message);
        if last {
            let rest: Vec<String> =
                meta::finalizers(&now).into_iter().filter(|f| *f != FINALIZER).map(str::to_owned).collect();
            meta::set_finalizers(&mut now, &rest);
        }
        match app.update(&definitions(), "", "status", now).await {
            Err(error) if error.code() == 404 => return Ok(()),
            Err(error) if error.code() == 409 => {}
            outcome => return outcome.map(drop),
        }
    }
}
