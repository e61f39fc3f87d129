//! Bootstrap tokens: short-lived credentials by which a machine joins the cluster, kept in secrets
//! `kube-system/bootstrap-token-ID`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keelson_api_types::{Gvr, meta};
use serde_json::Value;

use crate::token::TokenError;
use crate::types::{Objects, UserInfo};

const GROUP: &str = "system:bootstrappers";

/// The user that a token of the form `abcdef.0123456789abcdef` stands for.
pub fn authenticate(objects: &dyn Objects, token: &str) -> Result<UserInfo, TokenError> {
    let (id, secret) = split(token).ok_or(TokenError::Foreign)?;
    let name = format!("bootstrap-token-{id}");
    let object =
        objects.get(&Gvr::new("", "v1", "secrets"), "kube-system", &name).ok_or(TokenError::Foreign)?;
    check(&object, id, secret, jiff::Timestamp::now())
}

fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let fits =
        |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (fits(id, 6) && fits(secret, 16)).then_some((id, secret))
}

fn check(object: &Value, id: &str, secret: &str, now: jiff::Timestamp) -> Result<UserInfo, TokenError> {
    let data = |key: &str| {
        let encoded = object["data"][key].as_str().unwrap_or_default();
        STANDARD.decode(encoded).ok().and_then(|b| String::from_utf8(b).ok()).unwrap_or_default()
    };
    let same = aws_lc_rs::constant_time::verify_slices_are_equal;
    let expired = match data("expiration").as_str() {
        "" => false,
        // An unreadable time is as good as one in the past.
        text => text.parse::<jiff::Timestamp>().map_or(true, |t| t <= now),
    };
    if object["type"] != "bootstrap.kubernetes.io/token"
        || !meta::string(object, "deletionTimestamp").is_empty()
        || same(data("token-secret").as_bytes(), secret.as_bytes()).is_err()
        || data("token-id") != id
        || expired
        || data("usage-bootstrap-authentication") != "true"
    {
        return Err(TokenError::Foreign);
    }
    let extra = data("auth-extra-groups");
    let extra: Vec<&str> = extra.split(',').filter(|g| !g.is_empty()).collect();
    if extra.iter().any(|g| !g.starts_with("system:bootstrappers:")) {
        return Err(TokenError::Foreign);
    }
    let mut groups = vec![GROUP.to_owned()];
    groups.extend(extra.into_iter().map(str::to_owned));
    Ok(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(changes: &[(&str, &str)]) -> Value {
        let mut data = json!({});
        let base = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("expiration", "2030-01-01T00:00:00Z"),
            ("auth-extra-groups", "system:bootstrappers:workers"),
        ];
        for (key, value) in base.iter().chain(changes) {
            data[*key] = STANDARD.encode(value).into();
        }
        json!({"type": "bootstrap.kubernetes.io/token", "data": data})
    }

    #[test]
    fn a_token_is_good_while_its_secret_says_so() {
        let now: jiff::Timestamp = "2029-01-01T00:00:00Z".parse().expect("a time");
        let check = |changes: &[(&str, &str)]| check(&secret(changes), "abcdef", "0123456789abcdef", now);
        let user = check(&[]).expect("a user");
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(user.groups, ["system:bootstrappers", "system:bootstrappers:workers"]);
        for changes in [
            ("expiration", "2028-01-01T00:00:00Z"),
            ("expiration", "soon"),
            ("token-secret", "0123456789abcdeX"),
            ("usage-bootstrap-authentication", "false"),
            ("auth-extra-groups", "system:masters"),
        ] {
            assert_eq!(check(&[changes]), Err(TokenError::Foreign), "{changes:?}");
        }
    }

    #[test]
    fn only_the_tokens_form_is_taken() {
        assert!(split("abcdef.0123456789abcdef").is_some());
        for wrong in
            ["abcdef", "abcde.0123456789abcdef", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcdef0"]
        {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }
}
