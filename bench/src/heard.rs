//! What the receiving side has heard: how many messages, and how late.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread,
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::message::{made_at, now};

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

impl Latency {
    /// Of values in nanoseconds.
    pub(crate) fn of(nanos: &Histogram<u64>) -> Self {
        let at = |quantile| nanos.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
        }
    }
}

/// A histogram of nanoseconds: three digits, up to a minute.
pub(crate) fn histogram() -> Histogram<u64> {
    // The bounds are constants that are known to be good.
    Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap_or_else(|_| unreachable!())
}

pub(crate) struct Heard {
    count: AtomicU64,
    /// Every so manieth message is looked at for its age, so that at a million a second the clock is not what is measured.
    every: AtomicU64,
    latency: Mutex<Histogram<u64>>,
    stalled: AtomicBool,
}

impl Default for Heard {
    fn default() -> Self {
        Self {
            count: AtomicU64::new(0),
            every: AtomicU64::new(1),
            latency: Mutex::new(histogram()),
            stalled: AtomicBool::new(false),
        }
    }
}

impl Heard {
    pub(crate) fn reset(&self, every: u64) {
        self.every.store(every.max(1), Relaxed);
        self.lock().reset();
        self.count.store(0, Release);
    }

    pub(crate) fn message(&self, body: &[u8]) {
        while self.stalled.load(Relaxed) {
            // Only this task stands still: tokio puts another thread in place of the one that sleeps.
            tokio::task::block_in_place(|| thread::sleep(Duration::from_millis(5)));
        }
        let count = self.count.fetch_add(1, Acquire);
        if count.is_multiple_of(self.every.load(Relaxed))
            && let Some(made) = made_at(body)
        {
            self.lock().saturating_record(now().saturating_sub(made));
        }
    }

    /// A payload of so many messages of the same size.
    pub(crate) fn frame(&self, payload: &[u8], batch: usize) {
        for body in payload.chunks_exact((payload.len() / batch).max(1)) {
            self.message(body);
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Acquire)
    }

    pub(crate) fn latency(&self) -> Latency {
        Latency::of(&self.lock())
    }

    /// Makes the consumer stand still, or run on.
    pub(crate) fn stall(&self, stalled: bool) {
        self.stalled.store(stalled, Relaxed);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Histogram<u64>> {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
