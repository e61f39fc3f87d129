//! `ctl port-forward`: local ports that reach into a pod.

use std::net::IpAddr;

use anyhow::{Context as _, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use keelson_client::kube::Api;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use super::pods;
use crate::context::Context;
use crate::value::{list, number, text};

#[derive(Debug, Args)]
pub struct PortForwardArgs {
    /// POD or TYPE/NAME
    target: String,
    /// PORT, LOCAL:REMOTE or :REMOTE for any free local port
    #[arg(required = true)]
    ports: Vec<String>,
    /// Local addresses to listen on
    #[arg(long, value_delimiter = ',', default_value = "localhost")]
    address: Vec<String>,
    /// How long to wait for a pod that runs
    #[arg(long, default_value = "1m0s")]
    pod_running_timeout: String,
}

pub async fn run(context: &Context, args: PortForwardArgs) -> anyhow::Result<()> {
    let (found, all) = pods::of(context, &args.target).await?;
    let Some(pod) = all.into_iter().next() else { bail!("no pods found for {}", found.label()) };
    let phase = text(&pod, "/status/phase");
    if phase != "Running" {
        bail!("unable to forward port because pod is not running. Current status={phase}");
    }
    let pairs: Vec<(u16, u16)> = args
        .ports
        .iter()
        .map(|spec| pair(spec, &found.object, &found.mapping.kind, &pod))
        .collect::<anyhow::Result<_>>()?;
    let api: Api<Pod> = Api::namespaced(context.websockets()?, text(&pod, "/metadata/namespace"));
    let name = text(&pod, "/metadata/name").to_owned();
    let mut servers = Vec::new();
    for (local, remote) in pairs {
        for listener in listen(&args.address, local).await? {
            let address = listener.local_addr().context("read the local address")?;
            crate::outln!("Forwarding from {address} -> {remote}");
            servers.push(serve(api.clone(), name.clone(), listener, remote));
        }
    }
    futures::future::try_join_all(servers).await?;
    Ok(())
}

/// Local and remote port; a Service's port is its pod's target port.
fn pair(spec: &str, object: &Value, kind: &str, pod: &Value) -> anyhow::Result<(u16, u16)> {
    let (local, remote) = spec.split_once(':').unwrap_or((spec, spec));
    let remote = match kind {
        "Service" => service_port(object, remote, pod)?,
        _ => number_or_name(remote, pod)?,
    };
    let local = match local {
        "" => 0,
        // `PORT` alone means the same number on both sides, or that of the name.
        local if local == spec => local.parse().unwrap_or(remote),
        local => local.parse().with_context(|| format!("{local:?} is no port"))?,
    };
    Ok((local, remote))
}

fn number_or_name(port: &str, pod: &Value) -> anyhow::Result<u16> {
    if let Ok(number) = port.parse() {
        return Ok(number);
    }
    let mut all = list(pod, "/spec/containers").iter().flat_map(|c| list(c, "/ports"));
    let named = all.find(|p| text(p, "/name") == port);
    let named = named.with_context(|| {
        format!("Pod {:?} does not have a named port {port:?}", text(pod, "/metadata/name"))
    })?;
    u16::try_from(number(named, "/containerPort")).context("a container port")
}

fn service_port(service: &Value, port: &str, pod: &Value) -> anyhow::Result<u16> {
    let wanted = |p: &&Value| text(p, "/name") == port || number(p, "/port").to_string() == port;
    let found = list(service, "/spec/ports").iter().find(wanted);
    let found = found.with_context(|| {
        format!("Service {:?} does not have a service port {port}", text(service, "/metadata/name"))
    })?;
    match found.get("targetPort") {
        Some(Value::String(name)) => number_or_name(name, pod),
        Some(target) => target.as_u64().and_then(|n| u16::try_from(n).ok()).context("a target port"),
        None => u16::try_from(number(found, "/port")).context("a service port"),
    }
}

async fn listen(addresses: &[String], port: u16) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut problem = None;
    let mut port = port;
    for address in addresses {
        let both = ["127.0.0.1".to_owned(), "::1".to_owned()];
        let hosts: &[String] = if address == "localhost" { &both } else { std::slice::from_ref(address) };
        for host in hosts {
            let ip: IpAddr = host.parse().with_context(|| format!("{host:?} is not a valid IP address"))?;
            match TcpListener::bind((ip, port)).await {
                Ok(listener) => {
                    // The second address takes the port that the first was given.
                    port = listener.local_addr().map_or(port, |a| a.port());
                    listeners.push(listener);
                }
                Err(error) => {
                    problem = Some(anyhow::anyhow!("unable to listen on port {port} of {host}: {error}"))
                }
            }
        }
    }
    match problem {
        // A machine without IPv6 still has localhost.
        Some(problem) if listeners.is_empty() => Err(problem),
        _ => Ok(listeners),
    }
}

async fn serve(api: Api<Pod>, pod: String, listener: TcpListener, remote: u16) -> anyhow::Result<()> {
    let local = listener.local_addr().map(|a| a.port()).unwrap_or_default();
    loop {
        let (connection, _) = listener.accept().await.context("accept a connection")?;
        crate::outln!("Handling connection for {local}");
        let (api, pod) = (api.clone(), pod.clone());
        tokio::spawn(async move {
            if let Err(error) = forward(api, &pod, connection, remote).await {
                eprintln!("error: forwarding port {local} -> {remote}: {error:#}");
            }
        });
    }
}

async fn forward(api: Api<Pod>, pod: &str, mut connection: TcpStream, remote: u16) -> anyhow::Result<()> {
    let mut forwarder = api.portforward(pod, &[remote]).await.context("reach the pod")?;
    let problem = forwarder.take_error(remote);
    let mut stream = forwarder.take_stream(remote).context("a stream to the pod")?;
    // A side that hangs up is how connections end.
    let _ = tokio::io::copy_bidirectional(&mut connection, &mut stream).await;
    drop(stream);
    if let Some(problem) = problem
        && let Ok(Some(problem)) = tokio::time::timeout(std::time::Duration::from_millis(100), problem).await
    {
        bail!("{problem}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_are_found_by_number_and_name() {
        let pod = json!({"metadata": {"name": "x"}, "spec": {"containers": [{"ports": [{"name": "web", "containerPort": 8080}]}]}});
        let service = json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": "web"}]}});
        assert_eq!(pair("80", &pod, "Pod", &pod).expect("ports"), (80, 80));
        assert_eq!(pair("5000:web", &pod, "Pod", &pod).expect("ports"), (5000, 8080));
        assert_eq!(pair(":80", &pod, "Pod", &pod).expect("ports"), (0, 80));
        assert_eq!(pair("80", &service, "Service", &pod).expect("ports"), (80, 8080));
        assert_eq!(pair("9000:http", &service, "Service", &pod).expect("ports"), (9000, 8080));
        assert!(pair("81", &service, "Service", &pod).is_err());
    }
}
