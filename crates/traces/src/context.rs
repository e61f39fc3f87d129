//! Trace contexts in headers (W3C Trace Context).

use http::header::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const SAMPLED: u32 = 1;
/// It is known whether the parent is remote.
pub(crate) const KNOWN: u32 = 0x100;
const REMOTE: u32 = 0x200;
const PARENT: HeaderName = HeaderName::from_static("traceparent");
const STATE: HeaderName = HeaderName::from_static("tracestate");
/// The longest list that is carried on.
const MAX_STATE: usize = 512;

/// The span that a caller is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub sampled: bool,
    /// What systems on the way keep for themselves.
    pub state: String,
}

impl Context {
    /// The one that a request carries, if it is valid.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(PARENT).iter();
        let parent = parents.next().filter(|_| parents.next().is_none())?.to_str().ok()?;
        let states = headers.get_all(STATE).iter().filter_map(|v| v.to_str().ok());
        let state = states.collect::<Vec<_>>().join(",");
        Some(Self {
            state: if state.len() > MAX_STATE { String::new() } else { state },
            ..Self::parse(parent)?
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let [version] = hex(parts.next()?)?;
        let (trace_id, span_id, [flags]) = (hex(parts.next()?)?, hex(parts.next()?)?, hex(parts.next()?)?);
        let whole = parts.next().is_none() || version > 0;
        let valid = whole && version != 0xff && trace_id != [0; 16] && span_id != [0; 8];
        valid.then(|| Self { trace_id, span_id, sampled: flags & 1 == 1, state: String::new() })
    }

    pub(crate) fn flags(&self) -> u32 {
        KNOWN | REMOTE | u32::from(self.sampled)
    }

    /// Has a request carry it, in place of the one that it may carry.
    pub fn put_into(&self, headers: &mut HeaderMap) {
        let text = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let (trace, span) = (text(&self.trace_id), text(&self.span_id));
        let parent = format!("00-{trace}-{span}-{:02x}", u8::from(self.sampled));
        for (name, text) in [(PARENT, &parent), (STATE, &self.state)] {
            headers.remove(&name);
            let value = HeaderValue::try_from(text).ok().filter(|value| !value.is_empty());
            headers.extend(value.map(|value| (name, value)));
        }
    }
}

/// Exactly so many bytes, in lower case.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let fine = text.len() == 2 * N && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks(2)).filter(|_| fine) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    fine.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_parent_is_read() {
        let check = |text: &str, expected: Option<bool>| {
            assert_eq!(Context::parse(text).map(|context| context.sampled), expected, "{text}");
        };
        let ids = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        check(&format!("00-{ids}-01"), Some(true));
        check(&format!("00-{ids}-00"), Some(false));
        check(&format!("00-{ids}-02"), Some(false));
        check(&format!("cc-{ids}-03-more"), Some(true));
        check(&format!("00-{ids}-01-more"), None);
        check(&format!("ff-{ids}-01"), None);
        check(&format!("00-{}-01", ids.to_uppercase()), None);
        check("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None);
        check("00-4bf92f3577b34da6-00f067aa0ba902b7-01", None);
        check("", None);
        let context = Context::parse(&format!("00-{ids}-01")).unwrap();
        assert_eq!((context.trace_id[0], context.span_id[7]), (0x4b, 0xb7));
        for state in ["", "a=b"] {
            let mut headers = HeaderMap::from_iter([(PARENT, "other".parse().unwrap())]);
            headers.append(STATE, "c=d".parse().unwrap());
            let context = Context { state: state.into(), ..context.clone() };
            context.put_into(&mut headers);
            assert_eq!(Context::of(&headers), Some(context));
        }
    }
}
