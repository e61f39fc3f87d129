//! Frames and their encoding.

use super::dictionary::DICTIONARY;
use crate::error::{Error, Result};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use std::collections::BTreeMap;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Names in lower case; the first value where one is repeated.
pub type Headers = BTreeMap<String, String>;

const VERSION: u16 = 3;
const FIN: u8 = 1;
/// Far above any header block that these streams carry, and no burden while a stream waits for its pair.
const MAX_HEADER_BLOCK: usize = 16 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        id: u32,
        fin: bool,
        headers: Headers,
    },
    SynReply {
        id: u32,
        fin: bool,
        headers: Headers,
    },
    Reset {
        id: u32,
        status: u32,
    },
    Ping {
        id: u32,
    },
    GoAway {
        last: u32,
    },
    /// More headers on an open stream.
    Headers {
        id: u32,
        fin: bool,
    },
    Data {
        id: u32,
        fin: bool,
        data: Bytes,
    },
    /// Settings and window updates: read and left aside.
    Other,
}

/// Writes frames, the counterpart of [`Decoder`].
pub struct Encoder {
    zlib: Compress,
}

impl Encoder {
    pub fn new() -> Result<Self> {
        let mut zlib = Compress::new(Compression::default(), true);
        zlib.set_dictionary(&DICTIONARY).map_err(|_| Error::Protocol("cannot set the header dictionary"))?;
        Ok(Self { zlib })
    }

    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<()> {
        match frame {
            Frame::SynStream { id, fin, headers } => {
                let block = self.headers(headers)?;
                control(out, 1, u8::from(*fin), 10 + block.len());
                out.put_u32(*id);
                out.put_u32(0);
                out.put_u16(0);
                out.put_slice(&block);
            }
            Frame::SynReply { id, fin, headers } => {
                let block = self.headers(headers)?;
                control(out, 2, u8::from(*fin), 4 + block.len());
                out.put_u32(*id);
                out.put_slice(&block);
            }
            Frame::Reset { id, status } => {
                control(out, 3, 0, 8);
                out.put_u32(*id);
                out.put_u32(*status);
            }
            Frame::Ping { id } => {
                control(out, 6, 0, 4);
                out.put_u32(*id);
            }
            Frame::GoAway { last } => {
                control(out, 7, 0, 8);
                out.put_u32(*last);
                out.put_u32(0);
            }
            Frame::Data { id, fin, data } => {
                out.put_u32(*id);
                out.put_u32(u32::from(*fin) << 24 | data.len() as u32);
                out.put_slice(data);
            }
            Frame::Headers { .. } | Frame::Other => {}
        }
        Ok(())
    }

    fn headers(&mut self, headers: &Headers) -> Result<Vec<u8>> {
        let mut plain = Vec::new();
        plain.put_u32(headers.len() as u32);
        for (name, value) in headers {
            for text in [name, value] {
                plain.put_u32(text.len() as u32);
                plain.put_slice(text.as_bytes());
            }
        }
        let mut block = Vec::with_capacity(plain.len() + 64);
        let mut rest = plain.as_slice();
        loop {
            let before = self.zlib.total_in();
            block.reserve(256);
            self.zlib
                .compress_vec(rest, &mut block, FlushCompress::Sync)
                .map_err(|_| Error::Protocol("cannot compress headers"))?;
            rest = &rest[(self.zlib.total_in() - before) as usize..];
            // A flush is over when it left room in the output.
            if rest.is_empty() && block.len() < block.capacity() {
                return Ok(block);
            }
        }
    }
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | length as u32);
}

/// Reads frames: header blocks share one compression context.
pub struct Decoder {
    zlib: Decompress,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { zlib: Decompress::new(true) }
    }
}

impl Decoder {
    /// The next frame, or `None` where the connection ends between frames.
    pub async fn read(&mut self, io: &mut (impl AsyncRead + Unpin)) -> Result<Option<Frame>> {
        let mut head = [0; 8];
        let lost = |source| Error::Io { operation: "read", subject: "SPDY frame".into(), source };
        match io.read_exact(&mut head).await {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(lost(e)),
        }
        let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let second = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let mut body = vec![0; (second & 0x00ff_ffff) as usize];
        io.read_exact(&mut body).await.map_err(lost)?;
        let fin = (second >> 24) as u8 & FIN != 0;
        if first >> 31 == 0 {
            return Ok(Some(Frame::Data { id: first, fin, data: body.into() }));
        }
        if (first >> 16) as u16 & 0x7fff != VERSION {
            return Err(Error::Protocol("another version of SPDY"));
        }
        self.control(first as u16, fin, &body).map(Some)
    }

    fn control(&mut self, kind: u16, fin: bool, mut body: &[u8]) -> Result<Frame> {
        let fixed = match kind {
            1 => 10,
            2 | 6 | 8 => 4,
            3 | 7 => 8,
            _ => 0,
        };
        if body.len() < fixed {
            return Err(Error::Protocol("control frame too short"));
        }
        Ok(match kind {
            1 => {
                let id = body.get_u32() & 0x7fff_ffff;
                body.advance(6);
                Frame::SynStream { id, fin, headers: self.headers(body)? }
            }
            2 => {
                let id = body.get_u32() & 0x7fff_ffff;
                Frame::SynReply { id, fin, headers: self.headers(body)? }
            }
            3 => Frame::Reset { id: body.get_u32() & 0x7fff_ffff, status: body.get_u32() },
            6 => Frame::Ping { id: body.get_u32() },
            7 => Frame::GoAway { last: body.get_u32() & 0x7fff_ffff },
            8 => {
                let id = body.get_u32() & 0x7fff_ffff;
                // The block has to pass through zlib even if nobody reads it.
                self.headers(body)?;
                Frame::Headers { id, fin }
            }
            _ => Frame::Other,
        })
    }

    fn headers(&mut self, block: &[u8]) -> Result<Headers> {
        let plain = self.inflate(block)?;
        let mut rest = plain.as_slice();
        let short = || Error::Protocol("header block too short");
        let text = |rest: &mut &[u8]| -> Result<String> {
            let length = rest.try_get_u32().map_err(|_| short())? as usize;
            let (value, tail) = rest.split_at_checked(length).ok_or_else(short)?;
            *rest = tail;
            // Several values of one name are separated by NUL.
            let first = value.split(|b| *b == 0).next().unwrap_or_default();
            Ok(String::from_utf8_lossy(first).into_owned())
        };
        let count = rest.try_get_u32().map_err(|_| short())?;
        let mut headers = Headers::new();
        for _ in 0..count {
            let name = text(&mut rest)?.to_ascii_lowercase();
            headers.insert(name, text(&mut rest)?);
        }
        Ok(headers)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>> {
        let mut plain = Vec::with_capacity(1024);
        loop {
            let (in_before, out_before) = (self.zlib.total_in(), self.zlib.total_out());
            plain.reserve(1024);
            if let Err(e) = self.zlib.decompress_vec(block, &mut plain, FlushDecompress::Sync) {
                e.needs_dictionary().ok_or(Error::Protocol("header block is not zlib"))?;
                self.zlib
                    .set_dictionary(&DICTIONARY)
                    .map_err(|_| Error::Protocol("header block has another dictionary"))?;
            }
            let (read, wrote) = (self.zlib.total_in() - in_before, self.zlib.total_out() - out_before);
            block = &block[read as usize..];
            if plain.len() > MAX_HEADER_BLOCK {
                return Err(Error::Protocol("header block too large"));
            }
            if block.is_empty() && plain.len() < plain.capacity() || read == 0 && wrote == 0 {
                return Ok(plain);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[tokio::test]
    async fn frames_survive_encoding_and_share_one_compression_context() {
        let frames = [
            Frame::SynStream { id: 1, fin: false, headers: headers(&[("streamtype", "stdin")]) },
            Frame::SynReply { id: 1, fin: false, headers: Headers::new() },
            Frame::SynStream {
                id: 3,
                fin: true,
                headers: headers(&[("streamtype", "data"), ("port", "80"), ("requestid", "0")]),
            },
            Frame::Data { id: 1, fin: true, data: Bytes::from_static(b"hello") },
            Frame::Ping { id: 7 },
            Frame::Reset { id: 3, status: 5 },
            Frame::GoAway { last: 3 },
        ];
        let mut encoder = Encoder::new().expect("encoder");
        let mut bytes = BytesMut::new();
        for frame in &frames {
            encoder.encode(frame, &mut bytes).expect("encodes");
        }
        let mut decoder = Decoder::default();
        let mut input = bytes.as_ref();
        for frame in frames {
            assert_eq!(decoder.read(&mut input).await.expect("decodes"), Some(frame));
        }
        assert_eq!(decoder.read(&mut input).await.expect("ends"), None);
    }

    #[tokio::test]
    async fn a_cut_header_block_is_an_error() {
        let mut encoder = Encoder::new().expect("encoder");
        let mut bytes = BytesMut::new();
        let frame = Frame::SynStream { id: 1, fin: false, headers: headers(&[("a", "b")]) };
        encoder.encode(&frame, &mut bytes).expect("encodes");
        let cut = bytes.len() - 9;
        bytes[7] -= 9;
        let mut input = &bytes[..cut];
        assert!(Decoder::default().read(&mut input).await.is_err());
    }
}
