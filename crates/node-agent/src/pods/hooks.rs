//! Lifecycle hooks, and the HTTP requests that hooks and probes share.

use super::spec;
use crate::context::Context;
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use keelson_daemon::tls::rustls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::net::TcpStream;

const MAX_BODY: usize = 10 << 10;
const MAX_REDIRECTS: usize = 10;

/// Runs a hook to its end. The error is what its event says.
pub async fn run(
    ctx: &Context,
    pod: &Pod,
    container: &Container,
    id: &str,
    pod_ip: &str,
    handler: &LifecycleHandler,
) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let answer = ctx.runtime.exec_sync(id, command.clone(), Duration::ZERO).await;
        return match answer {
            Ok(answer) if answer.exit_code == 0 => Ok(()),
            Ok(answer) => Err(format!(
                "Exec lifecycle hook ({command:?}) for Container {:?} in Pod {:?} failed - error: command '{}' exited with {}: {}{}, message: {:?}",
                container.name,
                spec::full_name(pod),
                command.join(" "),
                answer.exit_code,
                String::from_utf8_lossy(&answer.stdout),
                String::from_utf8_lossy(&answer.stderr),
                String::from_utf8_lossy(&answer.stdout),
            )),
            Err(e) => Err(e.user_message()),
        };
    }
    if let Some(get) = &handler.http_get {
        let limit = Duration::from_secs(30);
        return match http_get(get, container, pod_ip, limit).await {
            Ok((status, _)) if status < 400 => Ok(()),
            Ok((status, body)) => Err(format!(
                "HTTP lifecycle hook ({}) for Container {:?} in Pod {:?} failed - error: HTTP probe failed with statuscode: {status}, message: {body:?}",
                get.path.as_deref().unwrap_or("/"),
                container.name,
                spec::full_name(pod),
            )),
            Err(e) => Err(format!(
                "HTTP lifecycle hook ({}) for Container {:?} in Pod {:?} failed - error: {e}",
                get.path.as_deref().unwrap_or("/"),
                container.name,
                spec::full_name(pod),
            )),
        };
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0) as u64)).await;
    }
    Ok(())
}

/// A port by number or by the name that the container gives it.
pub fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(n) => Some(*n),
        IntOrString::String(name) => {
            let ports = container.ports.as_deref().unwrap_or_default();
            let named = ports.iter().find(|p| p.name.as_deref() == Some(name)).map(|p| p.container_port);
            named.or_else(|| name.parse().ok())
        }
    };
    number
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n > 0)
        .ok_or_else(|| format!("couldn't find port: {port:?} in pod container {}", container.name))
}

/// GETs as probes do: any certificate is taken, redirects are followed on the same host only. Answers the
/// status and the start of the body.
pub async fn http_get(
    get: &HTTPGetAction,
    container: &Container,
    pod_ip: &str,
    limit: Duration,
) -> Result<(u16, String), String> {
    let host = get.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip);
    let port = port(&get.port, container)?;
    let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let path = get.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let url = format!("{scheme}://{bracketed}:{port}{path}");
    let follow = async {
        let mut url = url.clone();
        for _ in 0..MAX_REDIRECTS {
            let (status, body, location) = fetch(get, &url).await.map_err(|e| format!("Get {url:?}: {e}"))?;
            let Some(location) = location.filter(|_| (300..400).contains(&status)) else {
                return Ok((status, body));
            };
            match redirect(&url, &location) {
                Some(next) => url = next,
                // Another host's answer says nothing about this one.
                None => return Ok((status, body)),
            }
        }
        Err(format!("Get {url:?}: stopped after {MAX_REDIRECTS} redirects"))
    };
    match tokio::time::timeout(limit, follow).await {
        Ok(answer) => answer,
        Err(_) => Err(format!(
            "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

fn redirect(from: &str, location: &str) -> Option<String> {
    let from: Uri = from.parse().ok()?;
    let to: Uri = location.parse().ok()?;
    match to.authority() {
        Some(authority) => (authority.host() == from.host()?).then(|| location.to_owned()),
        None => Some(format!("{}://{}{location}", from.scheme_str()?, from.authority()?)),
    }
}

async fn fetch(get: &HTTPGetAction, url: &str) -> Result<(u16, String, Option<String>), String> {
    let uri: Uri = url.parse().map_err(|e| format!("{e}"))?;
    let authority = uri.authority().ok_or("no host")?.clone();
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let port = authority.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let tcp = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|e| format!("dial tcp {host}:{port}: {}", plain(&e)))?;
    let own_host = get.http_headers.iter().flatten().find(|h| h.name.eq_ignore_ascii_case("host"));
    let mut request = Request::get(uri.path_and_query().map_or("/", |p| p.as_str()))
        .header("Host", own_host.map_or_else(|| authority.to_string(), |h| h.value.clone()))
        .header("User-Agent", concat!("kube-probe/1.36 keelson/", env!("CARGO_PKG_VERSION")))
        .header("Accept", "*/*")
        .header("Connection", "close");
    for header in get.http_headers.iter().flatten().filter(|h| !h.name.eq_ignore_ascii_case("host")) {
        request = request.header(&header.name, &header.value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    if uri.scheme_str() == Some("https") {
        let name = ServerName::try_from(host).map_err(|e| e.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(ANY_CERTIFICATE.clone());
        let tls = connector.connect(name, tcp).await.map_err(|e| plain(&e))?;
        exchange(TokioIo::new(tls), request).await
    } else {
        exchange(TokioIo::new(tcp), request).await
    }
}

async fn exchange<I>(io: I, request: Request<Empty<Bytes>>) -> Result<(u16, String, Option<String>), String>
where
    I: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let text = |e: hyper::Error| crate::volumes::chain(&e);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(text)?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(text)?;
    let status = response.status().as_u16();
    let location = response.headers().get("location").and_then(|l| l.to_str().ok()).map(str::to_owned);
    let mut body = response.into_body();
    let mut data = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(chunk) = frame.data_ref() {
            data.extend_from_slice(chunk);
        }
        if data.len() >= MAX_BODY {
            data.truncate(MAX_BODY);
            break;
        }
    }
    connection.abort();
    Ok((status, String::from_utf8_lossy(&data).into_owned(), location))
}

/// The system's words without the number that Rust adds.
pub fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text).to_lowercase();
    if error.raw_os_error().is_some() { format!("connect: {text}") } else { text }
}

/// Probes check whether something answers, not who.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

static ANY_CERTIFICATE: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
    let provider = keelson_daemon::tls::provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Arc::new(config)
});

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_on_the_host() {
        let from = "http://10.0.0.1:80/a";
        assert_eq!(redirect(from, "/b"), Some("http://10.0.0.1:80/b".into()));
        assert_eq!(redirect(from, "http://10.0.0.1:80/c"), Some("http://10.0.0.1:80/c".into()));
        assert_eq!(redirect(from, "http://0.0.0.0/c"), None);
    }
}
