//! Streams.

use std::sync::Arc;

use keelson_api_types::StatusError;

use crate::app::{App, Call};
use crate::body::Response;
use crate::registry::Resource;

pub async fn serve(
    _app: &Arc<App>,
    _call: &mut Call,
    _resource: &Arc<Resource>,
) -> Result<Response, StatusError> {
    Err(StatusError::not_found_path())
}
