//! Client certificates: whose authority signed them, and whom they name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::UnixTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::types::{AuthnError, PeerCert, UserInfo};

/// The subject attribute that carries a user's uid.
const UID_ATTRIBUTE: &str = "1.3.6.1.4.1.57683.2";
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
const RELOAD: Duration = Duration::from_secs(10);
/// Certificates remembered as verified; all are forgotten when there are more.
const REMEMBERED: usize = 1024;

/// What a verified certificate makes of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Client(UserInfo),
    FrontProxy,
}

/// The authorities, and which certificates they have been found to vouch for.
pub struct Certificates {
    client: Authority,
    front_proxy: Option<Authority>,
    /// Common names of who may speak for others; anyone of the front proxy's authority if empty.
    proxy_names: Vec<String>,
    known: Mutex<HashMap<Vec<u8>, (Origin, i64)>>,
}

/// A CA file, read again when it changes.
struct Authority {
    path: PathBuf,
    state: Mutex<AuthorityState>,
}

struct AuthorityState {
    verifier: Arc<dyn ClientCertVerifier>,
    modified: Option<SystemTime>,
    looked: Instant,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot use {path} as a certificate authority: {reason}")]
pub struct AuthorityError {
    path: PathBuf,
    reason: String,
}

impl Certificates {
    /// `front_proxy` may name a file that does not exist: then nobody speaks for others.
    pub fn load(
        client_ca: &Path,
        front_proxy_ca: Option<&Path>,
        proxy_names: Vec<String>,
    ) -> Result<Self, AuthorityError> {
        Ok(Self {
            client: Authority::load(client_ca)?,
            front_proxy: front_proxy_ca.filter(|p| p.exists()).map(Authority::load).transpose()?,
            proxy_names,
            known: Mutex::default(),
        })
    }

    /// Whom the certificate names. The TLS handshake has proven that the caller holds its key.
    pub fn identify(&self, peer: &PeerCert) -> Result<Origin, AuthnError> {
        let invalid = |why: String| AuthnError::Invalid(why);
        let leaf = peer.chain.first().ok_or_else(|| invalid("an empty certificate chain".into()))?;
        let fingerprint = &peer.fingerprint;
        let now = UnixTime::now();
        let reloaded = self.client.refresh() | self.front_proxy.as_ref().is_some_and(Authority::refresh);
        if reloaded {
            self.known.lock().clear();
        }
        if let Some((origin, ends)) = self.known.lock().get(fingerprint)
            && now.as_secs() as i64 <= *ends
        {
            return Ok(origin.clone());
        }
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|e| invalid(format!("x509: {e}")))?;
        let by_client_ca = self.client.vouches(peer, now);
        let by_front_proxy_ca = || self.front_proxy.as_ref().is_some_and(|a| a.vouches(peer, now).is_ok());
        let is_proxy = || {
            let name = common_name(&parsed);
            self.proxy_names.is_empty() || self.proxy_names.iter().any(|allowed| allowed == name)
        };
        let origin = if is_proxy() && by_front_proxy_ca() {
            Origin::FrontProxy
        } else {
            by_client_ca.map_err(|e| invalid(format!("x509: {e}")))?;
            Origin::Client(user(&parsed, fingerprint)?)
        };
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(fingerprint.clone(), (origin.clone(), parsed.validity().not_after.timestamp()));
        Ok(origin)
    }
}

impl Authority {
    fn load(path: &Path) -> Result<Self, AuthorityError> {
        let state =
            AuthorityState { modified: modified(path), verifier: verifier(path)?, looked: Instant::now() };
        Ok(Self { path: path.to_owned(), state: Mutex::new(state) })
    }

    /// True if the file changed and was read again. A broken file leaves the old authority in place.
    fn refresh(&self) -> bool {
        let mut state = self.state.lock();
        if state.looked.elapsed() < RELOAD {
            return false;
        }
        state.looked = Instant::now();
        let found = modified(&self.path);
        if found == state.modified {
            return false;
        }
        match verifier(&self.path) {
            Ok(verifier) => {
                state.verifier = verifier;
                state.modified = found;
                true
            }
            Err(error) => {
                tracing::warn!(%error, "keeping the authority read before");
                false
            }
        }
    }

    fn vouches(&self, peer: &PeerCert, now: UnixTime) -> Result<(), rustls::Error> {
        let verifier = self.state.lock().verifier.clone();
        let (leaf, rest) = peer.chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        verifier.verify_client_cert(leaf, rest, now).map(|_| ())
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

fn verifier(path: &Path) -> Result<Arc<dyn ClientCertVerifier>, AuthorityError> {
    let fail = |reason: String| AuthorityError { path: path.to_owned(), reason };
    let text = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
    let mut roots = RootCertStore::empty();
    for block in pem::parse_many(text).map_err(|e| fail(e.to_string()))? {
        if block.tag() == "CERTIFICATE" {
            roots.add(block.into_contents().into()).map_err(|e| fail(e.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|e| fail(e.to_string()))
}

fn common_name<'a>(certificate: &'a X509Certificate<'_>) -> &'a str {
    let mut names = certificate.subject().iter_common_name();
    names.next().and_then(|n| n.as_str().ok()).unwrap_or_default()
}

fn user(certificate: &X509Certificate<'_>, fingerprint: &[u8]) -> Result<UserInfo, AuthnError> {
    let name = common_name(certificate);
    if name.is_empty() {
        return Err(AuthnError::Invalid("x509: the certificate has no common name".into()));
    }
    let uids: Vec<&str> = certificate
        .subject()
        .iter_attributes()
        .filter(|a| a.attr_type().to_id_string() == UID_ATTRIBUTE)
        .map(|a| a.as_str().unwrap_or_default())
        .collect();
    let uid = match uids.as_slice() {
        [] => "",
        [one] if !one.is_empty() => one,
        [_] => return Err(AuthnError::Invalid("x509: UID cannot be an empty string".into())),
        many => {
            let problem = format!("x509: expected 1 UID, but found multiple: {many:?}");
            return Err(AuthnError::Invalid(problem));
        }
    };
    let organizations = certificate.subject().iter_organization();
    let hex: String = fingerprint.iter().map(|b| format!("{b:02x}")).collect();
    Ok(UserInfo {
        name: name.to_owned(),
        uid: uid.to_owned(),
        groups: organizations.filter_map(|o| o.as_str().ok()).map(str::to_owned).collect(),
        extra: [(CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={hex}")])].into(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use keelson_pki::{Ca, Request, Usage};

    use super::*;

    const FRONT_PROXY_NAME: &str = "front-proxy-client";

    fn authority(dir: &Path, name: &str) -> Ca {
        let file = |end: &str| dir.join(format!("{name}.{end}"));
        Ca::load_or_create(&file("crt"), &file("key"), name).expect("an authority")
    }

    fn peer(ca: &Ca, cn: &str, orgs: &[&str]) -> PeerCert {
        let issued = ca
            .issue(&Request {
                cn: cn.into(),
                orgs: orgs.iter().map(|o| (*o).to_owned()).collect(),
                sans: Vec::new(),
                usage: Usage::Client,
                ttl: Duration::from_secs(3600),
            })
            .expect("a certificate");
        let der = pem::parse(issued.cert_pem).expect("PEM").into_contents();
        PeerCert::new(vec![der.into()])
    }

    #[test]
    fn the_authority_decides_what_a_certificate_means() {
        let dir = tempfile::tempdir().expect("a folder");
        let (ours, proxy, other) =
            (authority(dir.path(), "ca"), authority(dir.path(), "proxy"), authority(dir.path(), "other"));
        let names = vec![FRONT_PROXY_NAME.to_owned()];
        let certificates =
            Certificates::load(&dir.path().join("ca.crt"), Some(&dir.path().join("proxy.crt")), names)
                .expect("the authorities load");
        for _ in 0..2 {
            let Ok(Origin::Client(jane)) = certificates.identify(&peer(&ours, "jane", &["devs"])) else {
                panic!("the cluster's own certificate is refused")
            };
            assert_eq!((jane.name.as_str(), jane.groups.as_slice()), ("jane", &["devs".to_owned()][..]));
        }
        assert_eq!(
            certificates.identify(&peer(&proxy, FRONT_PROXY_NAME, &[])).ok(),
            Some(Origin::FrontProxy)
        );
        // Only the proxy speaks for others, and its authority vouches for nobody else.
        assert!(certificates.identify(&peer(&proxy, "jane", &["system:masters"])).is_err());
        assert!(matches!(certificates.identify(&peer(&ours, FRONT_PROXY_NAME, &[])), Ok(Origin::Client(_))));
        assert!(certificates.identify(&peer(&other, "jane", &[])).is_err());
        assert!(certificates.identify(&PeerCert::new(vec![vec![1, 2, 3].into()])).is_err());
        assert!(certificates.identify(&PeerCert::new(Vec::new())).is_err());
    }
}
