//! Ids of frames in the log, by which the server knows one that it has already.
//!
//! A transport is given bytes and no id. What it can know is this: when a publish has failed, and be it that only its outcome
//! is unknown, the caller may publish the same bytes again, and means the same frame. So the second attempt gets the id of the
//! first. All other publishes get an id of their own, also of equal bytes.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;

/// Attempts that have failed and are remembered; beyond it the oldest are forgotten, and a frame may be stored
/// twice.
const ATTEMPTS: usize = 1_024;
/// Their bytes.
const BYTES: usize = 16 << 20;

#[derive(Debug)]
pub(crate) struct Ids {
    /// Distinguishes this transport from all others.
    instance: u64,
    next: AtomicU64,
    failed: Mutex<VecDeque<Failed>>,
    /// How long the server remembers an id.
    window: Duration,
}

#[derive(Debug)]
struct Failed {
    subject: String,
    payload: Bytes,
    id: u64,
    since: Instant,
}

/// One publish. Dropped without a conclusion, it has failed.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    ids: &'a Ids,
    entry: Option<Failed>,
    id: u64,
}

impl Ids {
    pub(crate) fn new(window: Duration) -> Self {
        Self {
            instance: fastrand::u64(..),
            next: AtomicU64::new(0),
            failed: Mutex::default(),
            window,
        }
    }

    pub(crate) fn begin(&self, subject: &str, payload: &Bytes) -> Attempt<'_> {
        let earlier = {
            let mut failed = self.lock();
            let same = |it: &Failed| it.payload == *payload && it.subject == subject;
            let index = failed.iter().position(same);
            index.and_then(|index| failed.remove(index))
        };
        let entry = earlier.unwrap_or_else(|| Failed {
            subject: subject.to_owned(),
            payload: payload.clone(),
            id: self.next.fetch_add(1, Ordering::Relaxed),
            since: Instant::now(),
        });
        Attempt {
            ids: self,
            id: entry.id,
            entry: Some(entry),
        }
    }

    fn remember(&self, attempt: Failed) {
        let mut failed = self.lock();
        failed.push_back(attempt);
        let mut bytes: usize = failed.iter().map(|it| it.payload.len()).sum();
        while failed.front().is_some_and(|oldest| {
            failed.len() > ATTEMPTS || bytes > BYTES || oldest.since.elapsed() > self.window
        }) {
            bytes -= failed.pop_front().map_or(0, |it| it.payload.len());
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Failed>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt<'_> {
    /// For the header `Nats-Msg-Id`.
    pub(crate) fn id(&self) -> String {
        format!("{:016x}-{}", self.ids.instance, self.id)
    }

    /// It was stored: equal bytes will be another frame.
    pub(crate) fn conclude(&mut self) {
        self.entry = None;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.ids.remember(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn id(ids: &Ids, payload: &'static str, conclude: bool) -> String {
        let mut attempt = ids.begin("s", &payload.into());
        if conclude {
            attempt.conclude();
        }
        attempt.id()
    }

    #[test]
    fn only_an_attempt_that_failed_has_a_successor_with_its_id() {
        let ids = Ids::new(WINDOW);
        let first = id(&ids, "a", true);
        let second = id(&ids, "a", false);
        assert_ne!(first, second);
        assert_ne!(id(&ids, "b", true), second);
        assert_eq!(id(&ids, "a", false), second);
        assert_eq!(id(&ids, "a", true), second);
        assert_ne!(id(&ids, "a", true), second);
    }

    #[test]
    fn attempts_of_equal_bytes_that_have_both_failed_keep_their_order() {
        let ids = Ids::new(WINDOW);
        let one = ids.begin("s", &"a".into());
        let two = ids.begin("s", &"a".into());
        let (first, second) = (one.id(), two.id());
        drop((one, two));
        assert_eq!(id(&ids, "a", true), first);
        assert_eq!(id(&ids, "a", true), second);
    }

    #[test]
    fn memory_is_bounded_in_number_bytes_and_time() {
        let ids = Ids::new(WINDOW);
        for number in 0..2 * ATTEMPTS {
            drop(ids.begin("s", &number.to_string().into()));
        }
        assert_eq!(ids.lock().len(), ATTEMPTS);
        drop(ids.begin("s", &vec![0; BYTES - 1].into()));
        assert_eq!(ids.lock().len(), 1);
        let ids = Ids::new(Duration::ZERO);
        drop(ids.begin("s", &"a".into()));
        assert!(ids.lock().is_empty());
    }
}
