//! Payload sizes: nothing, up to the limit, and one byte more.

use bytes::Bytes;
use socketioxide_adapter_core::{ErrorKind, Outcome};

use crate::{
    cases::cases,
    check::{Verdict, ensure, ensure_eq, within},
    context::{Context, inbox, namespace, patience, publish},
    payload::Id,
};

cases!("transport::limits":
    an_empty_payload_arrives,
    payloads_of_all_sizes_arrive_whole,
    payloads_up_to_the_limit_arrive_whole,
    a_payload_over_the_limit_is_refused_and_the_next_ones_arrive,
);

async fn an_empty_payload_arrives(context: Context) -> Verdict {
    let topic = namespace("/empty");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut inbox = inbox(&two, &topic).await?;
    for payload in [Bytes::new(), Bytes::from_static(b"x"), Bytes::new()] {
        publish(&one, &topic, payload.clone()).await?;
        inbox.expect(&payload).await?;
    }
    Ok(())
}

/// Sizes around the places where buffers, segments and length fields change.
async fn payloads_of_all_sizes_arrive_whole(context: Context) -> Verdict {
    let topic = namespace("/sizes");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut inbox = inbox(&two, &topic).await?;
    let limit = one.capabilities().max_payload;
    let edges = (4..=20).map(|power| 1_usize << power);
    let sizes = edges.flat_map(|edge| [edge - 1, edge, edge + 1]);
    for (number, size) in (0..).zip(sizes.filter(|size| *size <= limit)) {
        let id = Id {
            publisher: 0,
            number,
        };
        let payload = id.sized_payload(size);
        publish(&one, &topic, payload.clone()).await?;
        inbox.expect(&payload).await?;
    }
    Ok(())
}

async fn payloads_up_to_the_limit_arrive_whole(context: Context) -> Verdict {
    let topic = namespace("/limit");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut inbox = inbox(&two, &topic).await?;
    let limit = one.capabilities().max_payload;
    for (number, size) in [(0, limit - 1), (1, limit)] {
        let id = Id {
            publisher: 0,
            number,
        };
        let payload = id.sized_payload(size);
        publish(&one, &topic, payload.clone()).await?;
        inbox.expect(&payload).await?;
    }
    Ok(())
}

async fn a_payload_over_the_limit_is_refused_and_the_next_ones_arrive(context: Context) -> Verdict {
    let topic = namespace("/over");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut inbox = inbox(&two, &topic).await?;
    let limit = one.capabilities().max_payload;
    let publish_it = one.publish(&topic, Bytes::from(vec![7; limit + 1]));
    let refused = within(
        patience(),
        "the end of a publish over the limit",
        publish_it,
    )
    .await?;
    let Err(error) = refused else {
        ensure!(
            false,
            "max_payload is {limit}, but a payload of one byte more was accepted"
        );
        return Ok(());
    };
    ensure_eq(
        "the error over the limit",
        &error.kind(),
        &ErrorKind::TooLarge,
    )?;
    ensure_eq("its outcome", &error.outcome(), &Outcome::NotSent)?;
    for number in 0..100 {
        let id = Id {
            publisher: 0,
            number,
        };
        publish(&one, &topic, id.payload(16)).await?;
        let arrived = inbox.id().await?;
        ensure_eq("the payload after the refused one", &arrived, &id)?;
    }
    Ok(())
}
