//! What the claims of a verified token make of the caller.

use serde_json::{Map, Value};

use crate::authn::config::{ClaimMappings, ClaimValidationRule};
use crate::types::UserInfo;

const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// Clocks may differ by so much before a token counts as not valid yet, in seconds.
const NOT_BEFORE_LEEWAY: i64 = 300;

pub type Claims = Map<String, Value>;

/// Issuer aside, what every token must say: whom it is for, and that its time has come and not passed.
pub fn check(claims: &Claims, audiences: &[String], now: i64) -> Result<(), String> {
    let got: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !got.iter().any(|a| audiences.iter().any(|wanted| wanted == a)) {
        return Err(format!("oidc: expected audience in {audiences:?} got {got:?}"));
    }
    let seconds = |claim: &str| claims.get(claim).and_then(Value::as_f64).map(|s| s as i64);
    if seconds("exp").is_none_or(|exp| exp < now) {
        return Err("oidc: token is expired".to_owned());
    }
    if seconds("nbf").is_some_and(|nbf| now + NOT_BEFORE_LEEWAY < nbf) {
        return Err("oidc: current time is before the nbf (not before) time".to_owned());
    }
    Ok(())
}

/// The user of the mappings that name claims; expressions come on top.
pub fn user(mappings: &ClaimMappings, claims: &Claims) -> Result<UserInfo, String> {
    let mut user = UserInfo::default();
    let username = &mappings.username;
    if !username.claim.is_empty() {
        let name = text(claims, &username.claim)
            .map_err(|e| format!("oidc: parse username claims {:?}: {e}", username.claim))?;
        if username.claim == "email" {
            check_email(claims)?;
        }
        user.name = format!("{}{name}", username.prefix.as_deref().unwrap_or_default());
    }
    let groups = &mappings.groups;
    if let Some(value) = claims.get(&groups.claim).filter(|_| !groups.claim.is_empty()) {
        let prefix = groups.prefix.as_deref().unwrap_or_default();
        let names = one_or_many(value).ok_or_else(|| {
            format!("oidc: parse groups claim {:?}: neither a string nor a list of strings", groups.claim)
        })?;
        user.groups = names.iter().map(|name| format!("{prefix}{name}")).collect();
    }
    if !mappings.uid.claim.is_empty() {
        user.uid = text(claims, &mappings.uid.claim)
            .map_err(|e| format!("oidc: parse uid claim {:?}: {e}", mappings.uid.claim))?
            .to_owned();
    }
    if let Some(jti) = claims.get("jti").and_then(Value::as_str).filter(|jti| !jti.is_empty()) {
        user.extra.insert(CREDENTIAL_ID.into(), vec![format!("JTI={jti}")]);
    }
    Ok(user)
}

/// Rules that want a claim to have a value.
pub fn check_required(rules: &[ClaimValidationRule], claims: &Claims) -> Result<(), String> {
    for ClaimValidationRule { claim, required_value, .. } in rules.iter().filter(|r| !r.claim.is_empty()) {
        if !claims.contains_key(claim) {
            return Err(format!("oidc: required claim {claim} not present in ID token"));
        }
        let got = text(claims, claim).map_err(|e| format!("oidc: parse claim {claim}: {e}"))?;
        if got != required_value {
            return Err(format!(
                "oidc: required claim {claim} value does not match. Got = {got}, want = {required_value}"
            ));
        }
    }
    Ok(())
}

/// An address that the issuer says is not verified names nobody.
fn check_email(claims: &Claims) -> Result<(), String> {
    match claims.get("email_verified") {
        None | Some(Value::Bool(true)) => Ok(()),
        Some(Value::Bool(false)) => Err("oidc: email not verified".to_owned()),
        Some(_) => Err("oidc: parse 'email_verified' claim: not a boolean".to_owned()),
    }
}

fn text<'a>(claims: &'a Claims, name: &str) -> Result<&'a str, &'static str> {
    claims.get(name).ok_or("claim not present")?.as_str().ok_or("claim is not a string")
}

pub fn one_or_many(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(one) => Some(vec![one]),
        Value::Array(many) => many.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims(value: Value) -> Claims {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn audience_and_times_are_checked() {
        let wanted = ["a".to_owned(), "b".to_owned()];
        let cases = [
            (json!({"aud": "b", "exp": 11}), Ok(())),
            (json!({"aud": ["x", "a"], "exp": 11, "nbf": 310}), Ok(())),
            (json!({"aud": ["x"], "exp": 11}), Err("expected audience")),
            (json!({"exp": 11}), Err("expected audience")),
            (json!({"aud": "a", "exp": 9}), Err("expired")),
            (json!({"aud": "a"}), Err("expired")),
            (json!({"aud": "a", "exp": 1000, "nbf": 311}), Err("not before")),
        ];
        for (value, want) in cases {
            match (check(&claims(value.clone()), &wanted, 10), want) {
                (Ok(()), Ok(())) => {}
                (Err(got), Err(part)) => assert!(got.contains(part), "{value}: {got}"),
                (got, _) => panic!("{value}: {got:?}"),
            }
        }
    }

    #[test]
    fn claims_name_the_user() {
        let mappings: ClaimMappings = serde_json::from_value(json!({
            "username": {"claim": "email", "prefix": "oidc:"},
            "groups": {"claim": "roles", "prefix": "g:"},
            "uid": {"claim": "sub"},
        }))
        .expect("mappings");
        let user = |value: Value| user(&mappings, &claims(value));
        let jane =
            user(json!({"email": "j@x", "roles": ["a", "b"], "sub": "1", "jti": "t"})).expect("a user");
        assert_eq!((jane.name.as_str(), jane.uid.as_str()), ("oidc:j@x", "1"));
        assert_eq!(jane.groups, ["g:a", "g:b"]);
        assert_eq!(jane.extra[CREDENTIAL_ID], ["JTI=t"]);
        assert_eq!(
            user(json!({"email": "j", "roles": "one", "sub": "1"})).expect("a user").groups,
            ["g:one"]
        );
        for (value, part) in [
            (json!({"sub": "1"}), "parse username claims"),
            (json!({"email": "j", "email_verified": false, "sub": "1"}), "email not verified"),
            (json!({"email": "j", "roles": [1], "sub": "1"}), "parse groups claim"),
            (json!({"email": "j"}), "parse uid claim"),
        ] {
            let got = user(value).unwrap_err();
            assert!(got.contains(part), "{got}");
        }
    }
}
