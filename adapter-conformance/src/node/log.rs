//! What happened, in order: written by one task, read and waited for by others.

use std::fmt;

use tokio::sync::watch;

/// A list that only grows. Waiting for it to become as expected loses nothing: every state is seen.
pub struct Log<T> {
    entries: watch::Sender<Vec<T>>,
}

impl<T> Log<T> {
    pub(super) fn new() -> Self {
        Self {
            entries: watch::Sender::new(Vec::new()),
        }
    }

    pub(super) fn push(&self, entry: T) {
        self.entries.send_modify(|entries| entries.push(entry));
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Whether there is none yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads all entries so far. The log cannot grow meanwhile: be short.
    pub fn with<R>(&self, read: impl FnOnce(&[T]) -> R) -> R {
        read(&self.entries.borrow())
    }

    /// Waits, for ever if need be, until the entries are as expected.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_for(&self, expected: impl Fn(&[T]) -> bool) {
        let mut reader = self.entries.subscribe();
        // The writing end lives in `self`, so this cannot fail.
        let _ = reader.wait_for(|entries| expected(entries)).await;
    }
}

impl<T: Clone> Log<T> {
    /// A copy of all entries so far.
    pub fn all(&self) -> Vec<T> {
        self.with(<[T]>::to_vec)
    }
}

impl<T: fmt::Debug> fmt::Debug for Log<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(|entries| f.debug_list().entries(entries).finish())
    }
}
