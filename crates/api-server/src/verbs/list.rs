//! GET of a collection: entries of one moment from the cache, spliced into a list.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keelson_api_types::StatusError;
use keelson_store::RangeOptions;
use serde::{Deserialize, Serialize};

use crate::app::{App, Call};
use crate::body::Response;
use crate::cache::{Entry, Selection, Snapshot, entry_of, storage_error, unsupported_field};
use crate::convert;
use crate::options::{ListOptions, VersionMatch};
use crate::presenter::ListMeta;
use crate::registry::Resource;

pub async fn serve(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
) -> Result<Response, StatusError> {
    let presenter = call.presenter(resource)?.check(true)?;
    let options = ListOptions::parse(&call.query, &call.info)?;
    let (meta, entries) = read(app, resource, &call.info.namespace, &options).await?;
    Ok(presenter.list(&call.headers, &meta, entries))
}

/// The selection that a request's options make of a resource.
pub fn selection(
    resource: &Resource,
    namespace: &str,
    options: &ListOptions,
) -> Result<Selection, StatusError> {
    let namespace = if resource.namespaced { namespace } else { "" };
    let mut fields = options.fields.clone();
    for term in &mut fields.terms {
        let stored = resource.conversion.stored_field(&term.field).map(std::borrow::Cow::into_owned);
        term.field = stored.ok_or_else(|| unsupported_field(&term.field))?;
    }
    Selection::new(namespace, options.labels.clone(), &fields, &resource.selectable)
}

/// Which state a list shows.
#[derive(Debug, PartialEq, Eq)]
enum Moment {
    /// The cache's, at least this fresh.
    NotOlder(u64),
    Exact(u64),
}

/// Reads a list by upstream's rules of resourceVersion, limit and continue.
pub async fn read(
    app: &App,
    resource: &Resource,
    namespace: &str,
    options: &ListOptions,
) -> Result<(ListMeta, Vec<Arc<Entry>>), StatusError> {
    let selection = selection(resource, namespace, options)?;
    let mut limit = options.limit;
    let mut after = None;
    let mut inconsistent = false;
    let moment = if !options.continue_token.is_empty() {
        let token = Token::decode(&options.continue_token)?;
        if !options.resource_version.is_empty() && options.resource_version != "0" {
            let message = "specifying resource version is not allowed when using continue";
            return Err(StatusError::bad_request(message));
        }
        after = Some(token.after(&selection.prefix()));
        if token.rv < 0 {
            inconsistent = true;
            Moment::NotOlder(app.caches.fresh().await?)
        } else {
            Moment::Exact(token.rv as u64)
        }
    } else {
        match options.revision()? {
            None => Moment::NotOlder(app.caches.fresh().await?),
            Some(0) => {
                // As upstream: any state will do, and then all of it.
                limit = 0;
                Moment::NotOlder(0)
            }
            Some(revision) if options.version_match == Some(VersionMatch::Exact) => Moment::Exact(revision),
            Some(revision) if options.version_match.is_none() && limit > 0 => Moment::Exact(revision),
            Some(revision) => Moment::NotOlder(app.caches.wait_for(revision).await?),
        }
    };
    let continued = after.is_some() && !inconsistent;
    let after = after.as_deref();
    // Selectors speak of the version asked for, which a converter may fill as it likes.
    let convert_first = resource.custom.is_some() && selection.is_filtered();
    let (all, scope) = (selection.in_namespace(), limit * usize::from(!convert_first));
    let read = if convert_first { &all } else { &selection };
    let (revision, mut snapshot) = snapshot(app, resource, read, moment, after, scope, continued).await?;
    snapshot.entries = convert::shown(app, resource, snapshot.entries).await?;
    if convert_first {
        snapshot.narrow(limit, |entry| selection.matches_in_scope(entry));
    }
    Ok((list_meta(&snapshot, &selection, revision, limit), snapshot.entries))
}

fn list_meta(snapshot: &Snapshot, selection: &Selection, revision: u64, limit: usize) -> ListMeta {
    let mut meta = ListMeta { revision, ..ListMeta::default() };
    if limit > 0 && snapshot.remaining > 0 {
        let last = snapshot.entries.last().map_or("", |e| &e.key);
        meta.continue_token = Token::new(revision as i64, last, &selection.prefix()).encode();
        // A filtered list does not say how many follow, for it would have to look at all of them.
        meta.remaining = (!selection.is_filtered()).then_some(snapshot.remaining);
    }
    meta
}

async fn snapshot(
    app: &App,
    resource: &Resource,
    selection: &Selection,
    moment: Moment,
    after: Option<&str>,
    limit: usize,
    continued: bool,
) -> Result<(u64, Snapshot), StatusError> {
    let prefix = selection.prefix();
    let matches = |entry: &Entry| selection.matches_in_scope(entry);
    let exact = match moment {
        Moment::NotOlder(_) => {
            let applied = app.caches.applied();
            // What lies below one key is that object, and those whose names only begin like its.
            let prefix = selection.exact_key(resource.namespaced).unwrap_or(prefix);
            let snapshot = resource.cache.list(&prefix, after, limit, matches);
            return Ok((applied.max(snapshot.last_change), snapshot));
        }
        Moment::Exact(revision) => revision,
    };
    if app.caches.is_expired(exact) {
        return Err(expired(continued, exact, app.caches.applied(), after, &prefix));
    }
    app.caches.wait_for(exact).await?;
    if let Ok(snapshot) = resource.cache.list_at(exact, &prefix, after, limit, matches) {
        return Ok((exact, snapshot));
    }
    match from_store(app, resource, &prefix, after, limit, exact, matches).await {
        Ok(snapshot) => Ok((exact, snapshot)),
        Err(keelson_store::Error::Compacted { .. }) => {
            Err(expired(continued, exact, app.caches.applied(), after, &prefix))
        }
        Err(error) => Err(storage_error(&error)),
    }
}

/// What history in memory no longer holds, the store may.
async fn from_store(
    app: &App,
    resource: &Resource,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
    at: u64,
    matches: impl Fn(&Entry) -> bool,
) -> Result<Snapshot, keelson_store::Error> {
    let base = resource.store_prefix();
    let mut options =
        RangeOptions { start_after: after.map(|key| format!("{base}{key}")), limit: 1000, at: Some(at) };
    let mut snapshot = Snapshot { entries: Vec::new(), last_change: at, remaining: 0 };
    loop {
        let page = app.caches.store().range(&format!("{base}{prefix}"), options.clone()).await?;
        options.start_after = page.kvs.last().map(|kv| kv.key.clone());
        for kv in &page.kvs {
            let key = &kv.key[base.len()..];
            let Some(entry) = entry_of(Some(&resource.index), key, kv).filter(|e| matches(e)) else {
                continue;
            };
            if limit > 0 && snapshot.entries.len() == limit {
                snapshot.remaining += 1;
            } else {
                snapshot.entries.push(Arc::new(entry));
            }
        }
        if !page.more {
            return Ok(snapshot);
        }
    }
}

/// 410, for a continued list with a token to go on with what is there now.
fn expired(continued: bool, revision: u64, current: u64, after: Option<&str>, prefix: &str) -> StatusError {
    if !continued {
        let _ = (revision, current);
        return StatusError::expired("The resourceVersion for the provided list is too old.");
    }
    let mut status = StatusError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new \
         list without the continue parameter, or use the continue token in this response to retrieve the \
         remainder of the results. Continuing with the provided token results in an inconsistent list - objects \
         that were created, modified, or deleted between the time the first chunk was returned and now may show \
         up in the list.",
    )
    .into_status();
    status.metadata.continue_token = Token::new(-1, after.unwrap_or_default(), prefix).encode();
    StatusError::from(status)
}

/// Where a list goes on; upstream's format, so that either server understands the other's.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    v: String,
    /// -1: whatever is there now.
    rv: i64,
    /// The first key that may follow, below the list's prefix.
    start: String,
}

impl Token {
    fn new(rv: i64, last: &str, prefix: &str) -> Self {
        let start = format!("{}\0", last.strip_prefix(prefix).unwrap_or(last));
        Self { v: "meta.k8s.io/v1".into(), rv, start }
    }

    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self, StatusError> {
        let invalid = |why: String| StatusError::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|e| invalid(e.to_string()))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|e| invalid(e.to_string()))?;
        match (token.v.as_str(), token.rv) {
            ("meta.k8s.io/v1", 0) => {
                Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)".into()))
            }
            ("meta.k8s.io/v1", _) => Ok(token),
            (other, _) => Err(invalid(format!("server does not recognize this encoded version {other:?}"))),
        }
    }

    /// The last key that was shown.
    fn after(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.start.trim_end_matches('\0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_where_to_go_on() {
        let token = Token::decode(&Token::new(7, "ns/pod", "ns/").encode()).unwrap();
        assert_eq!((token.rv, token.start.as_str(), token.after("ns/").as_str()), (7, "pod\0", "ns/pod"));
        assert!(Token::decode("bm9uc2Vuc2U").is_err());
    }
}
