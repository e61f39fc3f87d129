//! Tokens.

use keelson_pki::ServiceAccountKeys;
use serde_json::{Value, json};

fn keys(dir: &tempfile::TempDir) -> ServiceAccountKeys {
    let (private, public) = (dir.path().join("sa.key"), dir.path().join("sa.pub"));
    ServiceAccountKeys::ensure(&private, &public).unwrap();
    ServiceAccountKeys::load(&private, &public).unwrap()
}

#[test]
fn a_token_is_verified_with_its_claims() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(&dir);
    let claims = json!({ "sub": "system:serviceaccount:default:default", "aud": ["x"], "exp": 1 });
    let token = keys.sign(&claims).unwrap();
    assert_eq!(keys.verify::<Value>(&token).unwrap(), claims);
    assert_eq!(keys.jwks()["keys"][0]["kid"], keys.key_id());
}

#[test]
fn a_changed_or_foreign_token_is_refused() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let keys = keys(&dir);
    let token = keys.sign(&json!({ "sub": "a" })).unwrap();
    let mut parts: Vec<&str> = token.split('.').collect();
    parts[1] = "eyJzdWIiOiJiIn0";
    for bad in
        [parts.join("."), self::keys(&other).sign(&json!({})).unwrap(), "a.b.c".to_owned(), String::new()]
    {
        assert!(keys.verify::<Value>(&bad).is_err(), "{bad}");
    }
}

#[test]
fn a_replaced_key_still_verifies_while_its_public_half_is_kept() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let token = keys(&old).sign(&json!({ "sub": "a" })).unwrap();
    keys(&new);
    let read = |dir: &tempfile::TempDir, file| std::fs::read_to_string(dir.path().join(file)).unwrap();
    let both = read(&new, "sa.pub") + &read(&old, "sa.pub");
    let keys = ServiceAccountKeys::from_pem(&read(&new, "sa.key"), &both).unwrap();
    assert_eq!(keys.verify::<Value>(&token).unwrap()["sub"], "a");
    assert_eq!(keys.jwks()["keys"].as_array().unwrap().len(), 2);
}

#[test]
fn other_kinds_of_keys_sign_as_well() {
    for (kind, algorithm) in [
        (&rcgen::PKCS_ECDSA_P384_SHA384, "ES384"),
        (&rcgen::PKCS_ECDSA_P521_SHA512, "ES512"),
        (&rcgen::PKCS_RSA_SHA256, "RS256"),
    ] {
        let pair = rcgen::KeyPair::generate_for(kind).unwrap();
        let keys = ServiceAccountKeys::from_pem(&pair.serialize_pem(), &pair.public_key_pem()).unwrap();
        let token = keys.sign(&json!({ "sub": "a" })).unwrap();
        assert_eq!(keys.verify::<Value>(&token).unwrap()["sub"], "a");
        assert_eq!(keys.algorithms(), [algorithm]);
        assert_eq!(keys.jwks()["keys"][0]["alg"], algorithm);
        let (signed, _) = token.rsplit_once('.').unwrap();
        let forged = format!("{signed}.{}", "A".repeat(token.len() - signed.len() - 1));
        assert!(keys.verify::<Value>(&forged).is_err());
    }
}
