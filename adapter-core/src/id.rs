//! Identities: which node sent a frame, and which request an answer belongs to.

use std::{fmt, str::FromStr};

use socketioxide_core::Uid;

use crate::error::{Error, ErrorKind, Result};

/// Identity of one running server process.
///
/// It is socketioxide's server id ([`Uid`]): 16 base64url characters, drawn at random at each process start. A node id
/// therefore names one *incarnation*: a process that restarts is a new node, and nobody has to compare clocks to know it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 16]);

impl NodeId {
    /// Number of bytes of a node id, in memory and on the wire.
    pub const LEN: usize = 16;

    /// Draws a fresh random id.
    pub fn random() -> Self {
        Self::from(Uid::new())
    }

    /// Reads an id from its 16 wire bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] if a byte is not in the base64url alphabet.
    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self> {
        let legal = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if bytes.iter().all(legal) {
            Ok(Self(bytes))
        } else {
            Err(Error::new(
                ErrorKind::Protocol,
                "node id",
                "not 16 base64url characters",
            ))
        }
    }

    /// The 16 wire bytes: ASCII characters of the base64url alphabet.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The same identity in socketioxide's type.
    pub fn to_uid(self) -> Uid {
        self.as_str().parse().unwrap_or(Uid::ZERO)
    }
}

#[cfg(test)]
impl NodeId {
    /// A fixed id for tests; ids sort like their numbers.
    pub(crate) fn numbered(n: u64) -> Self {
        format!("{n:016}").parse().unwrap()
    }
}

impl From<Uid> for NodeId {
    fn from(uid: Uid) -> Self {
        let mut bytes = [b'A'; 16];
        let text = uid.as_str().as_bytes();
        let len = text.len().min(bytes.len());
        bytes[..len].copy_from_slice(&text[..len]);
        Self(bytes)
    }
}

impl FromStr for NodeId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bytes = text.as_bytes().try_into().map_err(|_| {
            Error::new(
                ErrorKind::Protocol,
                "node id",
                "not 16 base64url characters",
            )
        })?;
        Self::from_bytes(bytes)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Number of a request, unique within the node that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uid_and_node_id_are_the_same_identity() {
        let uid = Uid::new();
        assert_eq!(NodeId::from(uid).to_uid(), uid);
        assert_eq!(NodeId::from(uid).as_str(), uid.as_str());
    }

    #[test]
    fn bytes_outside_the_alphabet_are_refused() {
        assert!(NodeId::from_bytes([0; 16]).is_err());
        assert!("short".parse::<NodeId>().is_err());
    }
}
