//! `AuthenticationConfiguration`: issuers whose tokens count, and where nobody may ask. Beside it the parts
//! that upstream configures by flags: the front proxy's headers, the token webhook, the token cache.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, Uri};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use crate::structured::{Document, go_duration};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthenticationConfiguration {
    pub jwt: Vec<JwtAuthenticator>,
    pub anonymous: Option<Anonymous>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anonymous {
    #[serde(default)]
    pub enabled: bool,
    /// Paths where it is enabled; everywhere if there are none.
    #[serde(default)]
    pub conditions: Vec<AnonymousCondition>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnonymousCondition {
    #[serde(default)]
    pub path: String,
}

/// One issuer of JSON Web Tokens, and what a token of its makes of the caller.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct JwtAuthenticator {
    pub issuer: Issuer,
    #[serde(default)]
    pub claim_validation_rules: Vec<ClaimValidationRule>,
    #[serde(default)]
    pub claim_mappings: ClaimMappings,
    #[serde(default)]
    pub user_validation_rules: Vec<UserValidationRule>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Issuer {
    /// What the claim `iss` must be.
    #[serde(default)]
    pub url: String,
    /// Where the discovery document is, if not below `url`.
    #[serde(default, rename = "discoveryURL")]
    pub discovery_url: String,
    /// PEM; the system's authorities if empty.
    #[serde(default)]
    pub certificate_authority: String,
    #[serde(default)]
    pub audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
    #[serde(default)]
    egress_selector_type: String,
}

/// A claim with its value, or an expression.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ClaimValidationRule {
    pub claim: String,
    pub required_value: String,
    pub expression: String,
    pub message: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ClaimMappings {
    pub username: PrefixedClaimOrExpression,
    pub groups: PrefixedClaimOrExpression,
    pub uid: ClaimOrExpression,
    pub extra: Vec<ExtraMapping>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrefixedClaimOrExpression {
    pub claim: String,
    pub prefix: Option<String>,
    pub expression: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimOrExpression {
    pub claim: String,
    pub expression: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ExtraMapping {
    pub key: String,
    pub value_expression: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserValidationRule {
    pub expression: String,
    pub message: String,
}

impl Document for AuthenticationConfiguration {
    const KIND: &'static str = "AuthenticationConfiguration";
    const VERSIONS: &'static [&'static str] = &["v1", "v1beta1", "v1alpha1"];

    fn problems(&self) -> Vec<String> {
        let mut found = Problems(Vec::new());
        let (mut urls, mut discovery) = (HashSet::new(), HashSet::new());
        for (i, jwt) in self.jwt.iter().enumerate() {
            let path = format!("jwt[{i}]");
            jwt.issuer.check(&format!("{path}.issuer"), &mut found);
            jwt.check_rules(&path, &mut found);
            jwt.claim_mappings.check(&format!("{path}.claimMappings"), &mut found);
            if !urls.insert(&jwt.issuer.url) {
                found.add(format!("{path}.issuer.url"), format!("Duplicate value: {:?}", jwt.issuer.url));
            }
            let url = &jwt.issuer.discovery_url;
            if !url.is_empty() && !discovery.insert(url) {
                found.add(format!("{path}.issuer.discoveryURL"), format!("Duplicate value: {url:?}"));
            }
            found.0.extend(super::oidc::problems(jwt).into_iter().map(|p| format!("{path}.{p}")));
        }
        if let Some(anonymous) = &self.anonymous
            && !anonymous.enabled
            && !anonymous.conditions.is_empty()
        {
            found.add("anonymous.conditions", "enabled should be set to true when conditions are defined");
        }
        found.0
    }
}

impl AuthenticationConfiguration {
    /// An issuer that is the server's own could speak for any service account.
    pub fn overlaps(&self, own: &str) -> Option<String> {
        let overlaps = self.jwt.iter().any(|jwt| jwt.issuer.url == own);
        overlaps.then(|| format!("jwt: URL must not overlap with disallowed issuers: [{own}]"))
    }
}

struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, path: impl std::fmt::Display, problem: impl std::fmt::Display) {
        self.0.push(format!("{path}: {problem}"));
    }

    fn check_url(&mut self, path: &str, text: &str) {
        let url = match text.parse::<Uri>() {
            Ok(url) => url,
            Err(error) => return self.add(path, error),
        };
        if url.scheme_str() != Some("https") {
            self.add(path, "URL scheme must be https");
        }
        if url.authority().is_some_and(|a| a.as_str().contains('@')) {
            self.add(path, "URL must not contain a username or password");
        }
        if text.contains('?') {
            self.add(path, "URL must not contain a query");
        }
        if text.contains('#') {
            self.add(path, "URL must not contain a fragment");
        }
    }
}

impl Issuer {
    fn check(&self, path: &str, found: &mut Problems) {
        if self.url.is_empty() {
            found.add(format!("{path}.url"), "Required value");
        } else {
            found.check_url(&format!("{path}.url"), &self.url);
        }
        if !self.discovery_url.is_empty() {
            let at = format!("{path}.discoveryURL");
            if self.url.trim_end_matches('/') == self.discovery_url.trim_end_matches('/') {
                found.add(&at, "discoveryURL must be different from URL");
            }
            found.check_url(&at, &self.discovery_url);
        }
        self.check_audiences(path, found);
        let pem = CertificateDer::pem_slice_iter(self.certificate_authority.as_bytes());
        if !self.certificate_authority.is_empty() && !matches!(pem.map(|c| c.is_ok()).min(), Some(true)) {
            found.add(
                format!("{path}.certificateAuthority"),
                "data does not contain any valid RSA or ECDSA certificates",
            );
        }
        let at = format!("{path}.egressSelectorType");
        match self.egress_selector_type.as_str() {
            "" => {}
            kind @ ("controlplane" | "cluster") => {
                found.add(at, format!("oidc: egress lookup for {kind:?} is not configured"));
            }
            _ => found.add(at, "egress selector must be either controlplane or cluster"),
        }
    }

    fn check_audiences(&self, path: &str, found: &mut Problems) {
        let at = format!("{path}.audiences");
        let mut seen = HashSet::new();
        for (i, audience) in self.audiences.iter().enumerate() {
            if audience.is_empty() {
                found.add(format!("{at}[{i}]"), "Required value");
            } else if !seen.insert(audience) {
                found.add(format!("{at}[{i}]"), format!("Duplicate value: {audience:?}"));
            }
        }
        let problem = match (self.audiences.len(), self.audience_match_policy.as_str()) {
            (0, _) => return found.add(&at, format!("Required value: at least one {at} is required")),
            (_, "MatchAny") | (1, "") => return,
            (1, _) => "audienceMatchPolicy must be empty or MatchAny for single audience",
            _ => "audienceMatchPolicy must be MatchAny for multiple audiences",
        };
        found.add(format!("{path}.audienceMatchPolicy"), problem);
    }
}

impl JwtAuthenticator {
    fn check_rules(&self, path: &str, found: &mut Problems) {
        let rules = &self.claim_validation_rules;
        for (i, rule) in rules.iter().enumerate() {
            let at = format!("{path}.claimValidationRules[{i}]");
            let earlier = &rules[..i];
            match (rule.claim.as_str(), rule.expression.as_str()) {
                ("", "") => found.add(at, "Required value: claim or expression is required"),
                (claim, "") => {
                    if !rule.message.is_empty() {
                        found.add(format!("{at}.message"), "may not be specified when claim is set");
                    }
                    if earlier.iter().any(|r| r.claim == claim) {
                        found.add(format!("{at}.claim"), format!("Duplicate value: {claim:?}"));
                    }
                }
                ("", expression) => {
                    if !rule.required_value.is_empty() {
                        found.add(
                            format!("{at}.requiredValue"),
                            "may not be specified when expression is set",
                        );
                    }
                    if earlier.iter().any(|r| r.expression == expression) {
                        found.add(format!("{at}.expression"), format!("Duplicate value: {expression:?}"));
                    }
                }
                _ => found.add(at, "claim and expression can't both be set"),
            }
        }
        let rules = &self.user_validation_rules;
        for (i, rule) in rules.iter().enumerate() {
            let at = format!("{path}.userValidationRules[{i}].expression");
            if rule.expression.is_empty() {
                found.add(at, "Required value");
            } else if rules[..i].iter().any(|r| r.expression == rule.expression) {
                found.add(at, format!("Duplicate value: {:?}", rule.expression));
            }
        }
    }
}

impl ClaimMappings {
    fn check(&self, path: &str, found: &mut Problems) {
        self.username.check(&format!("{path}.username"), true, found);
        self.groups.check(&format!("{path}.groups"), false, found);
        if !self.uid.claim.is_empty() && !self.uid.expression.is_empty() {
            found.add(format!("{path}.uid"), "claim and expression can't both be set");
        }
        for (i, mapping) in self.extra.iter().enumerate() {
            mapping.check(&format!("{path}.extra[{i}]"), &self.extra[..i], found);
        }
    }
}

impl PrefixedClaimOrExpression {
    fn check(&self, path: &str, required: bool, found: &mut Problems) {
        match (self.claim.as_str(), self.expression.as_str(), &self.prefix) {
            ("", "", _) if required => found.add(path, "Required value: claim or expression is required"),
            ("", "", _) => {}
            (_, "", Some(_)) => {}
            (_, "", None) => found.add(
                format!("{path}.prefix"),
                "Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing",
            ),
            ("", _, Some(_)) => {
                found.add(format!("{path}.prefix"), "may not be specified when expression is set");
            }
            ("", _, None) => {}
            _ => found.add(path, "claim and expression can't both be set"),
        }
    }
}

impl ExtraMapping {
    fn check(&self, path: &str, earlier: &[Self], found: &mut Problems) {
        let at = format!("{path}.key");
        let key = self.key.as_str();
        let (domain, rest) = key.split_once('/').unwrap_or((key, ""));
        let subdomain = keelson_api_types::names::dns1123_subdomain(domain);
        let reserved = |d: &str| domain == d || domain.ends_with(&format!(".{d}"));
        if key.is_empty() {
            found.add(&at, "Required value");
        } else if rest.is_empty() || !subdomain.is_empty() {
            found.add(&at, "must be a domain-prefixed path (such as \"acme.io/foo\")");
        } else if key != key.to_lowercase() {
            found.add(&at, "key must be lowercase");
        } else if reserved("k8s.io") || reserved("kubernetes.io") {
            found.add(&at, "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use");
        } else if earlier.iter().any(|e| e.key == key) {
            found.add(&at, format!("Duplicate value: {key:?}"));
        }
        if self.value_expression.is_empty() {
            found.add(format!("{path}.valueExpression"), "Required value: valueExpression is required");
        }
    }
}

/// Who may speak for others, and by which headers.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RequestHeader {
    /// Common names of the front proxy's certificate; any that its authority signed if empty.
    pub allowed_names: Vec<String>,
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_header_prefixes: Vec<String>,
}

impl Default for RequestHeader {
    fn default() -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Self {
            allowed_names: one("front-proxy-client"),
            username_headers: one("X-Remote-User"),
            uid_headers: one("X-Remote-Uid"),
            group_headers: one("X-Remote-Group"),
            extra_header_prefixes: one("X-Remote-Extra-"),
        }
    }
}

impl RequestHeader {
    pub fn problems(&self, path: &str) -> Vec<String> {
        let all = [
            ("usernameHeaders", &self.username_headers),
            ("uidHeaders", &self.uid_headers),
            ("groupHeaders", &self.group_headers),
            ("extraHeaderPrefixes", &self.extra_header_prefixes),
        ];
        let mut found = Vec::new();
        for (field, names) in all {
            let wrong = names.iter().filter(|n| HeaderName::try_from(n.as_str()).is_err());
            found.extend(wrong.map(|name| format!("{path}.{field}: {name:?} is no header name")));
        }
        if self.username_headers.is_empty() {
            found.push(format!("{path}.usernameHeaders: must name a header"));
        }
        found
    }
}

/// Somebody else who knows tokens; asked with a TokenReview.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenWebhook {
    /// Where it listens, and what it is shown.
    pub kubeconfig: PathBuf,
    /// Of TokenReview: `v1` or `v1beta1`.
    #[serde(default = "v1")]
    pub version: String,
    /// How long an answer is believed; 2m if absent.
    #[serde(default, deserialize_with = "go_duration")]
    cache_ttl: Option<Duration>,
}

fn v1() -> String {
    "v1".to_owned()
}

impl TokenWebhook {
    pub fn cache_ttl(&self) -> Duration {
        self.cache_ttl.unwrap_or(Duration::from_secs(120))
    }

    pub fn problems(&self, path: &str) -> Vec<String> {
        let mut found = Vec::new();
        if !matches!(self.version.as_str(), "v1" | "v1beta1") {
            found.push(format!("{path}.version: {:?} is neither v1 nor v1beta1", self.version));
        }
        if !self.kubeconfig.is_file() {
            found.push(format!("{path}.kubeconfig: no file {}", self.kubeconfig.display()));
        }
        found
    }
}

/// How long what others said of a token is believed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TokenCache {
    /// 10s if absent.
    #[serde(deserialize_with = "go_duration")]
    success_ttl: Option<Duration>,
    /// 0s, which remembers no refusal, if absent.
    #[serde(deserialize_with = "go_duration")]
    failure_ttl: Option<Duration>,
}

impl TokenCache {
    pub fn success_ttl(&self) -> Duration {
        self.success_ttl.unwrap_or(Duration::from_secs(10))
    }

    pub fn failure_ttl(&self) -> Duration {
        self.failure_ttl.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_not_work_as_written_is_named() {
        let jwt = |issuer: &str, rest: &str| {
            format!(
                "jwt: [{{issuer: {{url: 'https://a', audiences: [x]{issuer}}}, claimMappings: {{username: {{claim: sub, prefix: ''}}{rest}}}}}]"
            )
        };
        let cases = [
            (jwt("", ""), None),
            ("anonymous: {enabled: true, conditions: [{path: /livez}]}".into(), None),
            ("anonymous: {enabled: false, conditions: [{path: /livez}]}".into(), Some("should be set to true")),
            (jwt(", discoveryURL: 'https://a/'", ""), Some("must be different from URL")),
            (jwt(", discoveryURL: 'http://b'", ""), Some("scheme must be https")),
            (jwt(", certificateAuthority: nonsense", ""), Some("does not contain any valid")),
            (jwt(", audienceMatchPolicy: All", ""), Some("must be empty or MatchAny")),
            (jwt(", egressSelectorType: cluster", ""), Some("egress lookup for \"cluster\"")),
            (jwt(", egressSelectorType: moon", ""), Some("either controlplane or cluster")),
            (jwt("", ", groups: {claim: g}"), Some("prefix is required")),
            (jwt("", ", extra: [{key: foo, valueExpression: \"'a'\"}]"), Some("domain-prefixed path")),
            (jwt("", ", extra: [{key: x.k8s.io/a, valueExpression: \"'a'\"}]"), Some("reserved for Kubernetes")),
            (
                "jwt: [{issuer: {url: 'https://a?b', audiences: [x, y]}, claimMappings: {username: {claim: a, expression: b}}}]".into(),
                Some("must not contain a query"),
            ),
        ];
        for (text, want) in cases {
            let parsed: AuthenticationConfiguration = keelson_daemon::config::parse(&text).expect(&text);
            let got = parsed.problems();
            match want {
                None => assert_eq!(got, Vec::<String>::new(), "{text}"),
                Some(part) => assert!(got.iter().any(|p| p.contains(part)), "{text}: {got:?}"),
            }
        }
        let unknown = keelson_daemon::config::parse::<AuthenticationConfiguration>("jwks: []");
        assert!(unknown.unwrap_err().contains("jwks"));
    }
}
