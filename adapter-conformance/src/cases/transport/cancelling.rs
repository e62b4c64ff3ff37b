//! Futures can be dropped at any point without harm.

use std::{
    future::poll_fn,
    task::{Context as Task, Poll},
};

use bytes::Bytes;
use socketioxide_adapter_core::transport::Event;

use crate::{
    cases::cases,
    check::{Verdict, ensure, ensure_eq},
    context::{Context, ensure_rising, inbox, namespace, publish, read_id},
    payload::Id,
};

cases!("transport::cancelling":
    a_publish_that_was_never_polled_sends_nothing,
    cancelled_publishes_do_not_disturb_others,
    a_cancelled_subscribe_leaves_nothing,
    a_cancelled_read_loses_nothing,
);

/// Polls a future a few times, as its task would when something else wakes it, then drops it.
async fn cancel<T>(polls: u32, future: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(future);
    let mut left = polls;
    poll_fn(move |task: &mut Task<'_>| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        task.waker().wake_by_ref();
        future.as_mut().poll(task).map(Some)
    })
    .await
}

async fn a_publish_that_was_never_polled_sends_nothing(context: Context) -> Verdict {
    let topic = namespace("/unpolled");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut inbox = inbox(&two, &topic).await?;
    for _ in 0..10 {
        drop(one.publish(&topic, Bytes::from_static(b"never")));
    }
    inbox.expect_nothing(&one, &topic).await
}

async fn cancelled_publishes_do_not_disturb_others(context: Context) -> Verdict {
    let mut rng = fastrand::Rng::with_seed(context.seed);
    let topic = namespace("/cancelled");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut inbox = inbox(&two, &topic).await?;
    let mut kept = Vec::new();
    for number in 0..600 {
        let id = Id {
            publisher: 0,
            number,
        };
        let payload = id.payload(rng.usize(0..20_000));
        if rng.bool() {
            let _ = cancel(rng.u32(1..5), one.publish(&topic, payload)).await;
        } else {
            publish(&one, &topic, payload).await?;
            kept.push(id);
        }
    }
    let heard = inbox.fenced_ids(&one, &topic).await?;
    ensure_rising(&heard)?;
    let lost = kept.iter().filter(|id| !heard.contains(id)).count();
    ensure!(
        lost == 0,
        "{lost} of {} accepted payloads were lost among cancelled ones",
        kept.len()
    );
    Ok(())
}

async fn a_cancelled_subscribe_leaves_nothing(context: Context) -> Verdict {
    let topic = namespace("/half");
    let (one, two) = (context.node().await?, context.node().await?);
    for round in 0..100 {
        let _ = cancel(round % 10, two.subscribe(&topic)).await;
    }
    // Both nodes can still subscribe, and if the broker counts, it counts only who is really there.
    let mut here = inbox(&one, &topic).await?;
    let mut there = inbox(&two, &topic).await?;
    here.fence(&one, &topic).await?;
    let receipt = publish(&one, &topic, Bytes::from_static(b"both")).await?;
    ensure!(
        receipt.receivers.is_none_or(|receivers| receivers == 2),
        "two nodes listen, but {:?} received",
        receipt.receivers
    );
    drop(there);
    there = inbox(&two, &namespace("/other")).await?;
    there.expect_nothing(&one, &namespace("/other")).await
}

async fn a_cancelled_read_loses_nothing(context: Context) -> Verdict {
    let mut rng = fastrand::Rng::with_seed(context.seed);
    let topic = namespace("/reads");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut inbox = inbox(&two, &topic).await?;
    let mut heard = Vec::new();
    for number in 0..500 {
        let id = Id {
            publisher: 0,
            number,
        };
        publish(&one, &topic, id.payload(16)).await?;
        match cancel(rng.u32(0..3), inbox.subscription.recv()).await {
            None => {}
            Some(Some(Event::Message(payload))) => heard.push(read_id(&payload)?),
            Some(other) => ensure!(false, "unexpected {other:?} on a healthy link"),
        }
    }
    heard.extend(inbox.fenced_ids(&one, &topic).await?);
    heard.dedup();
    ensure_eq("payloads read across cancelled reads", &heard.len(), &500)
}
