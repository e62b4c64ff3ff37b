//! How an operation enters a lane: the outage policy, back-pressure and confirmation.

use std::{
    future::{Future as _, ready},
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    sync::oneshot,
    task::unconstrained,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    Hub, Namespace,
    lane::{Claim, Lane, Push},
    sealed::Sealed,
    writer::publish_error,
};
use crate::{
    config::{OutagePolicy, PublishMode},
    error::{ErrorKind, Result},
    id::NodeId,
    transport::LinkState,
    wire::Envelope,
};

/// What the first, never waiting, attempt to publish came to.
#[derive(Debug)]
pub(crate) enum Offer {
    /// Decided.
    Done(Result<()>),
    /// In the lane; the broker's answer is awaited.
    Confirm(oneshot::Receiver<Result<(), ErrorKind>>),
    /// The lane is full, or the link is down and the policy is to wait. Needs the envelope again.
    Wait,
}

impl Hub {
    /// Offers an envelope to the namespace's lane without waiting, so that local sockets can be served right after it.
    pub(crate) fn offer(
        &self,
        namespace: &Namespace,
        only: Option<NodeId>,
        envelope: &Envelope,
    ) -> Offer {
        match self.link.state() {
            LinkState::Closed => return self.refuse(ErrorKind::Closed),
            // The state before the first session is no outage: the lane holds what is sent while starting.
            LinkState::Connecting | LinkState::Up => {}
            LinkState::Down => match self.shared.config.outage {
                OutagePolicy::FailFast => return self.refuse(ErrorKind::LinkDown),
                OutagePolicy::Buffer { .. } => {
                    return self.offer_to_buffer(namespace, only, envelope);
                }
                OutagePolicy::Block { .. } => return Offer::Wait,
            },
        }
        self.offer_to_lane(namespace, only, envelope)
    }

    fn offer_to_lane(
        &self,
        namespace: &Namespace,
        only: Option<NodeId>,
        envelope: &Envelope,
    ) -> Offer {
        let confirm = self.shared.config.publish_mode == PublishMode::Confirmed;
        match self.push(&namespace.lane, only, envelope, confirm) {
            Ok(Push::Queued) => {
                self.shared.counters.envelopes_queued.inc();
                Offer::Done(Ok(()))
            }
            Ok(Push::Confirm(rx)) => {
                self.shared.counters.envelopes_queued.inc();
                Offer::Confirm(rx)
            }
            Ok(Push::Full) => Offer::Wait,
            Err(error) => {
                self.shared.counters.envelopes_refused.inc();
                Offer::Done(Err(error))
            }
        }
    }

    /// During an outage a full lane stays full: no use in waiting.
    fn offer_to_buffer(
        &self,
        namespace: &Namespace,
        only: Option<NodeId>,
        envelope: &Envelope,
    ) -> Offer {
        match self.offer_to_lane(namespace, only, envelope) {
            Offer::Wait => self.refuse(ErrorKind::Full),
            offer => offer,
        }
    }

    /// Puts an envelope into a lane. With nothing on its way there it is published from here, which saves the way through
    /// the writer's task.
    pub(crate) fn push(
        &self,
        lane: &Arc<Lane>,
        only: Option<NodeId>,
        envelope: &Envelope,
        confirm: bool,
    ) -> Result<Push> {
        let (push, claim) = lane.push_or_claim(only, envelope, confirm)?;
        if let Some(claim) = claim {
            self.publish_claimed(lane, claim);
        }
        Ok(push)
    }

    fn publish_claimed(&self, lane: &Arc<Lane>, claim: Claim) {
        let mut sealed = Sealed::new(&self.shared, lane, claim.batch);
        // The caller may be outside of any runtime, but transports have timers.
        let _runtime = self.runtime.enter();
        let mut publishing = sealed.publish(&self.shared, lane);
        let mut writer = Context::from_waker(&claim.writer.waker);
        // Whatever of its budget the caller's task has used up, the frame is handed over now.
        let polled = pin!(unconstrained(&mut publishing)).poll(&mut writer);
        let settled = match polled {
            Poll::Ready(result) => {
                publishing = Box::pin(ready(result));
                true
            }
            Poll::Pending => false,
        };
        lane.started(claim.writer, sealed, publishing, settled);
    }

    fn refuse(&self, kind: ErrorKind) -> Offer {
        self.shared.counters.envelopes_refused.inc();
        Offer::Done(Err(publish_error(kind)))
    }

    /// Completes an offer: waits for room, for the link or for the broker, each by its deadline. `envelope` is needed
    /// after [`Offer::Wait`] only.
    ///
    /// Cancel safe: an envelope that was not taken yet is not sent.
    pub(crate) async fn complete(
        &self,
        namespace: &Namespace,
        only: Option<NodeId>,
        offer: Offer,
        envelope: Option<Envelope>,
    ) -> Result<()> {
        match (offer, envelope) {
            (Offer::Done(result), _) => result,
            (Offer::Confirm(rx), _) => self.confirmed(rx, self.publish_deadline()).await,
            (Offer::Wait, Some(envelope)) => self.wait_to_publish(namespace, only, &envelope).await,
            (Offer::Wait, None) => Err(publish_error(ErrorKind::Full)),
        }
    }

    fn publish_deadline(&self) -> Instant {
        Instant::now() + self.shared.config.publish_timeout
    }

    async fn confirmed(
        &self,
        rx: oneshot::Receiver<Result<(), ErrorKind>>,
        deadline: Instant,
    ) -> Result<()> {
        match timeout_at(deadline, rx).await {
            Ok(Ok(result)) => result.map_err(publish_error),
            // The writer went without a word, so nobody knows.
            Ok(Err(_)) => Err(publish_error(ErrorKind::Interrupted)),
            Err(_) => Err(publish_error(ErrorKind::Timeout)),
        }
    }

    async fn wait_to_publish(
        &self,
        namespace: &Namespace,
        only: Option<NodeId>,
        envelope: &Envelope,
    ) -> Result<()> {
        let start = Instant::now();
        let mut deadline = self.publish_deadline();
        let mut link = self.link.clone();
        loop {
            if let OutagePolicy::Block { timeout } = self.shared.config.outage
                && self.link.state() == LinkState::Down
            {
                self.wait_for_link(start + timeout).await?;
                deadline = self.publish_deadline();
            }
            let settled = namespace.lane.settled();
            tokio::pin!(settled);
            settled.as_mut().enable();
            match self.offer(namespace, only, envelope) {
                Offer::Done(result) => return result,
                Offer::Confirm(rx) => return self.confirmed(rx, deadline).await,
                Offer::Wait => {}
            }
            tokio::select! {
                () = settled => {}
                _ = link.changed() => {}
                () = sleep_until(deadline) => {
                    self.shared.counters.envelopes_refused.inc();
                    return Err(publish_error(ErrorKind::Full));
                }
            }
        }
    }

    async fn wait_for_link(&self, deadline: Instant) -> Result<()> {
        let mut link = self.link.clone();
        let up = link.wait_for(|status| status.state == LinkState::Up);
        let up = timeout_at(deadline, up).await;
        match up.map(|status| status.state) {
            Ok(LinkState::Up) => Ok(()),
            Ok(_) => Err(publish_error(ErrorKind::Closed)),
            Err(_) => {
                self.shared.counters.envelopes_refused.inc();
                Err(publish_error(ErrorKind::LinkDown))
            }
        }
    }
}
