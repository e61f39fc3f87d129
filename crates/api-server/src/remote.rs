//! HTTPS services that the server asks: webhooks that a kubeconfig names, and issuers of tokens.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use keelson_daemon::tls::rustls::client::WebPkiServerVerifier;
use keelson_daemon::tls::rustls::client::danger::ServerCertVerifier;
use keelson_daemon::tls::rustls::{ClientConfig, RootCertStore};
use keelson_daemon::tls::{client_identity, provider, server_verifier};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;
use serde_json::Value;

use crate::metrics::x509::WEBHOOKS;

const MAX_ANSWER: usize = 8 << 20;
/// Attempts at a webhook, the first pause between them, and what each pause grows by.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);
const GROWTH: f64 = 1.5;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("use the kubeconfig {}: {problem}", path.display())]
    Kubeconfig { path: PathBuf, problem: String },
    #[error("set up TLS for {subject}")]
    Tls { subject: String, source: BoxError },
    #[error("{method} {url}")]
    Send { method: Method, url: String, source: BoxError },
    #[error("{method} {url}: {status}")]
    Status { method: Method, url: String, status: StatusCode, retry: bool },
    #[error("{method} {url}: no answer within {timeout:?}")]
    Timeout { method: Method, url: String, timeout: Duration },
    #[error("read the answer of {url}")]
    Answer { url: String, source: BoxError },
}

impl RemoteError {
    /// Whether the same call may succeed shortly, as upstream's webhooks judge it.
    fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, retry, .. } => *retry || matches!(status.as_u16(), 429 | 500 | 504),
            _ => false,
        }
    }
}

/// A client of HTTPS services that trust one set of authorities.
pub struct Remote {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

/// One webhook: where it listens, and the credentials it is shown.
pub struct Webhook {
    remote: Remote,
    url: Uri,
    credentials: Credentials,
}

enum Credentials {
    None,
    Header(String),
    /// Read at each call: whoever rotates it writes the file anew.
    TokenFile(PathBuf),
}

impl Remote {
    /// Trusts the authorities in `ca`, or those of the system.
    pub fn new(ca: Option<&str>, timeout: Duration) -> Result<Self, RemoteError> {
        let failed = |source| RemoteError::Tls { subject: "an issuer".into(), source };
        let verifier = match ca {
            Some(pem) => static_verifier(pem.as_bytes()),
            None => system_verifier(),
        };
        Self::with(verifier.map_err(failed)?, None, None, timeout).map_err(failed)
    }

    fn with(
        verifier: Arc<dyn ServerCertVerifier>,
        identity: Option<Identity>,
        server_name: Option<ServerName<'static>>,
        timeout: Duration,
    ) -> Result<Self, BoxError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(Identity::Files(cert, key)) => {
                builder.with_client_cert_resolver(client_identity(&cert, &key)?)
            }
            Some(Identity::Data(chain, key)) => builder.with_client_auth_cert(chain, key)?,
        };
        let https = HttpsConnectorBuilder::new().with_tls_config(config).https_only();
        let https = match server_name {
            Some(name) => https.with_server_name_resolver(FixedServerNameResolver::new(name)),
            None => https,
        };
        let client = Client::builder(TokioExecutor::new()).build(https.enable_http1().build());
        Ok(Self { client, timeout })
    }

    /// The body of a successful answer.
    pub async fn get(&self, url: &str, bearer: Option<&str>) -> Result<Bytes, RemoteError> {
        let credentials = bearer.map(|token| format!("Bearer {token}"));
        self.call(Method::GET, url, credentials.as_deref(), Bytes::new()).await
    }

    async fn call(
        &self,
        method: Method,
        url: &str,
        credentials: Option<&str>,
        body: Bytes,
    ) -> Result<Bytes, RemoteError> {
        let send = |source: BoxError| RemoteError::Send { method: method.clone(), url: url.into(), source };
        let mut request =
            Request::builder().method(method.clone()).uri(url).header(ACCEPT, "application/json");
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(credentials) = credentials {
            request = request.header(AUTHORIZATION, credentials);
        }
        let request = request.body(Full::new(body)).map_err(|e| send(e.into()))?;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|e| send(e.into()))?;
            let (parts, body) = answer.into_parts();
            if !parts.status.is_success() {
                let retry = parts.headers.contains_key(RETRY_AFTER);
                let (method, url, status) = (method.clone(), url.to_owned(), parts.status);
                return Err(RemoteError::Status { method, url, status, retry });
            }
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            body.map(|b| b.to_bytes()).map_err(|source| RemoteError::Answer { url: url.to_owned(), source })
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(RemoteError::Timeout { method, url: url.to_owned(), timeout: self.timeout }),
        }
    }
}

impl Webhook {
    /// The cluster and user of a kubeconfig's current context. Its URL is called as it stands.
    pub fn from_kubeconfig(path: &Path, timeout: Duration) -> Result<Self, RemoteError> {
        let wrong = |problem: String| RemoteError::Kubeconfig { path: path.to_owned(), problem };
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        let file: Kubeconfig = keelson_daemon::config::parse(&text).map_err(wrong)?;
        let (cluster, user) = file.current().map_err(wrong)?;
        let url: Uri = cluster.server.parse().map_err(|e| wrong(format!("server: {e}")))?;
        if url.scheme_str() != Some("https") {
            return Err(wrong(format!("server: {:?} is no https URL", cluster.server)));
        }
        if cluster.insecure_skip_tls_verify {
            return Err(wrong(
                "insecure-skip-tls-verify is not supported: name the certificate authority".into(),
            ));
        }
        let failed = |source| RemoteError::Tls { subject: cluster.server.clone(), source };
        let verifier = WEBHOOKS.counting(cluster.verifier(path).map_err(failed)?);
        let name = cluster.tls_server_name.clone().map(ServerName::try_from).transpose();
        let name = name.map_err(|e| wrong(format!("tls-server-name: {e}")))?;
        let identity = user.identity(path).map_err(failed)?;
        let remote = Remote::with(verifier, identity, name, timeout).map_err(failed)?;
        Ok(Self { remote, url, credentials: user.credentials(path) })
    }

    /// Posts a review and returns the one that is answered; asks again shortly where that may help.
    pub async fn review(&self, review: &Value) -> Result<Value, RemoteError> {
        let body = Bytes::from(review.to_string());
        let url = self.url.to_string();
        let mut pause = PAUSE;
        for attempt in 1.. {
            let credentials = self.credentials.read();
            match self.remote.call(Method::POST, &url, credentials.as_deref(), body.clone()).await {
                Ok(answer) => {
                    let failed = |source: BoxError| RemoteError::Answer { url: url.clone(), source };
                    let answer: Value = serde_json::from_slice(&answer).map_err(|e| failed(e.into()))?;
                    if answer["kind"] != review["kind"] || answer["apiVersion"] != review["apiVersion"] {
                        return Err(failed(format!("it is no {}", review["kind"]).into()));
                    }
                    return Ok(answer);
                }
                Err(error) if attempt == ATTEMPTS || !error.is_transient() => return Err(error),
                Err(_) => {}
            }
            tokio::time::sleep(pause.mul_f64(1.0 + 0.2 * rand::random::<f64>())).await;
            pause = pause.mul_f64(GROWTH);
        }
        unreachable!("the last attempt returns")
    }
}

impl Credentials {
    fn read(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Header(header) => Some(header.clone()),
            Self::TokenFile(path) => {
                std::fs::read_to_string(path).ok().map(|token| format!("Bearer {}", token.trim()))
            }
        }
    }
}

enum Identity {
    Files(PathBuf, PathBuf),
    Data(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
}

fn static_verifier(pem: &[u8]) -> Result<Arc<dyn ServerCertVerifier>, BoxError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate?)?;
    }
    verifier(roots)
}

fn system_verifier() -> Result<Arc<dyn ServerCertVerifier>, BoxError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    verifier(roots)
}

fn verifier(roots: RootCertStore) -> Result<Arc<dyn ServerCertVerifier>, BoxError> {
    Ok(WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build()?)
}

/// The parts of a kubeconfig that name a service.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Kubeconfig {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
    contexts: Vec<NamedContext>,
    current_context: String,
}

#[derive(Debug, Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Debug, Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Debug, Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Debug, Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    password: Option<String>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").finish_non_exhaustive()
    }
}

impl Kubeconfig {
    fn current(self) -> Result<(Cluster, User), String> {
        let context = self.contexts.into_iter().find(|c| c.name == self.current_context);
        let Context { cluster, user } =
            context.ok_or_else(|| format!("there is no context {:?}", self.current_context))?.context;
        let found = self.clusters.into_iter().find(|c| c.name == cluster);
        let found = found.ok_or_else(|| format!("there is no cluster {cluster:?}"))?.cluster;
        if user.is_empty() {
            return Ok((found, User::default()));
        }
        let user = self
            .users
            .into_iter()
            .find(|u| u.name == user)
            .ok_or_else(|| format!("there is no user {user:?}"))?;
        Ok((found, user.user))
    }
}

/// Paths in a kubeconfig are relative to it.
fn beside(kubeconfig: &Path, file: &Path) -> PathBuf {
    kubeconfig.parent().unwrap_or(Path::new("")).join(file)
}

impl Cluster {
    fn verifier(&self, kubeconfig: &Path) -> Result<Arc<dyn ServerCertVerifier>, BoxError> {
        match (&self.certificate_authority_data, &self.certificate_authority) {
            (Some(data), _) => static_verifier(&STANDARD.decode(data)?),
            (None, Some(file)) => Ok(server_verifier(vec![beside(kubeconfig, file)])?),
            (None, None) => system_verifier(),
        }
    }
}

impl User {
    fn identity(&self, kubeconfig: &Path) -> Result<Option<Identity>, BoxError> {
        if let (Some(cert), Some(key)) = (&self.client_certificate_data, &self.client_key_data) {
            let (cert, key) = (STANDARD.decode(cert)?, STANDARD.decode(key)?);
            let chain = CertificateDer::pem_slice_iter(&cert).collect::<Result<_, _>>()?;
            return Ok(Some(Identity::Data(chain, PrivateKeyDer::from_pem_slice(&key)?)));
        }
        let files = self.client_certificate.as_ref().zip(self.client_key.as_ref());
        Ok(files.map(|(cert, key)| Identity::Files(beside(kubeconfig, cert), beside(kubeconfig, key))))
    }

    fn credentials(&self, kubeconfig: &Path) -> Credentials {
        match (&self.token_file, &self.token, &self.username) {
            (Some(file), ..) => Credentials::TokenFile(beside(kubeconfig, file)),
            (None, Some(token), _) => Credentials::Header(format!("Bearer {token}")),
            (None, None, Some(name)) => {
                let password = self.password.as_deref().unwrap_or_default();
                Credentials::Header(format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))
            }
            _ => Credentials::None,
        }
    }
}
