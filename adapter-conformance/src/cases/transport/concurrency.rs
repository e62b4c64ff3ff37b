//! Everything at once: publishing, subscribing, dropping and closing.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::{join_all, try_join_all};

use crate::{
    cases::cases,
    check::{Failure, Verdict, ensure, ensure_eq},
    context::{Context, Inbox, Pipeline, inbox, namespace, publish, publish_many},
    payload::Id,
};

cases!("transport::concurrency":
    a_subscription_made_amid_publishes_has_no_hole,
    subscriptions_that_come_and_go_do_not_disturb_one_that_stays,
    one_of_two_subscriptions_to_a_topic_can_go,
    many_topics_at_once_work,
    nodes_that_come_and_go_do_not_disturb_the_others,
);

async fn a_subscription_made_amid_publishes_has_no_hole(context: Context) -> Verdict {
    const COUNT: u64 = 3_000;
    let topic = namespace("/amid");
    let (one, two) = (context.node().await?, context.node().await?);
    let subscribing = async {
        let mut inboxes = Vec::new();
        for _ in 0..20 {
            inboxes.push(inbox(&two, &topic).await?);
            // Lets the publisher get ahead between two subscriptions.
            tokio::task::yield_now().await;
        }
        Ok(inboxes)
    };
    let publishing = publish_many(&one, &topic, 0, COUNT, 4);
    let ((), inboxes) = tokio::try_join!(publishing, subscribing)?;
    for mut inbox in inboxes {
        let heard = inbox.fenced_ids(&one, &topic).await?;
        expect_suffix(&heard, COUNT)?;
    }
    Ok(())
}

/// Wants every payload from the first that was heard to the last that was sent.
fn expect_suffix(heard: &[Id], count: u64) -> Verdict {
    let mut numbers: Vec<u64> = heard.iter().map(|id| id.number).collect();
    numbers.dedup();
    let first = numbers.first().copied().unwrap_or(count);
    let hole = (first..count)
        .zip(&numbers)
        .find(|(want, got)| want != *got);
    if let Some((want, got)) = hole {
        ensure!(
            false,
            "after the first payload {first}, {want} was missing and {got} came instead"
        );
    }
    ensure_eq(
        "payloads from the first one on",
        &(numbers.len() as u64),
        &(count - first),
    )
}

async fn subscriptions_that_come_and_go_do_not_disturb_one_that_stays(context: Context) -> Verdict {
    const COUNT: u64 = 2_000;
    let topics = [namespace("/0"), namespace("/1"), namespace("/2")];
    let (one, two) = (context.node().await?, context.node().await?);
    let mut steady = Vec::new();
    for topic in &topics {
        steady.push(inbox(&two, topic).await?);
    }
    let churn = |task: u64| {
        let mut rng = fastrand::Rng::with_seed(context.seed ^ task);
        let (topics, two) = (&topics, &two);
        async move {
            let mut held: Vec<Inbox> = Vec::new();
            for _ in 0..100 {
                if rng.bool() {
                    held.push(inbox(two, &topics[rng.usize(..topics.len())]).await?);
                } else if !held.is_empty() {
                    held.swap_remove(rng.usize(..held.len()));
                }
                tokio::task::yield_now().await;
            }
            Ok::<_, Failure>(())
        }
    };
    let publishing = try_join_all(
        topics
            .iter()
            .map(|topic| publish_many(&one, topic, 0, COUNT, 4)),
    );
    let churning = try_join_all((0..4).map(churn));
    tokio::try_join!(publishing, churning)?;
    for (topic, inbox) in topics.iter().zip(&mut steady) {
        let mut heard = inbox.fenced_ids(&one, topic).await?;
        heard.dedup();
        ensure_eq(
            "payloads at the subscription that stayed",
            &(heard.len() as u64),
            &COUNT,
        )?;
    }
    Ok(())
}

async fn one_of_two_subscriptions_to_a_topic_can_go(context: Context) -> Verdict {
    let topic = namespace("/twice");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut stays = inbox(&two, &topic).await?;
    for _ in 0..20 {
        let goes = inbox(&two, &topic).await?;
        drop(goes);
        stays.expect_nothing(&one, &topic).await?;
    }
    Ok(())
}

async fn many_topics_at_once_work(context: Context) -> Verdict {
    let (one, two) = (context.node().await?, context.node().await?);
    let (one, two) = (&one, &two);
    let rooms = (0..300_u64).map(|number| async move {
        let topic = namespace(&format!("/room-{number}"));
        let mut inbox = inbox(two, &topic).await?;
        let id = Id {
            publisher: 0,
            number,
        };
        let mut pipeline = Pipeline::new(one, &topic, 2);
        pipeline.publish(id, 100).await?;
        pipeline.finish_accepted().await?;
        ensure_eq("the first payload of a topic", &inbox.id().await?, &id)
    });
    join_all(rooms).await.into_iter().collect()
}

async fn nodes_that_come_and_go_do_not_disturb_the_others(context: Context) -> Verdict {
    let mut rng = fastrand::Rng::with_seed(context.seed);
    let topic = namespace("/visitors");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut steady = inbox(&two, &topic).await?;
    let over = AtomicBool::new(false);
    let publishing = async {
        let mut number = 0;
        while !over.load(Ordering::Relaxed) {
            let id = Id {
                publisher: 0,
                number,
            };
            publish(&one, &topic, id.payload(16)).await?;
            number += 1;
            tokio::task::yield_now().await;
        }
        Verdict::Ok(number)
    };
    let visiting = async {
        for _ in 0..20 {
            let visitor = context.node().await?;
            let mut inbox = inbox(&visitor, &topic).await?;
            // Some leave after a read, some with a full buffer; some say goodbye, some are simply dropped.
            if rng.bool() {
                inbox.id().await?;
            }
            if rng.bool() {
                visitor.close().await?;
            }
        }
        over.store(true, Ordering::Relaxed);
        Verdict::Ok(())
    };
    let (count, ()) = tokio::try_join!(publishing, visiting)?;
    let mut heard = steady.fenced_ids(&one, &topic).await?;
    heard.dedup();
    ensure_eq(
        "payloads at the node that stayed",
        &(heard.len() as u64),
        &count,
    )
}
