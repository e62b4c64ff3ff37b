//! A broker that is there but does not answer: calls end by their deadline, and say nothing that is not known.

use std::time::Instant;

use bytes::Bytes;
use futures_util::future::join_all;
use socketioxide_adapter_core::{
    Error,
    transport::{Event, LinkState},
};

use crate::{
    Ability,
    cases::{Need, cases},
    check::{Verdict, ensure, ensure_eq, show, within},
    context::{Context, PATIENCE, ensure_rising, inbox, link_is, may_repeat, namespace, read_id},
    payload::Id,
};

cases!("transport::freezing":
    no_call_outlives_its_deadline [Need::Fault(Ability::Freeze)],
    a_frozen_broker_confirms_nothing [Need::Fault(Ability::Freeze), Need::Confirms],
    thawed_it_delivers_again_and_nothing_comes_twice [Need::Fault(Ability::Freeze)],
);

async fn no_call_outlives_its_deadline(context: Context) -> Verdict {
    let topic = namespace("/frozen");
    let node = context.node().await?;
    // Of a topic that it has already subscribed to, a transport need not ask the broker again.
    let _known = inbox(&node, &topic).await?;
    let fresh = namespace("/fresh");
    context.faults()?.freeze().await?;
    let deadline = context.lab.call_deadline();
    let start = Instant::now();
    let publishes = join_all((0..100).map(|_| {
        let publish = node.publish(&topic, Bytes::from_static(b"anybody?"));
        within(deadline, "the end of a publish while frozen", publish)
    }));
    let subscribe = within(
        deadline,
        "the end of a subscribe while frozen",
        node.subscribe(&fresh),
    );
    let (publishes, subscribe) = tokio::join!(publishes, subscribe);
    for publish in publishes {
        // Without confirms, `Ok` only says that the bytes left.
        let _ = publish?;
    }
    ensure!(
        subscribe?.is_err(),
        "the broker was frozen for {:?}, but a subscription succeeded",
        start.elapsed()
    );
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
    context.faults()?.freeze().await?;
    let ids = (0..50).map(|number| Id {
        publisher: 0,
        number,
    });
    let publishes = join_all(ids.map(|id| {
        let publish = one.publish(&topic, id.payload(100));
        async move { (id, publish.await) }
    }));
    // The publishes are polled first, so they meet a frozen broker.
    let faults = context.faults()?;
    let thaw = async { Verdict::Ok(faults.thaw().await?) };
    let all = async { Verdict::Ok(tokio::join!(biased; publishes, thaw)) };
    let (outcomes, thawed) = within(PATIENCE, "the end of calls after the thaw", all).await??;
    thawed?;
    link_is(&one, LinkState::Up).await?;
    link_is(&two, LinkState::Up).await?;
    let mut heard = Vec::new();
    let mut resumed = false;
    for event in inbox.fence(&one, &topic).await? {
        match event {
            Event::Message(payload) => heard.push(read_id(&payload)?),
            Event::Resumed(_) => resumed = true,
            other => ensure!(false, "unexpected {}", show(Some(&other))),
        }
    }
    let repeats = may_repeat(one.capabilities());
    ensure_rising(&heard, repeats)?;
    for (id, outcome) in outcomes {
        check_outcome(id, &outcome.map(drop), &heard, resumed)?;
    }
    ensure_eq(
        "events after the thaw",
        &inbox.fence(&one, &topic).await?,
        &Vec::new(),
    )
}

/// Accepted: it arrived, or the subscription was interrupted. Surely not sent: it did not arrive.
fn check_outcome(id: Id, outcome: &Result<(), Error>, heard: &[Id], resumed: bool) -> Verdict {
    use socketioxide_adapter_core::Outcome;
    let arrived = heard.contains(&id);
    match outcome {
        Ok(()) => ensure!(arrived || resumed, "{id:?} was accepted, but never arrived"),
        Err(error) if error.outcome() != Outcome::Unknown => {
            ensure!(!arrived, "{id:?} arrived, but its publish said: {error:?}");
        }
        Err(_) => {}
    }
    Ok(())
}
