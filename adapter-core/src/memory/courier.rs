//! Payloads that arrive later, and the one task per bus that hands them over in time.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::bus::Core;
use crate::transport::Topic;

/// How many payloads can be on their way at once; more are dropped and counted as lagged at their subscriber.
const MAX_FLIGHTS: usize = 1 << 18;

/// One payload on its way to one subscriber.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) due: Instant,
    /// Order of departure, among those due at one instant.
    pub(super) number: u64,
    pub(super) topic: Topic,
    pub(super) subscriber: u64,
    pub(super) payload: Bytes,
    pub(super) ordered: bool,
}

impl Flight {
    const fn key(&self) -> (Instant, u64) {
        (self.due, self.number)
    }
}

impl PartialEq for Flight {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Flight {}
impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Flight {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// All payloads on their way, the next one due first.
#[derive(Debug, Default)]
pub(super) struct Flights {
    heap: BinaryHeap<Reverse<Flight>>,
    departed: u64,
}

impl Flights {
    /// Returns `false`, and drops the payload, when too many are on their way.
    pub(super) fn depart(&mut self, mut flight: Flight) -> bool {
        if self.heap.len() >= MAX_FLIGHTS {
            return false;
        }
        flight.number = self.departed;
        self.departed += 1;
        self.heap.push(Reverse(flight));
        true
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(flight)| flight.due)
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Flight> {
        if self.next_due()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(flight)| flight)
    }

    /// Keeps only the flights that `keep` picks.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Flight) -> bool) {
        self.heap.retain(|Reverse(flight)| keep(flight));
    }
}

/// The owner of the task that hands payloads over when they are due. Dropping it ends the task.
#[derive(Debug, Default)]
pub(super) struct Courier {
    wake: Arc<Notify>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Courier {
    /// Makes sure that the task runs and looks at the flights anew. Returns `false` outside of a tokio runtime.
    pub(super) fn call(&self, bus: Weak<Core>) -> bool {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        // A task that has ended went down with its runtime.
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            let Ok(runtime) = Handle::try_current() else {
                return false;
            };
            *task = Some(runtime.spawn(carry(bus, self.wake.clone())));
        }
        self.wake.notify_one();
        true
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task {
            task.abort();
        }
    }
}

async fn carry(bus: Weak<Core>, wake: Arc<Notify>) {
    loop {
        let next_due = match bus.upgrade() {
            Some(bus) => bus.state().deliver_due(Instant::now()),
            None => return,
        };
        match next_due {
            None => wake.notified().await,
            Some(due) => tokio::select! {
                biased;
                () = wake.notified() => {}
                () = sleep_until(due) => {}
            },
        }
    }
}
