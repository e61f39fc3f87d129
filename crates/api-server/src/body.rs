//! The body of a response: whole, in chunks made while they are sent, or as long as someone watches.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;
use futures::stream::BoxStream;
use hyper::body::{Frame, Incoming, SizeHint};

use crate::fairness::{Ticket, estimate};
use crate::slices::Data;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A response as handlers make it.
pub type Response = http::Response<Body>;

pub enum Body {
    Whole(Option<Bytes>),
    /// Made while it is sent, so that a long list is never whole in memory; about so many bytes.
    Chunks(Box<dyn Iterator<Item = Data> + Send>, usize),
    /// Never compressed, sent as it comes.
    Stream(BoxStream<'static, Result<Data, BoxError>>),
    /// What another server answers.
    Relayed(Incoming),
}

impl Body {
    pub fn empty() -> Self {
        Self::Whole(None)
    }

    /// Keeps a guard until a body that is made while it is sent has ended.
    pub fn hold<G: Send + 'static>(self, guard: Option<G>) -> Self {
        let Some(guard) = guard else { return self };
        match self {
            Self::Chunks(chunks, size) => Self::chunks(chunks.inspect(move |_| _ = &guard), size),
            Self::Stream(stream) => Self::Stream(stream.inspect(move |_| _ = &guard).boxed()),
            other => other,
        }
    }

    /// Keeps a ticket until then, with no more seats than what is still to be sent takes.
    pub fn occupy(self, ticket: Option<Ticket>) -> Self {
        match (self, ticket) {
            (Self::Chunks(chunks, size), Some(mut ticket)) => {
                let mut left = size;
                let sent = move |chunk: &Data| {
                    left = left.saturating_sub(chunk.remaining());
                    ticket.narrow(estimate::seats(left));
                };
                Self::chunks(chunks.inspect(sent), size)
            }
            (body, ticket) => body.hold(ticket),
        }
    }

    pub fn chunks<D: Into<Data> + 'static>(
        chunks: impl Iterator<Item = D> + Send + 'static,
        size: usize,
    ) -> Self {
        Self::Chunks(Box::new(chunks.map(Into::into)), size)
    }

    /// About how long it is, as far as it knows.
    pub fn size(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.as_ref().map_or(0, Bytes::len),
            Self::Chunks(_, size) => *size,
            Self::Stream(_) | Self::Relayed(_) => 0,
        }
    }

    /// Compresses what is worth it; the least level, as upstream does.
    pub fn gzip(self) -> Self {
        match self {
            Self::Whole(Some(bytes)) => {
                let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 6), Compression::new(1));
                match encoder.write_all(&bytes).and_then(|()| encoder.finish()) {
                    Ok(packed) => Self::Whole(Some(packed.into())),
                    Err(_) => Self::Whole(Some(bytes)),
                }
            }
            Self::Chunks(chunks, size) => Self::chunks(Gzip::new(chunks), size),
            other => other,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Whole(Some(bytes.into()))
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::Whole(Some(Bytes::from_static(text.as_bytes())))
    }
}

impl hyper::body::Body for Body {
    type Data = Data;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Data>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b.into())))),
            Self::Chunks(chunks, _) => Poll::Ready(chunks.next().map(|b| Ok(Frame::data(b)))),
            Self::Stream(stream) => stream.as_mut().poll_next(cx).map_ok(Frame::data),
            Self::Relayed(incoming) => Pin::new(incoming)
                .poll_frame(cx)
                .map_ok(|frame| frame.map_data(Data::from))
                .map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Relayed(incoming) => incoming.is_end_stream(),
            _ => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Relayed(incoming) => incoming.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

/// Compresses chunk by chunk.
struct Gzip<I> {
    chunks: I,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl<I> Gzip<I> {
    fn new(chunks: I) -> Self {
        Self { chunks, encoder: Some(GzEncoder::new(Vec::new(), Compression::new(1))) }
    }
}

impl<I: Iterator<Item = Data>> Iterator for Gzip<I> {
    type Item = Data;

    fn next(&mut self) -> Option<Data> {
        let mut encoder = self.encoder.take()?;
        for chunk in self.chunks.by_ref() {
            // Writing into a Vec does not fail.
            let _ = std::io::copy(&mut chunk.reader(), &mut encoder);
            if encoder.get_ref().len() >= 16 << 10 {
                let packed = std::mem::take(encoder.get_mut());
                self.encoder = Some(encoder);
                return Some(Bytes::from(packed).into());
            }
        }
        encoder.finish().ok().map(|packed| Bytes::from(packed).into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn chunks_compress_to_one_gzip_stream() {
        let text: Vec<Bytes> = (0..5000).map(|n| Bytes::from(format!("{n:x}-{}", n * 7919))).collect();
        let chunks = text.iter().cloned().map(Data::from);
        let packed: Vec<u8> = Gzip::new(chunks).flat_map(|chunk| chunk.chunk().to_vec()).collect();
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut plain).unwrap();
        assert_eq!(plain, text.concat());
    }
}
