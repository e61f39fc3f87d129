//! The product's security side, built from the configuration: authentication, authorization, admission,
//! reviews, the discovery documents of tokens, and the bootstrap objects.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use keelson_api_types::StatusError;
use keelson_daemon::Metrics;
use keelson_pki::ServiceAccountKeys;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::admission::Chain;
use crate::authn::certificate::{AuthorityError, Certificates};
use crate::authn::config::{Anonymous, AuthenticationConfiguration};
use crate::authn::oidc::Issuers;
use crate::authn::{Authenticators, WebhookTokens};
use crate::authz::Authorizers;
use crate::authz::config::AuthorizationConfiguration;
use crate::bootstrap::objects::Settings;
use crate::config::Config;
use crate::errors::chain;
use crate::remote::RemoteError;
use crate::structured::{DocumentError, Source, follow};
use crate::token::{Tokens, discovery, request as token_request};
use crate::types::{Admission, Authenticator, Authorizer, Objects, ReviewRequest, Security};
use crate::weak::WeakObjects;
use crate::{bootstrap, reviews};

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("cannot load the service account keys")]
    Keys(#[from] keelson_pki::Error),
    #[error("cannot load the configuration of authentication or authorization")]
    Document(#[from] DocumentError),
    #[error("cannot set up a webhook or a token issuer")]
    Remote(#[from] RemoteError),
    #[error("cannot load the authorities of client certificates")]
    Authority(#[from] AuthorityError),
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Everything of this crate's security side; see [`build`].
pub struct ClusterSecurity {
    objects: Arc<dyn Objects>,
    authenticators: Arc<Authenticators>,
    authorizers: Arc<Authorizers>,
    admission: Chain,
    tokens: Arc<Tokens>,
    settings: Settings,
    followers: Mutex<Vec<JoinHandle<()>>>,
    /// Ends the reloads of configuration files with this.
    _reloads: DropGuard,
}

/// Builds the security side. `listen` is where the server really listens (its port may have been chosen
/// by the system). Must run inside a tokio runtime: the authorizers follow their objects at once.
pub fn build(
    config: &Config,
    objects: Arc<dyn Objects>,
    listen: SocketAddr,
    metrics: &Metrics,
) -> Result<Arc<ClusterSecurity>, BuildError> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|source| BuildError::Read { path: path.to_owned(), source })
    };
    // The server owns its security side; a strong reference back would keep both, and the store, forever.
    let objects: Arc<dyn Objects> = Arc::new(WeakObjects(Arc::downgrade(&objects)));
    let front_proxy_ca = config.front_proxy_ca();
    let settings = Settings {
        service_cidr: config.service_cidr,
        advertise: SocketAddr::new(advertise_address(config), listen.port()),
        client_ca: read(&config.client_ca())?,
        front_proxy_ca: front_proxy_ca.exists().then(|| read(&front_proxy_ca)).transpose()?,
        request_header: config.request_header.clone(),
    };
    let keys = ServiceAccountKeys::load(&config.service_account_key(), &config.service_account_pub())?;
    let tokens = Arc::new(Tokens::new(keys, config.service_account_issuer.clone(), config.audiences()));
    let proxies = config.request_header.allowed_names.clone();
    let authorization = match &config.authorization {
        Some(source) => source.load()?,
        None => AuthorizationConfiguration::default(),
    };
    let authentication = match &config.authentication {
        Some(source) => source.load()?,
        None => AuthenticationConfiguration::default(),
    };
    let authorizers = Authorizers::start(&objects, &authorization, config.always_allow_paths.clone())?;
    let authenticators = Arc::new(Authenticators {
        certificates: Certificates::load(&config.client_ca(), Some(&front_proxy_ca), proxies)?,
        tokens: tokens.clone(),
        verified: Default::default(),
        objects: objects.clone(),
        issuers: ArcSwap::from_pointee(Issuers::start(&authentication, &config.token_cache)?),
        webhook: config.token_webhook.as_ref().map(WebhookTokens::new).transpose()?,
        request_header: config.request_header.clone(),
        anonymous: authentication
            .anonymous
            .clone()
            .unwrap_or(Anonymous { enabled: config.anonymous, conditions: Vec::new() }),
    });
    let shutdown = CancellationToken::new();
    follow_authorization(config, &authorization, &authorizers, &shutdown);
    follow_authentication(config, &authentication, &authenticators, &shutdown);
    let admission = Chain::new(
        objects.clone(),
        authorizers.clone(),
        authorizers.rbac().clone(),
        config.pod_security_exemptions.clone(),
    );
    admission.metrics.register(metrics);
    Ok(Arc::new(ClusterSecurity {
        objects,
        authenticators,
        authorizers,
        admission,
        tokens,
        settings,
        followers: Mutex::default(),
        _reloads: shutdown.drop_guard(),
    }))
}

/// Takes over a changed file as upstream does: the authorizers other than webhooks stay.
fn follow_authorization(
    config: &Config,
    first: &AuthorizationConfiguration,
    authorizers: &Arc<Authorizers>,
    shutdown: &CancellationToken,
) {
    let Some(path) = config.authorization.as_ref().and_then(Source::file) else { return };
    let own: Vec<String> = first.own_types().into_iter().map(str::to_owned).collect();
    let authorizers = Arc::downgrade(authorizers);
    let take = move |document: AuthorizationConfiguration| {
        let kept = document.own_types();
        let missing: Vec<&String> = own.iter().filter(|t| !kept.contains(&t.as_str())).collect();
        let outcome = match (missing.as_slice(), authorizers.upgrade()) {
            ([], Some(authorizers)) => authorizers.replace(&document).map_err(|e| chain(&e)),
            ([], None) => Ok(()),
            (missing, _) => Err(format!("missing required types: {missing:?}")),
        };
        std::future::ready(outcome)
    };
    tokio::spawn(follow(path.to_owned(), shutdown.clone(), take));
}

/// Takes over changed issuers once they have been found; who is anonymous stays.
fn follow_authentication(
    config: &Config,
    first: &AuthenticationConfiguration,
    authenticators: &Arc<Authenticators>,
    shutdown: &CancellationToken,
) {
    let Some(path) = config.authentication.as_ref().and_then(Source::file) else { return };
    let anonymous = first.anonymous.clone();
    let (own, ttl) = (config.service_account_issuer.clone(), config.token_cache.clone());
    let authenticators = Arc::downgrade(authenticators);
    let take = move |document: AuthenticationConfiguration| {
        let (anonymous, ttl, authenticators) = (anonymous.clone(), ttl.clone(), authenticators.clone());
        let overlap = document.overlaps(&own);
        async move {
            if document.anonymous != anonymous {
                return Err("anonymous: cannot change while the server runs".to_owned());
            }
            if let Some(problem) = overlap {
                return Err(problem);
            }
            let issuers = Issuers::start(&document, &ttl).map_err(|e| chain(&e))?;
            issuers.found().await?;
            if let Some(authenticators) = authenticators.upgrade() {
                authenticators.issuers.store(Arc::new(issuers));
            }
            Ok(())
        }
    };
    tokio::spawn(follow(path.to_owned(), shutdown.clone(), take));
}

/// The address that others reach this machine by: the configured one, or the one that the machine's own
/// packets to the outside would carry.
pub fn advertise_address(config: &Config) -> IpAddr {
    if let Some(address) = config.advertise_address {
        return address;
    }
    if !config.bind.address.is_unspecified() {
        return config.bind.address;
    }
    // Connecting a datagram socket sends nothing; it only asks the routing table.
    let routed = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    routed().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

impl ClusterSecurity {
    async fn answer(&self, request: ReviewRequest<'_>) -> Result<Value, StatusError> {
        if request.subresource != "token" {
            return reviews::review(&self.authenticators, self.authorizers.as_ref(), request).await;
        }
        token_request::create(&self.tokens, self.objects.as_ref(), request).await
    }

    async fn run_bootstrap(&self) -> Result<(), StatusError> {
        bootstrap::run(&self.objects, &self.settings).await?;
        let mut followers = self.followers.lock();
        if followers.is_empty() {
            *followers = bootstrap::follow(&self.objects, &self.settings);
        }
        Ok(())
    }
}

impl Security for ClusterSecurity {
    fn authenticator(&self) -> &dyn Authenticator {
        self.authenticators.as_ref()
    }

    fn authorizer(&self) -> &dyn Authorizer {
        self.authorizers.as_ref()
    }

    fn admission(&self) -> &dyn Admission {
        &self.admission
    }

    fn review<'a>(&'a self, request: ReviewRequest<'a>) -> BoxFuture<'a, Result<Value, StatusError>> {
        self.answer(request).boxed()
    }

    fn document(&self, path: &str) -> Option<(&'static str, Bytes)> {
        discovery::document(&self.tokens, &self.settings.advertise.to_string(), path)
    }

    fn bootstrap(&self) -> BoxFuture<'_, Result<(), StatusError>> {
        self.run_bootstrap().boxed()
    }
}

impl Drop for ClusterSecurity {
    fn drop(&mut self) {
        for task in self.followers.get_mut() {
            task.abort();
        }
    }
}
