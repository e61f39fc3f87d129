//! Writes stored objects anew where a StorageVersionMigration asks for it: in the version, and with the key, that the
//! API server stores them with now (KEP-4192).
//!
//! - [`plan`]: what is next for the migrations of one resource, as a pure function.
//! - [`definition`]: what a migration says in the definition of a custom resource.

mod definition;
mod plan;

use std::sync::Arc;

use jiff::SignedDuration;
use keelson_api_types::GroupResource;
use keelson_client::{Informer, Meta, WorkQueue, rest};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::context::Context;
use crate::discovery::Resource;
use crate::kit::conditions::{is_true, set};
use crate::kit::{Condition, During, Error, error::gone_is_fine, only_if};
use crate::views::{CustomResourceDefinition, StorageVersionMigration, StorageVersionMigrationStatus};
use plan::Step;

/// Who writes objects, and who writes definitions, as `managedFields` has it.
const NAME: &str = "storage-version-migrator-controller";
const RUNNER: &str = "migration-runner-controller";
/// How long after a migration was made its resource may be missing: its definition may be as new.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);
const VERBS: [&str; 3] = ["update", "patch", "list"];
const PAGE: usize = 500;

/// Why a step was not done.
enum Failed {
    /// It never will be.
    Final(String),
    /// It may be if tried again.
    Retry(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Retry(error)
    }
}

impl Failed {
    fn for_good(self) -> Result<String, Error> {
        match self {
            Self::Final(message) => Ok(message),
            Self::Retry(error) => Err(error),
        }
    }
}

struct Migrator {
    context: Arc<Context>,
    migrations: Arc<Informer<StorageVersionMigration>>,
}

/// Keys are resources with their groups.
pub async fn run(context: Arc<Context>, migrations: Arc<Informer<StorageVersionMigration>>) {
    let queue = WorkQueue::<String>::new();
    let changed = queue.clone();
    migrations.on_change(move |change| changed.add(change.object().spec.resource.to_string()));
    migrations.synced().await;
    let migrator = Arc::new(Migrator { context: context.clone(), migrations });
    let reconcile = move |resource: String| {
        let migrator = migrator.clone();
        async move { migrator.sync(&resource).await }
    };
    context.work("storage-version-migrator", queue, context.config.workers, reconcile).await;
}

impl Migrator {
    async fn sync(&self, resource: &str) -> Result<(), Error> {
        let mut all = self.migrations.list();
        all.retain(|m| m.spec.resource.to_string() == resource);
        match plan::next(&all) {
            Some((step, migration)) => self.take(step, migration).await,
            None => Ok(()),
        }
    }

    /// Takes one step and says so; the change brings the next.
    async fn take(&self, step: Step, migration: &StorageVersionMigration) -> Result<(), Error> {
        let (meta, resource) = (&migration.metadata, &migration.spec.resource);
        let mut status = migration.status.clone();
        let fail = |message| Condition::new("Failed", true, "StorageVersionMigrationFailed", message);
        let said = match step {
            Step::Start => {
                self.tell(resource, |d| definition::running(d, &meta.name)).await?;
                Condition::new("Running", true, "MigrationRunning", "The migration is running")
            }
            Step::Note => match self.latest_version(migration).await {
                Ok(version) => {
                    status.resource_version = version;
                    return self.say(meta, &status).await;
                }
                Err(failed) => fail(failed.for_good()?),
            },
            Step::Rewrite => match self.rewrite(migration).await {
                Ok(()) => Condition::new("Succeeded", true, "StorageVersionMigrationSucceeded", ""),
                Err(failed) => fail(format!("migration encountered unhandled error: {}", failed.for_good()?)),
            },
            Step::Finish => {
                let succeeded = is_true(&status.conditions, "Succeeded");
                self.tell(resource, |d| definition::ended(d, succeeded)).await?;
                Condition::new("Running", false, "MigrationCompleted", "Migration completed")
            }
        };
        set(&mut status.conditions, said);
        self.say(meta, &status).await
    }
}

impl Migrator {
    async fn say(&self, meta: &Meta, status: &StorageVersionMigrationStatus) -> Result<(), Error> {
        let requests = &self.context.requests;
        gone_is_fine(requests.patch_status::<StorageVersionMigration>(meta, status).await).map(drop)
    }

    /// Applies to the status of a resource's definition, if it has one, what `status` makes of its present state.
    async fn tell(&self, resource: &GroupResource, status: impl Fn(&Value) -> Value) -> Result<(), Error> {
        let (client, name) = (self.context.requests.client(), resource.to_string());
        let path = |part| rest::path::<CustomResourceDefinition>("", Some(&name), part);
        let found = rest::get::<Value>(client, &path(None)).await;
        let found = gone_is_fine(found.during(|| format!("get the definition {name}")))?;
        let Some(definition) = found else { return Ok(()) };
        let body = json!({
            "apiVersion": definition["apiVersion"],
            "kind": definition["kind"],
            "metadata": {"name": name, "resourceVersion": definition["metadata"]["resourceVersion"]},
            "status": status(&definition),
        });
        let path = format!("{}?fieldManager={RUNNER}&force=true", path(Some("status")));
        let applied = rest::patch::<IgnoredAny>(client, &path, rest::patch::APPLY, &body).await;
        gone_is_fine(applied.during(|| format!("apply the status of the definition {name}"))).map(drop)
    }

    async fn resource(&self, migration: &StorageVersionMigration) -> Result<Resource, Failed> {
        let wanted = &migration.spec.resource;
        // What was discovered before may be of another state of its definition.
        self.context.discovery.forget();
        let resources = self.context.discovery.resources().await?;
        let mut preferred = resources.preferred.iter();
        if let Some(found) = preferred.find(|r| r.group == wanted.group && r.plural == wanted.resource) {
            return Ok(found.clone());
        }
        let created = migration.metadata.creation_timestamp.as_ref();
        if created.is_some_and(|t| jiff::Timestamp::now().duration_since(t.0) < PATIENCE) {
            return Err(Error::NotYet(format!("nobody serves {wanted}")).into());
        }
        Err(Failed::Final("resource does not exist in discovery".to_owned()))
    }

    /// The version up to which objects are as they were stored before the migration.
    async fn latest_version(&self, migration: &StorageVersionMigration) -> Result<String, Failed> {
        let resource = self.resource(migration).await?;
        let called = format!("{}/{}, Resource={}", resource.group, resource.version, resource.plural);
        if !VERBS.iter().all(|verb| resource.has(verb)) {
            let verbs = VERBS.join(" ");
            let message = format!("resource {called:?} does not support discovery operations: [{verbs}]");
            return Err(Failed::Final(message));
        }
        let page = resource.page(self.context.requests.client(), 1, "").await;
        let latest = page.during(|| format!("list {called}"))?.metadata.resource_version;
        match number(&latest) {
            Ok(_) => Ok(latest),
            Err(error) => {
                Err(Failed::Final(format!("latest resourceVersion for {called} is not valid: {error}")))
            }
        }
    }

    async fn rewrite(&self, migration: &StorageVersionMigration) -> Result<(), Failed> {
        let resource = self.resource(migration).await?;
        let upto = number(&migration.status.resource_version).map_err(Failed::Final)?;
        let mut next = String::new();
        loop {
            let page = resource.page(self.context.requests.client(), PAGE, &next).await;
            let page = page.during(|| format!("list {}", resource.plural))?;
            for object in page.items.into_iter().flatten() {
                // What has been written since is as it is to be.
                if number(&object.metadata.resource_version).map_err(Failed::Final)? <= upto {
                    self.rewrite_one(&resource, &object.metadata).await?;
                }
            }
            next = page.metadata.r#continue;
            if next.is_empty() {
                return Ok(());
            }
        }
    }

    /// Applies nothing to an object, which the API server writes if it would store it otherwise than it is.
    async fn rewrite_one(&self, resource: &Resource, meta: &Meta) -> Result<(), Failed> {
        let path = resource.path(meta.namespace.as_deref().unwrap_or_default(), Some(&meta.name));
        let body = json!({
            "apiVersion": resource.api_version(),
            "kind": resource.kind,
            "metadata": only_if(meta),
        });
        let apply = format!("{path}?fieldManager={NAME}");
        let client = self.context.requests.client();
        let applied = rest::patch::<IgnoredAny>(client, &apply, rest::patch::APPLY, &body).await;
        match applied.during(|| format!("write {path} anew")) {
            // It has been written by another, or deleted.
            Err(error) if error.is_conflict() => Ok(()),
            Err(error) if is_final(&error) => Err(Failed::Final(error.answer())),
            outcome => Ok(outcome.map(drop)?),
        }
    }
}

/// Whether the API server's answer will be the same next time.
fn is_final(error: &Error) -> bool {
    error.code().is_some_and(|code| !matches!(code, 429 | 500 | 503 | 504))
}

/// A resource version, as those of one resource compare.
fn number(version: &str) -> Result<u64, String> {
    let number = version.parse().ok().filter(|n| *n > 0 && !version.starts_with(['0', '+']));
    number.ok_or_else(|| format!("resource version is not well formed: {version}"))
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn what_may_pass_is_tried_again() {
        for (code, expected) in
            [(404, true), (403, true), (422, true), (429, false), (500, false), (503, false)]
        {
            let status = Status::failure("no", "").with_code(code);
            let error = Err::<(), _>(kube::Error::Api(Box::new(status))).during(|| "try".to_owned());
            assert_eq!(is_final(&error.unwrap_err()), expected, "{code}");
        }
    }

    #[test]
    fn resource_versions_are_positive_numbers() {
        assert_eq!(number("10"), Ok(10));
        for bad in ["", "0", "07", "+7", "-1", "7a"] {
            assert_eq!(number(bad), Err(format!("resource version is not well formed: {bad}")));
        }
    }
}
