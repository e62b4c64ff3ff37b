//! The ledger: who published what, what became of it, what arrived where, and what was reported as lost.
//!
//! Publishers note every attempt before they make it, and its outcome; receivers note every arrival and every reported
//! loss in the order in which they saw them. When everything is quiet, [`Ledger::judge`] compares, per receiver:
//!
//! | | invariant |
//! | --- | --- |
//! | I1 | everything that arrived was attempted, and whole |
//! | I2 | nothing arrived twice |
//! | I3 | numbers rise, per publisher and lane |
//! | I4 | no silent loss: what was accepted arrived or was reported as lost |
//! | I5 | no false alarm: what was reported as lost did not arrive |
//! | I6 | what certainly was not sent did not arrive |
//! | I7 | everything published after the fault, when all was well again, arrived |
//! | I8 | what was measured stayed within its bound |
//!
//! What a publisher was told after the fact, that so many of what it had handed over were never sent, counts for I4 and I6
//! as well, though nobody knows which they are: [`Ledger::withdraws`].
//!
//! ```
//! use socketioxide_adapter_conformance::ledger::{Attempt, Entry, Gap, Ledger};
//! let ledger = Ledger::new();
//! ledger.joins("node 2");
//! for number in 1..=3 {
//!     let entry = Entry { publisher: 1, lane: 0, number };
//!     ledger.attempts(entry);
//!     ledger.concludes(entry, Attempt::Accepted);
//! }
//! ledger.arrives("node 2", Entry { publisher: 1, lane: 0, number: 1 });
//! ledger.reports("node 2", Gap::Counted { publisher: 1, lane: 0, count: 1 });
//! ledger.arrives("node 2", Entry { publisher: 1, lane: 0, number: 3 });
//! let judgement = ledger.judge();
//! assert!(judgement.is_clean(), "{judgement}");
//! ```

mod judge;
mod report;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    ops::RangeInclusive,
    sync::{Mutex, MutexGuard, PoisonError},
};

use socketioxide_adapter_core::{Error, Outcome};

pub use self::report::{Counts, Invariant, Judgement, ReceiverCounts, Violation};

/// One thing published: the `number`th of a lane of a publisher. A lane is what keeps its order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Who published it. A publisher that restarts is another one.
    pub publisher: u32,
    /// In which of its lanes.
    pub lane: u32,
    /// Rising within the lane.
    pub number: u64,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}#{}", self.publisher, self.lane, self.number)
    }
}

/// What a publisher knows about an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attempt {
    /// The broker has it.
    Accepted,
    /// The broker certainly did not take it.
    Rejected,
    /// It certainly never left.
    NotSent,
    /// Nobody knows; also an attempt whose end was never noted.
    Unknown,
}

impl From<Outcome> for Attempt {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::NotSent => Self::NotSent,
            Outcome::Rejected => Self::Rejected,
            Outcome::Unknown => Self::Unknown,
        }
    }
}

impl<T> From<&Result<T, Error>> for Attempt {
    fn from(result: &Result<T, Error>) -> Self {
        match result {
            Ok(_) => Self::Accepted,
            Err(error) => error.outcome().into(),
        }
    }
}

/// A loss that a receiver was told about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    /// Exactly these.
    Exact {
        /// Who published them.
        publisher: u32,
        /// In which lane.
        lane: u32,
        /// Which.
        numbers: RangeInclusive<u64>,
    },
    /// So many of a lane, at any place.
    Counted {
        /// Who published them.
        publisher: u32,
        /// In which lane.
        lane: u32,
        /// How many.
        count: u64,
    },
    /// At this place of the receiver's events, of any publisher and lane; so many, if that was told.
    Here {
        /// How many.
        count: Option<u64>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Arrival(Entry),
    Torn,
    Gap(Gap),
}

#[derive(Debug, Default)]
struct Receiver {
    /// How many attempts had been made when it joined; it is not owed those.
    joined_at: usize,
    /// The publisher beside it, which reaches it without the broker.
    beside: Option<u32>,
    /// Whether it left; the end of each lane is not owed to it.
    left: bool,
    seen: Vec<Seen>,
    /// How much it had seen when the finals began.
    seen_before_finals: usize,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    /// Place in the order of all attempts.
    place: usize,
    attempt: Attempt,
    is_final: bool,
}

/// The largest value that was measured, and its bound.
#[derive(Debug, Clone, Copy)]
struct Measure {
    value: u64,
    bound: u64,
}

#[derive(Debug, Default)]
struct Books {
    attempts: BTreeMap<Entry, Record>,
    receivers: BTreeMap<String, Receiver>,
    /// Per publisher and lane, how many it was told were not sent after all.
    withdrawn: BTreeMap<(u32, u32), u64>,
    measures: BTreeMap<String, Measure>,
    /// What was attempted since all was well again, once it is.
    finals: Option<Vec<Entry>>,
}

impl Books {
    fn receiver(&mut self, name: &str) -> &mut Receiver {
        let joined_at = self.attempts.len();
        self.receivers
            .entry(name.to_owned())
            .or_insert_with(|| Receiver {
                joined_at,
                ..Receiver::default()
            })
    }
}

/// The books of one test. Shared by reference; every method takes effect at once.
#[derive(Debug, Default)]
pub struct Ledger {
    books: Mutex<Books>,
}

impl Ledger {
    /// Empty books.
    pub fn new() -> Self {
        Self::default()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a receiver is there from now on: it is owed everything that is attempted later. Call it once its
    /// subscription is known to work.
    pub fn joins(&self, receiver: &str) {
        self.books().receiver(receiver);
    }

    /// Like [`joins`](Self::joins), for a receiver that shares a process with a publisher. Everything that this one attempts
    /// is owed to it, whatever the broker says.
    pub fn joins_beside(&self, receiver: &str, publisher: u32) {
        self.books().receiver(receiver).beside = Some(publisher);
    }

    /// Notes that a receiver is going: it is no longer owed the end of any lane.
    pub fn leaves(&self, receiver: &str) {
        self.books().receiver(receiver).left = true;
    }

    /// Notes an attempt. Call it before publishing; the same entry may be attempted again only as a resend.
    pub fn attempts(&self, entry: Entry) {
        let mut books = self.books();
        let record = Record {
            place: books.attempts.len(),
            attempt: Attempt::Unknown,
            is_final: books.finals.is_some(),
        };
        books
            .finals
            .iter_mut()
            .for_each(|finals| finals.push(entry));
        books.attempts.entry(entry).or_insert(record);
    }

    /// Notes what the publisher was told.
    pub fn concludes(&self, entry: Entry, attempt: Attempt) {
        if let Some(record) = self.books().attempts.get_mut(&entry) {
            record.attempt = attempt;
        }
    }

    /// Notes that a publisher was told later that so many of what it had handed over in a lane were not sent.
    pub fn withdraws(&self, publisher: u32, lane: u32, count: u64) {
        let mut books = self.books();
        *books.withdrawn.entry((publisher, lane)).or_default() += count;
    }

    /// Notes a measurement, such as `"tasks left"`, that must stay within a bound; the largest one counts.
    pub fn measures(&self, what: &str, value: u64, bound: u64) {
        let mut books = self.books();
        let new = Measure { value, bound };
        let measure = books.measures.entry(what.to_owned()).or_insert(new);
        if value > measure.value {
            *measure = new;
        }
    }

    /// Notes an arrival.
    pub fn arrives(&self, receiver: &str, entry: Entry) {
        let seen = Seen::Arrival(entry);
        self.books().receiver(receiver).seen.push(seen);
    }

    /// Notes the arrival of something that is not whole.
    pub fn arrives_torn(&self, receiver: &str) {
        self.books().receiver(receiver).seen.push(Seen::Torn);
    }

    /// Notes a reported loss.
    pub fn reports(&self, receiver: &str, gap: Gap) {
        self.books().receiver(receiver).seen.push(Seen::Gap(gap));
    }

    /// Notes that all faults are over: what is attempted from now on must arrive at every receiver that is there.
    pub fn finals(&self) {
        let mut books = self.books();
        books.finals.get_or_insert_default();
        for receiver in books.receivers.values_mut() {
            receiver.seen_before_finals = receiver.seen.len();
        }
    }

    /// Notes that there was a fault after all: what was final until now is not, and what follows neither.
    pub fn unsettles(&self) {
        let mut books = self.books();
        for entry in books.finals.take().unwrap_or_default() {
            if let Some(record) = books.attempts.get_mut(&entry) {
                record.is_final = false;
            }
        }
    }

    /// Whether all finals attempted so far have arrived at every receiver that has not left: when to stop waiting.
    pub fn finals_arrived(&self) -> bool {
        judge::finals_arrived(&self.books())
    }

    /// Whether an entry has arrived at every receiver that has not left.
    pub fn is_everywhere(&self, entry: Entry) -> bool {
        let books = self.books();
        let mut present = books.receivers.values().filter(|receiver| !receiver.left);
        // Latest first: one asks about what has just been published.
        present.all(|receiver| {
            receiver
                .seen
                .iter()
                .rev()
                .any(|seen| *seen == Seen::Arrival(entry))
        })
    }

    /// What the publishers know so far.
    pub fn counts(&self) -> Counts {
        judge::count(&self.books())
    }

    /// Judges. Call it when nothing is on its way any more.
    pub fn judge(&self) -> Judgement {
        judge::judge(&self.books())
    }
}
