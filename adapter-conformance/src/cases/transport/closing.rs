//! Closing: at any time, by anybody, within a deadline, and nothing is left.

use bytes::Bytes;
use futures_util::future::join_all;
use socketioxide_adapter_core::{
    ErrorKind, Outcome,
    transport::{LinkState, Topic},
};
use tokio::runtime::Handle;

use crate::{
    Ability,
    cases::{Need, cases},
    check::{Verdict, ensure, ensure_eq, eventually, within},
    context::{Context, Inbox, Node, inbox, link_is, namespace, patience, publish, publish_many},
    payload::Id,
};

cases!("transport::closing":
    close_ends_everything_and_can_be_repeated,
    close_lets_the_reader_have_what_had_arrived,
    ten_closes_at_once_all_return,
    close_wakes_a_reader_that_waits,
    close_ends_publishes_in_flight_and_what_was_accepted_arrives,
    close_of_one_node_leaves_the_others_alone,
    close_returns_while_the_broker_is_down [Need::Fault(Ability::Stop)],
    close_returns_while_the_broker_is_frozen [Need::Fault(Ability::Freeze)],
    a_closed_transport_leaves_no_task,
    a_dropped_transport_leaves_no_task,
);

/// Closes within the lab's deadline for calls.
async fn close(context: &Context, node: &Node) -> Verdict {
    let deadline = context.lab.call_deadline();
    // What close has to tell is no failure: the transport is closed in any case.
    let _ = within(deadline, "the end of close", node.close()).await?;
    ensure_eq(
        "the link after close",
        &node.link().state(),
        &LinkState::Closed,
    )
}

async fn close_ends_everything_and_can_be_repeated(context: Context) -> Verdict {
    let topic = namespace("/close");
    let node = context.node().await?;
    let mut inbox = inbox(&node, &topic).await?;
    for _ in 0..3 {
        close(&context, &node).await?;
    }
    let end = within(
        patience(),
        "the end of the subscription",
        inbox.subscription.recv(),
    )
    .await?;
    ensure_eq("a subscription after close", &end, &None)?;
    let publish = within(
        patience(),
        "a publish after close",
        node.publish(&topic, Bytes::new()),
    );
    let Err(error) = publish.await? else {
        ensure!(false, "a publish after close succeeded");
        return Ok(());
    };
    ensure_eq("a publish after close", &error.kind(), &ErrorKind::Closed)?;
    ensure_eq("its outcome", &error.outcome(), &Outcome::NotSent)?;
    let subscribe = within(
        patience(),
        "a subscribe after close",
        node.subscribe(&topic),
    );
    let Err(error) = subscribe.await? else {
        ensure!(false, "a subscribe after close succeeded");
        return Ok(());
    };
    ensure_eq("a subscribe after close", &error.kind(), &ErrorKind::Closed)
}

async fn close_lets_the_reader_have_what_had_arrived(context: Context) -> Verdict {
    let topic = namespace("/buffered");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut unread = inbox(&two, &topic).await?;
    let mut witness = inbox(&two, &topic).await?;
    publish_many(&one, &topic, 0, 10, 1).await?;
    // The witness got them from the same node, so the unread ones are in their buffer, or in front of it.
    witness.fence(&one, &topic).await?;
    close(&context, &two).await?;
    for number in 0..10 {
        let id = Id {
            publisher: 0,
            number,
        };
        ensure_eq("what had arrived before close", &unread.id().await?, &id)?;
    }
    Ok(())
}

async fn ten_closes_at_once_all_return(context: Context) -> Verdict {
    let node = context.node().await?;
    let _inbox = inbox(&node, &Topic::Cluster).await?;
    let closes = (0..10).map(|_| close(&context, &node));
    join_all(closes).await.into_iter().collect()
}

async fn close_wakes_a_reader_that_waits(context: Context) -> Verdict {
    let node = context.node().await?;
    let mut inbox = inbox(&node, &Topic::Cluster).await?;
    let reading = async {
        let end = within(
            patience(),
            "the reader being woken",
            inbox.subscription.recv(),
        )
        .await?;
        ensure_eq("what a waiting reader gets from close", &end, &None)
    };
    // Polled in this order: the reader waits before close begins.
    let (read, closed) = tokio::join!(biased; reading, close(&context, &node));
    read.and(closed)
}

async fn close_ends_publishes_in_flight_and_what_was_accepted_arrives(context: Context) -> Verdict {
    let topic = namespace("/in-flight");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut inbox = inbox(&two, &topic).await?;
    let ids = (0..200).map(|number| Id {
        publisher: 0,
        number,
    });
    let publishes = ids.map(|id| {
        let publish = one.publish(&topic, id.payload(1_000));
        async move {
            (
                id,
                within(patience(), "the end of a publish in flight", publish).await,
            )
        }
    });
    let (outcomes, closed) = tokio::join!(biased; join_all(publishes), close(&context, &one));
    closed?;
    let heard = inbox.fenced_ids(&two, &topic).await?;
    for (id, outcome) in outcomes {
        let accepted = outcome?.is_ok();
        // An `Ok` without confirms only says that the bytes left; the connection may have died under them.
        if accepted && two.capabilities().confirms {
            ensure!(
                heard.contains(&id),
                "{id:?} was accepted but did not arrive"
            );
        }
    }
    Ok(())
}

async fn close_of_one_node_leaves_the_others_alone(context: Context) -> Verdict {
    let topic = namespace("/others");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut inbox = inbox(&two, &topic).await?;
    let third = context.node().await?;
    let _closed = crate::context::inbox(&third, &topic).await?;
    close(&context, &third).await?;
    inbox.expect_nothing(&one, &topic).await?;
    ensure_eq(
        "the link of another node",
        &two.link().state(),
        &LinkState::Up,
    )
}

async fn close_returns_while_the_broker_is_down(context: Context) -> Verdict {
    let node = context.node().await?;
    let _inbox = inbox(&node, &Topic::Cluster).await?;
    context.faults()?.stop().await?;
    link_is(&node, LinkState::Down).await?;
    close(&context, &node).await
}

async fn close_returns_while_the_broker_is_frozen(context: Context) -> Verdict {
    let node = context.node().await?;
    let _inbox = inbox(&node, &Topic::Cluster).await?;
    context.faults()?.freeze().await?;
    close(&context, &node).await
}

async fn a_closed_transport_leaves_no_task(context: Context) -> Verdict {
    let before = tasks();
    let (node, inbox) = working_node(&context).await?;
    close(&context, &node).await?;
    drop(inbox);
    // The node is still held: close must suffice.
    no_more_tasks_than(before).await?;
    drop(node);
    Ok(())
}

async fn a_dropped_transport_leaves_no_task(context: Context) -> Verdict {
    let before = tasks();
    drop(working_node(&context).await?);
    no_more_tasks_than(before).await
}

async fn working_node(context: &Context) -> Verdict<(Node, Inbox)> {
    let node = context.node().await?;
    let mut inbox = inbox(&node, &Topic::Cluster).await?;
    publish(&node, &Topic::Cluster, Bytes::from_static(b"work")).await?;
    inbox.message().await?;
    Ok((node, inbox))
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

async fn no_more_tasks_than(before: usize) -> Verdict {
    let ended = async || Ok(tasks() <= before);
    eventually(patience(), "the end of all tasks of the transport", ended).await
}
