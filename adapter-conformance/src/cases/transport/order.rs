//! Payloads of one node on one topic arrive in the order in which their publishes were first polled.

use std::collections::BTreeSet;

use crate::{
    cases::{Need, cases},
    check::{Verdict, ensure},
    context::{Context, Inbox, Pipeline, ensure_rising, inbox, namespace, publish, publish_many},
    payload::Id,
};

cases!("transport::order":
    sequential_publishes_keep_their_order,
    pipelined_publishes_keep_the_order_of_their_first_poll,
    a_small_payload_does_not_overtake_a_large_one,
    each_publisher_keeps_its_order_among_others,
    all_nodes_see_all_publishers_in_one_order [Need::TotalOrder],
);

async fn sequential_publishes_keep_their_order(context: Context) -> Verdict {
    let topic = namespace("/sequence");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut inboxes = [inbox(&one, &topic).await?, inbox(&two, &topic).await?];
    for number in 0..500 {
        let id = Id {
            publisher: 0,
            number,
        };
        publish(&one, &topic, id.payload(16)).await?;
    }
    for inbox in &mut inboxes {
        let heard = inbox.fenced_ids(&one, &topic).await?;
        ensure_rising(&heard)?;
    }
    Ok(())
}

async fn pipelined_publishes_keep_the_order_of_their_first_poll(context: Context) -> Verdict {
    let topic = namespace("/pipeline");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut inboxes = [inbox(&one, &topic).await?, inbox(&two, &topic).await?];
    publish_many(&one, &topic, 0, 2_000, 4).await?;
    for inbox in &mut inboxes {
        let heard = inbox.fenced_ids(&one, &topic).await?;
        ensure_rising(&heard)?;
    }
    Ok(())
}

async fn a_small_payload_does_not_overtake_a_large_one(context: Context) -> Verdict {
    let topic = namespace("/sizes");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut inbox = inbox(&two, &topic).await?;
    let large = (one.capabilities().max_payload / 2).min(256 << 10);
    let mut pipeline = Pipeline::new(&one, &topic, 4);
    for number in 0..40 {
        let filler = if number % 4 == 0 { large } else { 0 };
        let id = Id {
            publisher: 0,
            number,
        };
        pipeline.publish(id, filler).await?;
    }
    pipeline.finish_accepted().await?;
    let heard = inbox.fenced_ids(&one, &topic).await?;
    ensure_rising(&heard)
}

async fn each_publisher_keeps_its_order_among_others(context: Context) -> Verdict {
    for heard in &crowd(context).await? {
        ensure_rising(heard)?;
    }
    Ok(())
}

async fn all_nodes_see_all_publishers_in_one_order(context: Context) -> Verdict {
    let [one, two] = crowd(context).await?.map(first_times);
    let differs = one.iter().zip(&two).position(|(one, two)| one != two);
    if let Some(place) = differs {
        let (one, two) = (one[place], two[place]);
        ensure!(
            false,
            "at place {place} one node saw {one:?} and another {two:?}"
        );
    }
    Ok(())
}

/// What two of four nodes hear while all four publish.
async fn crowd(context: Context) -> Verdict<[Vec<Id>; 2]> {
    const COUNT: u64 = 400;
    let topic = namespace("/crowd");
    let nodes = [
        context.node().await?,
        context.node().await?,
        context.node().await?,
        context.node().await?,
    ];
    let mut inboxes = [
        inbox(&nodes[0], &topic).await?,
        inbox(&nodes[3], &topic).await?,
    ];
    let publish = |n: u32| publish_many(&nodes[n as usize], &topic, n, COUNT, 4);
    tokio::try_join!(publish(0), publish(1), publish(2), publish(3))?;
    let mut heard = [Vec::new(), Vec::new()];
    for (inbox, heard) in inboxes.iter_mut().zip(&mut heard) {
        read_to_the_end(inbox, heard, COUNT - 1).await?;
    }
    Ok(heard)
}

/// Reads until the last payload of each of the four publishers is there.
async fn read_to_the_end(inbox: &mut Inbox, heard: &mut Vec<Id>, last: u64) -> Verdict {
    let mut open = BTreeSet::from([0, 1, 2, 3]);
    while !open.is_empty() {
        let id = inbox.id().await?;
        if id.number == last {
            open.remove(&id.publisher);
        }
        heard.push(id);
    }
    Ok(())
}

fn first_times(ids: Vec<Id>) -> Vec<Id> {
    let mut seen = BTreeSet::new();
    ids.into_iter().filter(|id| seen.insert(*id)).collect()
}
