//! Where a node is in the log, and what it can be told after it was away.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_nats::datetime::DateTime;
use socketioxide_adapter_core::transport::{Continuity, LossCause};

/// Up to where this node has read.
#[derive(Debug, Default)]
pub(crate) struct Position(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the stream was made: another time is another stream. `None` before the first session.
    created: Option<DateTime>,
    /// Number of the last frame read.
    last: u64,
    /// When that frame was stored: another time is another frame.
    stored: Option<DateTime>,
    contents: Contents,
    /// Frames follow that came while nobody read, and those who listen have not been told yet.
    owes: bool,
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
pub(crate) struct Found {
    /// When the stream was made.
    pub(crate) created: DateTime,
    /// How many subjects it has frames of.
    pub(crate) subjects: u64,
    /// Numbers of its first and its last frame.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// When the frame was stored that has the number of the last one this node has read, if it is still there.
    pub(crate) anchor: Option<DateTime>,
}

/// What is told to those who listen.
#[derive(Debug)]
pub(crate) struct Verdict {
    continuity: Continuity,
    contents: Contents,
}

/// How a new session goes on.
#[derive(Debug)]
pub(crate) struct Resumption {
    /// `None`: the first frame will tell, since the server may throw some away until it is read.
    pub(crate) verdict: Option<Verdict>,
    contents: Contents,
    created: DateTime,
    /// Number of the frame before the first one to read.
    pub(crate) last: u64,
}

impl Verdict {
    /// The stream counts the frames of all its subjects together. Of frames that are gone it cannot be said whose they
    /// were, unless all that were ever seen are of one subject.
    pub(crate) fn of(&self, subject: &str) -> Continuity {
        match (self.continuity, &self.contents) {
            (Continuity::Lost { cause, .. }, contents) if !matches!(contents, Contents::One(one) if one == subject) => {
                Continuity::lost(cause)
            }
            (continuity, _) => continuity,
        }
    }

    pub(crate) fn is_reset(&self) -> bool {
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
    pub(crate) fn last(&self) -> u64 {
        self.lock().last
    }

    /// Whether there was no session yet.
    pub(crate) fn is_new(&self) -> bool {
        self.lock().created.is_none()
    }

    /// Finds the place to read on from, and says what is missing there. It counts once it is
    /// [committed](Self::commit), when everybody has been told: a session can die before that.
    pub(crate) fn resume(&self, found: &Found) -> Resumption {
        let state = self.lock();
        let same_stream = state.created.is_none_or(|created| created == found.created);
        let same_frame = match (state.stored, found.anchor) {
            (Some(stored), Some(anchor)) => stored == anchor,
            _ => true,
        };
        let (last, continuity) = if state.created.is_none() {
            (found.last, Some(Continuity::Unbroken { replayed: 0 }))
        } else if !same_stream {
            // Everything in it is newer than what this node has.
            (found.first.max(1) - 1, Some(RESET))
        } else if found.last < state.last || !same_frame {
            (found.last, Some(RESET))
        } else if found.last == state.last {
            (state.last, Some(Continuity::Unbroken { replayed: 0 }))
        } else if found.first > found.last {
            let count = found.last - state.last;
            (found.last, Some(trimmed(count)))
        } else {
            (state.last, None)
        };
        let contents = match found.subjects {
            0 | 1 => state.contents.clone(),
            _ => Contents::Several,
        };
        Resumption {
            verdict: continuity.map(|continuity| Verdict {
                continuity,
                contents: contents.clone(),
            }),
            contents,
            created: found.created,
            last,
        }
    }

    /// Reads on from there.
    pub(crate) fn commit(&self, resumption: &Resumption) {
        let mut state = self.lock();
        let reset = resumption.verdict.as_ref().is_some_and(Verdict::is_reset);
        if resumption.last != state.last || reset {
            state.stored = None;
        }
        state.created = Some(resumption.created);
        state.last = resumption.last;
        state.contents = resumption.contents.clone();
        state.owes = resumption.verdict.is_none();
    }

    /// What to tell before frame `number`, which so many others follow: that frames before it are gone, thrown away before
    /// this node got there, or that none is, if that is still owed.
    pub(crate) fn before(&self, number: u64, following: u64) -> Option<Verdict> {
        let state = self.lock();
        let continuity = match number.saturating_sub(state.last + 1) {
            0 if !state.owes => return None,
            0 => Continuity::Unbroken {
                replayed: following + 1,
            },
            missing => trimmed(missing),
        };
        Some(Verdict {
            continuity,
            contents: state.contents.clone(),
        })
    }

    /// Notes that frame `number` of `subject` was handed out.
    pub(crate) fn advance(&self, subject: &str, number: u64, stored: DateTime) {
        let mut state = self.lock();
        match &state.contents {
            Contents::Nothing => state.contents = Contents::One(subject.to_owned()),
            Contents::One(one) if one != subject => state.contents = Contents::Several,
            Contents::One(_) | Contents::Several => {}
        }
        (state.last, state.stored, state.owes) = (number, Some(stored), false);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const RESET: Continuity = Continuity::lost(LossCause::Reset);

const fn trimmed(count: u64) -> Continuity {
    Continuity::Lost {
        count: Some(count),
        cause: LossCause::Trimmed,
    }
}

#[cfg(test)]
mod tests {
    use async_nats::datetime::from_nanos;

    use super::*;

    fn time(nanos: i128) -> DateTime {
        from_nanos(nanos).unwrap()
    }

    fn found(created: i128, first: u64, last: u64, anchor: Option<i128>) -> Found {
        Found {
            created: time(created),
            subjects: 1,
            first,
            last,
            anchor: anchor.map(time),
        }
    }

    /// Has read frame 10 of the stream made at 1, which was stored at 10.
    fn at_ten() -> Position {
        let position = Position::default();
        position.commit(&position.resume(&found(1, 1, 9, None)));
        assert_eq!(position.last(), 9);
        assert!(position.before(10, 0).is_none());
        position.advance("a", 10, time(10));
        position
    }

    fn unbroken(replayed: u64) -> Continuity {
        Continuity::Unbroken { replayed }
    }

    #[test]
    fn every_state_of_the_log_has_one_verdict_and_one_place_to_go_on() {
        let cases = [
            // Nothing new, whether the last one read is still there or not; purged.
            (found(1, 1, 10, Some(10)), Some(unbroken(0)), 10),
            (found(1, 11, 10, None), Some(unbroken(0)), 10),
            (found(1, 31, 30, None), Some(trimmed(20)), 30),
            // Something new: the first frame will tell.
            (found(1, 1, 30, Some(10)), None, 10),
            (found(1, 11, 30, None), None, 10),
            (found(1, 21, 30, None), None, 10),
            // Another stream: empty, or read from its beginning.
            (found(2, 0, 0, None), Some(RESET), 0),
            (found(2, 1, 50, Some(99)), Some(RESET), 0),
            (found(2, 5, 50, Some(99)), Some(RESET), 4),
            // Rolled back: shorter, or another frame in its place.
            (found(1, 1, 9, None), Some(RESET), 9),
            (found(1, 1, 50, Some(99)), Some(RESET), 50),
        ];
        for (found, continuity, last) in cases {
            let position = at_ten();
            // A session that dies before it could tell changes nothing.
            position.resume(&found);
            let resumption = position.resume(&found);
            let told = resumption.verdict.as_ref().map(|verdict| verdict.of("a"));
            assert_eq!(told, continuity, "{found:?}");
            position.commit(&resumption);
            assert_eq!(position.last(), last, "{found:?}");
            let owed = position.before(last + 1, 5).map(|verdict| verdict.of("a"));
            assert_eq!(owed, told.is_none().then(|| unbroken(6)), "{found:?}");
        }
    }

    #[test]
    fn what_is_missing_before_a_frame_is_counted_and_told_once() {
        let position = at_ten();
        position.commit(&position.resume(&found(1, 1, 30, Some(10))));
        assert_eq!(position.before(15, 0).unwrap().of("a"), trimmed(4));
        position.advance("a", 15, time(15));
        assert!(position.before(16, 0).is_none());
        assert_eq!(position.before(18, 0).unwrap().of("a"), trimmed(2));
    }

    #[test]
    fn a_count_is_told_only_of_the_one_subject_that_was_ever_seen() {
        let unknown = Continuity::Lost {
            count: None,
            cause: LossCause::Trimmed,
        };
        let position = at_ten();
        assert_eq!(position.before(21, 0).unwrap().of("b"), unknown);
        position.commit(&position.resume(&Found {
            subjects: 2,
            ..found(1, 21, 30, None)
        }));
        assert_eq!(position.before(21, 0).unwrap().of("a"), unknown);
        let position = at_ten();
        position.advance("b", 11, time(11));
        assert_eq!(position.before(21, 0).unwrap().of("a"), unknown);
    }
}
