//! Who a caller is, by each kind of credential.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keelson_api_server::config::Config;
use keelson_pki::{Ca, Request as Certificate, ServiceAccountKeys, Usage};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::https::{Asked, Https};
use crate::support::{Client, PODS, Reply, Server, eventually};

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

async fn who(client: &Client) -> Reply {
    client.post(WHO, &json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})).await
}

async fn user(client: &Client) -> Value {
    who(client).await.expect(201)["status"]["userInfo"].clone()
}

fn bearer(plane: &Server, token: &str) -> Client {
    plane.nobody().with("authorization", format!("Bearer {token}"))
}

async fn token_review(plane: &Server, token: &str) -> Value {
    let review =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let reply = plane.admin().post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await;
    reply.expect(201)["status"].clone()
}

/// A configuration's part, as the file has it.
fn part<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn new_keys() -> ServiceAccountKeys {
    let dir = tempfile::tempdir().unwrap();
    let (private, public) = (dir.path().join("key"), dir.path().join("pub"));
    ServiceAccountKeys::ensure(&private, &public).unwrap();
    ServiceAccountKeys::load(&private, &public).unwrap()
}

/// A token issuer whose keys can be replaced.
struct Issuer {
    service: Https,
    keys: Arc<Mutex<ServiceAccountKeys>>,
}

impl Issuer {
    async fn start() -> Self {
        let keys = Arc::new(Mutex::new(new_keys()));
        let url = Arc::new(Mutex::new(String::new()));
        let (signs, own) = (keys.clone(), url.clone());
        let answer = move |asked: &Asked| {
            let url = own.lock().clone();
            match asked.path.as_str() {
                "/.well-known/openid-configuration" => {
                    (200, json!({"issuer": url, "jwks_uri": format!("{url}/keys")}))
                }
                "/keys" => (200, signs.lock().jwks()),
                "/groups" if asked.headers["authorization"] == "Bearer fetch" => {
                    let claims = json!({"iss": url, "aud": "cluster", "exp": now() + 60, "groups": ["far"]});
                    (200, signs.lock().sign(&claims).unwrap().into())
                }
                _ => (404, Value::Null),
            }
        };
        let service = Https::start(answer).await;
        url.lock().clone_from(&service.url);
        Self { service, keys }
    }

    fn sign(&self, claims: Value) -> String {
        let mut all = json!({"iss": self.service.url, "aud": "cluster", "exp": now() + 60, "sub": "jane", "groups": ["devs"]});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        self.keys.lock().sign(&all).unwrap()
    }

    fn jwt(&self, prefix: &str) -> Value {
        json!({
            "issuer": {"url": self.service.url, "audiences": ["cluster", "other"],
                "audienceMatchPolicy": "MatchAny", "certificateAuthority": self.service.ca()},
            "claimMappings": {
                "username": {"claim": "sub", "prefix": prefix},
                "groups": {"claim": "groups", "prefix": prefix},
                "uid": {"claim": "sub"},
            },
            "claimValidationRules": [{"claim": "tenant", "requiredValue": "acme"}],
        })
    }
}

#[tokio::test]
async fn tokens_of_several_issuers_name_their_users() {
    let (one, two) = (Issuer::start().await, Issuer::start().await);
    let document = json!({"jwt": [one.jwt("one:"), two.jwt("two:")]});
    let plane = Server::start_with(move |config, _| config.authentication = Some(part(&document))).await;
    let acme = json!({"tenant": "acme", "jti": "t1"});
    let jane = eventually("the issuers are found", || async {
        let reply = who(&bearer(&plane, &one.sign(acme.clone()))).await;
        if reply.status == 201 { Ok(reply.json()["status"]["userInfo"].clone()) } else { Err(reply.text()) }
    })
    .await;
    assert_eq!(
        jane,
        json!({"username": "one:jane", "uid": "jane", "groups": ["one:devs", "system:authenticated"],
            "extra": {"authentication.kubernetes.io/credential-id": ["JTI=t1"]}})
    );
    let other = eventually("the second is found", || async {
        let reply = who(&bearer(&plane, &two.sign(acme.clone()))).await;
        if reply.status == 201 { Ok(reply.json()["status"]["userInfo"].clone()) } else { Err(reply.text()) }
    })
    .await;
    assert_eq!(other["username"], "two:jane");
    assert_eq!(token_review(&plane, &one.sign(acme.clone())).await["user"]["username"], "one:jane");

    for (claims, why) in [
        (json!({"tenant": "acme", "aud": "elsewhere"}), "expected audience"),
        (json!({"tenant": "acme", "exp": now() - 1}), "token is expired"),
        (json!({"tenant": "acme", "nbf": now() + 1000}), "not before"),
        (json!({"tenant": "other"}), "required claim tenant value does not match"),
        (json!({}), "required claim tenant not present"),
    ] {
        let token = one.sign(claims);
        who(&bearer(&plane, &token)).await.refused(401, "Unauthorized", "Unauthorized");
        let status = token_review(&plane, &token).await;
        assert!(status["error"].as_str().unwrap().contains(why), "{why}: {status}");
        assert_ne!(status["authenticated"], true);
    }
    let forged = two.sign(json!({"iss": one.service.url, "tenant": "acme"}));
    who(&bearer(&plane, &forged)).await.refused(401, "Unauthorized", "Unauthorized");
}

#[tokio::test]
async fn expressions_map_claims_and_judge_the_user() {
    let issuer = Issuer::start().await;
    let mut jwt = issuer.jwt("");
    jwt["claimMappings"] = json!({
        "username": {"expression": "'x:' + claims.sub"},
        "groups": {"expression": "claims.groups.map(g, 'g:' + g)"},
        "uid": {"expression": "claims.sub"},
        "extra": [{"key": "example.com/tenant", "valueExpression": "claims.tenant"}],
    });
    jwt["claimValidationRules"] =
        json!([{"expression": "claims.exp - claims.iat <= 3600", "message": "lives too long"}]);
    jwt["userValidationRules"] = json!([{"expression": "!('g:root' in user.groups)", "message": "no roots"}]);
    let document = json!({ "jwt": [jwt] });
    let plane = Server::start_with(move |config, _| config.authentication = Some(part(&document))).await;
    let token = |changes: Value| {
        let mut claims = json!({"tenant": "acme", "iat": now()});
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        issuer.sign(claims)
    };
    let jane = eventually("the issuer is found", || async {
        let reply = who(&bearer(&plane, &token(json!({})))).await;
        if reply.status == 201 { Ok(reply.json()["status"]["userInfo"].clone()) } else { Err(reply.text()) }
    })
    .await;
    assert_eq!(
        jane,
        json!({"username": "x:jane", "uid": "jane", "groups": ["g:devs", "system:authenticated"],
            "extra": {"example.com/tenant": ["acme"]}})
    );
    for (changes, why) in
        [(json!({"iat": now() - 7200}), "lives too long"), (json!({"groups": ["root"]}), "no roots")]
    {
        let status = token_review(&plane, &token(changes)).await;
        assert!(status["error"].as_str().unwrap().contains(why), "{status}");
    }
}

#[tokio::test]
async fn an_issuers_new_key_counts_without_a_restart() {
    let issuer = Issuer::start().await;
    let document = json!({"jwt": [issuer.jwt("")]});
    let plane = Server::start_with(move |config, _| config.authentication = Some(part(&document))).await;
    let asks = || async {
        let reply = who(&bearer(&plane, &issuer.sign(json!({"tenant": "acme"})))).await;
        if reply.status == 201 { Ok(()) } else { Err(reply.text()) }
    };
    eventually("the issuer is found", asks).await;
    let before = issuer.service.count();
    for n in 0..3 {
        let token = issuer.sign(json!({"tenant": "acme", "n": n}));
        assert_eq!(user(&bearer(&plane, &token)).await["username"], "jane");
    }
    assert_eq!(issuer.service.count(), before, "known keys are not fetched again");
    *issuer.keys.lock() = new_keys();
    assert_eq!(user(&bearer(&plane, &issuer.sign(json!({"tenant": "acme"})))).await["username"], "jane");
    assert_eq!(issuer.service.count(), before + 1);

    let elsewhere = json!({"tenant": "acme", "groups": null, "_claim_names": {"groups": "far"},
        "_claim_sources": {"far": {"endpoint": format!("{}/groups", issuer.service.url), "access_token": "fetch"}}});
    let mut claims = elsewhere.as_object().unwrap().clone();
    claims.remove("groups");
    let mut all = json!({"iss": issuer.service.url, "aud": ["cluster"], "exp": now() + 60, "sub": "jane"});
    all.as_object_mut().unwrap().extend(claims);
    let token = issuer.keys.lock().sign(&all).unwrap();
    assert_eq!(user(&bearer(&plane, &token)).await["groups"], json!(["far", "system:authenticated"]));
}

#[tokio::test]
async fn a_changed_file_brings_other_issuers() {
    let (one, two) = (Issuer::start().await, Issuer::start().await);
    let document = |jwt: Value| {
        json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": [jwt]}).to_string()
    };
    let (first, second) = (document(one.jwt("one:")), document(two.jwt("two:")));
    let plane = Server::start_with(move |config, dir| {
        let file = dir.join("authentication.yaml");
        std::fs::write(&file, &first).unwrap();
        config.authentication = Some(part(&json!({ "file": file })));
    })
    .await;
    let acme = json!({"tenant": "acme"});
    let knows = async |issuer: &Issuer| who(&bearer(&plane, &issuer.sign(acme.clone()))).await.status == 201;
    let until = async |issuer: &Issuer| {
        eventually("the issuer counts", || async {
            if knows(issuer).await { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
    };
    until(&one).await;
    assert!(!knows(&two).await);
    std::fs::write(plane.dir().join("authentication.yaml"), second).unwrap();
    until(&two).await;
    assert!(!knows(&one).await);
}

#[tokio::test]
async fn a_webhooks_tokens_are_asked_for_once_in_a_while() {
    let service = Https::start(|asked| {
        let known = asked.body["spec"]["token"] == "opaque" && asked.headers["authorization"] == "Bearer shown";
        let status = match known {
            true => json!({"authenticated": true, "user": {"username": "joe", "groups": ["ops"], "extra": {"a/b": ["c"]}}}),
            false => json!({"authenticated": false}),
        };
        (200, json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}))
    })
    .await;
    let kubeconfig = service.kubeconfig();
    let plane = Server::start_with(move |config, _| {
        config.token_webhook = Some(part(&json!({"kubeconfig": kubeconfig, "cacheTtl": "1h"})));
    })
    .await;
    let joe = user(&bearer(&plane, "opaque")).await;
    assert_eq!(
        joe,
        json!({"username": "joe", "groups": ["ops", "system:authenticated"], "extra": {"a/b": ["c"]}})
    );
    for _ in 0..3 {
        user(&bearer(&plane, "opaque")).await;
        who(&bearer(&plane, "unknown")).await.refused(401, "Unauthorized", "Unauthorized");
    }
    assert_eq!(service.count(), 2);
    assert_eq!(service.last().body["spec"], json!({"token": "unknown"}));
}

#[tokio::test]
async fn nobody_gets_in_but_where_the_conditions_say() {
    let document =
        json!({"anonymous": {"enabled": true, "conditions": [{"path": "/livez"}, {"path": "/version"}]}});
    let plane = Server::start_with(move |config, _| config.authentication = Some(part(&document))).await;
    let nobody = plane.nobody();
    for (path, code) in [("/livez", 200), ("/version", 200), ("/healthz", 401), ("/api", 401), (PODS, 401)] {
        assert_eq!(nobody.get(path).await.status.as_u16(), code, "{path}");
    }
    let closed = Server::start_with(|config: &mut Config, _| config.anonymous = false).await;
    closed.nobody().get("/livez").await.refused(401, "Unauthorized", "Unauthorized");
}

#[tokio::test]
async fn a_proxy_with_an_allowed_name_speaks_for_others() {
    let plane = Server::start_with(|config, _| {
        config.request_header =
            part(&json!({"allowedNames": ["edge"], "usernameHeaders": ["X-User", "X-Remote-User"]}));
    })
    .await;
    let pki = plane.dir().join("pki");
    let ca = Ca::load(&pki.join("front-proxy-ca.crt"), &pki.join("front-proxy-ca.key")).unwrap();
    let says = |client: Client| {
        client.with("x-user", "jane").with("x-remote-group", "devs").with("x-remote-extra-a%2fb", "c")
    };
    let jane = user(&says(plane.client_of(&ca, "edge", &[]))).await;
    assert_eq!(
        jane,
        json!({"username": "jane", "groups": ["devs", "system:authenticated"], "extra": {"a/b": ["c"]}})
    );
    who(&says(plane.client_of(&ca, "mallory", &[]))).await.refused(401, "Unauthorized", "Unauthorized");
    let by_cluster = user(&says(plane.client("edge", &[]))).await;
    assert_eq!(by_cluster["username"], "edge", "the cluster's own authority vouches for no proxy");
}

#[tokio::test]
async fn certificates_count_until_they_end_and_of_our_authority_alone() {
    let plane = Server::start().await;
    let other = Ca::load_or_create(&plane.dir().join("o.crt"), &plane.dir().join("o.key"), "other").unwrap();
    let mallory = plane.client_of(&other, "kubernetes-admin", &["system:masters"]);
    mallory.get("/livez").await.refused(401, "Unauthorized", "Unauthorized");
    let brief = plane.client_for("brief", Duration::from_secs(2));
    assert_eq!(user(&brief).await["username"], "brief");
    eventually("the certificate has ended", || async {
        let reply = who(&brief).await;
        if reply.status == 401 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
}

#[tokio::test]
async fn a_new_authority_and_a_new_certificate_count_without_a_restart() {
    let plane = Server::start().await;
    let pki = |file: &str| plane.path("pki").join(file);
    let ours = Ca::load(&pki("ca.crt"), &pki("ca.key")).unwrap();
    let issued = ours
        .issue(&Certificate {
            cn: "renewed".into(),
            orgs: Vec::new(),
            sans: vec!["127.0.0.1".into()],
            usage: Usage::Server,
            ttl: Duration::from_secs(3600),
        })
        .unwrap();
    let wanted = pem::parse(&issued.cert_pem).unwrap().into_contents();
    std::fs::write(pki("api-server.key"), issued.key_pem).unwrap();
    std::fs::write(pki("api-server.crt"), issued.cert_pem).unwrap();
    let admin = plane.admin();
    eventually("the new certificate is shown", || async {
        let connection = admin.raw(false).await;
        let shown = connection.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        if shown == wanted { Ok(()) } else { Err("the old one is".into()) }
    })
    .await;
    let other = Ca::load_or_create(&plane.path("o.crt"), &plane.path("o.key"), "other").unwrap();
    let both = [std::fs::read(pki("ca.crt")).unwrap(), std::fs::read(plane.path("o.crt")).unwrap()].concat();
    std::fs::write(pki("ca.crt"), both).unwrap();
    let jane = plane.client_of(&other, "jane", &[]);
    let found = eventually("the new authority's users are known", || async {
        let reply = who(&jane).await;
        if reply.status == 201 { Ok(reply.json()["status"]["userInfo"].clone()) } else { Err(reply.text()) }
    })
    .await;
    assert_eq!(found["username"], "jane");
}

#[tokio::test]
async fn a_bootstrap_token_is_a_secret_in_kube_system() {
    let plane = Server::start().await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": "bootstrap-token-abcdef"},
        "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true", "auth-extra-groups": "system:bootstrappers:workers"}});
    plane.admin().post("/api/v1/namespaces/kube-system/secrets", &secret).await.expect(201);
    let joins = bearer(&plane, "abcdef.0123456789abcdef");
    let found = eventually("the token counts", || async {
        let reply = who(&joins).await;
        if reply.status == 201 { Ok(reply.json()["status"]["userInfo"].clone()) } else { Err(reply.text()) }
    })
    .await;
    assert_eq!(found["username"], "system:bootstrap:abcdef");
    who(&bearer(&plane, "abcdef.0123456789abcdeg")).await.refused(401, "Unauthorized", "Unauthorized");
}

async fn bound_token(admin: &Client, object: Value) -> String {
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"boundObjectRef": object, "expirationSeconds": 600}});
    let issued = admin.post(&format!("{ACCOUNTS}/robot/token"), &request).await.expect(201);
    issued["status"]["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_ends_with_what_it_is_bound_to() {
    let plane = Server::start().await;
    let admin = plane.admin();
    admin.post(ACCOUNTS, &json!({"metadata": {"name": "robot"}})).await.expect(201);
    admin.post("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await.expect(201);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "robot", "nodeName": "n1",
        "containers": [{"name": "c", "image": "i"}]}});
    admin.post(PODS, &pod).await.expect(201);
    admin.post(SECRETS, &json!({"metadata": {"name": "s"}})).await.expect(201);
    let paths = [
        ("Pod", "p", format!("{PODS}/p")),
        ("Secret", "s", format!("{SECRETS}/s")),
        ("Node", "n1", "/api/v1/nodes/n1".to_owned()),
    ];
    for (kind, name, path) in paths {
        let reference = json!({"apiVersion": "v1", "kind": kind, "name": name});
        let robot = bearer(&plane, &bound_token(&admin, reference).await);
        let me = user(&robot).await;
        assert_eq!(me["username"], "system:serviceaccount:default:robot");
        let extra = &me["extra"];
        assert!(extra["authentication.kubernetes.io/credential-id"][0].as_str().unwrap().starts_with("JTI="));
        if kind == "Pod" {
            assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["p"]));
            assert_eq!(extra["authentication.kubernetes.io/node-name"], json!(["n1"]));
        }
        admin.delete(&path, Some(json!({"gracePeriodSeconds": 0}))).await;
        eventually("the token is void", || async {
            let reply = who(&robot).await;
            if reply.status == 401 { Ok(()) } else { Err(reply.text()) }
        })
        .await;
    }
}

#[tokio::test]
async fn a_secrets_token_counts_is_noted_and_can_be_marked_invalid() {
    let plane = Server::start().await;
    let admin = plane.admin();
    let account = admin.post(ACCOUNTS, &json!({"metadata": {"name": "robot"}})).await.expect(201);
    let pki = plane.dir().join("pki");
    let keys = ServiceAccountKeys::load(&pki.join("sa.key"), &pki.join("sa.pub")).unwrap();
    let claim = |name: &str| format!("kubernetes.io/serviceaccount/{name}");
    let claims = json!({"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:default:robot",
        claim("namespace"): "default", claim("secret.name"): "old", claim("service-account.name"): "robot",
        claim("service-account.uid"): account["metadata"]["uid"]});
    let token = keys.sign(&claims).unwrap();
    let secret = json!({"metadata": {"name": "old", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token", "data": {"token": STANDARD.encode(&token)}});
    admin.post(SECRETS, &secret).await.expect(201);
    let robot = bearer(&plane, &token);
    assert_eq!(user(&robot).await["username"], "system:serviceaccount:default:robot");
    let stored = admin.get(&format!("{SECRETS}/old")).await.expect(200);
    let noted = stored["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].as_str().unwrap();
    assert!(jiff::Timestamp::now().to_string().starts_with(noted), "{noted}");
    let mark = json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": "2020-01-01"}}});
    admin.patch(&format!("{SECRETS}/old"), "merge", &mark).await.expect(200);
    who(&robot).await.refused(401, "Unauthorized", "Unauthorized");
    let why = token_review(&plane, &token).await["error"].as_str().unwrap().to_owned();
    assert!(why.contains("has been marked invalid"), "{why}");
}
