//! The shared secrets that frames are signed with.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::TAG_LEN;
use crate::error::{Error, ErrorKind, Result};

/// The keys of a cluster: one to sign with, and during a rotation a second one that is accepted too.
///
/// To rotate without losing a frame: give every node the new key as a second accepted one, then make it the signing key
/// everywhere with the old one accepted, then drop the old one.
#[derive(Clone)]
pub struct Keys {
    sign: Hmac<Sha256>,
    also: Option<Hmac<Sha256>>,
}

impl Keys {
    /// Shortest secret in bytes. A signature is worth no more than its secret: use random bytes.
    pub const MIN_LEN: usize = 16;

    /// Signs with `secret` and accepts frames signed with it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the secret is shorter than [`MIN_LEN`](Self::MIN_LEN).
    pub fn new(secret: impl AsRef<[u8]>) -> Result<Self> {
        Ok(Self {
            sign: hmac(secret.as_ref())?,
            also: None,
        })
    }

    /// Also accepts frames signed with `secret`, the old or the coming one. Replaces an earlier second secret.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the secret is shorter than [`MIN_LEN`](Self::MIN_LEN).
    pub fn accepting(mut self, secret: impl AsRef<[u8]>) -> Result<Self> {
        self.also = Some(hmac(secret.as_ref())?);
        Ok(self)
    }

    pub(super) fn tag(&self, bytes: &[u8]) -> [u8; TAG_LEN] {
        let full = self.sign.clone().chain_update(bytes).finalize();
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&full.as_bytes()[..TAG_LEN]);
        tag
    }

    /// Compares in constant time.
    pub(super) fn verify(&self, bytes: &[u8], tag: &[u8; TAG_LEN]) -> bool {
        let mut keys = std::iter::once(&self.sign).chain(&self.also);
        keys.any(|key| {
            let mac = key.clone().chain_update(bytes);
            mac.verify_truncated_left(tag).is_ok()
        })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = 1 + usize::from(self.also.is_some());
        write!(f, "Keys({count}, redacted)")
    }
}

fn hmac(secret: &[u8]) -> Result<Hmac<Sha256>> {
    let refuse = || {
        let message = format!("a secret needs at least {} bytes", Keys::MIN_LEN);
        Error::new(ErrorKind::Config, "wire keys", message)
    };
    if secret.len() < Keys::MIN_LEN {
        return Err(refuse());
    }
    Hmac::new_from_slice(secret).map_err(|_| refuse())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_hmac_sha256_cut_to_16_bytes() {
        // RFC 4231, test case 6: a key longer than the block size.
        let keys = Keys::new([0xaa; 131]).unwrap();
        let tag = keys.tag(b"Test Using Larger Than Block-Size Key - Hash Key First");
        let expected = 0x60e431591ee0b67f0d8a26aacbf5b77fu128.to_be_bytes();
        assert_eq!(tag, expected);
    }

    #[test]
    fn short_secrets_are_refused_and_none_is_shown() {
        let error = Keys::new("s3cret").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!error.to_string().contains("s3cret"));
        let keys = Keys::new("s3cret-s3cret-s3cret").unwrap();
        let keys = keys.accepting("0ld-s3cret-0ld-s3cret").unwrap();
        assert_eq!(format!("{keys:?}"), "Keys(2, redacted)");
    }
}
