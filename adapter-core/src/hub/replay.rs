//! What was missed is coming back, and a probe waits behind it.
//!
//! Known to all readers of a node: a broker may keep one queue for all topics, so that what comes back for one of them holds
//! up the probes of every other.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Longest time for which what a topic says counts as a replay of it. Our own probe ends that long before, unless it does not
/// come back at all: then nothing else may hide it for ever.
const LIMIT: Duration = Duration::from_secs(600);

/// The replays of one node: when the last payload of one came.
#[derive(Debug, Default)]
pub(crate) struct Replay(Mutex<Option<Instant>>);

/// The replay of one topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OfTopic {
    until: Instant,
}

impl Replay {
    /// Notes that a topic is given back what it missed.
    pub(crate) fn begins(&self) -> OfTopic {
        let now = Instant::now();
        *self.lock() = Some(now);
        OfTopic { until: now + LIMIT }
    }

    /// Notes that something of it came.
    pub(crate) fn goes_on(&self, replay: OfTopic) {
        let now = Instant::now();
        if now < replay.until {
            *self.lock() = Some(now);
        }
    }

    /// Until when a probe can still be behind one, if it can: so long after what came last. No more than the broker had when
    /// it took the probe can come before it.
    pub(crate) fn deadline(&self, patience: Duration) -> Option<Instant> {
        let next = (*self.lock())? + patience;
        (Instant::now() < next).then_some(next)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
