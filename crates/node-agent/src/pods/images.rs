//! Images on this node: whether one is here, and pulling it where the policy says so, with backoff.

use super::spec;
use crate::api::{Api, reference};
use k8s_openapi::api::core::v1::{Container, Pod};
use keelson_client::EventType;
use keelson_cri::Runtime;
use keelson_cri::v1::{AuthConfig, Image, PodSandboxConfig};
use parking_lot::Mutex;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);

/// Why an image cannot be used: reason and message for the container's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageError {
    pub reason: &'static str,
    pub message: String,
    /// When another attempt makes sense.
    pub retry_in: Duration,
}

#[derive(Default)]
pub struct Images {
    /// One pull per image at a time.
    pulls: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    backoff: Mutex<HashMap<String, (Duration, Instant, String)>>,
}

/// What an image needs to be had.
pub struct Request<'a> {
    pub pod: &'a Pod,
    /// The container that needs it, for events.
    pub container: &'a Container,
    pub image: &'a str,
    /// `Always`, `IfNotPresent` or `Never`; by the image's tag where nothing is said.
    pub policy: Option<&'a str>,
    pub sandbox: &'a PodSandboxConfig,
}

impl Images {
    /// The image as the runtime knows it.
    pub async fn ensure(
        &self,
        runtime: &dyn Runtime,
        api: &dyn Api,
        request: &Request<'_>,
    ) -> Result<Image, ImageError> {
        let container = request.container;
        let image = request.image;
        let policy = request.policy.unwrap_or_else(|| default_policy(image));
        let about = || reference(request.pod, spec::field_path(request.pod, &container.name));
        if !is_valid_name(image) {
            let message = format!(
                "Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: invalid reference format"
            );
            api.event(about(), EventType::Warning, "InspectFailed", &message);
            let retry_in = LONGEST_BACKOFF;
            return Err(ImageError { reason: "InvalidImageName", message, retry_in });
        }
        if policy != "Always" {
            match present(runtime, image).await? {
                Some(found) => {
                    let message = format!(
                        "Container image {image:?} already present on machine and can be accessed by the pod"
                    );
                    api.event(about(), EventType::Normal, "Pulled", &message);
                    return Ok(found);
                }
                None if policy == "Never" => {
                    let message =
                        format!("Container image {image:?} is not present with pull policy of Never");
                    api.event(about(), EventType::Warning, "ErrImageNeverPull", &message);
                    let retry_in = FIRST_BACKOFF;
                    return Err(ImageError { reason: "ErrImageNeverPull", message, retry_in });
                }
                None => {}
            }
        }
        self.pull(runtime, api, request, image, policy).await
    }

    async fn pull(
        &self,
        runtime: &dyn Runtime,
        api: &dyn Api,
        request: &Request<'_>,
        image: &str,
        policy: &str,
    ) -> Result<Image, ImageError> {
        let about = reference(request.pod, spec::field_path(request.pod, &request.container.name));
        if let Some((until, error)) = self.pause(image) {
            let message = format!("Back-off pulling image {image:?}");
            api.event(about, EventType::Normal, "BackOff", &message);
            let retry_in = until.saturating_duration_since(Instant::now());
            return Err(ImageError {
                reason: "ImagePullBackOff",
                message: format!("{message}: {error}"),
                retry_in,
            });
        }
        let asked = Instant::now();
        let lock = self.pulls.lock().entry(image.to_owned()).or_default().clone();
        let _one = lock.lock().await;
        if policy != "Always"
            && let Some(found) = present(runtime, image).await?
        {
            // Somebody else has pulled it meanwhile.
            return Ok(found);
        }
        let begun = Instant::now();
        api.event(about.clone(), EventType::Normal, "Pulling", &format!("Pulling image {image:?}"));
        let mut outcome = None;
        for auth in credentials(api, request.pod, image).await {
            match runtime.pull_image(image, auth, Some(request.sandbox.clone())).await {
                Ok(_) => {
                    outcome = None;
                    break;
                }
                Err(e) => outcome = Some(e),
            }
        }
        let found = match outcome {
            None => present(runtime, image).await?,
            Some(error) => {
                let cause = error.user_message();
                let message = format!("failed to pull and unpack image {image:?}: {cause}");
                api.event(
                    about.clone(),
                    EventType::Warning,
                    "Failed",
                    &format!("Failed to pull image {image:?}: {cause}"),
                );
                api.event(about, EventType::Warning, "Failed", "Error: ErrImagePull");
                let retry_in = self.lengthen(image, &message);
                return Err(ImageError { reason: "ErrImagePull", message, retry_in });
            }
        };
        self.backoff.lock().remove(image);
        let found = found.ok_or_else(|| ImageError {
            reason: "ErrImagePull",
            message: format!("image {image:?} was pulled and is not there"),
            retry_in: FIRST_BACKOFF,
        })?;
        let message = format!(
            "Successfully pulled image {image:?} in {} ({} including waiting). Image size: {} bytes.",
            short(begun.elapsed()),
            short(asked.elapsed()),
            found.size
        );
        api.event(about, EventType::Normal, "Pulled", &message);
        Ok(found)
    }

    fn pause(&self, image: &str) -> Option<(Instant, String)> {
        let backoff = self.backoff.lock();
        let (_, until, error) = backoff.get(image)?;
        (Instant::now() < *until).then(|| (*until, error.clone()))
    }

    fn lengthen(&self, image: &str, error: &str) -> Duration {
        let mut backoff = self.backoff.lock();
        let pause = backoff.get(image).map_or(FIRST_BACKOFF, |(p, _, _)| (*p * 2).min(LONGEST_BACKOFF));
        backoff.insert(image.to_owned(), (pause, Instant::now() + pause, error.to_owned()));
        // The very next look turns ErrImagePull into ImagePullBackOff, as users know it.
        Duration::from_secs(1)
    }
}

fn short(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 1.0 => format!("{}ms", time.as_millis()),
        s => format!("{s:.3}s"),
    }
}

fn default_policy(image: &str) -> &'static str {
    let tail = image.rsplit('/').next().unwrap_or_default();
    let tagged = tail.contains('@') || tail.contains(':') && !tail.ends_with(":latest");
    if tagged { "IfNotPresent" } else { "Always" }
}

/// Rough, as the runtime checks the rest: no blanks, lower case but for the tag.
fn is_valid_name(image: &str) -> bool {
    let repository = image.split(['@']).next().unwrap_or_default();
    let tag_at = repository.rfind(':').filter(|at| !repository[*at..].contains('/'));
    let repository = &repository[..tag_at.unwrap_or(repository.len())];
    let path = repository
        .split_once('/')
        .filter(|(host, _)| host.contains(['.', ':']))
        .map_or(repository, |(_, p)| p);
    !image.is_empty()
        && image.bytes().all(|b| b.is_ascii_graphic())
        && !path.is_empty()
        && path.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"/._-".contains(&b))
}

async fn present(runtime: &dyn Runtime, image: &str) -> Result<Option<Image>, ImageError> {
    runtime.image_status(image).await.map_err(|e| ImageError {
        reason: "ImageInspectError",
        message: format!("Failed to inspect image {image:?}: {}", e.user_message()),
        retry_in: FIRST_BACKOFF,
    })
}

#[derive(Deserialize, Default)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, DockerAuth>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(default)]
struct DockerAuth {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

/// What to try in turn: the pull secrets that name the image's registry, then nobody.
async fn credentials(api: &dyn Api, pod: &Pod, image: &str) -> Vec<Option<AuthConfig>> {
    let full = keelson_cri::image::normalize(image);
    let mut found = Vec::new();
    for reference in spec::spec(pod).image_pull_secrets.as_deref().unwrap_or_default() {
        let Ok(Some(secret)) = api.secret(pod, &reference.name).await else { continue };
        let data = secret.object.data.clone().unwrap_or_default();
        let config = match (data.get(".dockerconfigjson"), data.get(".dockercfg")) {
            (Some(json), _) => serde_json::from_slice::<DockerConfig>(&json.0).unwrap_or_default().auths,
            (None, Some(json)) => serde_json::from_slice(&json.0).unwrap_or_default(),
            _ => continue,
        };
        found.extend(matching(&config, &full).map(Some));
    }
    found.push(None);
    found
}

fn matching<'a>(
    auths: &'a HashMap<String, DockerAuth>,
    image: &'a str,
) -> impl Iterator<Item = AuthConfig> + 'a {
    let mut hits: Vec<_> = auths
        .iter()
        .filter_map(|(server, auth)| {
            let host = server.trim_start_matches("https://").trim_start_matches("http://");
            let host = host.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
            let host = if host == "index.docker.io" { "docker.io" } else { host };
            let rest = image.strip_prefix(host)?;
            rest.starts_with('/').then_some((host.len(), auth))
        })
        .collect();
    // The longest prefix knows best.
    hits.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    hits.into_iter().map(|(_, auth)| AuthConfig {
        username: auth.username.clone(),
        password: auth.password.clone(),
        auth: auth.auth.clone(),
        // It matches already. containerd would read a host without a scheme as a path, and send nothing.
        server_address: String::new(),
        identity_token: auth.identitytoken.clone(),
        registry_token: auth.registrytoken.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_follows_the_tag() {
        assert_eq!(default_policy("busybox"), "Always");
        assert_eq!(default_policy("busybox:latest"), "Always");
        assert_eq!(default_policy("registry:5000/busybox"), "Always");
        assert_eq!(default_policy("busybox:1.36"), "IfNotPresent");
    }

    #[test]
    fn names_are_checked_before_the_runtime_is_asked() {
        for good in ["busybox", "localhost:5000/a/b:T.ag", "r.io/a@sha256:00"] {
            assert!(is_valid_name(good), "{good}");
        }
        for bad in ["", "Upper/case", "has blank", "FOO"] {
            assert!(!is_valid_name(bad), "{bad}");
        }
    }

    #[test]
    fn the_longest_matching_registry_goes_first() {
        let auth = |name: &str| DockerAuth { username: name.into(), ..Default::default() };
        let auths = HashMap::from([
            ("r.io".to_owned(), auth("all")),
            ("https://r.io/team/".to_owned(), auth("team")),
            ("other.io".to_owned(), auth("other")),
        ]);
        let found: Vec<_> = matching(&auths, "r.io/team/app:v1").collect();
        assert_eq!(found.iter().map(|a| a.username.as_str()).collect::<Vec<_>>(), ["team", "all"]);
        assert!(found.iter().all(|a| a.server_address.is_empty()));
    }
}
