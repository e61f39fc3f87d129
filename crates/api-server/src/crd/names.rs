//! Which names a definition gets: those that nothing else in its group has.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{group, list};
use crate::app::App;
use crate::meta::string;

/// The names in use, by group: resources (with short names) and kinds.
pub struct Taken(HashMap<String, (HashSet<String>, HashSet<String>)>);

/// What a definition may call itself.
pub struct Verdict {
    /// `status.acceptedNames`.
    pub names: Value,
    /// Reason and message of the conflict found last.
    pub conflict: Option<(&'static str, String)>,
}

impl Verdict {
    pub fn is_accepted(&self) -> bool {
        self.conflict.is_none()
    }
}

impl Taken {
    /// By the built-in resources and by what the definitions have been given.
    pub fn by<'a>(app: &App, definitions: impl Iterator<Item = &'a Value>) -> Self {
        let mut taken = Self(HashMap::new());
        for builtin in app.registry.builtin() {
            let (resources, kinds) = taken.0.entry(builtin.gvr.group.clone()).or_default();
            resources.extend([builtin.gvr.resource.clone(), builtin.singular.clone()]);
            kinds.extend([builtin.gvk.kind.clone(), builtin.list_kind.clone()]);
        }
        for definition in definitions {
            taken.add(group(definition), &definition["status"]["acceptedNames"]);
        }
        taken
    }

    fn add(&mut self, group: &str, names: &Value) {
        let (resources, kinds) = self.0.entry(group.to_owned()).or_default();
        let owned = |fields: [&str; 2]| fields.map(|f| string(names, f).to_owned());
        resources.extend(
            owned(["plural", "singular"])
                .into_iter()
                .chain(list(names, "shortNames").into_iter().map(str::to_owned)),
        );
        kinds.extend(owned(["kind", "listKind"]));
    }

    /// Gives a definition what it asks for where that is free; elsewhere it keeps what it had.
    pub fn settle(&mut self, definition: &Value) -> Verdict {
        let (wanted, had) = (&definition["spec"]["names"], &definition["status"]["acceptedNames"]);
        let mut names: Map<String, Value> = had.as_object().cloned().unwrap_or_default();
        let mut conflict = None;
        let none = Default::default();
        let (resources, kinds) = self.0.get(group(definition)).unwrap_or(&none);
        let in_use = |name: &str, used: &HashSet<String>| {
            used.contains(name).then(|| format!("{name:?} is already in use"))
        };
        for (field, reason, used) in [
            ("plural", "PluralConflict", resources),
            ("singular", "SingularConflict", resources),
            ("shortNames", "ShortNamesConflict", resources),
            ("kind", "KindConflict", kinds),
            ("listKind", "ListKindConflict", kinds),
        ] {
            let asked = match field {
                "shortNames" => list(wanted, field),
                _ => vec![string(wanted, field)],
            };
            let own = match field {
                "shortNames" => list(had, field),
                _ => vec![string(had, field)],
            };
            let taken: Vec<String> = asked
                .iter()
                .filter(|name| !own.contains(*name))
                .filter_map(|name| in_use(name, used))
                .collect();
            match taken.as_slice() {
                [] => match wanted.get(field) {
                    Some(value) => drop(names.insert(field.into(), value.clone())),
                    None => drop(names.remove(field)),
                },
                [one] => conflict = Some((reason, one.clone())),
                many => conflict = Some((reason, format!("[{}]", many.join(", ")))),
            }
        }
        match wanted.get("categories") {
            Some(value) => drop(names.insert("categories".into(), value.clone())),
            None => drop(names.remove("categories")),
        }
        for required in ["plural", "kind"] {
            names.entry(required).or_insert_with(|| "".into());
        }
        let names = Value::Object(names);
        self.add(group(definition), &names);
        Verdict { names, conflict }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(names: Value) -> Value {
        json!({"spec": {"group": "a.io", "names": names}})
    }

    #[test]
    fn a_name_is_given_once_in_a_group() {
        let mut taken = Taken(HashMap::new());
        let first = json!({"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList", "shortNames": ["f"]});
        assert!(taken.settle(&definition(first.clone())).is_accepted());
        let cases = [
            (
                json!({"plural": "foo", "singular": "bar", "kind": "Bar", "listKind": "BarList"}),
                "PluralConflict",
                r#""foo" is already in use"#,
            ),
            (
                json!({"plural": "bars", "singular": "f", "kind": "Bar", "listKind": "BarList"}),
                "SingularConflict",
                r#""f" is already in use"#,
            ),
            (
                json!({"plural": "bars", "singular": "bar", "kind": "Bar", "listKind": "BarList", "shortNames": ["f", "foo"]}),
                "ShortNamesConflict",
                r#"["f" is already in use, "foo" is already in use]"#,
            ),
            (
                json!({"plural": "bars", "singular": "bar", "kind": "Foo", "listKind": "BarList"}),
                "KindConflict",
                r#""Foo" is already in use"#,
            ),
            (
                json!({"plural": "bars", "singular": "bar", "kind": "Bar", "listKind": "FooList"}),
                "ListKindConflict",
                r#""FooList" is already in use"#,
            ),
        ];
        for (names, reason, message) in cases {
            let mut others = Taken(taken.0.clone());
            let verdict = others.settle(&definition(names));
            assert_eq!(verdict.conflict, Some((reason, message.to_owned())));
        }
        let mut elsewhere = definition(first.clone());
        elsewhere["spec"]["group"] = "b.io".into();
        assert!(taken.settle(&elsewhere).is_accepted());
        let mut again = definition(first.clone());
        again["status"]["acceptedNames"] = first;
        assert!(taken.settle(&again).is_accepted(), "its own names are no conflict");
    }
}
