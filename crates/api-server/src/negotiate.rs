//! Which representation of an object the client asks for.

use http::HeaderMap;
use http::header::ACCEPT;
use keelson_api_types::{Reason, StatusError};

use crate::registry::Resource;

/// What the objects of a response look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As they are stored.
    Whole,
    /// `PartialObjectMetadata`, for one.
    Metadata,
    /// `PartialObjectMetadataList`, for many.
    MetadataList,
    Table,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
    /// Kubernetes' own messages; what has none is sent as JSON.
    Protobuf,
    /// KEP-4222.
    Cbor,
}

/// What a watch in CBOR is (RFC 8742); clients ask for it as `application/cbor`.
pub const CBOR_SEQUENCE: &str = "application/cbor-seq";

impl Encoding {
    const ALL: [Self; 4] = [Self::Json, Self::Yaml, Self::Protobuf, Self::Cbor];

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
            Self::Cbor => "application/cbor",
        }
    }

    /// Whether a range such as `application/*` covers it.
    fn is_in(self, range: &str) -> bool {
        matches!(range, "*/*" | "application/*") || range == self.media_type()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    pub form: Form,
    pub encoding: Encoding,
    /// The version of the forms that are not whole.
    pub meta: &'static str,
    /// Indented output, for people.
    pub pretty: bool,
}

impl Accepted {
    pub const JSON: Self =
        Self { form: Form::Whole, encoding: Encoding::Json, meta: "meta.k8s.io/v1", pretty: false };

    /// One form of an answer is for lists, another for single objects; upstream refuses the wrong one.
    pub fn check(&self, list: bool, group: &str, kind: &str) -> Result<(), StatusError> {
        let group = group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
        let message = match (self.form, list) {
            (Form::Metadata, true) => {
                format!(
                    "you requested PartialObjectMetadata, but the requested object is a list (*{group}.{kind})"
                )
            }
            (Form::MetadataList, false) => format!(
                "you requested PartialObjectMetadataList, but the requested object is not a list (*{group}.{kind})"
            ),
            _ => return Ok(()),
        };
        Err(StatusError::new(406, Reason::NotAcceptable, message))
    }
}

/// What an endpoint can give.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    /// Whole objects as messages.
    pub messages: bool,
    /// Their metadata alone.
    pub forms: bool,
    pub tables: bool,
    /// Events, which YAML has no frames for.
    pub stream: bool,
}

impl Offer {
    /// What is no object of a resource.
    pub const PLAIN: Self = Self { messages: true, forms: false, tables: false, stream: false };
    /// What is computed, of a kind of its own: reviews, tokens.
    pub const VIEW: Self = Self { forms: true, ..Self::PLAIN };
    pub const BUILTIN: Self = Self { tables: true, ..Self::VIEW };
    /// Custom resources have no messages.
    pub const CUSTOM: Self = Self { messages: false, ..Self::BUILTIN };

    pub fn of(resource: &Resource) -> Self {
        let stream = false;
        Self { stream, ..if resource.custom.is_some() { Self::CUSTOM } else { Self::BUILTIN } }
    }

    fn supported(self) -> Vec<String> {
        let all = Encoding::ALL.into_iter().filter(|e| match e {
            Encoding::Json | Encoding::Cbor => true,
            Encoding::Yaml => !self.stream,
            Encoding::Protobuf => self.messages,
        });
        all.map(|encoding| match encoding {
            Encoding::Cbor if self.stream => CBOR_SEQUENCE.to_owned(),
            _ if self.stream => format!("{};stream=watch", encoding.media_type()),
            _ => encoding.media_type().to_owned(),
        })
        .collect()
    }

    fn gives(self, clause: &Clause<'_>, encoding: Encoding) -> Option<(Form, &'static str)> {
        if encoding == Encoding::Yaml && self.stream || !clause.is_plain {
            return None;
        }
        let Some(target) = &clause.target else {
            return (encoding != Encoding::Protobuf || self.messages)
                .then_some((Form::Whole, Accepted::JSON.meta));
        };
        let meta = match (target.group, target.version) {
            ("meta.k8s.io", "v1") => "meta.k8s.io/v1",
            ("meta.k8s.io", "v1beta1") => "meta.k8s.io/v1beta1",
            _ => return None,
        };
        let form = match target.kind {
            "Table" if self.tables && matches!(encoding, Encoding::Json | Encoding::Yaml) => Form::Table,
            "PartialObjectMetadata" => Form::Metadata,
            "PartialObjectMetadataList" => Form::MetadataList,
            _ => return None,
        };
        self.forms.then_some((form, meta))
    }
}

/// Takes the first form that this endpoint can give, in the client's order of preference. `pretty` is the
/// request's parameter.
pub fn accepted(headers: &HeaderMap, pretty: Option<&str>, offer: Offer) -> Result<Accepted, StatusError> {
    let text = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let pretty = match pretty.filter(|text| !text.is_empty()) {
        Some(text) => matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True"),
        None => is_human(headers),
    };
    // The common ones, without parsing.
    if matches!(text, "application/json" | "*/*" | "" | "application/json, */*") {
        return Ok(Accepted { pretty, ..Accepted::JSON });
    }
    let mut clauses: Vec<Clause<'_>> = text.split(',').map(Clause::parse).collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    let found = clauses.iter().find_map(|clause| {
        Encoding::ALL.into_iter().filter(|e| e.is_in(clause.media)).find_map(|encoding| {
            let (form, meta) = offer.gives(clause, encoding)?;
            Some(Accepted { form, encoding, meta, pretty: pretty || clause.pretty })
        })
    });
    found.ok_or_else(|| {
        let supported = offer.supported();
        StatusError::not_acceptable(&supported.iter().map(String::as_str).collect::<Vec<_>>())
    })
}

/// Clients that people read the output of.
fn is_human(headers: &HeaderMap) -> bool {
    let agent = headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|name| agent.starts_with(name))
}

/// The kind that an alternative wants objects turned into.
pub struct Target<'a> {
    pub kind: &'a str,
    pub group: &'a str,
    pub version: &'a str,
}

/// One alternative of an Accept header.
pub struct Clause<'a> {
    pub media: &'a str,
    pub target: Option<Target<'a>>,
    pretty: bool,
    /// It asks for nothing that this server does not know: streams other than watches, other server versions.
    is_plain: bool,
    quality: f32,
}

impl<'a> Clause<'a> {
    pub fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let mut clause = Self { media, target: None, pretty: false, is_plain: true, quality: 1.0 };
        for (key, value) in parts.filter_map(|p| p.split_once('=')) {
            let target = || Target { kind: "", group: "", version: "" };
            match key {
                "as" => clause.target.get_or_insert_with(target).kind = value,
                "g" => clause.target.get_or_insert_with(target).group = value,
                "v" => clause.target.get_or_insert_with(target).version = value,
                "q" => clause.quality = value.parse().unwrap_or(1.0),
                "pretty" => clause.pretty = value == "1",
                "stream" => clause.is_plain &= matches!(value, "" | "watch"),
                "sv" => clause.is_plain &= matches!(value, "" | "v1"),
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
        let check = |accept: &'static str, offer, expected: Result<(Form, Encoding), ()>| {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            let got = accepted(&headers, None, offer).map(|a| (a.form, a.encoding)).map_err(drop);
            assert_eq!(got, expected, "{accept}");
        };
        use Encoding::{Cbor, Json, Protobuf, Yaml};
        let (builtin, custom, plain) = (Offer::BUILTIN, Offer::CUSTOM, Offer::PLAIN);
        let watch = Offer { stream: true, ..builtin };
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        check(table, builtin, Ok((Form::Table, Json)));
        check(table, plain, Ok((Form::Whole, Json)));
        check("application/json;as=Table;v=v1beta1;g=meta.k8s.io", custom, Ok((Form::Table, Json)));
        check(
            "application/json;as=Table;v=v2;g=meta.k8s.io, application/json",
            builtin,
            Ok((Form::Whole, Json)),
        );
        check("application/json;as=Table", builtin, Err(()));
        check("application/yaml;as=Table;v=v1;g=meta.k8s.io", builtin, Ok((Form::Table, Yaml)));
        check("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", builtin, Err(()));
        let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
        check(partial, custom, Ok((Form::Metadata, Protobuf)));
        check(partial, plain, Ok((Form::Whole, Json)));
        let both = "application/vnd.kubernetes.protobuf,application/json";
        check(both, builtin, Ok((Form::Whole, Protobuf)));
        check(both, custom, Ok((Form::Whole, Json)));
        check("application/vnd.kubernetes.protobuf", custom, Err(()));
        check("text/html, */*;q=0.2", builtin, Ok((Form::Whole, Json)));
        check("application/yaml;q=0.3, application/json;q=0.2", builtin, Ok((Form::Whole, Yaml)));
        check("application/yaml", watch, Err(()));
        check("application/json;stream=watch", watch, Ok((Form::Whole, Json)));
        check("application/json;stream=other", watch, Err(()));
        check("application/cbor", watch, Ok((Form::Whole, Cbor)));
        check("application/json;q=0.9,application/cbor;q=1", custom, Ok((Form::Whole, Cbor)));
        check("application/cbor;as=Table;v=v1;g=meta.k8s.io", builtin, Err(()));
        check(
            "application/cbor;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            Offer::VIEW,
            Ok((Form::Metadata, Cbor)),
        );
        check("application/json;as=Table;v=v1;g=meta.k8s.io", Offer::VIEW, Err(()));
        for unknown in ["application/x-yaml", "application/cbor-seq", "image/png"] {
            check(unknown, builtin, Err(()));
        }
    }

    #[test]
    fn output_is_indented_for_people() {
        let check = |agent: &'static str, accept: &'static str, parameter, expected| {
            let headers = [(http::header::USER_AGENT, agent), (ACCEPT, accept)];
            let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
            let headers = HeaderMap::from_iter(headers);
            assert_eq!(accepted(&headers, parameter, Offer::BUILTIN).unwrap().pretty, expected);
        };
        check("curl/8", "*/*", None, true);
        check("curl/8", "*/*", Some("0"), false);
        check("kubectl", "*/*", Some("true"), true);
        check("kubectl", "*/*", Some("maybe"), false);
        check("kubectl", "application/json;pretty=1", Some(""), true);
    }
}
