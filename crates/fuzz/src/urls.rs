//! A request's path and query, and the options that they come to.

use http::{Method, Uri};
use keelson_api_server::options::{DeleteOptions, ListOptions};
use keelson_api_server::request::{Query, RequestInfo};

pub(crate) fn url(data: &[u8]) {
    let Ok(uri) = Uri::try_from(data) else { return };
    let query = Query::parse(uri.query());
    for method in [Method::GET, Method::POST, Method::DELETE, Method::PATCH] {
        let info = RequestInfo::parse(&method, uri.path(), &query);
        let _ = (info.on_collection(), info.is_long_running());
        if let Ok(options) = ListOptions::parse(&query, &info) {
            let _ = options.revision();
        }
    }
    let _ = (DeleteOptions::parse(None, &query), query.timeout());
}
