//! How many entries to ask for at once: an answer has no other limit, and entries are of any size, as ways are of any width.

use std::time::Duration;

use crate::{config::PAGE, position::Entry};

/// Bytes of a page of one log at most, about.
const BYTES: usize = 1 << 20;
/// An answer that takes so long is to be smaller the next time: our own probe waits behind it.
const SLOW: Duration = Duration::from_millis(500);
/// One that takes less may be larger.
const FAST: Duration = Duration::from_millis(100);

/// Begins with one entry and at most doubles with each answer, since nobody knows how large the next ones are.
#[derive(Debug)]
pub(crate) struct Page {
    entries: usize,
    bytes: usize,
}

impl Page {
    pub(crate) const fn new() -> Self {
        Self {
            entries: 1,
            bytes: BYTES,
        }
    }

    /// Entries to ask for at once, from 1 to [`PAGE`].
    pub(crate) const fn entries(&self) -> usize {
        self.entries
    }

    /// Takes in an answer: how large its entries are, and how long it took, unless there was nothing to answer with before.
    pub(crate) fn saw<'e>(
        &mut self,
        entries: impl Iterator<Item = &'e Entry>,
        took: Option<Duration>,
    ) {
        let (count, bytes) = entries.fold((0, 0), |(count, bytes), entry| {
            (count + 1, bytes + entry.len())
        });
        match took {
            Some(took) if took > SLOW => self.bytes = (self.bytes.min(bytes) / 2).max(1),
            Some(took) if took < FAST => self.bytes = (self.bytes * 2).min(BYTES),
            _ => {}
        }
        if let Some(average) = usize::checked_div(bytes, count) {
            let most = (2 * self.entries).min(PAGE);
            self.entries = (self.bytes / average.max(1)).clamp(1, most);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::position::Id;

    fn entries(count: usize, size: usize) -> Vec<Entry> {
        let entry = Entry {
            id: Id::default(),
            topic: None,
            payload: Some(Bytes::from(vec![0; size])),
        };
        vec![entry; count]
    }

    /// Reads pages of entries of `size` bytes that come so fast; returns how many entries each of them has, and the longest
    /// time that one takes.
    fn read(page: &mut Page, size: usize, bytes_per_second: usize) -> (Vec<usize>, Duration) {
        let mut longest = Duration::ZERO;
        let pages = (0..30).map(|_| {
            let entries = entries(page.entries(), size);
            let bytes: usize = entries.iter().map(Entry::len).sum();
            let time = Duration::from_secs(1).mul_f64(bytes as f64 / bytes_per_second as f64);
            longest = longest.max(time);
            page.saw(entries.iter(), Some(time));
            entries.len()
        });
        (pages.collect(), longest)
    }

    #[test]
    fn small_entries_soon_come_a_hundred_at_once() {
        let (pages, _) = read(&mut Page::new(), 100, 100 << 20);
        assert_eq!(pages[..9], [1, 2, 4, 8, 16, 32, 64, 100, 100]);
    }

    #[test]
    fn no_answer_takes_long_whatever_the_way() {
        for (size, bytes_per_second) in
            [(100 << 10, 512 << 10), (10 << 10, 64 << 10), (100, 8 << 10)]
        {
            let (pages, longest) = read(&mut Page::new(), size, bytes_per_second);
            assert!(longest < Duration::from_secs(2), "{longest:?}: {pages:?}");
        }
    }

    #[test]
    fn it_grows_again_when_the_way_is_good_again() {
        let mut page = Page::new();
        let (narrow, _) = read(&mut page, 10 << 10, 64 << 10);
        let (wide, _) = read(&mut page, 10 << 10, 100 << 20);
        assert!(narrow.last() < Some(&10), "{narrow:?}");
        assert_eq!(wide.last(), Some(&100), "{wide:?}");
    }
}
