//! A broker that is there but does not answer: calls end by their deadline, and say nothing that is not known.

use std::time::Instant;

use bytes::Bytes;
use futures_util::future::join_all;
use socketioxide_adapter_core::{
    Error, Outcome,
    transport::{Event, Receipt, Topic},
};

use crate::{
    Ability,
    cases::{Need, cases},
    check::{Verdict, ensure, show, within},
    context::{
        Context, Inbox, Node, ensure_rising, epoch, inbox, may_repeat, namespace, patience, read_id,
    },
    payload::Id,
};

cases!("transport::freezing":
    calls_end_by_their_deadline_and_tell_the_truth [Need::Fault(Ability::Freeze)],
    a_frozen_broker_confirms_nothing [Need::Fault(Ability::Freeze), Need::Confirms],
    thawed_it_delivers_again_and_nothing_comes_twice [Need::Fault(Ability::Freeze)],
);

async fn calls_end_by_their_deadline_and_tell_the_truth(context: Context) -> Verdict {
    let topic = namespace("/frozen");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut inbox = inbox(&two, &topic).await?;
    let epochs = [epoch(&one), epoch(&two)];
    context.faults()?.freeze().await?;
    let deadline = context.lab.call_deadline();
    let start = Instant::now();
    let publishes = join_all(ids().map(|id| {
        let publish = one.publish(&topic, id.payload(100));
        let publish = within(deadline, "the end of a publish while frozen", publish);
        async move { (id, publish.await) }
    }));
    // Of a topic that it has already subscribed to, a transport need not ask the broker again.
    let fresh = namespace("/fresh");
    let subscribe = within(
        deadline,
        "the end of a subscribe while frozen",
        one.subscribe(&fresh),
    );
    let (outcomes, subscribe) = tokio::join!(publishes, subscribe);
    ensure!(
        subscribe?.is_err(),
        "the broker was frozen for {:?}, but a subscription succeeded",
        start.elapsed()
    );
    context.faults()?.thaw().await?;
    let heard = read_after_thaw(&mut inbox, &one, &topic).await?;
    let interrupted = epochs != [epoch(&one), epoch(&two)];
    for (id, outcome) in outcomes {
        check_outcome(id, &outcome?, &heard, interrupted)?;
    }
    Ok(())
}

async fn a_frozen_broker_confirms_nothing(context: Context) -> Verdict {
    let topic = namespace("/confirm");
    let node = context.node().await?;
    context.faults()?.freeze().await?;
    let publish = node.publish(&topic, Bytes::from_static(b"do you have it?"));
    let outcome = within(context.lab.call_deadline(), "the end of a publish", publish).await?;
    ensure!(
        outcome.is_err(),
        "the transport says that it confirms, but confirmed what no broker had read"
    );
    Ok(())
}

async fn thawed_it_delivers_again_and_nothing_comes_twice(context: Context) -> Verdict {
    let topic = namespace("/thawed");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut inbox = inbox(&two, &topic).await?;
    let epochs = [epoch(&one), epoch(&two)];
    let faults = context.faults()?;
    faults.freeze().await?;
    let publishes = join_all(ids().map(|id| {
        let publish = one.publish(&topic, id.payload(100));
        async move { (id, publish.await) }
    }));
    // The publishes are polled first, so they meet a frozen broker.
    let thaw = async { Verdict::Ok(faults.thaw().await?) };
    let all = async { tokio::join!(biased; publishes, thaw) };
    let (outcomes, thawed) = within(patience(), "the end of calls after the thaw", all).await?;
    thawed?;
    let heard = read_after_thaw(&mut inbox, &one, &topic).await?;
    let interrupted = epochs != [epoch(&one), epoch(&two)];
    for (id, outcome) in outcomes {
        check_outcome(id, &outcome, &heard, interrupted)?;
    }
    inbox.expect_nothing(&one, &topic).await
}

/// What is published while the broker is frozen.
fn ids() -> impl Iterator<Item = Id> {
    (0..50).map(|number| Id {
        publisher: 0,
        number,
    })
}

/// Reads up to a fence. A broker that was frozen for long may have been given up; then new sessions come first.
async fn read_after_thaw(inbox: &mut Inbox, publisher: &Node, topic: &Topic) -> Verdict<Vec<Id>> {
    let mut heard = Vec::new();
    for event in inbox.fence_at_last(publisher, topic).await? {
        match event {
            Event::Message(payload) => heard.push(read_id(&payload)?),
            Event::Resumed(_) => {}
            other => ensure!(false, "unexpected {}", show(Some(&other))),
        }
    }
    ensure_rising(&heard)?;
    let once = heard.is_sorted_by(|one, next| one < next);
    ensure!(
        once || may_repeat(publisher.capabilities()),
        "a payload came twice after the thaw: {heard:?}"
    );
    Ok(heard)
}

/// Accepted: it arrived, unless a link was lost. Surely not sent: it did not arrive.
fn check_outcome(
    id: Id,
    outcome: &Result<Receipt, Error>,
    heard: &[Id],
    interrupted: bool,
) -> Verdict {
    let arrived = heard.contains(&id);
    match outcome {
        Ok(_) => ensure!(
            arrived || interrupted,
            "{id:?} was accepted, but never arrived"
        ),
        Err(error) if error.outcome() != Outcome::Unknown => {
            ensure!(!arrived, "{id:?} arrived, but its publish said: {error:?}");
        }
        Err(_) => {}
    }
    Ok(())
}
