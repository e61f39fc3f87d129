//! Bytes that are sent from where they lie, though they lie in many places.
//!
//! A list's objects are in the cache, an event's line in the history. Joining them for each who reads them would copy what
//! TLS is about to copy into its records.

use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Buf, Bytes};

/// Sent in these: with HTTP/2's head of 9 bytes (RFC 9113, 4.1) one fills a TLS record (RFC 8446, 5.1).
pub const FRAME: usize = (16 << 10) - 9;

/// Items of bytes in order, each in one or more pieces.
pub trait Source: Send + Sync {
    /// How many bytes an item has; `None` after the last.
    fn length(&self, item: usize) -> Option<usize>;
    /// Shows an item's pieces, until one is answered with false.
    fn pieces<'a>(&'a self, item: usize, show: &mut dyn FnMut(&'a [u8]) -> bool);
}

impl Source for Vec<Bytes> {
    fn length(&self, item: usize) -> Option<usize> {
        self.get(item).map(Bytes::len)
    }

    fn pieces<'a>(&'a self, item: usize, show: &mut dyn FnMut(&'a [u8]) -> bool) {
        show(&self[item]);
    }
}

/// What a body sends at a time.
pub enum Data {
    Whole(Bytes),
    Slices(Slices),
}

/// Some bytes of a source.
#[derive(Clone)]
pub struct Slices {
    source: Arc<dyn Source>,
    item: usize,
    /// Bytes of that item that come before.
    offset: usize,
    left: usize,
}

impl Slices {
    fn walk<'a>(&'a self, mut show: impl FnMut(&'a [u8]) -> bool) {
        let (mut item, mut skip, mut left) = (self.item, self.offset, self.left);
        let mut more = left > 0;
        while more {
            self.source.pieces(item, &mut |piece| {
                let Some(piece) = piece.get(skip..).filter(|rest| !rest.is_empty()) else {
                    skip -= piece.len();
                    return true;
                };
                skip = 0;
                let piece = &piece[..piece.len().min(left)];
                left -= piece.len();
                more = show(piece) && left > 0;
                more
            });
            item += 1;
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.offset += bytes;
        while let Some(length) = self.source.length(self.item).filter(|length| self.offset >= *length) {
            self.offset -= length;
            self.item += 1;
        }
    }
}

/// All of a source, a frame at a time.
pub struct Frames(Slices);

impl Frames {
    pub fn new(source: impl Source + 'static) -> Self {
        let left = (0..).map_while(|item| source.length(item)).sum();
        Self(Slices { source: Arc::new(source), item: 0, offset: 0, left })
    }

    pub fn bytes_left(&self) -> usize {
        self.0.left
    }
}

impl Iterator for Frames {
    type Item = Data;

    fn next(&mut self) -> Option<Data> {
        let next = Slices { left: self.0.left.min(FRAME), ..self.0.clone() };
        self.0.advance(next.left);
        (next.left > 0).then_some(Data::Slices(next))
    }
}

impl Buf for Slices {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        let mut first = &[][..];
        self.walk(|piece| {
            first = piece;
            false
        });
        first
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        if !into.is_empty() {
            self.walk(|piece| {
                into[filled] = IoSlice::new(piece);
                filled += 1;
                filled < into.len()
            });
        }
        filled
    }

    fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.left, "{bytes} of {} bytes", self.left);
        self.left -= bytes;
        self.skip(bytes);
    }
}

impl From<Bytes> for Data {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }
}

impl Data {
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Slices(mut slices) => slices.copy_to_bytes(slices.left),
        }
    }
}

impl Buf for Data {
    fn remaining(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.remaining(),
            Self::Slices(slices) => slices.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Whole(bytes) => bytes.chunk(),
            Self::Slices(slices) => slices.chunk(),
        }
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        match self {
            Self::Whole(bytes) => bytes.chunks_vectored(into),
            Self::Slices(slices) => slices.chunks_vectored(into),
        }
    }

    fn advance(&mut self, bytes: usize) {
        match self {
            Self::Whole(whole) => whole.advance(bytes),
            Self::Slices(slices) => slices.advance(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Items of three pieces.
    struct Words(Vec<&'static str>);

    impl Source for Words {
        fn length(&self, item: usize) -> Option<usize> {
            self.0.get(item).map(|word| word.len() + 2)
        }

        fn pieces<'a>(&'a self, item: usize, show: &mut dyn FnMut(&'a [u8]) -> bool) {
            let _ = show(b"<") && show(self.0[item].as_bytes()) && show(b">");
        }
    }

    #[test]
    fn slices_are_the_bytes_of_their_source_however_they_are_taken() {
        let want = "<one><><three>";
        for step in 1..=want.len() {
            let mut frames = Frames::new(Words(vec!["one", "", "three"]));
            let Some(Data::Slices(mut slices)) = frames.next() else { panic!("there is a frame") };
            assert!(frames.next().is_none());
            let mut read = Vec::new();
            while slices.has_remaining() {
                let mut parts = [IoSlice::new(&[]); 4];
                let filled = slices.chunks_vectored(&mut parts);
                assert_eq!(&*parts[0], slices.chunk());
                assert!(parts[..filled].iter().all(|part| !part.is_empty()));
                let there: Vec<u8> = parts[..filled].iter().flat_map(|part| part.to_vec()).collect();
                let taken = there.len().min(step);
                read.extend_from_slice(&there[..taken]);
                slices.advance(taken);
            }
            assert_eq!(String::from_utf8(read).unwrap(), want);
        }
    }

    #[test]
    fn a_long_source_comes_in_frames() {
        let parts: Vec<Bytes> = (0..9000).map(|n| Bytes::from(format!("{n:x}"))).collect();
        let whole = parts.concat();
        let frames = Frames::new(parts);
        assert_eq!(frames.bytes_left(), whole.len());
        let (mut lengths, mut read) = (Vec::new(), Vec::new());
        for mut frame in frames {
            lengths.push(frame.remaining());
            read.extend_from_slice(&frame.copy_to_bytes(frame.remaining()));
        }
        assert_eq!((lengths[0], lengths.iter().sum()), (FRAME, whole.len()));
        assert!(read == whole);
    }
}
