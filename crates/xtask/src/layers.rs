//! The layers of the crates: dependencies point downward only.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Deserialize;

/// Every crate with its layer, as ARCHITECTURE.md has it. A crate may use those of lower layers, of its own layer only
/// what [`WITHIN_A_LAYER`] lists.
const LAYERS: &[(&str, u8)] = &[
    ("api-types", 0),
    ("schema", 0),
    ("machinery", 1),
    ("store", 1),
    ("sched-core", 1),
    ("cel", 1),
    ("net-plan", 1),
    ("host", 1),
    ("tls", 1),
    ("cri", 2),
    ("kms", 2),
    ("traces", 2),
    ("client", 2),
    ("streams", 2),
    ("daemon", 3),
    ("pki", 3),
    ("api-server", 4),
    ("scheduler", 4),
    ("controller-manager", 4),
    ("node-agent", 4),
    ("net-proxy", 4),
    ("dns", 4),
    ("cli", 4),
    ("guest", 4),
    ("testkit", DEV),
    ("bench", DEV),
    ("chaos", DEV),
    ("fuzz", DEV),
    ("xtask", DEV),
];

/// Test and developer crates: they may use what they like, and nothing but tests uses them.
const DEV: u8 = 9;

const WITHIN_A_LAYER: &[(&str, &str)] = &[("machinery", "cel"), ("schema", "api-types")];

/// The only crate that may use `store`: all others reach the cluster through it.
const USER_OF_STORE: &str = "api-server";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// None for a normal dependency, else "dev" or "build".
    kind: Option<String>,
    path: Option<String>,
}

/// What breaks the layers, in words; takes `cargo metadata --no-deps`.
pub fn violations(metadata: &str) -> anyhow::Result<Vec<String>> {
    let metadata: Metadata = serde_json::from_str(metadata).context("read cargo's metadata")?;
    let layers: BTreeMap<&str, u8> = LAYERS.iter().copied().collect();
    let short = |name: &str| name.strip_prefix("keelson-").unwrap_or(name).to_owned();
    let mut found = Vec::new();
    for package in &metadata.packages {
        let name = short(&package.name);
        let Some(layer) = layers.get(name.as_str()) else {
            found.push(format!("{name} has no layer yet"));
            continue;
        };
        let own = package.dependencies.iter().filter(|d| d.path.is_some() && d.kind.is_none());
        for used in own.map(|d| short(&d.name)) {
            let below = layers.get(used.as_str()).is_some_and(|other| other < layer);
            let listed = WITHIN_A_LAYER.contains(&(name.as_str(), used.as_str()));
            if *layer != DEV && !below && !listed {
                found.push(format!("{name} must not use {used}: dependencies point downward only"));
            }
            if used == "store" && name != USER_OF_STORE && *layer != DEV {
                found.push(format!("{name} must not use store: the API server alone does"));
            }
        }
    }
    Ok(found)
}
