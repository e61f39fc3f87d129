//! What a token survives and what it does not.

use super::*;

/// An ECDSA P-256 pair of files in a folder of its own.
fn tokens() -> Tokens {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (private, public) = (dir.path().join("sa.key"), dir.path().join("sa.pub"));
    ServiceAccountKeys::ensure(&private, &public).expect("the keys are made");
    let keys = ServiceAccountKeys::load(&private, &public).expect("the keys load");
    Tokens::new(keys, "https://issuer".into(), vec!["https://issuer".into()])
}

fn claims() -> Claims {
    Claims {
        aud: vec!["https://issuer".into(), "vault".into()],
        exp: Some(2_000),
        iat: Some(1_000),
        nbf: Some(1_000),
        sub: "system:serviceaccount:ns:sa".into(),
        bound: Some(Bound {
            namespace: "ns".into(),
            serviceaccount: Ref { name: "sa".into(), uid: "u".into() },
            ..Bound::default()
        }),
        ..Claims::default()
    }
}

#[test]
fn a_signed_token_verifies_and_a_changed_one_does_not() {
    let tokens = tokens();
    let token = tokens.sign(claims()).expect("a token");
    let got = tokens.verify(&token).expect("our own token");
    assert_eq!(got.sub, "system:serviceaccount:ns:sa");
    assert_eq!(got.iss, "https://issuer");

    let mut parts: Vec<&str> = token.split('.').collect();
    let other = tokens.sign(Claims { sub: "system:serviceaccount:kube-system:root".into(), ..claims() });
    let other = other.expect("a token");
    parts[1] = other.split('.').nth(1).unwrap_or_default();
    assert_eq!(tokens.verify(&parts.join(".")), Err(TokenError::Refused("invalid signature".into())));
    for nonsense in ["", "abc", "a.b.c", "....", "eyJhbGciOiJub25lIn0.e30."] {
        assert_eq!(tokens.verify(nonsense), Err(TokenError::Foreign), "{nonsense:?}");
    }
}

#[test]
fn a_token_of_another_cluster_is_refused() {
    let (ours, theirs) = (tokens(), tokens());
    let token = theirs.sign(claims()).expect("a token");
    assert_eq!(ours.verify(&token), Err(TokenError::Refused("invalid signature".into())));
}

#[test]
fn times_are_checked_with_a_minute_of_leeway() {
    let cases = [
        (1_500, Ok(())),
        (945, Ok(())),
        (900, Err("service account token is not valid yet")),
        (2_059, Ok(())),
        (2_061, Err("service account token has expired")),
    ];
    for (now, want) in cases {
        let want = want.map_err(|e: &str| TokenError::Refused(e.into()));
        assert_eq!(check_times(&claims(), now), want, "{now}");
    }
}

#[test]
fn audiences_must_meet() {
    let tokens = tokens();
    let wanted = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    assert_eq!(tokens.match_audiences(&claims(), &[]), Ok(wanted(&["https://issuer"])));
    assert_eq!(tokens.match_audiences(&claims(), &wanted(&["vault", "x"])), Ok(wanted(&["vault"])));
    assert_eq!(
        tokens.match_audiences(&claims(), &wanted(&["x"])),
        Err(TokenError::Refused(
            r#"token audiences ["https://issuer" "vault"] is invalid for the target audiences ["x"]"#.into()
        ))
    );
}

#[test]
fn the_key_set_names_the_signing_key() {
    let tokens = tokens();
    let token = tokens.sign(claims()).expect("a token");
    let header = jsonwebtoken::decode_header(&token).expect("a header");
    let jwks = tokens.keys().jwks();
    assert_eq!(jwks["keys"][0]["kid"].as_str(), header.kid.as_deref());
    assert_eq!(jwks["keys"][0]["kty"], "EC");
    assert_eq!(jwks["keys"][0]["crv"], "P-256");
    assert_eq!(jwks["keys"][0]["alg"], "ES256");
    assert!(jwks["keys"][0]["x"].is_string() && jwks["keys"][0]["y"].is_string());
}
