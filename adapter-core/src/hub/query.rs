//! Questions to the other nodes: who has to answer, and how the waiting ends.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use socketioxide_core::{
    Sid,
    adapter::{BroadcastOptions, RemoteSocketData, Room},
};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    Hub, Namespace, Offer,
    pending::{Acks, Entry, Query, Question, Registered},
    requests::Answers,
    writer::publish_error,
};
use crate::{
    config::OnMissing,
    error::{Error, ErrorKind, Result},
    events::ClusterEvent,
    id::{NodeId, RequestId},
    transport::LinkState,
    wire::{Envelope, LaneId, MAX_TIMEOUT},
};

/// The answers to a cluster-wide query, and who did not give one.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer<T> {
    /// What the nodes found, this one included.
    pub items: Vec<T>,
    /// Nodes that died or did not answer in time.
    pub missing: Vec<NodeId>,
}

impl<T: fmt::Debug> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("items", &self.items)
            .field("missing", &self.missing)
            .finish()
    }
}

impl Hub {
    /// The one other node that `opts` is for, if it is for one.
    pub(crate) fn target(&self, opts: &BroadcastOptions) -> Option<NodeId> {
        let node = opts.server_id.map(NodeId::from);
        node.filter(|node| *node != self.shared.me)
    }

    /// The nodes that must answer: the target, or every member that has the namespace.
    fn expected(&self, namespace: &Namespace, opts: &BroadcastOptions) -> Vec<NodeId> {
        match self.target(opts) {
            Some(node) => vec![node],
            None => self.shared.membership().expected(namespace.lane.id),
        }
    }

    fn require_link(&self) -> Result<()> {
        match self.link.state() {
            LinkState::Up => Ok(()),
            LinkState::Connecting | LinkState::Down => Err(Error::new(
                ErrorKind::LinkDown,
                "request",
                "the link to the broker is down, the other nodes cannot be asked",
            )),
            LinkState::Closed => Err(Error::new(
                ErrorKind::Closed,
                "request",
                "the cluster was shut down",
            )),
        }
    }

    /// Nodes that left the cluster or the namespace between the snapshot and the registration are not waited for.
    fn forget_gone(&self, expected: &[NodeId], lane: LaneId) {
        let found: Vec<(NodeId, Option<bool>)> = {
            let membership = self.shared.membership();
            let expected = expected.iter();
            expected
                .map(|&node| (node, membership.may_have(node, lane)))
                .collect()
        };
        for (node, may_have) in found {
            match may_have {
                Some(true) => {}
                Some(false) => self.pending.on_left_namespace(node, |left| left == lane),
                None => self.pending.on_node_gone(node),
            }
        }
    }

    /// Asks for the rooms of the matching sockets of the whole namespace.
    pub(crate) async fn rooms(
        &self,
        namespace: &Namespace,
        opts: BroadcastOptions,
    ) -> Result<Answer<Room>> {
        let mut rooms: BTreeSet<Room> = namespace.local_rooms(&opts).into_iter().collect();
        let question = |request, opts| Envelope::Rooms { request, opts };
        let answers = self.ask(namespace, opts, Entry::Rooms, question).await?;
        rooms.extend(answers.items.into_iter().flat_map(|(_, rooms)| rooms));
        Ok(Answer {
            items: rooms.into_iter().collect(),
            missing: answers.missing.into_iter().map(|(node, _)| node).collect(),
        })
    }

    /// Asks for the matching sockets of the whole namespace.
    pub(crate) async fn sockets(
        &self,
        namespace: &Namespace,
        opts: BroadcastOptions,
    ) -> Result<Answer<RemoteSocketData>> {
        let mut found = vec![(self.shared.me, namespace.local_sockets(&opts))];
        let question = |request, opts| Envelope::Sockets { request, opts };
        let answers = self.ask(namespace, opts, Entry::Sockets, question).await?;
        found.extend(answers.items);
        let sockets = found.into_iter().flat_map(|(node, sockets)| {
            let socket = move |id: Sid| RemoteSocketData {
                id,
                server_id: node.to_uid(),
                ns: namespace.path.clone(),
            };
            sockets.into_iter().map(socket)
        });
        Ok(Answer {
            items: sockets.collect(),
            missing: answers.missing.into_iter().map(|(node, _)| node).collect(),
        })
    }

    async fn ask<T>(
        &self,
        namespace: &Namespace,
        opts: BroadcastOptions,
        kind: fn(Arc<Query<T>>, Question) -> Entry,
        question: impl FnOnce(RequestId, BroadcastOptions) -> Envelope,
    ) -> Result<Answers<T>> {
        self.require_link()?;
        let deadline = Instant::now() + self.shared.config.request_timeout;
        let only = self.target(&opts);
        let expected = self.expected(namespace, &opts);
        let lane = namespace.lane.id;
        let question = |request| question(request, opts);
        let (request, question) = self.pending.query(expected.clone(), lane, kind, question);
        if !expected.is_empty() {
            self.forget_gone(&expected, lane);
            let offer = self.offer(namespace, only, &question);
            let to_offer_again = matches!(offer, Offer::Wait).then(|| (*question).clone());
            let asked = self.complete(namespace, only, offer, to_offer_again);
            timeout_at(deadline, asked)
                .await
                .map_err(|_| publish_error(ErrorKind::Timeout))??;
        }
        let mut link = self.link.clone();
        tokio::select! {
            biased;
            () = request.state.done() => {}
            () = sleep_until(deadline) => {}
            _ = link.wait_for(|status| status.state != LinkState::Up) => self.require_link()?,
        }
        request
            .state
            .finish()
            .ok_or_else(|| Error::new(ErrorKind::Closed, "request", "the request was taken twice"))
    }

    /// Asks a peer that has just subscribed what it may have missed. What does not fit into the lane runs into its
    /// deadline.
    pub(crate) fn ask_again(&self, namespace: &Namespace, node: NodeId) {
        let lane = &namespace.lane;
        for question in self.pending.unanswered(lane.id, node) {
            let _ = lane.push(Some(node), &question, false);
        }
    }

    /// Registers a broadcast with acknowledgements; the caller publishes it.
    pub(crate) fn register_acks(
        &self,
        namespace: &Namespace,
        opts: &BroadcastOptions,
    ) -> Result<Registered<Acks>> {
        self.require_link()?;
        let expected = self.expected(namespace, opts);
        let acks = self
            .pending
            .acks(expected.clone(), self.shared.config.ack_buffer);
        self.forget_gone(&expected, namespace.lane.id);
        Ok(acks)
    }

    /// Longest time after which a broadcast with acknowledgements ends.
    pub(crate) fn ack_deadline(&self, timeout: Duration) -> Instant {
        Instant::now() + timeout.min(MAX_TIMEOUT) + self.shared.config.request_timeout
    }

    /// Tells that answers are missing.
    pub(crate) fn incomplete(&self, namespace: &Namespace, missing: Vec<NodeId>) {
        self.shared.counters.requests_incomplete.inc();
        self.shared.emit(ClusterEvent::Incomplete {
            namespace: namespace.path.clone(),
            missing,
        });
    }

    /// Applies the policy for missing answers.
    pub(crate) fn strict<T>(
        &self,
        namespace: &Namespace,
        operation: &'static str,
        answer: Answer<T>,
    ) -> Result<Vec<T>> {
        if answer.missing.is_empty() {
            return Ok(answer.items);
        }
        self.incomplete(namespace, answer.missing.clone());
        match self.shared.config.on_missing {
            OnMissing::ReturnPartial => Ok(answer.items),
            OnMissing::Fail => Err(Error::new(
                ErrorKind::Incomplete,
                operation,
                format!("{} nodes did not answer", answer.missing.len()),
            )
            .with_missing(answer.missing)),
        }
    }
}
