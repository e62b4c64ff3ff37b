//! Who is in the cluster: a pure state machine over heartbeats and time.
//!
//! A node joins with its first presence and leaves by its goodbye or by silence. Only this node's own clock counts.
//! While our own link is down the silence of others proves nothing, so nobody is declared dead.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::lanes::LaneList;
use crate::{
    LeaveReason, NodeId,
    wire::{LaneId, Presence},
};

/// How soon to look again when a verdict wants only the proof that we hear.
const PROOF: Duration = Duration::from_millis(50);

/// The limits of membership.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MembershipConfig {
    /// Time between two presences of a node, 2 s by default.
    pub(crate) heartbeat: Duration,
    /// Silence after which a node is dead, 7 s by default.
    pub(crate) dead_after: Duration,
    /// How long after its goodbye nothing revives a node, 10 min by default.
    pub(crate) tombstone: Duration,
    /// Most members besides this node, 4,096 by default. Those who are in stay; further nodes are refused.
    pub(crate) max_members: usize,
    /// The wire versions this node reads.
    pub(crate) versions: Versions,
}

/// The wire versions a node reads, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) min: u8,
    pub(crate) max: u8,
}

impl Versions {
    const fn overlap(self, other: Self) -> bool {
        self.min <= other.max && other.min <= self.max
    }
}

/// Something that happened to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Joined(NodeId),
    Left(NodeId, LeaveReason),
    /// A node that has no wire version in common with us. It is no member.
    Incompatible(NodeId, Versions),
    /// A node that found the cluster full. It is no member.
    Refused(NodeId),
    /// We do not know which lanes that member has: ask it for its full list.
    NamespacesUnknown(NodeId),
}

/// What is known about another node of the cluster.
#[derive(Debug)]
pub(crate) struct Member {
    /// When its process started, on our clock. Never later than the truth plus the time its fastest presence took.
    pub(crate) started: Instant,
    /// A time it certainly did not start before, once it has answered a question of ours.
    started_after: Option<Instant>,
    pub(crate) versions: Versions,
    /// The last sign of life.
    pub(crate) last_seen: Instant,
    lanes: LaneList,
    asked: Option<Instant>,
}

impl Member {
    /// Whether the member has the lane, as far as we know: one whose list is unknown may have any.
    pub(crate) fn may_have(&self, lane: LaneId) -> bool {
        !self.lanes.is_known() || self.lanes.contains(lane)
    }
}

/// The other nodes of the cluster.
#[derive(Debug)]
pub(crate) struct Membership {
    me: NodeId,
    config: MembershipConfig,
    members: BTreeMap<NodeId, Member>,
    /// Nodes that said goodbye.
    ended: Marks,
    /// Nodes that are told about and not let in.
    strangers: Marks,
    link_up: bool,
    /// No member can be dead before this instant.
    next_sweep: Option<Instant>,
    wants_proof: bool,
    first_presence: Option<Instant>,
}

impl Membership {
    /// A cluster of which this node, `me`, knows nobody yet. The link counts as down until
    /// [`set_link`](Self::set_link) says otherwise.
    pub(crate) const fn new(me: NodeId, config: MembershipConfig) -> Self {
        Self {
            me,
            config,
            members: BTreeMap::new(),
            ended: Marks::new(config.tombstone, config.max_members),
            strangers: Marks::new(config.dead_after, config.max_members),
            link_up: false,
            next_sweep: None,
            wants_proof: false,
            first_presence: None,
        }
    }

    /// Takes in what a node tells about itself: it joins if it is new.
    pub(crate) fn on_presence(
        &mut self,
        now: Instant,
        origin: NodeId,
        presence: Presence,
    ) -> Vec<Change> {
        if origin == self.me || self.ended.contains(now, origin) {
            return Vec::new();
        }
        let versions = Versions {
            min: presence.min_version,
            max: presence.max_version,
        };
        if !versions.overlap(self.config.versions) {
            return self.keep_out(now, origin, Change::Incompatible(origin, versions));
        }
        let is_new = !self.members.contains_key(&origin);
        if is_new && self.members.len() >= self.config.max_members {
            return self.keep_out(now, origin, Change::Refused(origin));
        }
        // A clock that cannot reach back that far cannot tell it from any other start before ours.
        let first_presence = *self.first_presence.get_or_insert(now);
        let started = now.checked_sub(presence.age).unwrap_or(first_presence);
        let member = self.members.entry(origin).or_insert_with(|| Member {
            started,
            started_after: None,
            versions,
            last_seen: now,
            lanes: LaneList::default(),
            asked: None,
        });
        member.started = member.started.min(started);
        member.versions = versions;
        member.last_seen = now;
        member.lanes.apply(presence.namespaces);
        let mut changes = Vec::new();
        if is_new {
            changes.push(Change::Joined(origin));
            self.next_sweep = self.next_sweep.or(now.checked_add(self.config.dead_after));
        }
        let patience = self.config.heartbeat / 2;
        let asked_lately = |at: Instant| now.saturating_duration_since(at) < patience;
        if !member.lanes.is_known() && !member.asked.is_some_and(asked_lately) {
            member.asked = Some(now);
            changes.push(Change::NamespacesUnknown(origin));
        }
        changes
    }

    /// Whether the node has the lane, as far as we know; `None` if it is no member.
    pub(crate) fn may_have(&self, node: NodeId, lane: LaneId) -> Option<bool> {
        self.members.get(&node).map(|member| member.may_have(lane))
    }

    /// Notes an authentic frame: a sign of life of a member. A stranger joins by its presence only.
    pub(crate) fn on_frame(&mut self, now: Instant, origin: NodeId) {
        if let Some(member) = self.members.get_mut(&origin) {
            member.last_seen = now;
        }
    }

    /// Notes a goodbye: the node leaves at once, and presences of it that arrive late do not bring it back.
    pub(crate) fn on_bye(&mut self, now: Instant, origin: NodeId) -> Vec<Change> {
        if origin == self.me {
            return Vec::new();
        }
        self.ended.mark(now, origin);
        let left = self.members.remove(&origin);
        Vec::from_iter(left.map(|_| Change::Left(origin, LeaveReason::Bye)))
    }

    /// Notes whether our own link delivers. When it comes up, everybody's silence starts anew.
    pub(crate) fn set_link(&mut self, now: Instant, up: bool) {
        self.link_up = up;
        if up {
            self.restart_silence(now);
        }
    }

    /// Declares dead who has been silent for too long, as far as we can tell: `heard` is the time until which everything
    /// that was published certainly reached us. Whoever hears nothing itself, because the broker stands still, must not
    /// take the others for dead.
    ///
    /// If the call comes more than a heartbeat after [`next_deadline`](Self::next_deadline), this process was stopped or
    /// starved, and the heartbeats of the others may still wait to be read: everybody's silence starts anew.
    pub(crate) fn tick(&mut self, now: Instant, heard: Instant) -> Vec<Change> {
        let Some(deadline) = self.next_deadline().filter(|&at| at <= now) else {
            return Vec::new();
        };
        if now.saturating_duration_since(deadline) > self.config.heartbeat {
            self.restart_silence(now);
            return Vec::new();
        }
        let dead_after = self.config.dead_after;
        let dead = self.members.extract_if(.., |_, m| {
            heard.saturating_duration_since(m.last_seen) >= dead_after
        });
        let changes = dead
            .map(|(node, _)| Change::Left(node, LeaveReason::Dead))
            .collect();
        let longest_silent = self.members.values().map(|m| m.last_seen).min();
        let sweep = longest_silent.and_then(|seen| seen.checked_add(dead_after));
        // One that is already due lacks only the proof.
        self.wants_proof = sweep.is_some_and(|at| at <= now);
        self.next_sweep = if self.wants_proof {
            now.checked_add(PROOF)
        } else {
            sweep
        };
        changes
    }

    /// Whether, at a due [`tick`](Self::tick) since the last call, somebody would have been dead if we were sure to hear.
    pub(crate) const fn take_wants_proof(&mut self) -> bool {
        std::mem::replace(&mut self.wants_proof, false)
    }

    /// When to call [`tick`](Self::tick); `None` while nobody can be declared dead.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.next_sweep.filter(|_| self.link_up)
    }

    /// The other nodes of the cluster, sorted by id.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&NodeId, &Member)> {
        self.members.iter()
    }

    /// Notes that a presence with this age answered what we asked at `asked`: it was written later, however long it was on
    /// its way.
    pub(crate) fn on_answer(&mut self, node: NodeId, age: Duration, asked: Instant) {
        let (Some(member), Some(bound)) = (self.members.get_mut(&node), asked.checked_sub(age))
        else {
            return;
        };
        member.started_after = Some(member.started_after.map_or(bound, |at| at.min(bound)));
    }

    /// A time before which the member's process certainly did not start, on our clock; `None` until it has answered us.
    pub(crate) fn started_after(&self, node: NodeId) -> Option<Instant> {
        self.members.get(&node)?.started_after
    }

    /// The members that a request on `lane` must wait for, sorted by id.
    pub(crate) fn expected(&self, lane: LaneId) -> Vec<NodeId> {
        let expected = self.members.iter().filter(|(_, m)| m.may_have(lane));
        expected.map(|(&node, _)| node).collect()
    }

    /// The wire version to write: the newest that this node and every member reads. Since each member has a version in
    /// common with us, it is never one older than this node reads.
    pub(crate) fn emit_version(&self) -> u8 {
        let members = self.members.values().map(|member| member.versions.max);
        members.fold(self.config.versions.max, u8::min)
    }

    /// Tells about a node that is not let in, unless that was told and the node has kept sending since.
    fn keep_out(&mut self, now: Instant, origin: NodeId, change: Change) -> Vec<Change> {
        let is_new = self.strangers.mark(now, origin);
        Vec::from_iter(is_new.then_some(change))
    }

    fn restart_silence(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            member.last_seen = now;
        }
        let anybody = self.members.values().next();
        self.next_sweep = anybody.and_then(|_| now.checked_add(self.config.dead_after));
    }
}

/// Nodes that are marked for a while; the oldest mark makes room for a new one.
#[derive(Debug)]
struct Marks {
    marked: BTreeMap<NodeId, Instant>,
    keep: Duration,
    max: usize,
}

impl Marks {
    const fn new(keep: Duration, max: usize) -> Self {
        Self {
            marked: BTreeMap::new(),
            keep,
            max,
        }
    }

    fn contains(&self, now: Instant, node: NodeId) -> bool {
        let marked = self.marked.get(&node);
        marked.is_some_and(|&at| now.saturating_duration_since(at) < self.keep)
    }

    /// Marks the node from `now` on; returns whether it was not marked.
    fn mark(&mut self, now: Instant, node: NodeId) -> bool {
        let is_new = !self.contains(now, node);
        if is_new {
            let keep = self.keep;
            self.marked
                .retain(|_, at| now.saturating_duration_since(*at) < keep);
            if self.marked.len() >= self.max {
                let oldest = self.marked.iter().min_by_key(|(_, at)| **at);
                if let Some((&oldest, _)) = oldest {
                    self.marked.remove(&oldest);
                }
            }
        }
        self.marked.insert(node, now);
        is_new
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
