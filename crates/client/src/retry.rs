//! Which requests are sent again. A write whose outcome is unknown is not: who asked for it has to look first.

use http::header::RETRY_AFTER;
use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use kube::client::retry::RetryPolicy;
use tower::BoxError;
use tower::retry::Policy;

/// Reads that the server cannot serve now, and whatever it refused before doing anything, which it says with 429 and
/// a time to wait; a refused eviction has no such time.
#[derive(Clone)]
pub(crate) struct Safe(RetryPolicy);

impl Default for Safe {
    fn default() -> Self {
        Self(RetryPolicy::server_retry())
    }
}

impl<Res> Policy<Request<Body>, Response<Res>, BoxError> for Safe {
    type Future = <RetryPolicy as Policy<Request<Body>, Response<Res>, BoxError>>::Future;

    fn retry(
        &mut self,
        request: &mut Request<Body>,
        result: &mut Result<Response<Res>, BoxError>,
    ) -> Option<Self::Future> {
        let response = result.as_ref().ok()?;
        let refused = response.status() == StatusCode::TOO_MANY_REQUESTS
            && response.headers().contains_key(RETRY_AFTER);
        if refused || request.method() == Method::GET { self.0.retry(request, result) } else { None }
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        Policy::<_, Response<Res>, _>::clone_request(&mut self.0, request)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tower::retry::RetryLayer;
    use tower::{ServiceBuilder, ServiceExt, service_fn};

    use super::*;

    /// How often a request is sent that is answered with this first, and its last status.
    async fn sent(method: Method, status: u16, wait: Option<&'static str>) -> (usize, u16) {
        let count = Arc::new(AtomicUsize::new(0));
        let seen = count.clone();
        let answer = move |_: Request<Body>| {
            let first = seen.fetch_add(1, Ordering::SeqCst) == 0;
            let mut response = Response::builder().status(if first { status } else { 200 });
            if let Some(wait) = wait.filter(|_| first) {
                response = response.header(RETRY_AFTER, wait);
            }
            async move { response.body(()).map_err(BoxError::from) }
        };
        let service =
            ServiceBuilder::new().layer(RetryLayer::new(Safe::default())).service(service_fn(answer));
        let request = Request::builder().method(method).uri("/api").body(Body::empty()).unwrap();
        let response = service.oneshot(request).await.unwrap();
        (count.load(Ordering::SeqCst), response.status().as_u16())
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_of_unknown_outcome_is_sent_once() {
        for (method, status, wait, want) in [
            (Method::GET, 503, None, (2, 200)),
            (Method::GET, 504, None, (2, 200)),
            (Method::POST, 429, Some("1"), (2, 200)),
            (Method::POST, 429, None, (1, 429)),
            (Method::POST, 503, Some("1"), (1, 503)),
            (Method::PATCH, 504, None, (1, 504)),
            (Method::GET, 404, None, (1, 404)),
        ] {
            assert_eq!(sent(method.clone(), status, wait).await, want, "{method} {status} {wait:?}");
        }
    }
}
