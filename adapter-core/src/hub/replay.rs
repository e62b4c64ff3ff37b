//! What was missed is coming back, and a probe waits behind it.
//!
//! Known to all readers of a node: a broker may keep one queue for all topics, so that what comes back for one of them holds
//! up the probes of every other.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Longest time for which a replay may keep a probe that travels behind it; less than lanes keep what they have taken, since
/// they stand still meanwhile.
const LIMIT: Duration = Duration::from_secs(20);

/// The replay of one node.
#[derive(Debug, Default)]
pub(crate) struct Replay(Mutex<Option<State>>);

#[derive(Debug)]
struct State {
    until: Instant,
    /// When the last payload of it came.
    heard: Instant,
}

impl Replay {
    /// Notes that a topic is given back what it missed.
    pub(crate) fn begins(&self) {
        let heard = Instant::now();
        let until = heard + LIMIT;
        *self.lock() = Some(State { until, heard });
    }

    /// Notes that something of it came.
    pub(crate) fn goes_on(&self) {
        if let Some(state) = &mut *self.lock() {
            state.heard = Instant::now();
        }
    }

    /// Until when a probe can still be behind it, if it can: so long after what came last.
    pub(crate) fn deadline(&self, patience: Duration) -> Option<Instant> {
        let now = Instant::now();
        let state = self.lock();
        let State { until, heard } = state.as_ref()?;
        let next = *heard + patience;
        (now < next && now < *until).then_some(next)
    }

    fn lock(&self) -> MutexGuard<'_, Option<State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
