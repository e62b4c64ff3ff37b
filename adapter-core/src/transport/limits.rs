//! The deadlines and buffers that every network backend has.

use std::time::Duration;

use super::{Backoff, BufferLimits};
use crate::{
    backend::BackendUrl,
    error::{Error, ErrorKind, Result},
};

/// The deadlines and buffers of a transport.
///
/// ```
/// use std::time::Duration;
/// use socketioxide_adapter_core::transport::Limits;
///
/// let limits = Limits::default().with_timeout(Duration::from_secs(1));
/// assert_eq!(limits.connect_timeout, Duration::from_secs(5));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Limits {
    /// How long connecting may take, and each later attempt to reconnect. Default 5 s.
    pub connect_timeout: Duration,
    /// How long a publish or a subscribe may take. Default 2 s.
    pub timeout: Duration,
    /// Largest payload in bytes. Default 8 MiB; the most is what the broker can take. What takes longer than 2 s to send
    /// looks like a dead link.
    pub max_payload: usize,
    /// What one subscription holds for a slow reader; beyond it payloads are dropped, counted and reported as
    /// [`Lagged`](super::Event::Lagged). Default 65,536 payloads and 16 MiB.
    pub subscription_buffer: BufferLimits,
    /// Publishes that wait for the broker's answer, all topics together, also those that were given up meanwhile; beyond
    /// it a publish fails at once with [`Full`](ErrorKind::Full). Default 16,384 payloads, which is also the most, and
    /// 64 MiB.
    pub publish_buffer: BufferLimits,
    /// Waits between attempts to reconnect. Default 50 ms to 5 s.
    pub backoff: Backoff,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            max_payload: 8 << 20,
            subscription_buffer: BufferLimits::default(),
            publish_buffer: BufferLimits::new(Self::PUBLISHES, 64 << 20),
            backoff: Backoff::default(),
        }
    }
}

impl Limits {
    /// Most publishes that may be set to wait.
    pub const PUBLISHES: usize = 16_384;

    /// Takes the options `connect_timeout` and `timeout` of a URL.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the option, never its value.
    pub fn take_from(url: &mut BackendUrl) -> Result<Self> {
        let mut limits = Self::default();
        url.read_duration("connect_timeout", &mut limits.connect_timeout)?;
        url.read_duration("timeout", &mut limits.timeout)?;
        Ok(limits)
    }

    /// Checks what the types cannot. `most` is the largest payload that can be allowed, in whole MiB; `operation` is what an
    /// error begins with, as `redis: config`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the limit and its bounds.
    pub fn validate(&self, operation: &'static str, most: usize) -> Result<()> {
        let invalid = |message: String| Err(Error::new(ErrorKind::Config, operation, message));
        if self.connect_timeout.is_zero() || self.timeout.is_zero() {
            return invalid("connect_timeout and timeout must be more than 0".to_owned());
        }
        if !(1..=most).contains(&self.max_payload) {
            return invalid(format!("max_payload must be 1 byte to {} MiB", most >> 20));
        }
        if !(1..=Self::PUBLISHES).contains(&self.publish_buffer.messages) {
            return invalid("publish_buffer must be 1 to 16,384 payloads".to_owned());
        }
        Ok(())
    }

    /// Sets how long connecting may take.
    pub const fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how long a publish or subscribe may take.
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the largest payload in bytes.
    pub const fn with_max_payload(mut self, max_payload: usize) -> Self {
        self.max_payload = max_payload;
        self
    }

    /// Sets what one subscription holds for a slow reader.
    pub const fn with_subscription_buffer(mut self, limits: BufferLimits) -> Self {
        self.subscription_buffer = limits;
        self
    }

    /// Sets how many publishes may wait for the broker's answer.
    pub const fn with_publish_buffer(mut self, limits: BufferLimits) -> Self {
        self.publish_buffer = limits;
        self
    }

    /// Sets the waits between attempts to reconnect.
    pub const fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_options_and_what_cannot_work_is_refused_by_name() {
        let mut url = BackendUrl::parse("x://h?timeout=1s&connect_timeout=300ms").unwrap();
        let limits = Limits::take_from(&mut url).unwrap();
        let times = (limits.timeout, limits.connect_timeout);
        assert_eq!(times, (Duration::from_secs(1), Duration::from_millis(300)));
        let no_time = Duration::ZERO;
        let of = Limits::default;
        let table = [
            (of(), ""),
            (of().with_timeout(no_time), "timeout"),
            (of().with_connect_timeout(no_time), "connect_timeout"),
            (of().with_max_payload(0), "1 byte to 9 MiB"),
            (of().with_max_payload((9 << 20) + 1), "1 byte to 9 MiB"),
            (of().with_publish_buffer(BufferLimits::new(0, 1)), "publish"),
            (
                of().with_publish_buffer(BufferLimits::new(Limits::PUBLISHES + 1, 1)),
                "16,384",
            ),
        ];
        for (limits, text) in table {
            let error = limits.validate("test: config", 9 << 20).err();
            let told = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(told.contains(text), "{told}");
            assert_eq!(told.is_empty(), text.is_empty());
        }
    }
}
