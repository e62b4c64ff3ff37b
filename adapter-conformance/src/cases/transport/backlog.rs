//! Slow readers: bounded, counted, and nobody else's trouble.

use bytes::Bytes;
use socketioxide_adapter_core::transport::Event;
use tokio::runtime::Handle;

use crate::{
    cases::{Need, cases, memory::resident_bytes},
    check::{Verdict, ensure, ensure_eq, eventually},
    context::{Context, inbox, namespace, patience, publish, read_id},
    payload::Id,
};
cases!("transport::backlog":
    a_slow_reader_loses_nothing_without_a_count,
    a_slow_reader_does_not_slow_the_others,
    a_thousand_dropped_subscriptions_leave_nothing [Need::Alone],
);

/// More than any subscription should hold by default.
const FLOOD: u64 = 500;
const SIZE: usize = 64 << 10;

async fn a_slow_reader_loses_nothing_without_a_count(context: Context) -> Verdict {
    let topic = namespace("/slow");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut slow = inbox(&two, &topic).await?;
    for number in 0..FLOOD {
        let id = Id {
            publisher: 0,
            number,
        };
        publish(&one, &topic, id.payload(SIZE)).await?;
    }
    let (mut next, mut lagged) = (0, 0);
    while next + lagged < FLOOD {
        match slow.next().await? {
            Event::Message(payload) => {
                let number = read_id(&payload)?.number;
                ensure!(
                    number == next + lagged,
                    "{next} payloads were accounted for and {lagged} more counted as lagged, then came number {number}"
                );
                (next, lagged) = (number + 1, 0);
            }
            Event::Lagged(count) => lagged += count,
            other => ensure!(false, "unexpected {other:?} on a healthy link"),
        }
    }
    ensure_eq(
        "payloads that arrived or were counted",
        &(next + lagged),
        &FLOOD,
    )?;
    slow.expect_nothing(&one, &topic).await
}

async fn a_slow_reader_does_not_slow_the_others(context: Context) -> Verdict {
    let topic = namespace("/slow");
    let (one, two, three) = (
        context.node().await?,
        context.node().await?,
        context.node().await?,
    );
    let _never_read = inbox(&two, &topic).await?;
    let mut quick = inbox(&three, &topic).await?;
    for number in 0..FLOOD {
        let id = Id {
            publisher: 0,
            number,
        };
        publish(&one, &topic, id.payload(SIZE)).await?;
        ensure_eq("the payload at the quick reader", &quick.id().await?, &id)?;
    }
    Ok(())
}

async fn a_thousand_dropped_subscriptions_leave_nothing(context: Context) -> Verdict {
    const ROUNDS: u64 = 1_000;
    let (one, two) = (context.node().await?, context.node().await?);
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let round = async |number: u64| {
        let topic = namespace(&format!("/round-{}", number % 10));
        let subscription = inbox(&two, &topic).await?;
        let id = Id {
            publisher: 0,
            number,
        };
        publish(&one, &topic, id.payload(SIZE)).await?;
        drop(subscription);
        Verdict::Ok(())
    };
    // The first rounds fill pools and caches.
    for number in 0..100 {
        round(number).await?;
    }
    let (tasks_before, memory_before) = (tasks(), resident_bytes());
    for number in 0..ROUNDS {
        round(number).await?;
    }
    eventually(
        patience(),
        "the end of the tasks of dropped subscriptions",
        async || Ok(tasks() <= tasks_before),
    )
    .await?;
    // Had the subscriptions kept what was sent to them, it would be 64 MB.
    let grown = resident_bytes().saturating_sub(memory_before);
    ensure!(
        grown < 32 << 20,
        "{ROUNDS} dropped subscriptions left {} MiB behind",
        grown >> 20
    );
    let topic = namespace("/round-0");
    eventually(
        patience(),
        "the broker forgetting dropped subscriptions",
        async || {
            let receipt = publish(&one, &topic, Bytes::from_static(b"anybody?")).await?;
            Ok(receipt.receivers.is_none_or(|receivers| receivers == 0))
        },
    )
    .await
}
