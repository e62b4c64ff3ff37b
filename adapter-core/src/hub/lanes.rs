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
