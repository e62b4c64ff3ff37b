//! The receive filter: duplicates dropped, gaps counted, nothing delivered late.
//!
//! One filter guards one lane topic of this node. Each origin numbers its envelopes there from 1 without holes, and its
//! frames arrive in the order of publishing; so a number at or below the high-water mark has been seen, and a jump over
//! numbers is a loss. The loss is held back for a moment, since an origin whose broker refused a frame announces those
//! numbers as void.
//!
//! Losses count from the moment this node first heard itself on the topic ([`ReceiveFilter::live`]). What an origin sent
//! before its first frame here is lost if the origin started after that moment; otherwise it was none of our business.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use crate::NodeId;

/// When this many gaps are open, the oldest is due without waiting for the end of its hold.
const MAX_OPEN_GAPS: usize = 4_096;

/// Numbers of one origin that will never be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) origin: NodeId,
    /// First missing number.
    pub(crate) from: u64,
    /// Last missing number.
    pub(crate) to: u64,
}

impl Gap {
    /// How many numbers are missing.
    pub(crate) const fn count(&self) -> u64 {
        self.to.saturating_sub(self.from).saturating_add(1)
    }

    /// What is left of the gap without the numbers `from..=to`.
    fn without(self, from: u64, to: u64) -> impl Iterator<Item = Self> {
        let below = (self.from < from).then(|| Self {
            to: self.to.min(from - 1),
            ..self
        });
        let above = (self.to > to).then(|| Self {
            from: self.from.max(to + 1),
            ..self
        });
        below.into_iter().chain(above)
    }
}

#[derive(Debug)]
struct Origin {
    /// Every number up to this one was delivered, is void or is accounted for as a gap.
    high: u64,
    /// The numbers `1..=undecided` came before the first frame we saw; whether that is a loss depends on when the origin
    /// started, which is not known yet. A void does not touch them: rather a number too many reported than silence.
    undecided: u64,
    last_seen: Instant,
}

#[derive(Debug, Clone, Copy)]
struct OpenGap {
    gap: Gap,
    due: Instant,
}

/// The receive filter of one lane topic, for all origins.
///
/// Whoever drives it calls [`poll`](Self::poll) as soon as [`next_deadline`](Self::next_deadline) has passed, at the
/// latest before the next frame; the number of open gaps is then bounded, as the number of origins always is.
#[derive(Debug)]
pub(crate) struct ReceiveFilter {
    hold: Duration,
    max_origins: usize,
    origins: BTreeMap<NodeId, Origin>,
    /// In the order in which they are due.
    open: VecDeque<OpenGap>,
    /// Every origin that was heard since this instant is in `origins`; `None` until the topic is live.
    known_since: Option<Instant>,
}

impl ReceiveFilter {
    /// A filter that reports a gap after `hold`, and remembers the `max_origins` origins that spoke last. Silence alone
    /// makes none forgotten: the frame after a long pause may be the one that is lost.
    pub(crate) fn new(hold: Duration, max_origins: usize) -> Self {
        Self {
            hold,
            max_origins: max_origins.max(1),
            origins: BTreeMap::new(),
            open: VecDeque::new(),
            known_since: None,
        }
    }

    /// Notes that our own probe came back on this topic. From the first time on, losses count.
    pub(crate) fn live(&mut self, now: Instant) {
        self.known_since.get_or_insert(now);
    }

    /// Takes note of `count` envelopes numbered from `seq`; returns how many leading ones must not be delivered.
    ///
    /// `origin_started` is a time before which the process of the origin certainly did not start, on our clock, if one is
    /// known.
    pub(crate) fn on_data(
        &mut self,
        now: Instant,
        origin: NodeId,
        seq: u64,
        count: u32,
        origin_started: Option<Instant>,
    ) -> u32 {
        let Some(last) = last_number(seq, count) else {
            return 0;
        };
        let high = self.advance(now, origin, seq, last, origin_started);
        if high < seq {
            return 0;
        }
        let skip = (high - seq).saturating_add(1).min(u64::from(count));
        u32::try_from(skip).unwrap_or(count)
    }

    /// Takes note that `next` is the number the origin will use next.
    pub(crate) fn on_tail(
        &mut self,
        now: Instant,
        origin: NodeId,
        next: u64,
        origin_started: Option<Instant>,
    ) {
        self.advance(now, origin, next, next.saturating_sub(1), origin_started);
    }

    /// Takes note that `count` numbers from `seq` will never come: they are neither delivered nor missing.
    pub(crate) fn on_void(
        &mut self,
        now: Instant,
        origin: NodeId,
        seq: u64,
        count: u32,
        origin_started: Option<Instant>,
    ) {
        let Some(last) = last_number(seq, count) else {
            return;
        };
        self.advance(now, origin, seq, last, origin_started);
        for open in std::mem::take(&mut self.open) {
            if open.gap.origin != origin {
                self.open.push_back(open);
                continue;
            }
            let rest = open.gap.without(seq, last);
            self.open.extend(rest.map(|gap| OpenGap { gap, ..open }));
        }
        self.limit_open_gaps(now);
    }

    /// The gaps whose hold has run out; each is reported exactly once.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<Gap> {
        let due = self.open.iter().take_while(|open| open.due <= now).count();
        self.open.drain(..due).map(|open| open.gap).collect()
    }

    /// When [`poll`](Self::poll) has something to report.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.open.front().map(|open| open.due)
    }

    /// All open gaps, without waiting any longer for a void: an origin died or this node shuts down.
    pub(crate) fn flush(&mut self) -> Vec<Gap> {
        self.open.drain(..).map(|open| open.gap).collect()
    }

    /// Notes that the origin has used all numbers up to `last` and that `first` to `last` are accounted for; opens a gap
    /// for what lies between and returns the high-water mark before.
    fn advance(
        &mut self,
        now: Instant,
        origin: NodeId,
        first: u64,
        last: u64,
        origin_started: Option<Instant>,
    ) -> u64 {
        let before_first = first.saturating_sub(1);
        if !self.origins.contains_key(&origin) {
            self.make_room();
        }
        let heard_from_start = self.heard_from_start(origin_started);
        let state = self.origins.entry(origin).or_insert(Origin {
            high: before_first,
            undecided: before_first,
            last_seen: now,
        });
        state.last_seen = now;
        let high = state.high;
        state.high = high.max(last);
        let at_start = match heard_from_start {
            Some(true) => std::mem::take(&mut state.undecided),
            Some(false) => {
                state.undecided = 0;
                0
            }
            None => 0,
        };
        if self.known_since.is_some() {
            self.open_gap(now, origin, 1, at_start);
            self.open_gap(now, origin, high.saturating_add(1), before_first);
        }
        high
    }

    /// Whether everything the origin ever sent should have reached us; `None` while its start is unknown.
    fn heard_from_start(&self, origin_started: Option<Instant>) -> Option<bool> {
        let Some(since) = self.known_since else {
            return Some(false);
        };
        Some(origin_started? >= since)
    }

    fn open_gap(&mut self, now: Instant, origin: NodeId, from: u64, to: u64) {
        if from > to {
            return;
        }
        self.open.push_back(OpenGap {
            gap: Gap { origin, from, to },
            due: now.checked_add(self.hold).unwrap_or(now),
        });
        self.limit_open_gaps(now);
    }

    fn limit_open_gaps(&mut self, now: Instant) {
        if self.open.len() > MAX_OPEN_GAPS
            && let Some(oldest) = self.open.front_mut()
        {
            oldest.due = oldest.due.min(now);
        }
    }

    /// Drops the longest silent origin if there is no room for another.
    fn make_room(&mut self) {
        if self.origins.len() < self.max_origins {
            return;
        }
        let silent = self.origins.iter().min_by_key(|(_, s)| s.last_seen);
        let Some(state) = silent
            .map(|(&origin, _)| origin)
            .and_then(|origin| self.origins.remove(&origin))
        else {
            return;
        };
        // Should it come back, it must not look like one that we have heard from its start.
        self.known_since = self.known_since.map(|since| since.max(state.last_seen));
    }
}

/// The last of `count` numbers from `seq`, or `None` if there is none.
fn last_number(seq: u64, count: u32) -> Option<u64> {
    let more = u64::from(count.checked_sub(1)?);
    Some(seq.saturating_add(more))
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
