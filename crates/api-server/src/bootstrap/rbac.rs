//! The bootstrap roles and bindings, read from `data/rbac.txt`.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::authz::rbac::GROUP;
use crate::authz::rbac::rule::Rule;

static TABLE: &str = include_str!("../../data/rbac.txt");

/// One object of the table.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A ClusterRole, or a Role when `namespace` is not empty.
    Role {
        namespace: String,
        name: String,
        rules: Vec<Rule>,
        aggregates: Option<String>,
        to: Option<String>,
    },
    Binding {
        namespace: String,
        name: String,
        role: String,
        subjects: Vec<Value>,
    },
}

static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let mut entries = parse(TABLE);
    add_controller_manager(&mut entries);
    entries
});

/// What the controller that migrates stored objects may do: anything to any object. It has it only where migrations
/// can be asked for. (Upstream ties it to a feature gate.)
static MIGRATION: LazyLock<Vec<Entry>> =
    LazyLock::new(|| parse(include_str!("../../data/rbac-migration.txt")));

pub fn migration_entries() -> &'static [Entry] {
    &MIGRATION
}

/// Every bootstrap role and binding.
pub fn entries() -> &'static [Entry] {
    &ENTRIES
}

/// The rules that the Node authorizer and the role `system:node` share.
pub fn node_rules() -> Vec<Rule> {
    entries()
        .iter()
        .find_map(|e| match e {
            Entry::Role { name, rules, .. } if name == "system:node" => Some(rules.clone()),
            _ => None,
        })
        .unwrap_or_default()
}

/// Keelson's controllers share one identity instead of one service account each, so that identity
/// gets what upstream spreads over the `system:controller:*` roles.
fn add_controller_manager(entries: &mut Vec<Entry>) {
    let mut union: Vec<Rule> = Vec::new();
    for entry in entries.iter() {
        if let Entry::Role { namespace, name, rules, .. } = entry
            && namespace.is_empty()
            && name.starts_with("system:controller:")
        {
            for rule in rules {
                if !union.contains(rule) {
                    union.push(rule.clone());
                }
            }
        }
    }
    let name = "system:keelson-controllers".to_owned();
    entries.push(Entry::Role {
        namespace: String::new(),
        name: name.clone(),
        rules: union,
        aggregates: None,
        to: None,
    });
    entries.push(Entry::Binding {
        namespace: String::new(),
        name: name.clone(),
        role: name,
        subjects: vec![subject("user:system:kube-controller-manager")],
    });
}

fn parse(table: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    for line in table.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if let Some(rule) = line.strip_prefix("  ") {
            match entries.last_mut() {
                Some(Entry::Role { rules, .. }) => rules.push(parse_rule(rule)),
                _ => panic!("rbac.txt: a rule outside a role: {line}"),
            }
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        entries.push(match words.as_slice() {
            ["clusterrole", name, options @ ..] => Entry::Role {
                namespace: String::new(),
                name: (*name).into(),
                rules: Vec::new(),
                aggregates: option(options, "aggregates="),
                to: option(options, "to="),
            },
            ["role", namespace, name] => Entry::Role {
                namespace: (*namespace).into(),
                name: (*name).into(),
                rules: Vec::new(),
                aggregates: None,
                to: None,
            },
            ["clusterbinding", name, role, subjects @ ..] => Entry::Binding {
                namespace: String::new(),
                name: (*name).into(),
                role: (*role).into(),
                subjects: subjects.iter().map(|s| subject(s)).collect(),
            },
            ["binding", namespace, name, role, subjects @ ..] => Entry::Binding {
                namespace: (*namespace).into(),
                name: (*name).into(),
                role: (*role).into(),
                subjects: subjects.iter().map(|s| subject(s)).collect(),
            },
            _ => panic!("rbac.txt: unknown line: {line}"),
        });
    }
    entries
}

fn option(options: &[&str], key: &str) -> Option<String> {
    options.iter().find_map(|o| o.strip_prefix(key)).map(str::to_owned)
}

fn parse_rule(text: &str) -> Rule {
    let list = |s: &str| -> Vec<String> { s.split(',').map(str::to_owned).collect() };
    let groups = |s: &str| list(s).into_iter().map(|g| if g == "core" { String::new() } else { g }).collect();
    match text.split(' ').collect::<Vec<_>>().as_slice() {
        [verbs, "url", urls] => Rule { verbs: list(verbs), non_resource_urls: list(urls), ..Rule::default() },
        [verbs, api_groups, resources, names @ ..] => Rule {
            verbs: list(verbs),
            api_groups: groups(api_groups),
            resources: list(resources),
            resource_names: names.first().map(|n| list(n)).unwrap_or_default(),
            ..Rule::default()
        },
        _ => panic!("rbac.txt: unknown rule: {text}"),
    }
}

fn subject(text: &str) -> Value {
    match text.split_once(':') {
        Some(("user", name)) => json!({"kind": "User", "apiGroup": GROUP, "name": name}),
        Some(("group", name)) => json!({"kind": "Group", "apiGroup": GROUP, "name": name}),
        Some(("sa", path)) => {
            let (namespace, name) = path.split_once('/').unwrap_or(("kube-system", path));
            json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
        }
        _ => panic!("rbac.txt: unknown subject: {text}"),
    }
}

impl Entry {
    pub fn resource(&self) -> &'static str {
        match self {
            Self::Role { namespace, .. } if namespace.is_empty() => "clusterroles",
            Self::Role { .. } => "roles",
            Self::Binding { namespace, .. } if namespace.is_empty() => "clusterrolebindings",
            Self::Binding { .. } => "rolebindings",
        }
    }

    pub fn namespace(&self) -> &str {
        match self {
            Self::Role { namespace, .. } | Self::Binding { namespace, .. } => namespace,
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Role { name, .. } | Self::Binding { name, .. } => name,
        }
    }

    /// The object as it is created.
    pub fn object(&self) -> Value {
        let mut labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
        if let Self::Role { to: Some(tier), .. } = self {
            labels[format!("rbac.authorization.k8s.io/aggregate-to-{tier}")] = "true".into();
        }
        let mut object = json!({
            "apiVersion": format!("{GROUP}/v1"),
            "metadata": {
                "name": self.name(),
                "labels": labels,
                "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
            },
        });
        if !self.namespace().is_empty() {
            object["metadata"]["namespace"] = self.namespace().into();
        }
        match self {
            Self::Role { namespace, rules, aggregates, .. } => {
                let kind = if namespace.is_empty() { "ClusterRole" } else { "Role" };
                object["kind"] = kind.into();
                object["rules"] = json!(rules);
                if let Some(tier) = aggregates {
                    let label = format!("rbac.authorization.k8s.io/aggregate-to-{tier}");
                    object["aggregationRule"] =
                        json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
                }
            }
            Self::Binding { namespace, role, subjects, .. } => {
                let (kind, role_kind) = if namespace.is_empty() {
                    ("ClusterRoleBinding", "ClusterRole")
                } else {
                    ("RoleBinding", "Role")
                };
                object["kind"] = kind.into();
                object["roleRef"] = json!({"apiGroup": GROUP, "kind": role_kind, "name": role});
                if !subjects.is_empty() {
                    object["subjects"] = json!(subjects);
                }
            }
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_binding_finds_its_role() {
        for entry in entries() {
            if let Entry::Binding { namespace, role, .. } = entry {
                assert!(
                    entries().iter().any(|e| matches!(e, Entry::Role { namespace: ns, name, .. }
                        if ns == namespace && name == role)),
                    "{role}"
                );
            }
        }
    }

    #[test]
    fn the_table_holds_what_a_fresh_upstream_server_holds() {
        for file in ["rbac-cluster.json", "rbac-namespaced.json"] {
            let path = std::path::Path::new("../../../shared/facts").join(file);
            let Ok(text) = std::fs::read(&path) else {
                eprintln!("skipped: {} is absent", path.display());
                return;
            };
            let wanted: Vec<Value> = serde_json::from_slice(&text).expect("a list of objects");
            for want in &wanted {
                let name = want["metadata"]["name"].as_str().unwrap_or_default();
                if name.contains("openshift") || name.ends_with("service-ca-cert-publisher") {
                    continue; // of the distribution that the facts were taken from
                }
                let namespace = want["metadata"]["namespace"].as_str().unwrap_or_default();
                let got = entries()
                    .iter()
                    .map(|e| (e, e.object()))
                    .find(|(e, o)| {
                        e.name() == name && e.namespace() == namespace && o["kind"] == want["kind"]
                    })
                    .unwrap_or_else(|| panic!("{name} is missing"))
                    .1;
                for key in ["roleRef", "aggregationRule"] {
                    assert_eq!(got[key], want[key], "{name}");
                }
                assert_eq!(got["metadata"]["labels"], want["metadata"]["labels"], "{name}");
                let rules = |o: &Value| o["rules"].as_array().cloned().unwrap_or_default();
                if want.get("aggregationRule").is_none() {
                    assert_eq!(rules(&got), rules(want), "{name}");
                }
                let subjects = |o: &Value| o["subjects"].as_array().cloned().unwrap_or_default();
                assert_eq!(subjects(&got), subjects(want), "{name}");
            }
        }
    }
}
