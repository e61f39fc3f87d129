//! Conversions for code that cannot wait. Server-side apply compares in the versions of all managers; a custom
//! resource's webhook takes its time.

use std::fmt;

use keelson_api_types::StatusError;
use keelson_machinery::apply::{self, Converted};
use parking_lot::Mutex;
use serde_json::Value;

use crate::custom::{Versions, failed};
use crate::types::Objects;

/// What one request has converted, each object to each version once.
pub struct Conversions<'a> {
    versions: &'a Versions,
    done: Mutex<Vec<(Wanted, Result<Value, StatusError>)>>,
    open: Mutex<Vec<Wanted>>,
}

/// An object and the version that it is wanted in.
type Wanted = (Value, String);

impl<'a> Conversions<'a> {
    pub fn new(versions: &'a Versions) -> Self {
        Self { versions, done: Mutex::default(), open: Mutex::default() }
    }

    /// What `act` gives once all is there that it converts; it is called anew after each wait.
    pub async fn settle<T>(&self, objects: &dyn Objects, mut act: impl FnMut() -> T) -> T {
        loop {
            let outcome = act();
            let open = std::mem::take(&mut *self.open.lock());
            if open.is_empty() {
                return outcome;
            }
            for (object, to) in open {
                let converted = self.converted(objects, &object, &to).await;
                self.done.lock().push(((object, to), converted));
            }
        }
    }
}

impl Conversions<'_> {
    /// What the version does not know is no more dropped than it is when an object is applied.
    async fn converted(&self, objects: &dyn Objects, object: &Value, to: &str) -> Result<Value, StatusError> {
        let list = self.versions.convert_whole(objects, vec![object.clone()], to).await?;
        let object = list.into_iter().next().unwrap_or_default();
        if let Some(version) = self.versions.types.get(to) {
            apply::typed(&version.ty, &object).map_err(failed)?;
        }
        Ok(object)
    }
}

impl apply::Versions for Conversions<'_> {
    fn convert(&self, object: &Value, _from: &str, to: &str) -> Converted<'_, Value> {
        // What is before anything is set is of every version.
        let converted = if object.get("apiVersion").is_none() {
            Ok(object.clone())
        } else {
            let done = self.done.lock();
            let known = done.iter().find(|((asked, version), _)| version == to && asked == object);
            known.map(|(_, converted)| converted.clone()).unwrap_or_else(|| {
                self.open.lock().push((object.clone(), to.to_owned()));
                Err(StatusError::internal(format!("not converted to {to} yet")))
            })
        };
        Ok(self
            .versions
            .types
            .get(to)
            .map(|version| &*version.ty)
            .zip(Some(converted?))
            .map(|(ty, o)| (o, ty)))
    }
}

impl fmt::Debug for Conversions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversions").field("kind", &self.versions.kind).finish_non_exhaustive()
    }
}
