//! Payloads that know who sent them, which they are, and whether they are whole.

use std::{
    fmt,
    hash::{DefaultHasher, Hasher},
};

use bytes::{BufMut, Bytes, BytesMut};

const HEAD: usize = 4 + 8;
const CHECK: usize = 8;

/// The identity of a numbered payload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    pub(crate) publisher: u32,
    pub(crate) number: u64,
}

impl Id {
    /// The payload of this identity: head, `filler` bytes that follow from the identity, checksum.
    pub(crate) fn payload(self, filler: usize) -> Bytes {
        let mut payload = BytesMut::with_capacity(HEAD + filler + CHECK);
        payload.put_u32(self.publisher);
        payload.put_u64(self.number);
        let mut rng = fastrand::Rng::with_seed(self.number ^ u64::from(self.publisher) << 32);
        payload.resize(HEAD + filler, 0);
        rng.fill(&mut payload[HEAD..]);
        payload.put_u64(checksum(&payload));
        payload.freeze()
    }

    /// The payload of this identity with a total size of `size`, as far as there is room for head and checksum: a shorter
    /// one is only filler.
    pub(crate) fn sized_payload(self, size: usize) -> Bytes {
        let whole = self.payload(size.saturating_sub(HEAD + CHECK));
        whole.slice(whole.len().saturating_sub(size)..)
    }

    /// Reads the identity; `None` if the payload is not whole, or not a numbered one.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let (body, check) = payload.split_last_chunk::<CHECK>()?;
        let (publisher, rest) = body.split_first_chunk()?;
        let (number, _) = rest.split_first_chunk()?;
        (checksum(body) == u64::from_be_bytes(*check)).then(|| Self {
            publisher: u32::from_be_bytes(*publisher),
            number: u64::from_be_bytes(*number),
        })
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.publisher, self.number)
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_read_back_and_a_torn_one_is_not() {
        let id = Id {
            publisher: 3,
            number: 4,
        };
        for filler in [0, 1, 1_000] {
            let payload = id.payload(filler);
            assert_eq!(Id::read(&payload), Some(id));
            assert_eq!(Id::read(&payload[1..]), None);
            assert_eq!(Id::read(&payload[..payload.len() - 1]), None);
        }
        assert_eq!(Id::read(b""), None);
    }
}
