//! Protocol settings of a cluster: the same for every broker.

use std::time::Duration;

use crate::{
    error::{Error, ErrorKind, Result},
    transport::BufferLimits,
    wire::Keys,
};

/// When `emit().await` resolves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum PublishMode {
    /// Once the envelope is in this node's bounded lane. The lane keeps order, retries, and reports what it could not
    /// send as [`ClusterEvent::Unsent`](crate::ClusterEvent::Unsent) and a counter. The default.
    #[default]
    Queued,
    /// Once the broker accepted the frame that carries it, or with the reason why not.
    Confirmed,
}

/// What an operation does while the link to the broker is known to be down. Local sockets are served in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OutagePolicy {
    /// It fails at once with [`ErrorKind::LinkDown`]; nothing is kept. The default.
    #[default]
    FailFast,
    /// Its envelope is kept in the lane, within the lane's limits, and sent when the link is back. What is older than
    /// `max_age` by then is dropped and reported as unsent; what does not fit fails with [`ErrorKind::Full`].
    Buffer {
        /// How long an envelope may wait for the link.
        max_age: Duration,
    },
    /// It waits for the link, at most so long, then fails with [`ErrorKind::LinkDown`].
    Block {
        /// How long a call may wait.
        timeout: Duration,
    },
}

/// What a query (`rooms`, `fetch_sockets`) does when some nodes did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnMissing {
    /// It fails with [`ErrorKind::Incomplete`], which names them. The default.
    #[default]
    Fail,
    /// It returns what it has; a [`ClusterEvent::Incomplete`](crate::ClusterEvent::Incomplete) names them.
    ReturnPartial,
}

/// Protocol settings. All nodes of a cluster should use the same `heartbeat`, `dead_after` and `keys`.
///
/// ```
/// use std::time::Duration;
/// use socketioxide_adapter_core::{ClusterConfig, PublishMode};
/// let config = ClusterConfig::default()
///     .with_publish_mode(PublishMode::Confirmed)
///     .with_request_timeout(Duration::from_secs(2));
/// assert_eq!(config.heartbeat, Duration::from_secs(2));
/// ```
///
/// No duration may be longer than 365 days.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClusterConfig {
    /// When `emit().await` resolves. Default [`PublishMode::Queued`].
    pub publish_mode: PublishMode,
    /// What happens while the link is down. Default [`OutagePolicy::FailFast`].
    pub outage: OutagePolicy,
    /// What a query does when nodes are missing. Default [`OnMissing::Fail`].
    pub on_missing: OnMissing,
    /// Longest wait of a call for room in a full lane and (confirmed) for the broker, together. Default 5 s.
    pub publish_timeout: Duration,
    /// How long a lane tries to send what it has taken before it reports it as unsent. Default 30 s.
    pub retry_for: Duration,
    /// Longest wait for the answers to a query, and for late acknowledgements beyond their own timeout. Default 5 s.
    pub request_timeout: Duration,
    /// Time between two heartbeats, ±10 %. Default 2 s.
    pub heartbeat: Duration,
    /// Silence after which a node counts as dead. At least twice the heartbeat. Default 7 s.
    pub dead_after: Duration,
    /// How long the future of `io.ns()` waits for the namespace to be subscribed cluster-wide. Default 10 s.
    pub init_timeout: Duration,
    /// Longest time that [`Cluster::shutdown`](crate::Cluster::shutdown) takes to flush and say goodbye. Default 5 s.
    pub shutdown_timeout: Duration,
    /// Bound of a lane: envelopes and bytes waiting to be published per namespace. A call that finds it full waits
    /// for `publish_timeout`, then fails with [`ErrorKind::Full`]. Default 65,536 envelopes and 16 MiB.
    pub lane: BufferLimits,
    /// Size in bytes at which a frame is closed; one envelope may exceed it. Default 128 KiB.
    pub frame_bytes: usize,
    /// Frames of one lane on their way at the same time. Default 4.
    pub in_flight: usize,
    /// Acknowledgements of one broadcast kept for a caller that does not read its stream; the rest is dropped and
    /// counted. Default 65,536.
    pub ack_buffer: usize,
    /// Events kept for a reader of [`Cluster::events`](crate::Cluster::events) that does not read. Default 1,024.
    pub event_buffer: usize,
    /// Shared secrets that sign every frame; `None` (the default) means that whoever can publish to the broker is
    /// trusted.
    pub keys: Option<Keys>,
}

/// Far from what a point in time can be.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            publish_mode: PublishMode::default(),
            outage: OutagePolicy::default(),
            on_missing: OnMissing::default(),
            publish_timeout: Duration::from_secs(5),
            retry_for: Duration::from_secs(30),
            request_timeout: Duration::from_secs(5),
            heartbeat: Duration::from_secs(2),
            dead_after: Duration::from_secs(7),
            init_timeout: Duration::from_secs(10),
            shutdown_timeout: Duration::from_secs(5),
            lane: BufferLimits::default(),
            frame_bytes: 128 << 10,
            in_flight: 4,
            ack_buffer: 65_536,
            event_buffer: 1_024,
            keys: None,
        }
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $field:ident, $type:ty;)*) => {
        impl ClusterConfig {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(mut self, value: $type) -> Self {
                self.$field = value;
                self
            })*
        }
    };
}

setters! {
    /// Sets [`publish_mode`](Self::publish_mode).
    with_publish_mode: publish_mode, PublishMode;
    /// Sets [`outage`](Self::outage).
    with_outage: outage, OutagePolicy;
    /// Sets [`on_missing`](Self::on_missing).
    with_on_missing: on_missing, OnMissing;
    /// Sets [`publish_timeout`](Self::publish_timeout).
    with_publish_timeout: publish_timeout, Duration;
    /// Sets [`retry_for`](Self::retry_for).
    with_retry_for: retry_for, Duration;
    /// Sets [`request_timeout`](Self::request_timeout).
    with_request_timeout: request_timeout, Duration;
    /// Sets [`heartbeat`](Self::heartbeat).
    with_heartbeat: heartbeat, Duration;
    /// Sets [`dead_after`](Self::dead_after).
    with_dead_after: dead_after, Duration;
    /// Sets [`init_timeout`](Self::init_timeout).
    with_init_timeout: init_timeout, Duration;
    /// Sets [`shutdown_timeout`](Self::shutdown_timeout).
    with_shutdown_timeout: shutdown_timeout, Duration;
    /// Sets [`lane`](Self::lane).
    with_lane: lane, BufferLimits;
    /// Sets [`frame_bytes`](Self::frame_bytes).
    with_frame_bytes: frame_bytes, usize;
    /// Sets [`in_flight`](Self::in_flight).
    with_in_flight: in_flight, usize;
    /// Sets [`ack_buffer`](Self::ack_buffer).
    with_ack_buffer: ack_buffer, usize;
    /// Sets [`event_buffer`](Self::event_buffer).
    with_event_buffer: event_buffer, usize;
    /// Sets [`keys`](Self::keys).
    with_keys: keys, Option<Keys>;
}

impl ClusterConfig {
    /// Checks that the settings can work together.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the setting and its bound.
    pub fn validate(&self) -> Result<()> {
        let refuse =
            |message: &'static str| Err(Error::new(ErrorKind::Config, "cluster config", message));
        if self.heartbeat < Duration::from_millis(10) {
            return refuse("heartbeat must be at least 10 ms");
        }
        if self.dead_after < self.heartbeat.saturating_mul(2) {
            return refuse("dead_after must be at least twice the heartbeat");
        }
        let durations = [
            self.publish_timeout,
            self.retry_for,
            self.request_timeout,
            self.heartbeat,
            self.dead_after,
            self.init_timeout,
            self.shutdown_timeout,
            match self.outage {
                OutagePolicy::FailFast => Duration::ZERO,
                OutagePolicy::Buffer { max_age } => max_age,
                OutagePolicy::Block { timeout } => timeout,
            },
        ];
        if durations.iter().any(|duration| *duration > MAX_DURATION) {
            return refuse("no duration may be longer than 365 days");
        }
        if self.in_flight == 0 || self.in_flight > 64 {
            return refuse("in_flight must be from 1 to 64");
        }
        if self.frame_bytes < 1 << 10 {
            return refuse("frame_bytes must be at least 1,024");
        }
        if self.lane.messages == 0 || self.lane.bytes == 0 {
            return refuse("lane must hold at least one envelope and one byte");
        }
        if self.event_buffer == 0 || self.ack_buffer == 0 {
            return refuse("event_buffer and ack_buffer must be at least 1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_beyond_any_clock_are_refused() {
        for config in [
            ClusterConfig::default().with_retry_for(Duration::MAX),
            ClusterConfig::default().with_outage(OutagePolicy::Buffer {
                max_age: Duration::MAX,
            }),
        ] {
            assert_eq!(
                config.validate().unwrap_err().to_string(),
                "cluster config: no duration may be longer than 365 days"
            );
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        let config = ClusterConfig::default().with_dead_after(Duration::from_secs(3));
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "cluster config: dead_after must be at least twice the heartbeat"
        );
        assert!(ClusterConfig::default().validate().is_ok());
    }
}
