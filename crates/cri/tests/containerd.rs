use futures::StreamExt;
use keelson_cri::scratch::{Containerd, IMAGE, unavailable};
use keelson_cri::v1::*;
use keelson_cri::{EventKind, Runtime};
use std::time::Duration;

fn sandbox() -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: "p".into(),
            uid: "u".into(),
            namespace: "n".into(),
            attempt: 0,
        }),
        hostname: "p".into(),
        linux: Some(LinuxPodSandboxConfig::default()),
        ..Default::default()
    }
}

fn container(command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(ImageSpec { image: IMAGE.into(), ..Default::default() }),
        command: command.iter().map(|c| (*c).to_owned()).collect(),
        linux: Some(LinuxContainerConfig::default()),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_container_of_an_imported_image_runs_and_its_end_is_told() {
    if let Some(why) = unavailable() {
        eprintln!("skipped: {why}");
        return;
    }
    let containerd = Containerd::start("cri", 201).await.expect("containerd");
    let client = containerd.client().await.expect("connects");
    let mut events = client.events().await.expect("subscribes");
    assert!(client.image_status(IMAGE).await.expect("asks").is_some(), "the image is known");

    let id = client.run_pod_sandbox(sandbox(), String::new()).await.expect("sandbox");
    let status = client.pod_sandbox_status(&id).await.expect("status");
    assert!(status.network.expect("a network").ip.starts_with("10.213.201."));
    let running = client
        .create_container(&id, container(&["sh", "-c", "sleep 1000"]), sandbox())
        .await
        .expect("creates");
    client.start_container(&running).await.expect("starts");
    let answer =
        client.exec_sync(&running, vec!["hostname".into()], Duration::from_secs(5)).await.expect("runs");
    assert_eq!((answer.exit_code, answer.stdout.as_slice()), (0, b"p\n".as_slice()));

    client.stop_container(&running, Duration::ZERO).await.expect("stops");
    let told = async {
        while let Some(event) = events.next().await {
            if event.id == running && matches!(event.kind, EventKind::Exited { .. }) {
                return event.kind;
            }
        }
        panic!("the stream ended");
    };
    let kind = tokio::time::timeout(Duration::from_secs(5), told).await.expect("an event");
    assert_eq!(kind, EventKind::Exited { code: 137 });
    let ended = client.container_status(&running).await.expect("status");
    assert_eq!(ended.state(), ContainerState::ContainerExited);

    client.stop_pod_sandbox(&id).await.expect("stops");
    client.remove_pod_sandbox(&id).await.expect("removes");
    assert!(client.list_containers(Default::default()).await.expect("lists").is_empty());
}
