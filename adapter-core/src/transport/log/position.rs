//! Where a reader stands in a log, and what became of the log while it was away.

use std::fmt::Debug;

use bytes::Bytes;

use crate::transport::{Continuity, LossCause};

/// The id of an entry, for example its offset. Later entries have higher ones; the default stands before all entries.
pub trait Id: Copy + Ord + Default + Debug + Send + Sync + 'static {}

impl<T: Copy + Ord + Default + Debug + Send + Sync + 'static> Id for T {}

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<I> {
    /// Its id.
    pub id: I,
    /// The topic, where topics share a log.
    pub topic: Option<String>,
    /// What was published. `None`: not one of ours; it counts, and nobody hears it.
    pub payload: Option<Bytes>,
}

/// What a reader has read: everything up to `id`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position<I> {
    /// Which log: a number that is drawn when the log begins, and is gone with it. Always 0 where the broker has no such.
    pub epoch: u64,
    /// The last entry read.
    pub id: I,
    /// How many entries the log ever had up to `id`. `None`: not known.
    pub count: Option<u64>,
}

impl<I: Id> Position<I> {
    /// Notes that the next entry was read.
    pub(super) fn pass(&mut self, id: I) {
        self.id = id;
        self.count = self.count.map(|count| count + 1);
    }
}

/// A log at one moment, and its entries from a position on, a moment later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot<I> {
    /// As [`Position::epoch`].
    pub epoch: u64,
    /// How many entries it ever had, where the broker counts them. Where ids are numbers without holes, it is the last one.
    pub added: Option<u64>,
    /// How many it has.
    pub length: u64,
    /// The first entry it still has.
    pub first: Option<I>,
    /// The last entry it ever had.
    pub last: I,
    /// The entries from the position on, its own included, as many as were asked for. None where there is no position yet.
    pub entries: Vec<Entry<I>>,
    /// Whether more entries may follow these.
    pub more: bool,
}

impl<I: Id> Snapshot<I> {
    /// The position behind all that there is.
    pub const fn end(&self) -> Position<I> {
        Position {
            epoch: self.epoch,
            id: self.last,
            count: self.added,
        }
    }

    /// Whether the log may have been trimmed between its state and its entries, if these are two questions: then ask anew.
    /// If it is again, the moment after, its past is another one than ours.
    pub fn is_torn(&self, from: I) -> bool {
        let first = self.entries.first().map(|entry| entry.id);
        first != Some(from) && first != self.first && self.last >= from
    }

    /// Whether what is left of the log begins behind `id`.
    fn begins_behind(&self, id: I) -> bool {
        self.first.is_none_or(|first| first > id)
    }

    /// How many entries were trimmed so far.
    fn trimmed(&self) -> Option<u64> {
        self.added.map(|added| added.saturating_sub(self.length))
    }

    /// What is missing at `position`, and the position to read on from. `kept` is how many of the last entries are surely
    /// never trimmed; 0 if that is not known.
    ///
    /// The surest sign is the anchor: if the entry that was read last is still there, nothing behind it can be missing,
    /// since logs are only trimmed at their front. Without it, the counters tell how much is.
    pub fn judge(&self, position: Position<I>, kept: u64) -> (Continuity, Position<I>) {
        let at = |count| Position {
            epoch: self.epoch,
            id: position.id.min(self.last),
            count,
        };
        let reset = Continuity::Lost {
            count: None,
            cause: LossCause::Reset,
        };
        if self.last < position.id {
            return (reset, self.end());
        }
        let anchored = self
            .entries
            .first()
            .is_some_and(|entry| entry.id == position.id);
        if anchored {
            return (self.unbroken(position), at(position.count));
        }
        // If it begins earlier, the entry should be there: this is another log.
        let begins_behind = self.begins_behind(position.id);
        if self.epoch != position.epoch || !begins_behind {
            let count = self.trimmed().filter(|_| begins_behind);
            return (reset, at(count));
        }
        let continuity = match self.trimmed().zip(position.count) {
            Some((trimmed, count)) if trimmed < count => reset,
            Some((trimmed, count)) if trimmed == count => self.unbroken(position),
            Some((trimmed, count)) => Continuity::Lost {
                count: Some(trimmed - count),
                cause: LossCause::Trimmed,
            },
            None if self.length < kept => self.unbroken(position),
            None => Continuity::Lost {
                count: None,
                cause: LossCause::Trimmed,
            },
        };
        (continuity, at(self.trimmed()))
    }

    /// How many follow: exactly if the broker counts, else as many as were read at once, or one if it was none yet.
    fn unbroken(&self, position: Position<I>) -> Continuity {
        let replayed = match self.added.zip(position.count) {
            Some((added, count)) => added.saturating_sub(count),
            None => (self.after(position.id).count() as u64).max(self.more.into()),
        };
        Continuity::Unbroken { replayed }
    }

    /// The entries behind `id`.
    pub(super) fn after(&self, id: I) -> impl Iterator<Item = &Entry<I>> {
        self.entries.iter().filter(move |entry| entry.id > id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u64 = 7;

    /// A log that ever had entries 1 to `last`, of which it has those from `first` on, read from `from` on.
    fn log(first: u64, last: u64, from: u64) -> Snapshot<u64> {
        let entry = |id| Entry {
            id,
            topic: None,
            payload: None,
        };
        Snapshot {
            epoch: EPOCH,
            added: Some(last),
            length: last + 1 - first,
            first: (first <= last).then_some(first),
            last,
            entries: (first.max(from)..=last).map(entry).collect(),
            more: false,
        }
    }

    fn at(number: u64) -> Position<u64> {
        Position {
            epoch: EPOCH,
            id: number,
            count: Some(number),
        }
    }

    fn uncounted(position: Position<u64>) -> Position<u64> {
        Position {
            count: None,
            ..position
        }
    }

    const fn unbroken(replayed: u64) -> Continuity {
        Continuity::Unbroken { replayed }
    }

    const fn trimmed(count: Option<u64>) -> Continuity {
        Continuity::Lost {
            count,
            cause: LossCause::Trimmed,
        }
    }

    const RESET: Continuity = Continuity::Lost {
        count: None,
        cause: LossCause::Reset,
    };

    #[test]
    fn what_is_missing_is_told_exactly() {
        let table = [
            // Nothing happened; something came; the anchor is the first that is left, or was the last to go.
            (at(10), log(1, 10, 10), unbroken(0)),
            (at(10), log(1, 30, 10), unbroken(20)),
            (at(10), log(10, 30, 10), unbroken(20)),
            (at(10), log(11, 30, 10), unbroken(20)),
            // One too many is gone; everything is.
            (at(10), log(12, 30, 10), trimmed(Some(1))),
            (at(10), log(31, 30, 10), trimmed(Some(20))),
            // Nothing had ever been read.
            (at(0), log(1, 0, 0), unbroken(0)),
            (at(0), log(1, 30, 0), unbroken(30)),
            (at(0), log(6, 30, 0), trimmed(Some(5))),
            // Rolled back: behind us, or in the middle of what there is.
            (at(40), log(1, 30, 40), RESET),
            (at(40), log(31, 30, 40), RESET),
        ];
        for (position, log, expected) in table {
            let (continuity, start) = log.judge(position, 1_000);
            assert_eq!(continuity, expected, "{position:?} in {log:?}");
            assert_eq!(start.id, position.id.min(log.last));
        }
    }

    #[test]
    fn reading_goes_on_with_a_count_that_is_right() {
        for (position, log) in [
            (at(10), log(1, 30, 10)),
            (at(10), log(12, 30, 10)),
            (at(0), log(6, 30, 0)),
        ] {
            let (_, mut position) = log.judge(position, 1_000);
            let rest: Vec<u64> = log.after(position.id).map(|entry| entry.id).collect();
            rest.into_iter().for_each(|id| position.pass(id));
            assert_eq!(position, log.end());
        }
    }

    #[test]
    fn another_log_is_told_and_read_as_far_as_it_is_news() {
        // Begun anew after ours had ended, by the server's clock: all of it is.
        let mut wiped = log(20, 22, 10);
        wiped.epoch = 99;
        wiped.added = Some(3);
        let (continuity, start) = wiped.judge(at(10), 1_000);
        assert_eq!((continuity, start.id, start.count), (RESET, 10, Some(0)));
        // The clock was set back: none of it can be told from what we know.
        let (continuity, start) = wiped.judge(at(40), 1_000);
        assert_eq!((continuity, start), (RESET, wiped.end()));
        // Rolled back and written on: our last entry is not where it should be.
        let mut grown = log(1, 60, 41);
        grown.length = 50;
        let (continuity, start) = grown.judge(at(40), 1_000);
        assert_eq!((continuity, start), (RESET, uncounted(at(40))));
        // Another one whose counters would do.
        let mut other = log(12, 30, 10);
        other.epoch = 99;
        let (continuity, start) = other.judge(at(10), 1_000);
        assert_eq!((continuity, start.count), (RESET, Some(11)));
        // The counter went back although the log begins behind us.
        let mut again = log(50, 60, 40);
        (again.added, again.length) = (Some(20), 11);
        assert_eq!(again.judge(at(40), 1_000).0, RESET);
    }

    #[test]
    fn a_broker_that_does_not_count_says_what_it_can() {
        let old = |log: Snapshot<u64>| Snapshot { added: None, ..log };
        let position = uncounted(at(10));
        let table = [
            (old(log(1, 30, 10)), 10, unbroken(20)),
            // Shorter than any log that was ever trimmed.
            (old(log(11, 30, 10)), 1_000, unbroken(20)),
            (old(log(11, 30, 10)), 10, trimmed(None)),
        ];
        for (log, kept, expected) in table {
            assert_eq!(log.judge(position, kept).0, expected, "{log:?}");
        }
        // None was read yet, but some are there.
        let mut unread = old(log(1, 30, 10));
        unread.entries.truncate(1);
        unread.more = true;
        assert_eq!(unread.judge(position, 10).0, unbroken(1));
    }

    #[test]
    fn a_log_that_was_trimmed_between_state_and_entries_is_torn() {
        assert!(!log(1, 30, 10).is_torn(10));
        assert!(!log(12, 30, 10).is_torn(10));
        assert!(!log(1, 5, 10).is_torn(10));
        let mut torn = log(5, 30, 10);
        torn.entries.drain(..5);
        assert!(torn.is_torn(10));
        let mut torn = log(12, 30, 10);
        torn.entries.drain(..5);
        assert!(torn.is_torn(10));
    }
}
