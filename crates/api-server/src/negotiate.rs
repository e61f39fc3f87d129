//! Which representation of an object the client asks for.

use http::HeaderMap;
use http::header::ACCEPT;
use keelson_api_types::StatusError;

/// What the objects of a response look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As they are stored.
    Whole,
    /// `meta.k8s.io/v1` PartialObjectMetadata.
    Metadata,
    /// `meta.k8s.io/v1` Table.
    Table,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
    /// Kubernetes' own messages; what has none is sent as JSON.
    Protobuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    pub form: Form,
    pub encoding: Encoding,
    /// Indented output, for people.
    pub pretty: bool,
}

impl Accepted {
    pub const JSON: Self = Self { form: Form::Whole, encoding: Encoding::Json, pretty: false };
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const SUPPORTED: [&str; 3] = ["application/json", "application/yaml", PROTOBUF];

/// Takes the first form that this server can give, in the client's order of preference. Custom resources
/// have no messages.
pub fn accepted(headers: &HeaderMap, pretty: Option<bool>, custom: bool) -> Result<Accepted, StatusError> {
    let text = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("*/*");
    let pretty = pretty.unwrap_or_else(|| is_human(headers));
    // The common ones, without parsing.
    if matches!(text, "application/json" | "*/*" | "" | "application/json, */*") {
        return Ok(Accepted { pretty, ..Accepted::JSON });
    }
    let mut clauses: Vec<Clause<'_>> = text.split(',').map(Clause::parse).collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    let found = clauses.iter().find_map(|clause| {
        let encoding = match clause.media {
            "application/json" | "*/*" | "application/*" => Encoding::Json,
            "application/yaml" | "application/x-yaml" => Encoding::Yaml,
            PROTOBUF => Encoding::Protobuf,
            _ => return None,
        };
        let form = match (clause.target, clause.group, clause.version) {
            ("", _, _) => Form::Whole,
            ("Table", "meta.k8s.io", "v1") => Form::Table,
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => Form::Metadata,
            _ => return None,
        };
        let has_message = form == Form::Metadata || form == Form::Whole && !custom;
        if encoding == Encoding::Protobuf && !has_message {
            return None;
        }
        Some(Accepted { form, encoding, pretty })
    });
    let supported = if custom { &SUPPORTED[..2] } else { &SUPPORTED };
    found.ok_or_else(|| StatusError::not_acceptable(supported))
}

/// Clients that people read the output of.
fn is_human(headers: &HeaderMap) -> bool {
    let agent = headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|name| agent.starts_with(name))
}

/// One alternative of an Accept header.
pub struct Clause<'a> {
    pub media: &'a str,
    pub target: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    quality: f32,
}

impl<'a> Clause<'a> {
    pub fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let mut clause = Self { media, target: "", group: "", version: "", quality: 1.0 };
        for (key, value) in parts.filter_map(|p| p.split_once('=')) {
            match key {
                "as" => clause.target = value,
                "g" => clause.group = value,
                "v" => clause.version = value,
                "q" => clause.quality = value.parse().unwrap_or(1.0),
                _ => {}
            }
        }
        clause
    }
}

/// The alternatives of an Accept header, as written.
pub fn clauses(headers: &HeaderMap) -> impl Iterator<Item = Clause<'_>> {
    headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default().split(',').map(Clause::parse)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_first_form_that_can_be_given_wins() {
        let check = |accept: &'static str, expected| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(accepted(&headers, None, false).ok().map(|a| a.form), expected, "{accept}");
        };
        check("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Some(Form::Table));
        check("application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/json", Some(Form::Whole));
        check(
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
            Some(Form::Metadata),
        );
        check("application/vnd.kubernetes.protobuf", Some(Form::Whole));
        check("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", None);
        check("text/html, */*;q=0.2", Some(Form::Whole));
    }

    #[test]
    fn custom_resources_have_no_messages() {
        let check = |accept: &'static str, custom, expected| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            let encoding = accepted(&headers, None, custom).ok().map(|a| a.encoding);
            assert_eq!(encoding, expected, "{accept}");
        };
        let both = "application/vnd.kubernetes.protobuf,application/json";
        check(both, false, Some(Encoding::Protobuf));
        check(both, true, Some(Encoding::Json));
        check("application/vnd.kubernetes.protobuf", true, None);
        check(
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            true,
            Some(Encoding::Protobuf),
        );
    }
}
