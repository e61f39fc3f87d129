//! What the server shows of itself.

use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, Server, config_map, eventually};

#[tokio::test]
async fn requests_are_counted_under_upstreams_names_and_labels() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    admin.get(CONFIG_MAPS).await.expect(200);
    admin.patch(&format!("{CONFIG_MAPS}/a?fieldManager=t"), "apply", &config_map("a")).await;
    admin.get("/apis/made.up/v1/things").await;
    let mut watch = admin.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    assert!(watch.seen().await.starts_with("ADDED"));
    let text = admin.get("/metrics").await.text();
    let labels = |verb: &str, scope: &str| {
        format!(
            "verb=\"{verb}\",dry_run=\"\",group=\"\",version=\"v1\",resource=\"configmaps\",subresource=\"\",scope=\"{scope}\",component=\"apiserver\""
        )
    };
    let wanted = [
        format!("apiserver_request_total{{{},code=\"201\"}} 1", labels("POST", "resource")),
        format!("apiserver_request_total{{{},code=\"200\"}} 1", labels("LIST", "namespace")),
        format!("apiserver_request_duration_seconds_count{{{}}} 1", labels("LIST", "namespace")),
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1".to_owned(),
        "apiserver_watch_events_total{group=\"\",version=\"v1\",resource=\"configmaps\"} ".to_owned(),
        "apiserver_storage_objects{resource=\"configmaps\"} ".to_owned(),
        "apiserver_resource_objects{group=\"apps\",resource=\"deployments\"} 0".to_owned(),
        "etcd_request_duration_seconds_count{operation=\"create\",group=\"\",resource=\"configmaps\"} ".to_owned(),
        "apiserver_admission_step_admission_duration_seconds_count{operation=\"CREATE\",rejected=\"false\",type=\"validate\"} ".to_owned(),
    ];
    for line in wanted {
        assert!(text.contains(&line), "{line}\n{text}");
    }
    let lasting =
        "apiserver_longrunning_requests{verb=\"WATCH\",group=\"\",version=\"v1\",resource=\"configmaps\"";
    assert!(text.lines().any(|l| l.starts_with(lasting) && l.ends_with(" 1")), "{text}");
    assert!(text.contains("verb=\"APPLY\""), "{text}");
    assert!(!text.contains("made.up"), "{text}");
    drop(watch);
    eventually("the watch is no longer counted", || async {
        let text = admin.get("/metrics").await.text();
        let gone = text.lines().any(|l| l.starts_with(lasting) && l.ends_with(" 0"));
        if gone { Ok(()) } else { Err(text) }
    })
    .await;
}

#[tokio::test]
async fn the_pages_of_status_and_flags_are_text_or_objects() {
    let server = Server::start().await;
    let admin = server.admin();
    let text = admin.get("/statusz").await;
    assert_eq!(text.headers["content-type"], "text/plain; charset=utf-8");
    for part in ["\nkube-apiserver statusz\nWarning: ", "\nUp: 0 hr 00 min", "\nEmulation version: 1.36\n"] {
        assert!(text.text().contains(part), "{}", text.text());
    }
    let kind =
        |kind: &str| admin.with("accept", format!("application/json;v=v1beta1;g=config.k8s.io;as={kind}"));
    let status = kind("Statusz").get("/statusz").await.expect(200);
    assert_eq!(
        (&status["kind"], &status["apiVersion"]),
        (&json!("Statusz"), &json!("config.k8s.io/v1beta1"))
    );
    assert_eq!(status["emulationVersion"], "1.36");
    let flags = kind("Flagz").get("/flagz").await.expect(200);
    assert_eq!(flags["flags"]["service-cluster-ip-range"], "10.96.0.0/16");
    assert!(admin.get("/flagz").await.text().contains("\nevent-ttl=3600s\n"));
    let config = admin.get("/configz").await.expect(200)["apiserver"].take();
    assert_eq!((&config["nodePortRange"], &config["store"]), (&json!("30000-32767"), &json!("embedded")));
    admin.with("accept", "application/json").get("/statusz").await.refused(
        406,
        "NotAcceptable",
        "text/plain",
    );
    assert_eq!(server.client("jane", &["system:authenticated"]).get("/statusz").await.status, 403);
}

#[tokio::test]
async fn checks_are_named_as_upstreams_and_can_be_asked_alone_or_left_out() {
    let server = Server::start().await;
    let admin = server.admin();
    let text = admin.get("/readyz?verbose&exclude=etcd").await.text();
    for line in [
        "[+]ping ok",
        "[+]log ok",
        "[+]etcd excluded: ok",
        "[+]etcd-readiness ok",
        "[+]informer-sync ok",
        "[+]poststarthook/rbac/bootstrap-roles ok",
        "[+]poststarthook/priority-and-fairness-config-producer ok",
        "[+]shutdown ok",
        "readyz check passed",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(admin.get("/livez/etcd").await.text(), "ok");
    assert_eq!(admin.get("/readyz/poststarthook/rbac/bootstrap-roles").await.text(), "ok");
    assert_eq!(admin.get("/livez/nothing").await.status, 404);
}

#[tokio::test]
async fn the_server_has_a_lease_of_its_own() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases?labelSelector=apiserver.kubernetes.io/identity%3Dkube-apiserver";
    eventually("the lease", || async {
        let leases = admin.get(path).await.json();
        let lease = &leases["items"][0];
        let name = lease["metadata"]["name"].as_str().unwrap_or_default();
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        let good = name.starts_with("apiserver-") && holder.starts_with(&format!("{name}_"));
        if good { Ok(()) } else { Err(leases.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn events_are_forgotten_after_their_time() {
    let server = Server::with(|config| config.event_ttl = 2).await;
    let admin = server.admin();
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "type": "Normal",
        "reason": "R", "message": "m", "count": 1});
    let path = "/api/v1/namespaces/default/events";
    admin.post(path, &event).await.expect(201);
    // A change does not take it off its lease.
    let counted = admin.patch(&format!("{path}/e"), "merge", &json!({"count": 2})).await;
    assert_eq!(counted.expect(200)["count"], 2);
    admin.post(CONFIG_MAPS, &config_map("stays")).await.expect(201);
    eventually("the event is gone", || async {
        let reply = admin.get(&format!("{path}/e")).await;
        if reply.status == 404 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
    admin.get(&format!("{CONFIG_MAPS}/stays")).await.expect(200);
}

#[tokio::test]
async fn components_are_asked_for_their_health() {
    let well = crate::support::https::Https::start(|asked| (200, asked.path.clone().into())).await;
    let ill = crate::support::https::Https::start(|_| (500, "no".into())).await;
    let at = |service: &crate::support::https::Https| {
        service.url.trim_start_matches("https://").parse::<std::net::SocketAddr>().unwrap()
    };
    let (scheduler, manager) = (at(&well), at(&ill));
    let server = Server::with(move |config| {
        config.components =
            serde_json::from_value(json!({"scheduler": scheduler, "controllerManager": manager})).unwrap();
    })
    .await;
    let admin = server.admin();
    let list = admin.get("/api/v1/componentstatuses").await.expect(200);
    let seen: Vec<(&str, &Value)> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| (i["metadata"]["name"].as_str().unwrap(), &i["conditions"][0]))
        .collect();
    assert_eq!(
        seen,
        [
            (
                "controller-manager",
                &json!({"type": "Healthy", "status": "False", "message": "HTTP probe failed with statuscode: 500"})
            ),
            ("etcd-0", &json!({"type": "Healthy", "status": "True", "message": "ok"})),
            ("scheduler", &json!({"type": "Healthy", "status": "True", "message": "/healthz"})),
        ]
    );
    assert_eq!(admin.get("/api/v1/componentstatuses?labelSelector=a").await.expect(200)["items"], json!([]));
    drop(well);
    eventually("the scheduler is gone", || async {
        let one = admin.get("/api/v1/componentstatuses/scheduler").await.expect(200);
        if one["conditions"][0]["status"] == "Unknown" { Ok(()) } else { Err(one.to_string()) }
    })
    .await;
    let table = admin.with("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let table = table.get("/api/v1/componentstatuses/etcd-0").await.expect(200);
    assert_eq!(table["rows"][0]["cells"], json!(["etcd-0", "Healthy", "ok", ""]));
    let unknown = admin.get("/api/v1/componentstatuses/x").await;
    unknown.refused(404, "NotFound", r#"componentstatus "x" not found"#);
}

#[tokio::test]
async fn profiles_are_for_who_may_get_them() {
    let server = Server::start().await;
    let admin = server.admin();
    let moved = admin.get("/debug/pprof").await;
    assert_eq!((moved.status.as_u16(), moved.headers["location"].to_str().unwrap()), (302, "/debug/pprof/"));
    assert!(admin.get("/debug/pprof/").await.text().contains("href=\"profile?seconds=30\""));
    assert_eq!(admin.get("/debug/pprof/symbol").await.text(), "num_symbols: 0\n");
    assert!(!admin.get("/debug/pprof/cmdline").await.bytes.is_empty());
    let profile = admin.get("/debug/pprof/profile?seconds=1").await;
    assert_eq!(
        (profile.status.as_u16(), &profile.headers["content-type"]),
        (200, &"application/octet-stream".parse().unwrap())
    );
    assert!(profile.bytes.starts_with(&[0x1f, 0x8b]));
    let none = admin.get("/debug/pprof/trace").await;
    assert_eq!((none.status.as_u16(), none.text().starts_with("Unknown profile")), (404, true));
    let stranger = server.client("stranger", &[]);
    stranger.get("/debug/pprof/").await.refused(403, "Forbidden", "cannot get path \"/debug/pprof/\"");

    let server = Server::with(|config| config.enable_profiling = false).await;
    server.admin().get("/debug/pprof/profile").await.expect(404);
}
