//! Where the numbers of this node stand, also on topics that it has left.
//!
//! A namespace that is deleted and added again goes on with its numbers, or peers would take its messages for repetitions.
//! Dynamic namespaces can have names without end, so not every one is remembered: one that may have been forgotten begins
//! above all that were, and withdraws the numbers below. A peer that had missed its last messages, and every word about them
//! since, then learns no more that it has.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::Mutex;

use crate::wire::LaneId;

/// Topics that are remembered, about a hundred bytes each; more only while so many are in use.
const REMEMBERED: usize = 16_384;

/// Where the numbers of one topic stand; locked by the writer that gives them out, which is never more than one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// The last one that was given out.
    pub(crate) last: u64,
    /// Up to this one, some may never have been given out on this topic.
    pub(crate) withdrawn: u64,
}

/// The numbers of all topics.
#[derive(Debug)]
pub(crate) struct AllNumbers {
    topics: HashMap<LaneId, Arc<Mutex<Numbers>>>,
    /// No topic that was forgotten has had a higher one.
    highest: u64,
    /// With so many topics, those that nobody uses are forgotten.
    limit: usize,
}

impl Default for AllNumbers {
    fn default() -> Self {
        Self {
            topics: HashMap::new(),
            highest: 0,
            limit: REMEMBERED,
        }
    }
}

impl AllNumbers {
    /// The numbers of a topic, for its next writer.
    pub(crate) fn of(&mut self, lane: LaneId) -> Arc<Mutex<Numbers>> {
        if self.topics.len() >= self.limit && !self.topics.contains_key(&lane) {
            self.forget();
        }
        let begin = Numbers {
            last: self.highest,
            withdrawn: self.highest,
        };
        let numbers = self.topics.entry(lane);
        numbers
            .or_insert_with(|| Arc::new(Mutex::new(begin)))
            .clone()
    }

    fn forget(&mut self) {
        let highest = &mut self.highest;
        self.topics
            .retain(|_, numbers| match Arc::get_mut(numbers) {
                Some(left) => {
                    *highest = left.get_mut().last.max(*highest);
                    false
                }
                None => true,
            });
        self.limit = REMEMBERED.max(2 * self.topics.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_goes_on_with_its_numbers_and_one_that_was_forgotten_above_all_others() {
        let mut numbers = AllNumbers::default();
        let in_use = numbers.of(LaneId(0));
        numbers.of(LaneId(1)).try_lock().unwrap().last = 7;
        assert_eq!(numbers.of(LaneId(1)).try_lock().unwrap().last, 7);
        for lane in 2..10 * REMEMBERED as u64 {
            assert!(numbers.topics.len() <= REMEMBERED);
            numbers.of(LaneId(lane)).try_lock().unwrap().last += 3;
        }
        in_use.try_lock().unwrap().last = 5;
        assert_eq!(numbers.of(LaneId(0)).try_lock().unwrap().last, 5);
        let again = *numbers.of(LaneId(1)).try_lock().unwrap();
        assert!(again.last >= 7, "{again:?}");
        assert_eq!(again.withdrawn, again.last);
    }

    #[test]
    fn many_topics_in_use_are_not_looked_through_each_time() {
        let mut numbers = AllNumbers::default();
        let in_use: Vec<_> = (0..3 * REMEMBERED as u64)
            .map(|lane| numbers.of(LaneId(lane)))
            .collect();
        assert_eq!(numbers.topics.len(), in_use.len());
        assert!(numbers.limit > in_use.len());
        drop(in_use);
        numbers.limit = numbers.topics.len();
        numbers.of(LaneId(u64::MAX));
        assert_eq!((numbers.topics.len(), numbers.limit), (1, REMEMBERED));
    }
}
