//! The CEL expressions of an authenticator: over `claims`, what a verified token says, and over `user`, what
//! has been made of it.

use std::sync::LazyLock;

use keelson_cel::{Budget, Declared, Env, PER_CALL_LIMIT, Program, Type, Value, Variables};
use regex::Regex;
use serde_json::{Value as Json, json};

use super::claims::Claims;
use crate::authn::config::JwtAuthenticator;
use crate::types::UserInfo;

/// All expressions of one authenticator, compiled.
#[derive(Debug, Default)]
pub struct Expressions {
    username: Option<Program>,
    groups: Option<Program>,
    uid: Option<Program>,
    /// By key.
    extra: Vec<(String, Program)>,
    /// With their messages.
    claim_rules: Vec<(Program, String)>,
    user_rules: Vec<(Program, String)>,
}

static CLAIMS: LazyLock<Env> = LazyLock::new(|| {
    let claims = Declared::of(Type::map(Type::String, Type::Dyn));
    Env::builder().variable("claims", claims).build()
});

static USER_TYPE: LazyLock<Declared> = LazyLock::new(|| {
    let strings = || Type::list(Type::String);
    let fields = [
        ("username", Type::String),
        ("uid", Type::String),
        ("groups", strings()),
        ("extra", Type::map(Type::String, strings())),
    ];
    Declared::object("kubernetes.UserInfo", fields.map(|(name, ty)| (name, Declared::of(ty))))
});

static USER: LazyLock<Env> = LazyLock::new(|| Env::builder().variable("user", USER_TYPE.clone()).build());

/// Compiles expressions and collects what is wrong with them.
struct Compiler(Vec<String>);

impl Compiler {
    fn compile(&mut self, env: &Env, path: &str, source: &str, boolean: bool) -> Option<Program> {
        if source.is_empty() {
            return None;
        }
        match env.compile(source) {
            Ok(program) if boolean && *program.output_type() != Type::Bool => {
                self.0.push(format!("{path}: must evaluate to bool"));
                None
            }
            Ok(program) => Some(program),
            Err(errors) => {
                self.0.push(format!("{path}: compilation failed: {errors}"));
                None
            }
        }
    }
}

impl Expressions {
    /// The error are all problems, with paths below the authenticator.
    pub fn compile(jwt: &JwtAuthenticator) -> Result<Self, Vec<String>> {
        let mut compiler = Compiler(Vec::new());
        let mut all = Self::default();
        let mappings = &jwt.claim_mappings;
        let mut claims = |path: &str, source: &str, boolean| compiler.compile(&CLAIMS, path, source, boolean);
        all.username = claims("claimMappings.username.expression", &mappings.username.expression, false);
        all.groups = claims("claimMappings.groups.expression", &mappings.groups.expression, false);
        all.uid = claims("claimMappings.uid.expression", &mappings.uid.expression, false);
        for (i, extra) in mappings.extra.iter().enumerate() {
            let path = format!("claimMappings.extra[{i}].valueExpression");
            let program = claims(&path, &extra.value_expression, false);
            all.extra.extend(program.map(|p| (extra.key.clone(), p)));
        }
        for (i, rule) in jwt.claim_validation_rules.iter().enumerate() {
            let program = claims(&format!("claimValidationRules[{i}].expression"), &rule.expression, true);
            all.claim_rules.extend(program.map(|p| (p, rule.message.clone())));
        }
        for (i, rule) in jwt.user_validation_rules.iter().enumerate() {
            let path = format!("userValidationRules[{i}].expression");
            let program = compiler.compile(&USER, &path, &rule.expression, true);
            all.user_rules.extend(program.map(|p| (p, rule.message.clone())));
        }
        if all.trusts_any_email() {
            compiler.0.push(
                "claimMappings.username.expression: claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression".into(),
            );
        }
        if compiler.0.is_empty() { Ok(all) } else { Err(compiler.0) }
    }

    /// Whether a user is named by an address that nothing says is verified.
    fn trusts_any_email(&self) -> bool {
        static SELECT: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(r"\bclaims\s*\.\s*\??\s*(email|email_verified)\b").expect("a pattern")
        });
        let selects = |program: &Program, claim: &str| {
            SELECT.captures_iter(program.source()).any(|found| &found[1] == claim)
        };
        let verifying = self.username.iter().chain(self.extra.iter().map(|(_, p)| p));
        let mut verifying = verifying.chain(self.claim_rules.iter().map(|(p, _)| p));
        self.username.as_ref().is_some_and(|p| selects(p, "email"))
            && !verifying.any(|p| selects(p, "email_verified"))
    }

    /// Fills in what expressions make of the claims, then asks the rules.
    pub fn apply(&self, claims: &Claims, user: &mut UserInfo) -> Result<(), String> {
        let claims = Json::Object(claims.clone());
        let variables = Variables::new().with("claims", Value::from_json(&claims));
        let evaluate = |program: &Program, what: &str| {
            let value = program.evaluate(&variables, &mut Budget::new(PER_CALL_LIMIT));
            value.map_err(|e| format!("oidc: error evaluating {what} claim expression: {e}"))
        };
        let text = |program: &Program, what: &str| {
            let value = evaluate(program, what)?;
            value.as_str().map(str::to_owned).ok_or_else(|| {
                format!("oidc: error evaluating {what} claim expression: {what} claim expression must return a string")
            })
        };
        if let Some(program) = &self.username {
            user.name = text(program, "username")?;
            if user.name.is_empty() {
                return Err("oidc: empty username via CEL expression is not allowed".to_owned());
            }
        }
        if let Some(program) = &self.groups {
            user.groups = strings(&evaluate(program, "group")?)
                .map_err(|e| format!("oidc: error evaluating group claim expression: {e}"))?;
        }
        if let Some(program) = &self.uid {
            user.uid = text(program, "uid")?;
        }
        for (key, program) in &self.extra {
            let values = strings(&evaluate(program, "extra")?).map_err(|e| {
                format!("oidc: error evaluating extra claim expression: {}: {e}", program.source())
            })?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        check(&self.claim_rules, &variables)
            .map_err(|e| format!("oidc: error evaluating claim validation expression: {e}"))
    }

    /// Asks the rules about the whole user.
    pub fn check_user(&self, user: &UserInfo) -> Result<(), String> {
        if self.user_rules.is_empty() {
            return Ok(());
        }
        let user =
            json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra});
        let value = Value::from_json_as(&user, &USER_TYPE).map_err(|e| e.to_string())?;
        check(&self.user_rules, &Variables::new().with("user", value))
            .map_err(|e| format!("oidc: error evaluating user info validation rule: {e}"))
    }
}

fn check(rules: &[(Program, String)], variables: &Variables<'_>) -> Result<(), String> {
    for (program, message) in rules {
        let value =
            program.evaluate(variables, &mut Budget::new(PER_CALL_LIMIT)).map_err(|e| e.to_string())?;
        match value.as_bool() {
            Some(true) => {}
            Some(false) => {
                return Err(format!("validation expression '{}' failed: {message}", program.source()));
            }
            None => return Err("validation expression must return a boolean".to_owned()),
        }
    }
    Ok(())
}

/// A string or a list of strings; empty ones are none.
fn strings(value: &Value<'_>) -> Result<Vec<String>, &'static str> {
    const WRONG: &str = "expression must return a string or a list of strings";
    let mut found = match value {
        Value::Null => Vec::new(),
        Value::String(text) => vec![text.to_string()],
        Value::List(list) => {
            let one = |item| match item {
                Ok(Value::String(text)) => Ok(text.to_string()),
                _ => Err(WRONG),
            };
            list.iter().map(one).collect::<Result<_, _>>()?
        }
        _ => return Err(WRONG),
    };
    found.retain(|text| !text.is_empty());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(rest: Json) -> JwtAuthenticator {
        let mut all = json!({"issuer": {"url": "https://a", "audiences": ["x"]}});
        all.as_object_mut().expect("an object").extend(rest.as_object().expect("an object").clone());
        serde_json::from_value(all).expect("an authenticator")
    }

    #[test]
    fn expressions_make_the_user_and_rules_judge_it() {
        let expressions = Expressions::compile(&jwt(json!({
            "claimMappings": {
                "username": {"expression": "'oidc:' + claims.sub"},
                "groups": {"expression": "claims.roles.map(r, r.lowerAscii())"},
                "uid": {"expression": "claims.?id.orValue('none')"},
                "extra": [{"key": "example.com/tenant", "valueExpression": "claims.tenant"},
                    {"key": "example.com/none", "valueExpression": "''"}],
            },
            "claimValidationRules": [{"expression": "claims.tenant in ['acme']", "message": "wrong tenant"}],
            "userValidationRules": [{"expression": "!user.username.startsWith('oidc:system:')", "message": "reserved"}],
        })))
        .expect("it compiles");
        let run = |claims: Json| {
            let mut user = UserInfo::default();
            expressions.apply(claims.as_object().expect("claims"), &mut user)?;
            expressions.check_user(&user)?;
            Ok::<_, String>(user)
        };
        let jane = run(json!({"sub": "jane", "roles": ["A", ""], "tenant": "acme"})).expect("a user");
        assert_eq!(
            (jane.name.as_str(), jane.uid.as_str(), &jane.groups),
            ("oidc:jane", "none", &vec!["a".to_owned()])
        );
        assert_eq!(jane.extra, [("example.com/tenant".to_owned(), vec!["acme".to_owned()])].into());
        for (claims, part) in [
            (json!({"sub": "jane", "roles": [], "tenant": "other"}), "wrong tenant"),
            (json!({"sub": "system:x", "roles": [], "tenant": "acme"}), "reserved"),
            (json!({"sub": 1, "roles": [], "tenant": "acme"}), "username claim expression"),
            (json!({"sub": "jane", "roles": 1, "tenant": "acme"}), "group claim expression"),
        ] {
            let got = run(claims).unwrap_err();
            assert!(got.contains(part), "{got}");
        }
    }

    #[test]
    fn what_does_not_compile_or_trusts_any_address_is_refused() {
        for (rest, part) in [
            (json!({"claimMappings": {"username": {"expression": "claims."}}}), "compilation failed"),
            (json!({"claimValidationRules": [{"expression": "claims.admin"}]}), "must evaluate to bool"),
            (json!({"userValidationRules": [{"expression": "user.nope == ''"}]}), "compilation failed"),
            (
                json!({"claimMappings": {"username": {"expression": "claims.email"}}}),
                "email_verified must be used",
            ),
        ] {
            let problems = Expressions::compile(&jwt(rest)).unwrap_err();
            assert!(problems.iter().any(|p| p.contains(part)), "{problems:?}");
        }
        let verified = json!({"claimMappings": {"username": {"expression": "claims.email"}},
            "claimValidationRules": [{"expression": "claims.?email_verified.orValue(true) == true"}]});
        Expressions::compile(&jwt(verified)).expect("the address is verified");
    }
}
