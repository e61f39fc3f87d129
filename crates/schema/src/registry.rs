//! The built-in types: `data/types.tsv`, split into definitions at start and parsed one by one on first use.
//!
//! A definition opens with `@name<TAB>flags<TAB>group/version/kind;…`; each field is a line of
//! `name type flags proto list patch goType default`, tabs between, trailing empty columns left out.

use crate::model::{Field, Link, List, ListKind, Map, Object, Patch, Shape, Type};
use keelson_api_types::Gvk;
use std::borrow::Cow;
use std::sync::{LazyLock, OnceLock};

/// Every built-in definition, by name and by group, version and kind.
pub struct Registry {
    /// Sorted by name.
    definitions: Vec<Definition>,
    /// Sorted (group, version, kind) → index into `definitions`.
    kinds: Vec<(&'static str, &'static str, &'static str, u16)>,
}

/// One named type.
pub struct Definition {
    /// Short name: `apps.v1.Deployment`, `meta.v1.ObjectMeta`.
    pub name: &'static str,
    flags: &'static str,
    gvks: &'static str,
    body: &'static str,
    built: OnceLock<Type>,
}

static BUILTIN: LazyLock<Registry> = LazyLock::new(|| Registry::parse(include_str!("../data/types.tsv")));

macro_rules! scalars {
    ($($name:ident: $shape:ident),*) => { $(static $name: Type = Type::new(Shape::$shape);)* };
}
scalars!(STRING: String, INT32: Int32, INT64: Int64, FLOAT: Float, BOOL: Bool, BYTES: Bytes, QUANTITY: Quantity,
    INT_OR_STRING: IntOrString, TIME: Time, MICRO_TIME: MicroTime, DURATION: Duration, RAW: RawExtension,
    ANY: Any, FIELDS: FieldsV1);

/// The registry of built-in types.
pub fn builtin() -> &'static Registry {
    &BUILTIN
}

/// The OpenAPI name of a definition: `io.k8s.api.apps.v1.Deployment`.
pub fn full_name(short: &str) -> String {
    let prefix = match short.split('.').next().unwrap_or_default() {
        "meta" => "io.k8s.apimachinery.pkg.apis.",
        "apiextensions" => "io.k8s.apiextensions-apiserver.pkg.apis.",
        "apiregistration" => "io.k8s.kube-aggregator.pkg.apis.",
        "version" | "runtime" | "util" => "io.k8s.apimachinery.pkg.",
        _ => "io.k8s.api.",
    };
    format!("{prefix}{short}")
}

impl Registry {
    fn parse(text: &'static str) -> Registry {
        let mut definitions = Vec::with_capacity(600);
        let mut kinds = Vec::new();
        for chunk in text.split('@').filter(|c| !c.is_empty()) {
            let (head, body) = chunk.split_once('\n').unwrap_or((chunk, ""));
            let mut cols = head.split('\t');
            let mut next = || cols.next().unwrap_or_default();
            let (name, flags, gvks) = (next(), next(), next());
            for gvk in gvks.split(';').filter(|g| !g.is_empty()) {
                let mut parts = gvk.split('/');
                let mut part = || parts.next().unwrap_or_default();
                kinds.push((part(), part(), part(), definitions.len() as u16));
            }
            definitions.push(Definition { name, flags, gvks, body, built: OnceLock::new() });
        }
        kinds.sort_unstable();
        Registry { definitions, kinds }
    }

    /// The type of a kind, including its list kind; None for what is not built in.
    pub fn for_gvk(&'static self, gvk: &Gvk) -> Option<&'static Type> {
        self.for_kind(&gvk.group, &gvk.version, &gvk.kind)
    }

    pub fn for_kind(&'static self, group: &str, version: &str, kind: &str) -> Option<&'static Type> {
        self.definition_for_kind(group, version, kind).map(Definition::ty)
    }

    pub fn definition_for_kind(
        &'static self,
        group: &str,
        version: &str,
        kind: &str,
    ) -> Option<&'static Definition> {
        let at = self.kinds.binary_search_by(|k| (k.0, k.1, k.2).cmp(&(group, version, kind))).ok()?;
        self.definitions.get(self.kinds[at].3 as usize)
    }

    /// By short name (`core.v1.PodSpec`).
    pub fn by_name(&'static self, name: &str) -> Option<&'static Type> {
        self.definition(name).map(Definition::ty)
    }

    pub fn definition(&'static self, name: &str) -> Option<&'static Definition> {
        let at = self.definitions.binary_search_by(|d| d.name.cmp(name)).ok()?;
        self.definitions.get(at)
    }

    /// All definitions, by name.
    pub fn definitions(&'static self) -> &'static [Definition] {
        &self.definitions
    }

    /// `metadata` of every object.
    pub fn object_meta(&'static self) -> Link {
        self.link("meta.v1.ObjectMeta")
    }

    /// A reference to a definition; an unknown name (impossible in the shipped table) is any value.
    pub fn link(&'static self, name: &str) -> Link {
        self.definition(name).map_or(Link::Static(&ANY), Link::Builtin)
    }

    fn type_of(&'static self, code: &str, list: &'static str, atomic: bool) -> Link {
        if let Some(item) = code.strip_prefix("[]") {
            let item = self.type_of(item, "", false);
            return Link::Owned(Type::new(Shape::List(List { item, kind: list_kind(list) })).into());
        }
        if let Some(value) = code.strip_prefix("{}") {
            let value = self.type_of(value, "", false);
            return Link::Owned(Type::new(Shape::Map(Map { value, atomic })).into());
        }
        if let Some(name) = code.strip_prefix(':') {
            return self.link(name);
        }
        Link::Static(match code {
            "s" => &STRING,
            "i" => &INT32,
            "l" => &INT64,
            "d" => &FLOAT,
            "b" => &BOOL,
            "B" => &BYTES,
            "Q" => &QUANTITY,
            "I" => &INT_OR_STRING,
            "T" => &TIME,
            "M" => &MICRO_TIME,
            "D" => &DURATION,
            "R" => &RAW,
            "F" => &FIELDS,
            _ => &ANY,
        })
    }
}

impl Definition {
    pub fn ty(&'static self) -> &'static Type {
        self.built.get_or_init(|| self.build())
    }

    /// The kinds that have this type: (group, version, kind).
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        self.gvks.split(';').filter(|g| !g.is_empty()).map(|g| {
            let mut parts = g.split('/');
            let mut part = || parts.next().unwrap_or_default();
            (part(), part(), part())
        })
    }

    fn build(&'static self) -> Type {
        let mut fields: Vec<Field> = self.body.lines().map(parse_field).collect();
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        Type::new(Shape::Object(Object {
            name: Cow::Borrowed(self.name),
            fields,
            atomic: self.flags.contains('a'),
            ..Object::default()
        }))
    }
}

impl std::fmt::Debug for Definition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

fn parse_field(line: &'static str) -> Field {
    let mut cols = line.split('\t');
    let mut next = || cols.next().unwrap_or_default();
    let (name, code, flags, proto) = (next(), next(), next(), next());
    let (list, patch, go_type, default) = (next(), next(), next(), next());
    let atomic = flags.contains('a');
    let (strategy, key) = patch.split_once(':').unwrap_or((patch, ""));
    Field {
        name: Cow::Borrowed(name),
        ty: builtin().type_of(code, list, atomic),
        required: flags.contains('r'),
        default: serde_json::from_str(default).ok().map(Box::new),
        atomic,
        emit_zero: flags.contains('z'),
        pointer: flags.contains('p'),
        proto,
        patch: Patch {
            merge: strategy.contains('m'),
            retain_keys: strategy.contains('r'),
            replace: strategy.contains('x'),
            key,
        },
        go_type,
    }
}

fn list_kind(code: &'static str) -> ListKind {
    match code.split_once(':') {
        Some((_, keys)) => ListKind::Map(keys.split(',').map(Cow::Borrowed).collect()),
        None if code == "S" => ListKind::Set,
        None => ListKind::Atomic,
    }
}
