//! How much may wait for the broker's answer at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{BufferLimits, Step};
use crate::error::{Error, ErrorKind};

/// What all publishes together may hold until the broker has answered. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget {
    limits: BufferLimits,
    waiting: Arc<Waiting>,
}

/// Counted without a lock, since every publish passes here: of two that come at the same moment and do not both fit, both may
/// be refused.
#[derive(Debug, Default)]
struct Waiting {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

/// The place of one publish. Dropping it makes room for another.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    bytes: usize,
    waiting: Arc<Waiting>,
}

impl Budget {
    /// An empty one; at least one payload always fits.
    pub fn new(limits: BufferLimits) -> Self {
        Self {
            limits,
            waiting: Arc::default(),
        }
    }

    /// Takes a place for a payload of so many bytes. Keep it as long as anybody holds the payload, also the client library.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] from the transport of this name.
    pub fn take(&self, name: &str, bytes: usize) -> Result<Permit, Error> {
        let waiting = self.waiting.clone();
        let messages = waiting.messages.fetch_add(1, Ordering::Relaxed);
        let others = waiting.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Dropped if there is no room, which gives the place back.
        let permit = Permit { bytes, waiting };
        let fits = messages < self.limits.messages && others + bytes <= self.limits.bytes;
        if messages == 0 || fits {
            return Ok(permit);
        }
        let message = format!("{messages} publishes ({others} bytes) already wait for the broker");
        Err(Step::Publish.error(name, ErrorKind::Full, message))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.waiting.messages.fetch_sub(1, Ordering::Relaxed);
        self.waiting.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold_one_payload_always_fits_and_dropping_makes_room() {
        let budget = Budget::new(BufferLimits::new(2, 10));
        let large = budget.take("x", 11).unwrap();
        assert_eq!(budget.take("x", 0).unwrap_err().kind(), ErrorKind::Full);
        drop(large);
        let both = (budget.take("x", 9).unwrap(), budget.take("x", 1).unwrap());
        let full = budget.take("x", 0).unwrap_err();
        let says = "x: publish: 2 publishes (10 bytes) already wait for the broker";
        assert_eq!(full.to_string(), says);
        drop(both);
        let _small = budget.take("x", 1).unwrap();
        assert!(budget.take("x", 10).is_err());
    }
}
