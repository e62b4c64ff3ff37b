//! Which lanes one member has: a list that its heartbeats keep up to date by version and delta.

use std::collections::BTreeSet;

use crate::wire::{LaneId, Namespaces};

/// A longer list is not kept; its node counts as one that may have any lane.
const MAX_LANES: usize = 65_536;

/// The lanes of one member, as far as they were told.
#[derive(Debug, Default)]
pub(crate) struct LaneList {
    lanes: BTreeSet<LaneId>,
    /// The version of `lanes`.
    applied: Option<u32>,
    /// The newest version that we know to exist.
    heard: Option<u32>,
}

impl LaneList {
    /// Takes in what a presence tells. What is older than the newest version known is ignored.
    pub(crate) fn apply(&mut self, told: Namespaces) {
        let (Namespaces::Version(version)
        | Namespaces::Full { version, .. }
        | Namespaces::Added { version, .. }
        | Namespaces::Removed { version, .. }) = told;
        if self.heard.is_some_and(|heard| is_older(version, heard)) {
            return;
        }
        self.heard = Some(version);
        let is_next = self.applied.map(|applied| applied.wrapping_add(1)) == Some(version);
        match told {
            Namespaces::Full { lanes, .. } if lanes.len() <= MAX_LANES => {
                self.lanes = lanes.into_iter().collect();
            }
            Namespaces::Added { lane, .. } if is_next && self.lanes.len() < MAX_LANES => {
                self.lanes.insert(lane);
            }
            Namespaces::Removed { lane, .. } if is_next => {
                self.lanes.remove(&lane);
            }
            _ => return,
        }
        self.applied = Some(version);
    }

    /// Whether the list is that of the newest version known.
    pub(crate) fn is_known(&self) -> bool {
        self.applied.is_some() && self.applied == self.heard
    }

    /// Whether the lane is in the list as it was when last known.
    pub(crate) fn contains(&self, lane: LaneId) -> bool {
        self.lanes.contains(&lane)
    }
}

/// Whether `version` is before `other` on the circle of wrapping versions.
const fn is_older(version: u32, other: u32) -> bool {
    version.wrapping_sub(other) > u32::MAX / 2
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const LANE: [LaneId; 3] = [LaneId(0), LaneId(1), LaneId(2)];

    fn full(version: u32, lanes: &[LaneId]) -> Namespaces {
        let lanes = lanes.to_vec();
        Namespaces::Full { version, lanes }
    }

    fn list(version: u32, lanes: &[LaneId]) -> LaneList {
        let mut list = LaneList::default();
        list.apply(full(version, lanes));
        list
    }

    #[test]
    fn a_delta_applies_only_to_the_version_before_it() {
        let mut list = list(u32::MAX, &LANE[..1]);
        let [_, lane, _] = LANE;
        list.apply(Namespaces::Added { version: 0, lane });
        assert!(list.is_known() && list.contains(lane));
        list.apply(Namespaces::Removed { version: 2, lane });
        assert!(!list.is_known() && list.contains(lane));
        list.apply(Namespaces::Removed { version: 1, lane });
        assert!(!list.is_known(), "1 is older than 2, which exists");
    }

    #[test]
    fn a_list_older_than_the_newest_version_known_does_not_apply() {
        let mut list = list(5, &LANE[..1]);
        list.apply(Namespaces::Version(6));
        list.apply(full(5, &LANE));
        assert!(!list.is_known());
        list.apply(full(6, &LANE));
        assert!(list.is_known() && list.contains(LANE[2]));
        list.apply(Namespaces::Version(5));
        assert!(list.is_known(), "old news");
    }

    #[test]
    fn a_list_that_is_too_long_is_never_known() {
        let lanes: Vec<LaneId> = (0..=MAX_LANES as u64).map(LaneId).collect();
        assert!(!list(1, &lanes).is_known());
        let mut list = list(1, &lanes[1..]);
        assert!(list.is_known());
        list.apply(Namespaces::Added {
            version: 2,
            lane: LaneId(0),
        });
        assert!(!list.is_known());
        assert_eq!(list.lanes.len(), MAX_LANES);
    }

    /// What the owner of a list does, and how it tells.
    #[derive(Debug, Clone)]
    enum Op {
        /// Adds the lane if it is not in the list, otherwise removes it.
        Toggle(LaneId),
        Full,
        Version,
    }

    proptest! {
        /// Presences are lost and repeated; what the receiver believes to know must be true all the same.
        #[test]
        fn a_known_list_is_the_list_of_its_version(
            first in prop_oneof![Just(0), Just(u32::MAX - 3)],
            ops in vec((
                prop_oneof![
                    4 => (0..3usize).prop_map(|lane| Op::Toggle(LANE[lane])),
                    1 => Just(Op::Full),
                    2 => Just(Op::Version),
                ],
                0..4usize,
            ), 0..40),
        ) {
            let (mut version, mut owned) = (first, BTreeSet::new());
            let mut told = LaneList::default();
            let mut last_arrived = None;
            for (op, copies) in ops {
                let presence = match op {
                    Op::Toggle(lane) => {
                        version = version.wrapping_add(1);
                        if owned.insert(lane) {
                            Namespaces::Added { version, lane }
                        } else {
                            owned.remove(&lane);
                            Namespaces::Removed { version, lane }
                        }
                    }
                    Op::Full => full(version, &owned.iter().copied().collect::<Vec<_>>()),
                    Op::Version => Namespaces::Version(version),
                };
                for _ in 0..copies {
                    last_arrived = Some(version);
                    told.apply(presence.clone());
                }
                if told.is_known() && last_arrived == Some(version) {
                    prop_assert_eq!(&told.lanes, &owned);
                }
                if copies > 0 && matches!(op, Op::Full) {
                    prop_assert!(told.is_known());
                }
            }
        }
    }
}
