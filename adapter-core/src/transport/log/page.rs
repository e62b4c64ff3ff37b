//! How many entries to ask for at once: they are of any size, as ways are of any width.

use std::time::Duration;

/// An answer that has fewer bytes and was slow all the same says nothing of how wide the way is.
const FEW: usize = 16 << 10;
/// An answer that was waited for longer is to be smaller the next time: our own probes wait behind it, for 2 s.
const SLOW: Duration = Duration::from_millis(500);

/// How many entries to ask a broker for at once. Begins with one and at most doubles with each answer, since nobody knows how
/// large the next ones are; shrinks when an answer was slow, down to one.
#[derive(Debug)]
pub struct Page {
    entries: usize,
    most_entries: usize,
    bytes: usize,
    most_bytes: usize,
}

impl Page {
    /// So many entries at most, and, as far as their sizes can be told beforehand, so many bytes.
    pub const fn new(most_entries: usize, most_bytes: usize) -> Self {
        Self {
            entries: 1,
            most_entries,
            bytes: most_bytes,
            most_bytes,
        }
    }

    /// How many entries to ask for, at least one.
    pub const fn entries(&self) -> usize {
        self.entries
    }

    /// Takes in an answer: how many entries and bytes it has, and how long it was waited for while the broker had them; `None`
    /// if it had nothing for a while.
    pub fn saw(&mut self, entries: usize, bytes: usize, waited: Option<Duration>) {
        match waited {
            Some(waited) if waited > SLOW => self.bytes = (self.bytes.min(bytes) / 2).max(FEW),
            Some(_) => self.bytes = (self.bytes * 2).min(self.most_bytes),
            None => {}
        }
        // Where there is nothing, nothing is large.
        let average = (bytes / entries.max(1)).max(1);
        let most = self.most_entries.min(2 * self.entries);
        self.entries = (self.bytes / average).clamp(1, most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        Page::new(256, 4 << 20)
    }

    /// Reads entries of `size` bytes that come so fast, after so long; two answers are on their way at once. Returns how many
    /// entries each has, and how long a probe that is sent when it was asked for takes to come back.
    fn read(
        page: &mut Page,
        size: usize,
        bytes_per_second: usize,
        latency: Duration,
    ) -> Vec<(usize, Duration)> {
        let mut asked = [page.entries(), page.entries()];
        let answers = (0..60).map(|_| {
            let way = |entries: usize| {
                Duration::from_secs(1).mul_f64((entries * size) as f64 / bytes_per_second as f64)
            };
            let [first, second] = asked;
            let probe = latency + way(first) + way(second);
            page.saw(first, first * size, Some(latency + way(first)));
            asked = [second, page.entries()];
            (first, probe)
        });
        answers.collect()
    }

    #[test]
    fn small_entries_soon_come_many_at_once() {
        let answers = read(&mut page(), 100, 100 << 20, Duration::ZERO);
        let entries: Vec<usize> = answers.iter().map(|(entries, _)| *entries).collect();
        assert_eq!(entries[..10], [1, 1, 2, 4, 8, 16, 32, 64, 128, 256]);
        assert_eq!(entries.last(), Some(&256));
    }

    #[test]
    fn no_probe_waits_long_whatever_the_way() {
        for (size, bytes_per_second) in [
            (128 << 10, 1 << 20),
            (128 << 10, 128 << 10),
            (10 << 10, 1 << 20),
            (10 << 10, 64 << 10),
            (100, 16 << 10),
        ] {
            let latency = Duration::from_millis(1);
            let answers = read(&mut page(), size, bytes_per_second, latency);
            let longest = answers.iter().map(|(_, probe)| *probe).max();
            let limit = Duration::from_secs(3);
            assert!(longest < Some(limit), "{size}: {answers:?}");
        }
    }

    #[test]
    fn a_broker_that_is_far_away_or_has_nothing_is_not_asked_for_less() {
        let far = Duration::from_millis(300);
        let mut page = page();
        let answers = read(&mut page, 1_000, 100 << 20, far);
        assert_eq!(answers.last().map(|(entries, _)| *entries), Some(256));
        page.saw(256, 256, None);
        page.saw(1, 100, Some(Duration::from_secs(3)));
        assert!(page.entries() > 100, "{page:?}");
    }

    #[test]
    fn it_grows_again_when_the_way_is_good_again() {
        let mut page = page();
        let narrow = read(&mut page, 10 << 10, 64 << 10, Duration::ZERO);
        let wide = read(&mut page, 10 << 10, 100 << 20, Duration::ZERO);
        let small = |answers: &[(usize, Duration)]| answers.iter().all(|(it, _)| *it < 10);
        assert!(small(&narrow[12..]), "{narrow:?}");
        assert_eq!(wide.last().map(|(entries, _)| *entries), Some(256));
    }

    #[test]
    fn it_has_a_bound_however_small_the_entries_are() {
        let mut page = Page::new(8, 1 << 20);
        for _ in 0..60 {
            page.saw(page.entries(), 1, None);
        }
        assert_eq!(page.entries(), 8);
    }
}
