//! All certificates, keys and kubeconfigs of a cluster with one machine.

use crate::authority::{Ca, Request, Usage};
use crate::files::{read, write_changed, write_file};
use crate::kubeconfig::{Credentials, render};
use crate::{CertificateInfo, Error, LEAF_TTL, ServiceAccountKeys};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What the certificates of a cluster say about it.
#[derive(Clone, Debug)]
pub struct ClusterIdentity {
    /// The cluster's name in kubeconfigs.
    pub name: String,
    /// The API server's URL in kubeconfigs, such as `https://127.0.0.1:6443`.
    pub server: String,
    pub node_name: String,
    pub node_ips: Vec<IpAddr>,
    /// The ClusterIP of the Service `kubernetes`.
    pub service_ip: IpAddr,
    /// `cluster.local` unless changed.
    pub cluster_domain: String,
    /// More names and addresses under which the API server is reached.
    pub extra_sans: Vec<String>,
}

/// What [`ensure_all`] did.
#[derive(Clone, Debug)]
pub struct Ensured {
    /// Files that were written.
    pub changed: Vec<PathBuf>,
    /// When to call it again: the first certificate has then less than a third of its life left.
    pub renew_at: SystemTime,
}

/// A certificate of the cluster: where it is kept and what it says.
struct Wanted {
    /// Under `pki/`, without an ending.
    file: &'static str,
    cn: String,
    orgs: Vec<String>,
    sans: Vec<String>,
    usage: Usage,
}

/// Makes the files under `etc` (ROOT/etc/keelson) what they should be: `pki/*` and `*.kubeconfig`. Writes
/// only what is missing, broken, another authority's, about other names, or has less than a third of
/// its life left. An authority that is there is never replaced.
pub fn ensure_all(etc: &Path, identity: &ClusterIdentity) -> Result<Ensured, Error> {
    let pki = etc.join("pki");
    let file = |name: &str| pki.join(name);
    let mut done = Ensured { changed: Vec::new(), renew_at: SystemTime::now() + LEAF_TTL };

    let ca = authority(&pki, "ca", &format!("{}-ca", identity.name), &mut done)?;
    let front_proxy = authority(&pki, "front-proxy-ca", "front-proxy-ca", &mut done)?;
    if ServiceAccountKeys::ensure(&file("sa.key"), &file("sa.pub"))? {
        done.changed.extend([file("sa.key"), file("sa.pub")]);
    }

    let proxy_client = Wanted::client("front-proxy-client", "front-proxy-client", &[]);
    ensure_certificate(&pki, &front_proxy, &proxy_client, &mut done)?;
    for wanted in certificates(identity) {
        ensure_certificate(&pki, &ca, &wanted, &mut done)?;
    }

    for (name, user) in [
        ("scheduler", "system:kube-scheduler"),
        ("controller-manager", "system:kube-controller-manager"),
        ("node-agent", &*format!("system:node:{}", identity.node_name)),
        ("net-proxy", "system:kube-proxy"),
        ("dns", "system:keelson-dns"),
    ] {
        let (ca, cert, key) =
            (file("ca.crt"), file(&format!("{name}-client.crt")), file(&format!("{name}-client.key")));
        let credentials = Credentials::Files { ca: &ca, cert: &cert, key: &key };
        kubeconfig(etc, name, identity, user, &credentials, &mut done)?;
    }
    let (cert, key) = (read(&file("admin.crt"))?, read(&file("admin.key"))?);
    let credentials = Credentials::Embedded { ca: ca.cert_pem(), cert: &cert, key: &key };
    kubeconfig(etc, "admin", identity, "kubernetes-admin", &credentials, &mut done)?;
    Ok(done)
}

/// Keeps the files under `etc` renewed for as long as it is polled.
pub async fn renew_task(etc: PathBuf, identity: ClusterIdentity) {
    /// Looks at least this often, for files that were damaged and clocks that jumped.
    const LONGEST: Duration = Duration::from_secs(12 * 3600);
    const AFTER_FAILURE: Duration = Duration::from_secs(60);
    loop {
        let (dir, who) = (etc.clone(), identity.clone());
        let pause = match tokio::task::spawn_blocking(move || ensure_all(&dir, &who)).await {
            Ok(Ok(done)) => {
                for path in &done.changed {
                    tracing::info!(path = %path.display(), "renewed");
                }
                let until = done.renew_at.duration_since(SystemTime::now()).unwrap_or_default();
                until.clamp(AFTER_FAILURE, LONGEST)
            }
            Ok(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "could not renew certificates");
                AFTER_FAILURE
            }
            Err(_) => AFTER_FAILURE,
        };
        tokio::time::sleep(pause).await;
    }
}

impl Wanted {
    fn client(file: &'static str, cn: &str, orgs: &[&str]) -> Wanted {
        let orgs = orgs.iter().map(|&o| o.to_owned()).collect();
        Wanted { file, cn: cn.to_owned(), orgs, sans: vec![], usage: Usage::Client }
    }

    fn server(file: &'static str, cn: &str, sans: &[String]) -> Wanted {
        Wanted { file, cn: cn.to_owned(), orgs: vec![], sans: sans.to_vec(), usage: Usage::Server }
    }

    fn matches(&self, info: &CertificateInfo) -> bool {
        info.common_name == self.cn
            && info.organizations == self.orgs
            && info.sans == self.sans.iter().cloned().collect::<BTreeSet<_>>()
    }
}

/// All that the cluster's authority signs.
fn certificates(identity: &ClusterIdentity) -> Vec<Wanted> {
    let node = format!("system:node:{}", identity.node_name);
    let mut local = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), identity.node_name.clone()];
    local.extend(identity.node_ips.iter().map(IpAddr::to_string));
    let domain = &identity.cluster_domain;
    let mut api = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).to_vec();
    api.push(format!("kubernetes.default.svc.{domain}"));
    api.push(identity.service_ip.to_string());
    api.extend(local.iter().cloned());
    api.extend(identity.extra_sans.iter().cloned());
    vec![
        Wanted::server("api-server", "kube-apiserver", &api),
        Wanted::client("api-server-kubelet-client", "kube-apiserver-kubelet-client", &["system:masters"]),
        Wanted::client("admin", "kubernetes-admin", &["system:masters"]),
        Wanted::client("scheduler-client", "system:kube-scheduler", &[]),
        Wanted::client("controller-manager-client", "system:kube-controller-manager", &[]),
        Wanted::client("node-agent-client", &node, &["system:nodes"]),
        Wanted::client("net-proxy-client", "system:kube-proxy", &[]),
        Wanted::client("dns-client", "system:keelson-dns", &[]),
        Wanted { orgs: vec!["system:nodes".to_owned()], ..Wanted::server("node-agent", &node, &local) },
        Wanted::server("scheduler", "keelson-scheduler", &local),
        Wanted::server("controller-manager", "keelson-controller-manager", &local),
        Wanted::server("net-proxy", "keelson-net-proxy", &local),
        Wanted::server("dns", "keelson-dns", &local),
    ]
}

fn authority(pki: &Path, name: &str, cn: &str, done: &mut Ensured) -> Result<Ca, Error> {
    let (cert, key) = (pki.join(format!("{name}.crt")), pki.join(format!("{name}.key")));
    let there = cert.exists();
    let ca = Ca::load_or_create(&cert, &key, cn)?;
    if !there {
        done.changed.extend([key, cert]);
    } else if ca.info().renew_at() < SystemTime::now() {
        tracing::warn!(path = %cert.display(), "this certificate authority nears its end and has to be replaced by hand");
    }
    Ok(ca)
}

fn ensure_certificate(pki: &Path, ca: &Ca, wanted: &Wanted, done: &mut Ensured) -> Result<(), Error> {
    let (cert, key) = (pki.join(format!("{}.crt", wanted.file)), pki.join(format!("{}.key", wanted.file)));
    if let Some(renew_at) = good_until(&cert, &key, ca, wanted) {
        done.renew_at = done.renew_at.min(renew_at);
        return Ok(());
    }
    let issued = ca.issue(&Request {
        cn: wanted.cn.clone(),
        orgs: wanted.orgs.clone(),
        sans: wanted.sans.clone(),
        usage: wanted.usage,
        ttl: LEAF_TTL,
    })?;
    let info = CertificateInfo::from_pem(&issued.cert_pem)?;
    done.renew_at = done.renew_at.min(info.renew_at());
    // Readers that meet a new key beside the old certificate keep what they have and look again.
    write_file(&key, issued.key_pem.as_bytes(), 0o600)?;
    write_file(&cert, issued.cert_pem.as_bytes(), 0o644)?;
    done.changed.extend([key, cert]);
    Ok(())
}

/// When the certificate has to be renewed, or `None` when that is now.
fn good_until(cert: &Path, key: &Path, ca: &Ca, wanted: &Wanted) -> Option<SystemTime> {
    let info = CertificateInfo::from_pem(&read(cert).ok()?).ok()?;
    let key = rcgen::KeyPair::from_pem(&read(key).ok()?).ok()?;
    let good = wanted.matches(&info) && ca.signed(&info) && info.public_key == key.public_key_raw();
    // What an authority near its end issues ends with it, and another would not live longer.
    let capped = info.not_after == ca.info().not_after;
    let renew_at = if capped { info.not_after } else { info.renew_at() };
    (good && SystemTime::now() < renew_at).then_some(renew_at)
}

fn kubeconfig(
    etc: &Path,
    name: &str,
    identity: &ClusterIdentity,
    user: &str,
    credentials: &Credentials<'_>,
    done: &mut Ensured,
) -> Result<(), Error> {
    let path = etc.join(format!("{name}.kubeconfig"));
    if write_changed(&path, &render(&identity.name, &identity.server, user, credentials), 0o600)? {
        done.changed.push(path);
    }
    Ok(())
}
