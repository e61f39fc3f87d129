//! The OpenAPI documents: v2 whole, v3 by group and version.

use std::sync::Arc;

use keelson_api_types::StatusError;

use crate::app::{App, Call};
use crate::body::Response;

/// Documents that are made when first asked for.
#[derive(Default)]
pub struct OpenApi {}

impl OpenApi {
    /// `None` for paths that are not OpenAPI's.
    pub fn serve(&self, _app: &Arc<App>, _call: &Call) -> Option<Result<Response, StatusError>> {
        None
    }
}
