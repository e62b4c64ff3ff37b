//! A publisher under load, receivers that note everything, a fault in the middle, and the ledger as the judge.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use futures_util::future::try_join_all;
use socketioxide_adapter_core::transport::{Continuity, Event, Topic};
use tokio::time::sleep;

use crate::{
    check::{Failure, Verdict, ensure, eventually, within},
    context::{Inbox, Node, Pipeline, inbox, may_repeat, namespace, patience},
    ledger::{Attempt, Entry, Gap, Invariant, Judgement, Ledger},
    payload::Id,
};

/// Payloads published once all is well again.
const FINALS: u64 = 50;

/// One publisher and its receivers, on one topic.
pub(crate) struct Load {
    ledger: Ledger,
    topic: Topic,
    publisher: Node,
    receivers: Vec<(String, Inbox)>,
    next: AtomicU64,
    repeats: bool,
    filler: usize,
}

impl Load {
    /// Subscribes the receivers. Payloads carry `filler` bytes.
    pub(crate) async fn new(
        publisher: &Node,
        receivers: &[(&str, &Node)],
        filler: usize,
    ) -> Verdict<Self> {
        let topic = namespace("/load");
        let ledger = Ledger::new();
        let mut inboxes = Vec::new();
        for (name, node) in receivers {
            inboxes.push(((*name).to_owned(), inbox(node, &topic).await?));
            ledger.joins(name);
        }
        Ok(Self {
            ledger,
            topic,
            publisher: publisher.clone(),
            receivers: inboxes,
            next: AtomicU64::new(0),
            repeats: may_repeat(publisher.capabilities()),
            filler,
        })
    }

    /// Publishes all the time while `fault` happens and passes, then waits until all is well, and judges. `fault` gets
    /// this load, to see how far it is.
    pub(crate) async fn endures(
        mut self,
        fault: impl AsyncFnOnce(&Self) -> Verdict,
    ) -> Verdict<Judgement> {
        let mut receivers = std::mem::take(&mut self.receivers);
        let load = &self;
        let reading = try_join_all(
            receivers
                .iter_mut()
                .map(|(name, inbox)| load.read(name, inbox)),
        );
        tokio::select! {
            ended = reading => { ended?; }
            done = load.publish_around(fault) => done?,
        }
        let mut judgement = load.ledger.judge();
        if load.repeats {
            let allowed = Invariant::Once;
            judgement
                .violations
                .retain(|violation| violation.invariant != allowed);
        }
        ensure!(
            judgement.is_clean(),
            "the ledger does not balance:\n{judgement}"
        );
        Ok(judgement)
    }

    async fn publish_around(&self, fault: impl AsyncFnOnce(&Self) -> Verdict) -> Verdict {
        let over = AtomicBool::new(false);
        let fault = async {
            self.goes_on(200).await?;
            fault(self).await?;
            over.store(true, Ordering::Relaxed);
            Ok(())
        };
        tokio::try_join!(self.publish_until(&over), fault)?;
        within(
            2 * patience(),
            "a payload that reaches everybody after the fault",
            self.probe(),
        )
        .await??;
        self.ledger.finals();
        let mut pipeline = Pipeline::new(&self.publisher, &self.topic, 4);
        for _ in 0..FINALS {
            self.publish(&mut pipeline).await?;
        }
        pipeline.finish().await?;
        self.conclude(&mut pipeline);
        let arrived = async || Ok(self.ledger.finals_arrived());
        // Too late is for the ledger to judge: it can say what is missing.
        let _ = eventually(patience(), "the arrival of the finals", arrived).await;
        Ok(())
    }

    /// Waits until `count` more payloads have been accepted.
    pub(crate) async fn goes_on(&self, count: u64) -> Verdict {
        let accepted = || self.ledger.counts().accepted;
        let enough = accepted() + count;
        eventually(2 * patience(), "more accepted payloads", async || {
            Ok(accepted() >= enough)
        })
        .await
    }

    async fn publish_until(&self, over: &AtomicBool) -> Verdict {
        let mut pipeline = Pipeline::new(&self.publisher, &self.topic, 4);
        while !over.load(Ordering::Relaxed) {
            self.publish(&mut pipeline).await?;
            let failed = pipeline
                .outcomes
                .iter()
                .any(|(_, outcome)| outcome.is_err());
            self.conclude(&mut pipeline);
            // A load, not a flood: a publisher that fails at once would attempt millions.
            sleep(Duration::from_millis(if failed { 5 } else { 1 })).await;
        }
        pipeline.finish().await?;
        self.conclude(&mut pipeline);
        Ok(())
    }

    async fn publish(&self, pipeline: &mut Pipeline<'_>) -> Verdict {
        let id = Id {
            publisher: 0,
            number: self.next.fetch_add(1, Ordering::Relaxed),
        };
        self.ledger.attempts(entry(id));
        pipeline.publish(id, self.filler).await
    }

    fn conclude(&self, pipeline: &mut Pipeline<'_>) {
        for (id, outcome) in pipeline.outcomes.drain(..) {
            self.ledger.concludes(entry(id), Attempt::from(&outcome));
        }
    }

    /// Publishes until one payload has reached everybody.
    async fn probe(&self) -> Verdict {
        loop {
            let mut pipeline = Pipeline::new(&self.publisher, &self.topic, 1);
            self.publish(&mut pipeline).await?;
            pipeline.finish().await?;
            let probe = pipeline.outcomes.first().map(|(id, _)| entry(*id));
            self.conclude(&mut pipeline);
            let everywhere =
                async || Ok(probe.is_some_and(|probe| self.ledger.is_everywhere(probe)));
            let soon = Duration::from_millis(200);
            if eventually(soon, "the arrival of a probe", everywhere)
                .await
                .is_ok()
            {
                return Ok(());
            }
        }
    }

    async fn read(&self, name: &str, inbox: &mut Inbox) -> Verdict {
        let ledger = &self.ledger;
        while let Some(event) = inbox.subscription.recv().await {
            match event {
                Event::Message(payload) => match Id::read(&payload) {
                    Some(id) => ledger.arrives(name, entry(id)),
                    None => ledger.arrives_torn(name),
                },
                Event::Lagged(count) => ledger.reports(name, Gap::Here { count: Some(count) }),
                Event::Resumed(Continuity::Unbroken { .. }) => {}
                Event::Resumed(Continuity::Lost { count, .. }) => {
                    ledger.reports(name, Gap::Here { count });
                }
                Event::Resumed(_) => ledger.reports(name, Gap::Here { count: None }),
                other => return Err(Failure(format!("an event of a new kind: {other:?}"))),
            }
        }
        Err(Failure(format!("the subscription of {name} ended")))
    }
}

const fn entry(id: Id) -> Entry {
    Entry {
        publisher: id.publisher,
        lane: 0,
        number: id.number,
    }
}
