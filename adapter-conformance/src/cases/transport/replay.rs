//! What transports with a log owe: what a node missed comes back, in order; what is gone for good is told.

use bytes::Bytes;
use socketioxide_adapter_core::transport::{Continuity, Event, LinkState, Topic};

use crate::{
    Ability, Gate,
    cases::{Need, cases},
    check::{Verdict, ensure, ensure_eq, show},
    context::{
        Context, Inbox, Node, Pipeline, epoch, inbox, link_is, may_repeat, namespace, publish_many,
        read_id, up_after,
    },
    payload::Id,
};

cases!("transport::replay":
    what_was_missed_comes_back_in_order [Need::Gate, Need::Replay],
    a_second_outage_without_a_payload_between_brings_nothing_back [Need::Gate, Need::Replay],
    an_outage_amid_the_replay_loses_nothing [Need::Gate, Need::Replay],
    a_slow_reader_gets_everything_in_its_own_time [Need::Replay],
    what_is_no_longer_retained_is_told_exactly [Need::Gate, Need::Replay, Need::Fault(Ability::Retain)],
    a_wiped_log_is_told_and_delivery_goes_on [Need::Gate, Need::Replay, Need::Fault(Ability::Wipe)],
);

/// Payloads missed in one outage: more than any page.
const MISSED: u64 = 1_000;
/// Payloads of this size and number are more than any subscription should hold by default.
const LARGE: usize = 64 << 10;
const FLOOD: u64 = 500;

/// Two nodes, one of which can be cut off and listens.
struct Pair {
    topic: Topic,
    talker: Node,
    away: Node,
    gate: Box<dyn Gate>,
    inbox: Inbox,
    epoch: u64,
}

/// What an outage came to.
struct Return {
    /// What `Resumed` said, all together.
    verdicts: Vec<Continuity>,
    /// What came after it, up to a fence.
    ids: Vec<Id>,
}

impl Pair {
    /// A pair that is at work: what has come already does not come back.
    async fn new(context: &Context) -> Verdict<Self> {
        let topic = namespace("/replay");
        let talker = context.node().await?;
        let (away, gate) = context.lab.connect_gated(&context.prefix).await?;
        let mut inbox = inbox(&away, &topic).await?;
        publish_many(&talker, &topic, 0, 10, 1).await?;
        let heard = inbox.fenced_ids(&talker, &topic).await?;
        ensure_eq("payloads before the outage", &heard.len(), &10)?;
        Ok(Self {
            topic,
            talker,
            epoch: epoch(&away),
            away,
            gate,
            inbox,
        })
    }

    async fn cut_off(&mut self) -> Verdict {
        self.epoch = epoch(&self.away);
        self.gate.shut().await?;
        link_is(&self.away, LinkState::Down).await
    }

    async fn come_back(&self) -> Verdict {
        self.gate.open().await?;
        up_after(&self.away, self.epoch).await
    }

    /// Comes back, and reads up to a payload that is published only then.
    async fn return_of(&mut self) -> Verdict<Return> {
        self.come_back().await?;
        let events = self.inbox.fence(&self.talker, &self.topic).await?;
        let mut all = Return {
            verdicts: Vec::new(),
            ids: Vec::new(),
        };
        for event in events {
            match event {
                Event::Resumed(continuity) => {
                    ensure!(all.ids.is_empty(), "Resumed came after a payload");
                    all.verdicts.push(continuity);
                }
                Event::Message(payload) => all.ids.push(read_id(&payload)?),
                other => ensure!(false, "unexpected {}", show(Some(&other))),
            }
        }
        ensure!(!all.verdicts.is_empty(), "no Resumed came");
        if may_repeat(self.away.capabilities()) {
            all.ids.dedup();
        }
        Ok(all)
    }
}

impl Return {
    /// Wants nothing missing, and no more announced than came.
    fn expect_unbroken(&self) -> Verdict {
        let came = self.ids.len() as u64;
        // The fence may count too.
        let limit = came + 1;
        for verdict in &self.verdicts {
            let unbroken =
                matches!(verdict, Continuity::Unbroken { replayed } if *replayed <= limit);
            ensure!(
                unbroken,
                "{came} payloads came back, but Resumed said {verdict:?}"
            );
        }
        Ok(())
    }
}

/// The payloads of one publisher.
fn ids(publisher: u32, numbers: std::ops::Range<u64>) -> Vec<Id> {
    numbers.map(|number| Id { publisher, number }).collect()
}

async fn publish_large(node: &Node, topic: &Topic, ids: &[Id]) -> Verdict {
    let mut pipeline = Pipeline::new(node, topic, 4);
    for id in ids {
        pipeline.publish(*id, LARGE).await?;
    }
    pipeline.finish_accepted().await
}

async fn what_was_missed_comes_back_in_order(context: Context) -> Verdict {
    let mut pair = Pair::new(&context).await?;
    for outage in 1..=2 {
        pair.cut_off().await?;
        publish_many(&pair.talker, &pair.topic, outage, MISSED, 16).await?;
        let back = pair.return_of().await?;
        let missed = ids(outage, 0..MISSED);
        ensure!(
            back.ids == missed,
            "{MISSED} payloads were missed, but what came back is {} payloads, or in another order, or not only these",
            back.ids.len()
        );
        back.expect_unbroken()?;
    }
    Ok(())
}

async fn a_second_outage_without_a_payload_between_brings_nothing_back(
    context: Context,
) -> Verdict {
    let mut pair = Pair::new(&context).await?;
    pair.cut_off().await?;
    publish_many(&pair.talker, &pair.topic, 1, 100, 16).await?;
    pair.come_back().await?;
    // Read without a fence: nothing at all is published between the outages.
    let mut came = Vec::new();
    while came.len() < 100 {
        if let Event::Message(payload) = pair.inbox.next().await? {
            came.push(read_id(&payload)?);
        }
    }
    ensure_eq("what came back first", &came, &ids(1, 0..100))?;
    pair.cut_off().await?;
    let back = pair.return_of().await?;
    let repeats = may_repeat(pair.away.capabilities());
    ensure!(
        back.ids.is_empty() || repeats,
        "nothing was missed, but {} payloads came back once more",
        back.ids.len()
    );
    back.expect_unbroken()
}

async fn an_outage_amid_the_replay_loses_nothing(context: Context) -> Verdict {
    let mut pair = Pair::new(&context).await?;
    let missed = ids(1, 0..FLOOD);
    pair.cut_off().await?;
    publish_large(&pair.talker, &pair.topic, &missed).await?;
    pair.come_back().await?;
    // Too much for any buffer, and nobody has read it: what is left still has to be replayed.
    pair.cut_off().await?;
    pair.come_back().await?;
    let events = pair.inbox.fence(&pair.talker, &pair.topic).await?;
    let mut came = Vec::new();
    for event in events {
        match event {
            Event::Message(payload) => came.push(read_id(&payload)?),
            Event::Resumed(Continuity::Unbroken { .. }) => {}
            other => ensure!(false, "unexpected {}", show(Some(&other))),
        }
    }
    if may_repeat(pair.away.capabilities()) {
        came.sort_unstable();
        came.dedup();
    }
    ensure!(
        came == missed,
        "{FLOOD} payloads were missed, but {} came back over two outages, or in another order",
        came.len()
    );
    Ok(())
}

async fn a_slow_reader_gets_everything_in_its_own_time(context: Context) -> Verdict {
    let topic = namespace("/slow");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut slow = inbox(&two, &topic).await?;
    let all = ids(0, 0..FLOOD);
    publish_large(&one, &topic, &all).await?;
    for id in all {
        ensure_eq("the next payload at a slow reader", &slow.id().await?, &id)?;
    }
    slow.expect_nothing(&one, &topic).await
}

async fn what_is_no_longer_retained_is_told_exactly(context: Context) -> Verdict {
    const RETAINED: u64 = 200;
    const SENT: u64 = 20 * RETAINED;
    context.faults()?.retain(RETAINED).await?;
    let mut pair = Pair::new(&context).await?;
    pair.cut_off().await?;
    publish_many(&pair.talker, &pair.topic, 1, SENT, 16).await?;
    let back = pair.return_of().await?;
    let missing = SENT - back.ids.len() as u64;
    ensure!(
        back.ids == ids(1, missing..SENT),
        "{} of {SENT} payloads came back, but not the last ones",
        back.ids.len()
    );
    // The fence takes a place too.
    ensure!(
        (SENT - 10 * RETAINED..=SENT - RETAINED + 1).contains(&missing),
        "of {SENT} payloads {missing} are missing, though {RETAINED} to {} should be retained",
        10 * RETAINED
    );
    let told = back.verdicts.iter().all(|verdict| match verdict {
        Continuity::Lost { count, .. } => count.is_none_or(|count| count == missing),
        _ => false,
    });
    ensure!(
        told && back.verdicts.len() == 1,
        "{missing} payloads are gone for good, but Resumed said {:?}",
        back.verdicts
    );
    // From here on it is a log like any other.
    pair.cut_off().await?;
    publish_many(&pair.talker, &pair.topic, 2, RETAINED / 2, 16).await?;
    let back = pair.return_of().await?;
    ensure_eq(
        "what came back next time",
        &back.ids,
        &ids(2, 0..RETAINED / 2),
    )?;
    back.expect_unbroken()
}

async fn a_wiped_log_is_told_and_delivery_goes_on(context: Context) -> Verdict {
    let mut pair = Pair::new(&context).await?;
    pair.cut_off().await?;
    publish_many(&pair.talker, &pair.topic, 1, 100, 16).await?;
    let before = epoch(&pair.talker);
    context.faults()?.wipe().await?;
    up_after(&pair.talker, before).await?;
    let back = pair.return_of().await?;
    let unbroken = |verdict: &Continuity| matches!(verdict, Continuity::Unbroken { .. });
    ensure!(
        back.verdicts.len() == 1 && !back.verdicts.iter().any(unbroken) && back.ids.is_empty(),
        "100 missed payloads were wiped: expected one Resumed that says so, got {:?} and {} payloads",
        back.verdicts,
        back.ids.len()
    );
    for number in 0..10 {
        let payload = Bytes::from(format!("after the wipe {number}"));
        crate::context::publish(&pair.talker, &pair.topic, payload.clone()).await?;
        pair.inbox.expect(&payload).await?;
    }
    Ok(())
}
