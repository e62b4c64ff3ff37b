//! Where a node is in the log, and what it can be told after it was away.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_nats::datetime::DateTime;
use socketioxide_adapter_core::transport::{Continuity, LossCause};

/// Up to where this node has read.
#[derive(Debug, Default)]
pub(super) struct Position(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the stream was made: another time is another stream. `None` before the first session.
    created: Option<DateTime>,
    /// Number of the last frame read.
    last: u64,
    /// When that frame was stored: another time is another frame.
    stored: Option<DateTime>,
    contents: Contents,
}

/// Whose frames this node has seen in the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Contents {
    #[default]
    Nothing,
    One(String),
    Several,
}

/// What the server has.
#[derive(Debug)]
pub(super) struct Found {
    /// When the stream was made.
    pub(super) created: DateTime,
    /// How many subjects it has frames of.
    pub(super) subjects: u64,
    /// Numbers of its first and its last frame.
    pub(super) first: u64,
    pub(super) last: u64,
    /// When the frame was stored that has the number of the last one this node has read, if it is still there.
    pub(super) anchor: Option<DateTime>,
}

/// What a new session means for those who listened in the one before.
#[derive(Debug)]
pub(super) struct Verdict {
    continuity: Continuity,
    contents: Contents,
}

impl Verdict {
    /// The stream counts the frames of all its subjects together. Of frames that are gone it cannot be said whose they
    /// were, unless all that were ever seen are of one subject.
    pub(super) fn of(&self, subject: &str) -> Continuity {
        match (self.continuity, &self.contents) {
            (Continuity::Lost { cause, .. }, contents) if !matches!(contents, Contents::One(one) if one == subject) => {
                Continuity::Lost { count: None, cause }
            }
            (continuity, _) => continuity,
        }
    }

    pub(super) fn is_reset(&self) -> bool {
        matches!(
            self.continuity,
            Continuity::Lost {
                cause: LossCause::Reset,
                ..
            }
        )
    }
}

impl Position {
    /// Number of the last frame read.
    pub(super) fn last(&self) -> u64 {
        self.lock().last
    }

    /// Whether there was no session yet.
    pub(super) fn is_new(&self) -> bool {
        self.lock().created.is_none()
    }

    /// Finds the place to read on from, and says what is missing there.
    pub(super) fn resume(&self, found: &Found) -> Verdict {
        let mut state = self.lock();
        let same_stream = state.created.is_none_or(|created| created == found.created);
        let same_frame = match (state.stored, found.anchor) {
            (Some(stored), Some(anchor)) => stored == anchor,
            _ => true,
        };
        let (last, continuity) = if state.created.is_none() {
            (found.last, Continuity::Unbroken { replayed: 0 })
        } else if !same_stream {
            // Everything in it is newer than what this node has.
            (found.first.max(1) - 1, RESET)
        } else if found.last < state.last || !same_frame {
            (found.last, RESET)
        } else if found.first > state.last + 1 {
            let count = found.first - state.last - 1;
            (found.first - 1, trimmed(count))
        } else {
            let replayed = found.last - state.last;
            (state.last, Continuity::Unbroken { replayed })
        };
        if last != state.last {
            state.stored = None;
        }
        if found.subjects > 1 {
            state.contents = Contents::Several;
        }
        (state.created, state.last) = (Some(found.created), last);
        Verdict {
            continuity,
            contents: state.contents.clone(),
        }
    }

    /// What to tell before frame `number` if frames before it are gone: the server threw them away before this node got
    /// there.
    pub(super) fn gap(&self, number: u64) -> Option<Verdict> {
        let state = self.lock();
        let missing = number.saturating_sub(state.last + 1);
        (missing > 0).then(|| Verdict {
            continuity: trimmed(missing),
            contents: state.contents.clone(),
        })
    }

    /// Notes that frame `number` of `subject` was handed out.
    pub(super) fn advance(&self, subject: &str, number: u64, stored: DateTime) {
        let mut state = self.lock();
        match &state.contents {
            Contents::Nothing => state.contents = Contents::One(subject.to_owned()),
            Contents::One(one) if one != subject => state.contents = Contents::Several,
            Contents::One(_) | Contents::Several => {}
        }
        (state.last, state.stored) = (number, Some(stored));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const RESET: Continuity = Continuity::Lost {
    count: None,
    cause: LossCause::Reset,
};

const fn trimmed(count: u64) -> Continuity {
    Continuity::Lost {
        count: Some(count),
        cause: LossCause::Trimmed,
    }
}
