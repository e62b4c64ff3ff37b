//! What a transport says about itself is true.

use bytes::Bytes;
use socketioxide_adapter_core::transport::LinkState;

use crate::{
    cases::cases,
    check::{Verdict, ensure, ensure_eq, eventually},
    context::{Context, epoch, inbox, namespace, patience, publish},
};

cases!("transport::capabilities":
    they_do_not_change_and_can_carry_a_frame,
    a_connected_transport_has_a_name_and_a_session,
    a_receipt_that_counts_counts_the_nodes_that_listen,
);

/// The core fills frames up to this size before it starts the next one.
const FRAME: usize = 128 << 10;

async fn they_do_not_change_and_can_carry_a_frame(context: Context) -> Verdict {
    let (one, two) = (context.node().await?, context.node().await?);
    let _inbox = inbox(&one, &namespace("/")).await?;
    publish(&one, &namespace("/"), Bytes::from_static(b"work")).await?;
    ensure_eq(
        "capabilities after work",
        &one.capabilities(),
        &two.capabilities(),
    )?;
    let limit = one.capabilities().max_payload;
    ensure!(
        limit >= FRAME,
        "max_payload is {limit}, but the core needs {FRAME} for one full frame"
    );
    Ok(())
}

async fn a_connected_transport_has_a_name_and_a_session(context: Context) -> Verdict {
    let node = context.node().await?;
    let name = node.name();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-+".contains(c);
    ensure!(
        !name.is_empty() && name.chars().all(plain),
        "the name must be a short lowercase word, got {name:?}"
    );
    ensure_eq("the link", &node.link().state(), &LinkState::Up)?;
    ensure_eq("sessions so far", &epoch(&node), &1)
}

async fn a_receipt_that_counts_counts_the_nodes_that_listen(context: Context) -> Verdict {
    let topic = namespace("/count");
    let nodes = [
        context.node().await?,
        context.node().await?,
        context.node().await?,
    ];
    let mut inboxes = Vec::new();
    for (listening, node) in (1..).zip(&nodes) {
        // Two subscriptions of one node are one receiver.
        inboxes.push(inbox(node, &topic).await?);
        inboxes.push(inbox(node, &topic).await?);
        let receipt = publish(&nodes[0], &topic, Bytes::from_static(b"count")).await?;
        ensure!(
            receipt
                .receivers
                .is_none_or(|receivers| receivers == listening),
            "{listening} nodes listen, but the receipt says {:?}",
            receipt.receivers
        );
    }
    drop(inboxes);
    eventually(patience(), "a receipt that counts nobody", async || {
        let receipt = publish(&nodes[0], &topic, Bytes::from_static(b"count")).await?;
        Ok(receipt.receivers.is_none_or(|receivers| receivers == 0))
    })
    .await
}
