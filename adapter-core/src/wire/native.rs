//! The adapter's own wire: numbered, optionally signed frames, as the module documentation lays them out.

use bytes::Bytes;

use super::{
    DEFAULT_MAX_FRAME, Envelope, Frame, FrameBuf, FrameHead, HEADER_LEN, Keys, LaneId, Reject,
    TAG_LEN, Wire, codec::Writer, frame::ONLY, v1,
};
use crate::{
    error::{Error, ErrorKind, Result},
    id::NodeId,
};

/// The adapter's own wire. Without keys, frames are neither signed nor accepted if signed.
#[derive(Debug, Clone)]
pub struct NativeWire {
    keys: Option<Keys>,
    max_frame: usize,
}

impl NativeWire {
    /// A wire without keys and with the default limit, [`DEFAULT_MAX_FRAME`].
    pub const fn new() -> Self {
        Self {
            keys: None,
            max_frame: DEFAULT_MAX_FRAME,
        }
    }

    /// Signs every frame, and accepts only signed ones.
    #[must_use]
    pub fn with_keys(mut self, keys: Keys) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Neither writes nor accepts frames of more than `max_frame` bytes, header and signature included. At most
    /// `u32::MAX`.
    #[must_use]
    pub const fn with_limits(mut self, max_frame: usize) -> Self {
        self.max_frame = if max_frame > u32::MAX as usize {
            u32::MAX as usize
        } else {
            max_frame
        };
        self
    }

    const fn tag_len(&self) -> usize {
        if self.keys.is_some() { TAG_LEN } else { 0 }
    }
}

impl Default for NativeWire {
    fn default() -> Self {
        Self::new()
    }
}

impl Wire for NativeWire {
    fn begin(&self) -> FrameBuf {
        FrameBuf::new(self.tag_len())
    }

    fn append(
        &self,
        frame: &mut FrameBuf,
        only: Option<NodeId>,
        envelope: &Envelope,
    ) -> Result<()> {
        let start = frame.bytes.len();
        let mut out = Writer {
            out: &mut frame.bytes,
            limit: self.max_frame.saturating_sub(self.tag_len()),
        };
        let kind = envelope.kind() as u8;
        let written = out.raw(&[0; size_of::<u32>()]).and_then(|()| {
            match only {
                None => out.raw(&[kind])?,
                Some(node) => {
                    out.raw(&[kind | ONLY])?;
                    out.raw(node.as_bytes())?;
                }
            }
            v1::encode(&mut out, envelope)
        });
        if let Err(reason) = written {
            frame.bytes.truncate(start);
            return Err(Error::new(ErrorKind::TooLarge, "wire: append", reason));
        }
        let body = start + size_of::<u32>();
        // Fits: `max_frame` is at most `u32::MAX`.
        let len = (frame.bytes.len() - body) as u32;
        frame.bytes[start..body].copy_from_slice(&len.to_le_bytes());
        frame.count += 1;
        Ok(())
    }

    fn seal(&self, frame: FrameBuf, head: FrameHead) -> Bytes {
        let mut bytes = frame.finish(head, self.keys.is_some());
        if let Some(keys) = &self.keys {
            let tag = keys.tag(&bytes);
            bytes.extend_from_slice(&tag);
        }
        bytes.freeze()
    }

    fn peek(&self, bytes: &[u8]) -> Result<FrameHead, Reject> {
        FrameHead::parse(bytes).map(|(head, _)| head)
    }

    fn claimed_origin(&self, bytes: &[u8]) -> Option<NodeId> {
        FrameHead::claimed_origin(bytes)
    }

    fn open(&self, topic_lane: LaneId, mut bytes: Bytes) -> Result<Frame, Reject> {
        if bytes.len() > self.max_frame {
            return Err(Reject::TooLong(bytes.len()));
        }
        let (head, signed) = FrameHead::parse(&bytes)?;
        if head.lane != topic_lane {
            return Err(Reject::WrongLane(head.lane));
        }
        match (&self.keys, signed) {
            (None, false) => {}
            (None, true) => return Err(Reject::UnexpectedSignature),
            (Some(_), false) => return Err(Reject::Unsigned),
            (Some(keys), true) => {
                let (rest, tag) = bytes
                    .split_last_chunk::<TAG_LEN>()
                    .ok_or(Reject::BadSignature)?;
                if !keys.verify(rest, tag) {
                    return Err(Reject::BadSignature);
                }
                bytes.truncate(rest.len());
            }
        }
        if bytes.len() < HEADER_LEN {
            return Err(Reject::Malformed("header"));
        }
        Frame::new(head, bytes.split_off(HEADER_LEN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::RequestId,
        wire::{FrameKind, VERSION},
    };

    #[test]
    fn sealing_does_not_move_the_body() {
        let keys = Keys::new([1; Keys::MIN_LEN]).unwrap();
        let wire = NativeWire::new().with_keys(keys);
        let head = FrameHead {
            version: VERSION,
            kind: FrameKind::Data,
            origin: NodeId::random(),
            lane: LaneId(0),
            seq: 1,
            count: 1,
        };
        for len in 0..5000 {
            let mut frame = wire.begin();
            let envelope = Envelope::Ack {
                request: RequestId(1),
                sid: socketioxide_core::Sid::ZERO,
                result: Err(Bytes::from(vec![0; len])),
            };
            wire.append(&mut frame, None, &envelope).unwrap();
            let before = frame.bytes.as_ptr();
            assert_eq!(wire.seal(frame, head).as_ptr(), before, "{len} bytes");
        }
    }
}
