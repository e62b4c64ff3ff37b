//! What goes over a connection to the hub, in both directions: frames with their length in front.

use std::io;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use tokio::net::TcpStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// Something that a client says to all clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The client who sent it.
    pub client: u64,
    /// What it is about; empty for a frame that is only to come back.
    pub topic: String,
    /// Anything.
    pub payload: Bytes,
}

impl Frame {
    /// The bytes of a frame.
    pub fn encode(client: u64, topic: &str, payload: &[u8]) -> Bytes {
        let mut bytes = BytesMut::with_capacity(12 + topic.len() + payload.len());
        bytes.put_u64(client);
        bytes.put_u32(topic.len() as u32);
        bytes.put(topic.as_bytes());
        bytes.put(payload);
        bytes.freeze()
    }

    /// Reads the next frame of a connection.
    ///
    /// # Errors
    /// If the connection ends or breaks, or if what comes is no frame.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn read(
        connection: &mut (impl Stream<Item = io::Result<BytesMut>> + Unpin),
    ) -> io::Result<Self> {
        let bytes = connection.next().await;
        Self::decode(bytes.ok_or(io::ErrorKind::UnexpectedEof)??)
    }

    /// The payload is a part of `bytes`.
    fn decode(bytes: BytesMut) -> io::Result<Self> {
        let mut bytes = bytes.freeze();
        let no_frame = || io::Error::from(io::ErrorKind::InvalidData);
        let client = bytes.try_get_u64()?;
        let topic_len = bytes.try_get_u32()? as usize;
        if topic_len > bytes.len() {
            return Err(no_frame());
        }
        let topic = String::from_utf8(bytes.split_to(topic_len).into());
        Ok(Self {
            client,
            topic: topic.map_err(|_| no_frame())?,
            payload: bytes,
        })
    }
}

/// Cuts a connection into frames, of 8 MiB at most.
pub fn framed(stream: TcpStream) -> Framed<TcpStream, LengthDelimitedCodec> {
    // Small frames must not wait for each other. Without it they only come later.
    stream.set_nodelay(true).ok();
    Framed::new(stream, LengthDelimitedCodec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_back_and_a_damaged_one_is_refused() {
        let bytes = Frame::encode(1, "topic", b"payload");
        let frame = Frame {
            client: 1,
            topic: "topic".into(),
            payload: "payload".into(),
        };
        assert_eq!(Frame::decode(BytesMut::from(bytes.clone())).unwrap(), frame);
        for length in 0..17 {
            assert!(Frame::decode(BytesMut::from(&bytes[..length])).is_err());
        }
    }
}
