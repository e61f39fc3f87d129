//! The configuration file: parsed once into valid types, refused whole when a part of it is wrong.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use keelson_daemon::{LogConfig, Validate};
use keelson_store::{EmbeddedConfig, StoreConfig};
use serde::{Deserialize, Serialize, Serializer};

use crate::admission::pod_security::Exemptions;
use crate::authn::config::{AuthenticationConfiguration, RequestHeader, TokenCache, TokenWebhook};
use crate::authz::config::AuthorizationConfiguration;
use crate::encrypt::config::EncryptionConfiguration;
use crate::runtime_config::RuntimeConfig;
use crate::structured::Source;

/// `/etc/keelson/api-server.yaml`. Every key has a default; unknown keys are refused.
///
/// Serialized, for `/configz`, it has no secrets: documents of their own are said to be there, files are named.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    pub bind: Bind,
    /// The address that the `kubernetes` Service's endpoints carry; `bind.address` where that names one.
    pub advertise_address: Option<IpAddr>,
    /// Where the embedded store lives.
    pub data_dir: PathBuf,
    #[serde(serialize_with = "backend")]
    pub store: StoreBackend,
    /// The folder of the cluster's certificates; the single files in `pki` default to names in it.
    pub pki_dir: PathBuf,
    pub pki: PkiFiles,
    pub service_cidr: IpNet,
    pub node_port_range: PortRange,
    pub cluster_domain: String,
    pub service_account_issuer: String,
    /// Audiences a token may be for when its request names none; the issuer by default.
    pub api_audiences: Vec<String>,
    /// Whether requests without credentials are `system:anonymous` (and then subject to RBAC) or refused.
    /// Ignored where `authentication` says it.
    pub anonymous: bool,
    /// Token issuers and anonymous access: an `AuthenticationConfiguration`, or `{file: PATH}` for one that is
    /// followed.
    pub authentication: Option<Source<AuthenticationConfiguration>>,
    #[serde(skip_serializing)]
    pub token_cache: TokenCache,
    #[serde(skip_serializing)]
    pub token_webhook: Option<TokenWebhook>,
    pub request_header: RequestHeader,
    /// Who is asked whether a request is allowed: an `AuthorizationConfiguration`, or `{file: PATH}` for one that
    /// is followed. Node and RBAC if absent.
    pub authorization: Option<Source<AuthorizationConfiguration>>,
    /// Paths that everybody who is known, or anonymous where that is enabled, may get; a final `*` matches the rest.
    pub always_allow_paths: Vec<String>,
    /// Encryption at rest: an `EncryptionConfiguration`, or `{file: PATH}` for one that is followed.
    pub encryption: Option<Source<EncryptionConfiguration>>,
    /// How long watches live when the client does not say: a random time from this to twice this, in seconds.
    pub min_request_timeout: u64,
    /// How long a request (watches and streams aside) may take before 504, in seconds; clients may ask for less.
    pub request_timeout: u64,
    /// How long the server goes on after it was told to end, with `/readyz` failing, so that load balancers send their
    /// clients elsewhere; in seconds.
    pub shutdown_delay: u64,
    /// The share of HTTP/2 requests after which the client is told to connect anew, to spread clients over the servers
    /// of a cluster: 0 to 0.02.
    pub goaway_chance: f64,
    /// Seats that requests share by priority and fairness; what finds none waits, or gets 429.
    pub max_requests_in_flight: usize,
    /// Which of the built-in APIs are served, by `GROUP/VERSION`, `api/beta` and so on: upstream's `--runtime-config`.
    pub runtime_config: RuntimeConfig,
    /// How long Events are kept, in seconds.
    pub event_ttl: u64,
    /// Whom `componentstatuses` asks.
    pub components: crate::components::Components,
    /// What is recorded of requests, and where; nothing by default.
    #[serde(skip_serializing)]
    pub audit: Option<crate::audit::Config>,
    /// Where spans of requests go: a `TracingConfiguration`, or `{file: PATH}`; nowhere by default.
    pub tracing: Option<Source<keelson_traces::Config>>,
    /// Whom the Pod Security Standards do not bind, whatever their namespace's labels say.
    pub pod_security_exemptions: Exemptions,
    /// Whether `/debug/pprof/` is served, to who may get it, and allocations are sampled for it.
    pub enable_profiling: bool,
    #[serde(alias = "log")]
    pub logging: LogConfig,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Bind {
    pub address: IpAddr,
    /// 0 lets the system choose (tests).
    pub port: u16,
}

impl Default for Bind {
    fn default() -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), port: 6443 }
    }
}

/// `embedded`, or one of the store's own configurations.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StoreBackend {
    /// One file under `dataDir`.
    #[default]
    Embedded,
    #[serde(untagged)]
    Other(StoreConfig),
}

fn backend<S: Serializer>(store: &StoreBackend, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(match store {
        StoreBackend::Embedded | StoreBackend::Other(StoreConfig::Embedded(_)) => "embedded",
        StoreBackend::Other(StoreConfig::Etcd(_)) => "etcd",
    })
}

/// Single files, for those who keep them elsewhere than in `pkiDir`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PkiFiles {
    pub client_ca: Option<PathBuf>,
    pub serving_cert: Option<PathBuf>,
    pub serving_key: Option<PathBuf>,
    pub kubelet_client_cert: Option<PathBuf>,
    pub kubelet_client_key: Option<PathBuf>,
    pub kubelet_ca: Option<PathBuf>,
    pub front_proxy_ca: Option<PathBuf>,
    pub front_proxy_client_cert: Option<PathBuf>,
    pub front_proxy_client_key: Option<PathBuf>,
    pub service_account_key: Option<PathBuf>,
    pub service_account_pub: Option<PathBuf>,
}

/// Inclusive, written `30000-32767`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl TryFrom<String> for PortRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a port range like 30000-32767");
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let range =
            Self { first: first.parse().map_err(|_| wrong())?, last: last.parse().map_err(|_| wrong())? };
        if range.first == 0 || range.first > range.last { Err(wrong()) } else { Ok(range) }
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        format!("{}-{}", range.first, range.last)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: Bind::default(),
            advertise_address: None,
            data_dir: "/var/lib/keelson/api-server".into(),
            store: StoreBackend::default(),
            pki_dir: "/etc/keelson/pki".into(),
            pki: PkiFiles::default(),
            service_cidr: IpNet::V4(ipnet::Ipv4Net::new(Ipv4Addr::new(10, 96, 0, 0), 16).unwrap_or_default()),
            node_port_range: PortRange { first: 30000, last: 32767 },
            cluster_domain: "cluster.local".into(),
            service_account_issuer: "https://kubernetes.default.svc.cluster.local".into(),
            api_audiences: Vec::new(),
            anonymous: true,
            authentication: None,
            token_cache: TokenCache::default(),
            token_webhook: None,
            request_header: RequestHeader::default(),
            authorization: None,
            always_allow_paths: ["/healthz", "/livez", "/readyz"].map(str::to_owned).to_vec(),
            encryption: None,
            min_request_timeout: 1800,
            request_timeout: 60,
            shutdown_delay: 0,
            goaway_chance: 0.0,
            max_requests_in_flight: 600,
            runtime_config: RuntimeConfig::default(),
            event_ttl: 3600,
            components: Default::default(),
            audit: None,
            tracing: None,
            pod_security_exemptions: Exemptions::default(),
            enable_profiling: true,
            logging: LogConfig::default(),
        }
    }
}

impl Config {
    /// The store to open.
    pub fn store(&self) -> StoreConfig {
        match &self.store {
            StoreBackend::Embedded => {
                StoreConfig::Embedded(EmbeddedConfig::new(self.data_dir.join("store.redb")))
            }
            StoreBackend::Other(config) => config.clone(),
        }
    }

    pub fn listen_address(&self) -> SocketAddr {
        SocketAddr::new(self.bind.address, self.bind.port)
    }

    /// Audiences of tokens that name none.
    pub fn audiences(&self) -> Vec<String> {
        if self.api_audiences.is_empty() {
            vec![self.service_account_issuer.clone()]
        } else {
            self.api_audiences.clone()
        }
    }

    pub fn client_ca(&self) -> PathBuf {
        self.pki_file(&self.pki.client_ca, "ca.crt")
    }

    pub fn serving_cert(&self) -> PathBuf {
        self.pki_file(&self.pki.serving_cert, "api-server.crt")
    }

    pub fn serving_key(&self) -> PathBuf {
        self.pki_file(&self.pki.serving_key, "api-server.key")
    }

    pub fn kubelet_client_cert(&self) -> PathBuf {
        self.pki_file(&self.pki.kubelet_client_cert, "api-server-kubelet-client.crt")
    }

    pub fn kubelet_client_key(&self) -> PathBuf {
        self.pki_file(&self.pki.kubelet_client_key, "api-server-kubelet-client.key")
    }

    /// The authority of the node agents' serving certificates.
    pub fn kubelet_ca(&self) -> PathBuf {
        self.pki_file(&self.pki.kubelet_ca, "ca.crt")
    }

    pub fn front_proxy_ca(&self) -> PathBuf {
        self.pki_file(&self.pki.front_proxy_ca, "front-proxy-ca.crt")
    }

    pub fn front_proxy_client_cert(&self) -> PathBuf {
        self.pki_file(&self.pki.front_proxy_client_cert, "front-proxy-client.crt")
    }

    pub fn front_proxy_client_key(&self) -> PathBuf {
        self.pki_file(&self.pki.front_proxy_client_key, "front-proxy-client.key")
    }

    pub fn service_account_key(&self) -> PathBuf {
        self.pki_file(&self.pki.service_account_key, "sa.key")
    }

    pub fn service_account_pub(&self) -> PathBuf {
        self.pki_file(&self.pki.service_account_pub, "sa.pub")
    }

    fn pki_file(&self, chosen: &Option<PathBuf>, default: &str) -> PathBuf {
        chosen.clone().unwrap_or_else(|| Path::new(&self.pki_dir).join(default))
    }

    fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut check = |fine: bool, message: String| {
            if !fine {
                found.push(message);
            }
        };
        let hosts = self.service_cidr.max_prefix_len() - self.service_cidr.prefix_len();
        check(
            (3..=20).contains(&hosts) || self.service_cidr.max_prefix_len() == 128 && hosts >= 3,
            format!("serviceCidr: {} must hold between 8 and 1048576 addresses", self.service_cidr),
        );
        check(
            self.service_cidr.addr() == self.service_cidr.network(),
            format!("serviceCidr: {} has host bits set", self.service_cidr),
        );
        let domain = keelson_api_types::names::dns1123_subdomain(&self.cluster_domain);
        check(domain.is_empty(), format!("clusterDomain: {}", domain.join("; ")));
        check(
            self.service_account_issuer.starts_with("https://"),
            "serviceAccountIssuer: must be an https URL".to_owned(),
        );
        for problem in self.runtime_config.problems() {
            check(false, format!("runtimeConfig: {problem}"));
        }
        check(self.event_ttl > 0, "eventTtl: must be greater than 0".to_owned());
        if let Some(audit) = &self.audit {
            if let Err(error) = crate::audit::policy::Policy::load(&audit.policy_file) {
                check(false, format!("audit.policyFile: {error}"));
            }
            let hook = audit.webhook.as_ref().is_none_or(|w| w.url.starts_with("https://"));
            check(hook, "audit.webhook.url: must be an https URL".to_owned());
            let some = audit.log.is_some() || audit.webhook.is_some();
            check(some, "audit: needs a log or a webhook".to_owned());
        }
        check(self.request_timeout > 0, "requestTimeout: must be greater than 0".to_owned());
        check(
            (0.0..=0.02).contains(&self.goaway_chance),
            "goawayChance: must be between 0 and 0.02".to_owned(),
        );
        check(self.max_requests_in_flight > 0, "maxRequestsInFlight: must be greater than 0".to_owned());
        found.extend(self.authentication.iter().flat_map(|s| s.problems("authentication")));
        let issuers = self.authentication.as_ref().and_then(|s| s.load().ok());
        let overlap = issuers.and_then(|i| i.overlaps(&self.service_account_issuer));
        found.extend(overlap.map(|problem| format!("authentication.{problem}")));
        found.extend(self.token_webhook.iter().flat_map(|w| w.problems("tokenWebhook")));
        found.extend(self.request_header.problems("requestHeader"));
        found.extend(self.authorization.iter().flat_map(|s| s.problems("authorization")));
        found.extend(self.tracing.iter().flat_map(|s| s.problems("tracing")));
        found.extend(self.encryption.iter().flat_map(|s| s.problems("encryption")));
        found
    }
}

impl Validate for Config {
    fn validate(&self) -> Vec<String> {
        self.problems()
    }

    fn logging(&self) -> LogConfig {
        self.logging.clone()
    }
}
