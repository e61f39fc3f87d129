//! Every namespace has the service account `default`.

use std::sync::Arc;

use keelson_client::{Key, WorkQueue};
use serde_json::json;

use crate::context::{Context, enqueue};
use crate::kit::Error;
use crate::views::ServiceAccount;

const NAME: &str = "default";

pub async fn run(context: Arc<Context>) {
    let queue = WorkQueue::new();
    enqueue(&context.informers.namespaces, &queue);
    let deleted = queue.clone();
    context.informers.service_accounts.on_change(move |change| {
        if let keelson_client::Change::Deleted(account) = change
            && account.metadata.name == NAME
        {
            deleted.add(Key::cluster(account.metadata.namespace.clone().unwrap_or_default()));
        }
    });
    let this = context.clone();
    context.work("serviceaccount", queue, 1, move |key| sync(this.clone(), key)).await;
}

async fn sync(context: Arc<Context>, key: Key) -> Result<(), Error> {
    let informers = &context.informers;
    let Some(namespace) = informers.namespaces.get(&key) else { return Ok(()) };
    let account = Key::new(&key.name, NAME);
    if namespace.metadata.is_deleting() || informers.service_accounts.get(&account).is_some() {
        return Ok(());
    }
    let object = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": NAME } });
    match context.requests.create::<ServiceAccount>(&key.name, &object).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_conflict() || error.is_not_found() || error.is_namespace_terminating() => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}
