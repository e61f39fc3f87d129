//! CEL over the question that a webhook would be sent: whether it is sent at all.

use std::sync::LazyLock;

use keelson_cel::{Budget, Declared, Env, PER_CALL_LIMIT, Program, Type, Value, Variables};
use serde_json::{Value as Json, json};

use super::config::MatchCondition;

/// `request`, a `SubjectAccessReviewSpec`.
static REQUEST: LazyLock<Declared> = LazyLock::new(|| {
    let texts = |names: &[&'static str]| -> Vec<(&'static str, Declared)> {
        names.iter().map(|name| (*name, Declared::of(Type::String))).collect()
    };
    let object = |name: &str, fields: Vec<(&'static str, Declared)>| Declared::object(name, fields);
    let strings = || Type::list(Type::String);
    let selector = |name: &str| {
        let mut requirement = texts(&["key", "operator"]);
        requirement.push(("values", Declared::of(strings())));
        let requirement = object("kubernetes.SelectorRequirement", requirement);
        let mut fields = texts(&["rawSelector"]);
        fields.push(("requirements", Declared::of(Type::list(requirement.ty()))));
        object(name, fields)
    };
    let mut resource = texts(&["namespace", "verb", "group", "version", "resource", "subresource", "name"]);
    resource.push(("fieldSelector", selector("kubernetes.FieldSelectorAttributes")));
    resource.push(("labelSelector", selector("kubernetes.LabelSelectorAttributes")));
    let mut spec = texts(&["user", "uid"]);
    spec.push(("groups", Declared::of(strings())));
    spec.push(("extra", Declared::of(Type::map(Type::String, strings()))));
    spec.push(("resourceAttributes", object("kubernetes.ResourceAttributes", resource)));
    let path = texts(&["path", "verb"]);
    spec.push(("nonResourceAttributes", object("kubernetes.NonResourceAttributes", path)));
    object("kubernetes.SubjectAccessReviewSpec", spec)
});

static ENV: LazyLock<Env> = LazyLock::new(|| Env::builder().variable("request", REQUEST.clone()).build());

/// Conditions that must all hold.
#[derive(Debug, Default)]
pub struct Conditions(Vec<Program>);

impl Conditions {
    /// The error is the index of the first wrong one, and what is wrong with it.
    pub fn compile(conditions: &[MatchCondition]) -> Result<Self, (usize, String)> {
        let mut programs = Vec::new();
        for (i, condition) in conditions.iter().enumerate() {
            let program = ENV.compile(&condition.expression);
            let program = program.map_err(|e| (i, format!("compilation failed: {e}")))?;
            if *program.output_type() != Type::Bool {
                return Err((i, "must evaluate to bool".to_owned()));
            }
            programs.push(program);
        }
        Ok(Self(programs))
    }

    /// Whether all hold for a spec as it is sent. One that does not decides, whatever others fail with.
    pub fn hold(&self, spec: &Json) -> Result<bool, String> {
        if self.0.is_empty() {
            return Ok(true);
        }
        let spec = complete(spec);
        let request = Value::from_json_as(&spec, &REQUEST).map_err(|e| e.to_string())?;
        let variables = Variables::new().with("request", request);
        let mut errors = Vec::new();
        for program in &self.0 {
            match program.evaluate(&variables, &mut Budget::new(PER_CALL_LIMIT)) {
                Ok(value) if value.as_bool() == Some(true) => {}
                Ok(_) => return Ok(false),
                Err(error) => errors.push(format!(
                    "cel evaluation error: expression '{}' resulted in error: {error}",
                    program.source()
                )),
            }
        }
        if errors.is_empty() { Ok(true) } else { Err(errors.join("; ")) }
    }
}

/// Expressions see every text, empty ones as well.
fn complete(spec: &Json) -> Json {
    let mut all = json!({"user": "", "groups": [], "uid": "", "extra": {}});
    let texts = json!({"namespace": "", "verb": "", "group": "", "version": "", "resource": "", "subresource": "", "name": ""});
    for (key, value) in spec.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    if let Some(given) = spec["resourceAttributes"].as_object() {
        all["resourceAttributes"] = texts;
        for (key, value) in given {
            all["resourceAttributes"][key] = value.clone();
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(sources: &[&str]) -> Result<Conditions, (usize, String)> {
        let list: Vec<MatchCondition> =
            sources.iter().map(|s| MatchCondition { expression: (*s).to_owned() }).collect();
        Conditions::compile(&list)
    }

    #[test]
    fn all_conditions_must_hold() {
        let pods = json!({"user": "jane", "groups": ["devs"], "resourceAttributes": {"verb": "list", "resource": "pods",
            "fieldSelector": {"requirements": [{"key": "a", "operator": "In", "values": ["b"]}]}}});
        let path = json!({"user": "jane", "nonResourceAttributes": {"path": "/", "verb": "get"}});
        let cases = [
            (&["has(request.resourceAttributes)"][..], &pods, Ok(true)),
            (&["has(request.resourceAttributes)"], &path, Ok(false)),
            (&["request.resourceAttributes.namespace == ''", "'devs' in request.groups"], &pods, Ok(true)),
            (
                &["request.resourceAttributes.fieldSelector.requirements.exists(r, r.key == 'a')"],
                &pods,
                Ok(true),
            ),
            (&["request.resourceAttributes.verb == 'list'"], &path, Err(())),
            (&["request.resourceAttributes.verb == 'list'", "request.user == 'joe'"], &path, Ok(false)),
        ];
        for (sources, spec, want) in cases {
            let got = conditions(sources).expect("they compile").hold(spec);
            assert_eq!(got.map_err(|_| ()), want, "{sources:?} {spec}");
        }
    }

    #[test]
    fn what_does_not_compile_is_named() {
        assert_eq!(conditions(&["true", "request.nope == ''"]).expect_err("an unknown field").0, 1);
        assert_eq!(conditions(&["request.user"]).expect_err("no boolean").1, "must evaluate to bool");
    }
}
