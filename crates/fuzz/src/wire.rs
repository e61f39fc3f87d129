//! Frames of streams.

use bytes::BytesMut;
use keelson_streams::spdy::{Decoder, Encoder, Frame};

pub(crate) fn spdy(mut data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
        while let Ok(Some(frame)) = decoder.read(&mut data).await {
            // What is not known is not kept.
            if !matches!(frame, Frame::Other | Frame::Headers { .. }) {
                frames.push(frame);
            }
        }
        let mut encoder = Encoder::new().expect("an encoder");
        let mut bytes = BytesMut::new();
        for frame in &frames {
            encoder.encode(frame, &mut bytes).expect("what was decoded can be encoded");
        }
        let (mut decoder, mut bytes) = (Decoder::default(), &bytes[..]);
        for frame in frames {
            assert_eq!(decoder.read(&mut bytes).await.expect("what was encoded is frames"), Some(frame));
        }
    });
}
