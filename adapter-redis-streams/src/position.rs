//! Where a reader stands in a log, and what became of the log while it was away.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use socketioxide_adapter_core::transport::{Continuity, LossCause};

/// The id of an entry: the server's time in milliseconds and a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) time: u64,
    pub(crate) number: u64,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.time, self.number)
    }
}

impl FromStr for Id {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (time, number) = text.split_once('-').unwrap_or((text, "0"));
        Ok(Self {
            time: time.parse()?,
            number: number.parse()?,
        })
    }
}

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: Id,
    /// The topic, where topics share a log.
    pub(crate) topic: Option<Vec<u8>>,
    /// `None`: not one of ours.
    pub(crate) payload: Option<Bytes>,
}

impl Entry {
    /// Bytes of the payload.
    pub(crate) fn len(&self) -> usize {
        self.payload.as_ref().map_or(0, Bytes::len)
    }
}

/// What a reader has read: everything up to `id`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Which log: drawn at random when the log begins, and gone with it.
    pub(crate) epoch: Id,
    /// The last entry read.
    pub(crate) id: Id,
    /// How many entries the log ever had up to `id`. `None`: not known; Redis 6.2 does not tell.
    pub(crate) count: Option<u64>,
}

impl Position {
    /// Notes that the next entry was read.
    pub(crate) fn pass(&mut self, id: Id) {
        self.id = id;
        self.count = self.count.map(|count| count + 1);
    }
}

/// A log at one moment, and its entries from a position on, a moment later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) epoch: Id,
    /// How many entries it ever had; Redis 7.0 or newer.
    pub(crate) added: Option<u64>,
    /// How many it has.
    pub(crate) length: u64,
    /// The first entry it still has.
    pub(crate) first: Option<Id>,
    /// The last entry it ever had.
    pub(crate) last: Id,
    /// The entries from the position on, its own included, as many as were asked for.
    pub(crate) entries: Vec<Entry>,
    /// Whether more entries may follow these.
    pub(crate) more: bool,
}

impl Snapshot {
    /// The position behind all that there is.
    pub(crate) const fn end(&self) -> Position {
        Position {
            epoch: self.epoch,
            id: self.last,
            count: self.added,
        }
    }

    /// Whether the log may have been trimmed between its state and its entries. If it is again, the moment after, its past
    /// is another one than ours.
    pub(crate) fn is_torn(&self, from: Id) -> bool {
        let first = self.entries.first().map(|entry| entry.id);
        first != Some(from)
            && self.last >= from
            && (first != self.first || !self.begins_behind(from))
    }

    /// Whether what is left of the log begins behind `id`.
    fn begins_behind(&self, id: Id) -> bool {
        self.first.is_none_or(|first| first > id)
    }

    /// How many entries were trimmed so far.
    fn trimmed(&self) -> Option<u64> {
        self.added.map(|added| added.saturating_sub(self.length))
    }

    /// What is missing at `position`, and the position to read on from. `untrimmed` is the length up to which the log is
    /// surely never trimmed.
    ///
    /// The surest sign is the anchor: if the entry that was read last is still there, nothing behind it can be missing,
    /// since logs are only trimmed at their front. Without it, the counters tell how much is.
    pub(crate) fn judge(&self, position: Position, untrimmed: u64) -> (Continuity, Position) {
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
            None if self.length < untrimmed => self.unbroken(position),
            None => Continuity::Lost {
                count: None,
                cause: LossCause::Trimmed,
            },
        };
        (continuity, at(self.trimmed()))
    }

    /// How many follow: exactly if the server counts, else as many as were read at once.
    fn unbroken(&self, position: Position) -> Continuity {
        let replayed = match self.added.zip(position.count) {
            Some((added, count)) => added.saturating_sub(count),
            None => self.after(position.id).count() as u64,
        };
        Continuity::Unbroken { replayed }
    }

    /// The entries behind `id`.
    pub(crate) fn after(&self, id: Id) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.id > id)
    }
}
