//! Upstream's fully populated objects, one per kind.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::cache::{Index, Indexer};
use crate::registry::StrategyRef;

/// `shared/testdata/roundtrip` beside the checkout, or beside one of its parents.
fn folder() -> Option<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|parent| parent.join("shared/testdata/roundtrip"))
        .find(|folder| folder.is_dir())
}

#[test]
fn fully_populated_objects_pass_through() {
    let Some(folder) = folder() else {
        println!("skipped: no shared/testdata/roundtrip beside the checkout");
        return;
    };
    let mut seen = 0;
    for info in keelson_api_types::resources::ALL.iter() {
        let group = if info.group.is_empty() { "core" } else { info.group };
        let file = folder.join(format!("{group}.{}.{}.json", info.version, info.kind));
        let Ok(bytes) = std::fs::read(&file) else { continue };
        let mut object: Value = serde_json::from_slice(&bytes).unwrap();
        let strategy = for_resource(info.group, info.resource).strategy;
        strategy.default(&mut object);
        let once = object.clone();
        strategy.default(&mut object);
        assert_eq!(once, object, "{}: defaults are not idempotent", info.kind);
        let indexer = Arc::new(StrategyRef::Builtin(strategy));
        let read = Index::new(indexer.clone()).read("".into(), 1, object.to_string().into()).unwrap();
        assert_eq!(read.fields, indexer.fields(&object), "{}: its selectable sources are not all", info.kind);
        super::never_panics::exercise(info.group, info.resource, &object, &once);
        seen += 1;
    }
    assert!(seen > 50, "only {seen} kinds found in {}", folder.display());
}
