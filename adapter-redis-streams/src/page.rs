//! How much to ask for at once of how many logs: an answer has no other limit.

use std::time::Duration;

use bytes::Bytes;
use socketioxide_adapter_core::transport::log;

use crate::{config::PAGE, reply::Entry};

/// Logs asked for at once, at most.
const LOGS: usize = 32;
/// Bytes of an answer at most, about.
const MOST: usize = 1 << 20;

/// How many entries to ask all logs together for.
#[derive(Debug)]
pub(crate) struct Page(log::Page);

impl Page {
    pub(crate) const fn new() -> Self {
        Self(log::Page::new(LOGS * PAGE, MOST))
    }

    /// How many of `due` logs to ask for at once.
    pub(crate) fn logs(&self, due: usize) -> usize {
        due.min(self.0.entries()).min(LOGS)
    }

    /// How many entries to ask each of so many logs for at once, from 1 to [`PAGE`].
    pub(crate) fn entries(&self, logs: usize) -> usize {
        (self.0.entries() / logs.max(1)).clamp(1, PAGE)
    }

    /// Takes in an answer: how large its entries are, and how long it took, unless there was nothing to answer with before.
    pub(crate) fn saw<'e>(
        &mut self,
        entries: impl Iterator<Item = &'e Entry>,
        took: Option<Duration>,
    ) {
        let (count, bytes) = entries.fold((0, 0), |(count, bytes), entry| {
            (count + 1, bytes + bytes_of(entry))
        });
        self.0.saw(count, bytes, took);
    }
}

fn bytes_of(entry: &Entry) -> usize {
    entry.payload.as_ref().map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::Id;

    fn entry(size: usize) -> Entry {
        Entry {
            id: Id::default(),
            topic: None,
            payload: Some(Bytes::from(vec![0; size])),
        }
    }

    /// Reads entries of `size` bytes that come so fast, after so long, from so many logs; returns how many entries each
    /// answer has, and how long each takes.
    fn read(
        page: &mut Page,
        size: usize,
        bytes_per_second: usize,
        latency: Duration,
        logs: usize,
    ) -> Vec<(usize, Duration)> {
        let answers = (0..40).map(|_| {
            let logs = page.logs(logs);
            // The last one that was read comes once more.
            let entries = vec![entry(size); logs * (page.entries(logs) + 1)];
            let bytes: usize = entries.iter().map(bytes_of).sum();
            let way = Duration::from_secs(1).mul_f64(bytes as f64 / bytes_per_second as f64);
            page.saw(entries.iter(), Some(latency + way));
            (entries.len() - logs, latency + way)
        });
        answers.collect()
    }

    #[test]
    fn small_entries_soon_come_a_hundred_at_once() {
        let answers = read(&mut Page::new(), 100, 100 << 20, Duration::ZERO, 1);
        let entries: Vec<usize> = answers.iter().map(|(entries, _)| *entries).collect();
        assert_eq!(entries[..9], [1, 2, 4, 8, 16, 32, 64, 100, 100]);
    }

    #[test]
    fn logs_that_have_nothing_are_soon_asked_together() {
        let mut page = Page::new();
        let mut answers = 0;
        let mut due = 1_000;
        while due > 0 {
            due -= page.logs(due);
            page.saw([].iter(), Some(Duration::from_millis(5)));
            answers += 1;
        }
        assert!(answers < 40, "{answers}");
    }

    #[test]
    fn no_answer_takes_long_whatever_the_way() {
        for logs in [1, 7, 40, 1_000] {
            for (size, bytes_per_second) in [
                (100 << 10, 512 << 10),
                (10 << 10, 512 << 10),
                (10 << 10, 64 << 10),
                (100, 16 << 10),
            ] {
                let latency = Duration::from_millis(1);
                let answers = read(&mut Page::new(), size, bytes_per_second, latency, logs);
                let longest = answers.iter().map(|(_, took)| *took).max();
                let limit = Duration::from_millis(1_600);
                assert!(longest < Some(limit), "{logs} logs, {size}: {answers:?}");
            }
        }
    }

    #[test]
    fn a_server_that_is_far_away_or_was_busy_for_a_moment_is_not_asked_for_less() {
        let far = Duration::from_millis(300);
        let mut page = Page::new();
        let answers = read(&mut page, 1_000, 100 << 20, far, 1);
        assert_eq!(answers.last().map(|(entries, _)| *entries), Some(100));
        page.saw([entry(100)].iter(), Some(Duration::from_secs(3)));
        assert!(page.entries(1) > 50, "{page:?}");
    }

    #[test]
    fn it_grows_again_when_the_way_is_good_again() {
        let mut page = Page::new();
        let narrow = read(&mut page, 10 << 10, 64 << 10, Duration::ZERO, 1);
        let wide = read(&mut page, 10 << 10, 100 << 20, Duration::ZERO, 1);
        assert!(
            narrow.iter().skip(9).all(|(entries, _)| *entries < 10),
            "{narrow:?}"
        );
        assert_eq!(wide.last().map(|(entries, _)| *entries), Some(100));
    }
}
