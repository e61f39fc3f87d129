//! Objects that are new.

use keelson_api_types::StatusError;
use keelson_store::{Expect, Write, WriteError};
use serde_json::Value;

use super::super::stored::Stored;
use super::{Change, Writer, reserved, write_error};
use crate::codec;
use crate::meta;
use crate::types::Operation;

/// Attempts at a generated name before the client is told to try again.
const NAME_ATTEMPTS: usize = 8;

impl Writer<'_> {
    /// Stores a new object, given in the stored version and pruned.
    pub async fn create(&self, object: Value, warnings: &mut Vec<String>) -> Result<Stored, StatusError> {
        self.create_change(Change { object, tracked: false }, warnings).await
    }

    pub(super) async fn create_change(
        &self,
        change: Change,
        warnings: &mut Vec<String>,
    ) -> Result<Stored, StatusError> {
        let Change { mut object, tracked } = change;
        let resource = self.resource;
        let strategy = &resource.strategy;
        strategy.default(&mut object);
        meta::match_namespace(&mut object, resource.namespaced, self.namespace)?;
        meta::prepare_create(&mut object, resource.traits.generation);
        if resource.custom.as_ref().is_some_and(|c| c.is_terminating()) {
            let why = "create not allowed while custom resource definition is terminating";
            let name = meta::text(&object, "name");
            return Err(StatusError::forbidden(&resource.group_resource(), name, why));
        }
        warnings.extend(meta::dedup_owners(&mut object, false));
        // Before admission, whose changes belong to no manager.
        let owner = match tracked {
            true => Vec::new(),
            false => self.track_new(&mut object).await?,
        };
        let asked = meta::text(&object, "name").to_owned();
        self.admission(Operation::Create, &asked, &mut object, None, true, warnings).await?;
        warnings.extend(meta::dedup_owners(&mut object, true));
        let given = meta::text(&object, "name").to_owned();
        let base = meta::text(&object, "generateName").to_owned();
        let generated = given.is_empty() && !base.is_empty();
        let name = if generated { self.name_it(&mut object, &base) } else { given };
        // After admission, whose changes (default requests, say) count for what is derived here.
        strategy.prepare_create(&self.ctx(&name), &mut object);
        strategy.default(&mut object);
        let mut errors = meta::validate(resource, &object);
        errors.extend(strategy.validate(&object));
        self.refuse(&name, errors)?;
        warnings.extend(strategy.warnings(&object, None));
        let ctx = self.ctx(&name);
        let reservation = reserved(strategy.reserve_create(&ctx, &mut object)).await?;
        let write = async {
            self.admission(Operation::Create, &asked, &mut object, None, false, warnings).await?;
            self.insert(&mut object, &owner, name.clone(), generated.then_some(base)).await
        };
        let outcome = write.await;
        self.settle(reservation, outcome.is_ok()).await;
        outcome
    }

    /// Who owns a new object, as the JSON that is to be stored with it; or empty, and it stands in the object, where
    /// somebody may want to see it there.
    async fn track_new(&self, new: &mut Value) -> Result<Vec<u8>, StatusError> {
        let shown = self.resource.custom.is_some() || self.app.security()?.admission().shows_objects();
        match codec::owner_of_new(self, new) {
            Some(owner) if !shown => return Ok(owner),
            Some(owner) if owner.is_empty() => {}
            Some(owner) => {
                let fields = serde_json::from_slice(&owner).map_err(StatusError::internal)?;
                meta::meta_mut(new).insert("managedFields".into(), fields);
            }
            None => self.track(None, new).await,
        }
        Ok(Vec::new())
    }

    fn name_it(&self, object: &mut Value, base: &str) -> String {
        let name = meta::generate_name(base);
        meta::meta_mut(object).insert("name".into(), name.clone().into());
        name
    }

    /// Writes a new object, with another name if a generated one is taken.
    async fn insert(
        &self,
        object: &mut Value,
        owner: &[u8],
        mut name: String,
        base: Option<String>,
    ) -> Result<Stored, StatusError> {
        for _ in 0..NAME_ATTEMPTS {
            match self.insert_once(object, owner, &name).await? {
                Some(stored) => return Ok(stored),
                None => match &base {
                    Some(base) => name = self.name_it(object, base),
                    None => return Err(StatusError::already_exists(&self.resource.group_resource(), &name)),
                },
            }
        }
        Err(StatusError::generate_name_conflict(&self.resource.group_resource(), &name, 1))
    }

    /// `None` if the name is taken.
    async fn insert_once(
        &self,
        object: &Value,
        owner: &[u8],
        name: &str,
    ) -> Result<Option<Stored>, StatusError> {
        let bytes = match owner {
            [] => self.encode(object).await?,
            owner => codec::encode_with(object, owner).into(),
        };
        self.check_size(&bytes)?;
        let key = self.resource.store_key(self.namespace, name);
        if self.options.dry_run {
            let got = self.app.caches.store().get(&key).await.map_err(|e| crate::cache::storage_error(&e))?;
            let free = got.kv.is_none();
            return Ok(free.then(|| Stored::new(codec::encode_with(object, owner).into(), 0)));
        }
        let write =
            Write { key, expect: Expect::Absent, value: Some(bytes.clone()), lease: self.lease().await? };
        match self.app.caches.store().write(write).await {
            Ok(written) => Ok(Some(self.written(name, &bytes, written.revision).await?)),
            Err(WriteError::Conflict { .. }) => Ok(None),
            Err(error) => Err(write_error(&error)),
        }
    }
}
