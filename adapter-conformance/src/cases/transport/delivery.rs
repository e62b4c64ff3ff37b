//! Everybody who should gets a payload, whole, once.

use bytes::Bytes;

use crate::{
    cases::cases,
    check::{Verdict, ensure},
    context::{Context, inbox, may_repeat, namespace, publish, publish_many},
};

cases!("transport::delivery":
    every_subscription_of_every_node_receives_a_payload,
    a_node_receives_what_it_publishes,
    payloads_arrive_byte_for_byte,
    nothing_is_lost_or_doubled_while_connected,
    nothing_published_before_the_subscription_arrives,
    a_topic_without_subscribers_takes_payloads,
);

async fn every_subscription_of_every_node_receives_a_payload(context: Context) -> Verdict {
    let topic = namespace("/fan-out");
    let nodes = [
        context.node().await?,
        context.node().await?,
        context.node().await?,
    ];
    let mut inboxes = Vec::new();
    for node in &nodes {
        inboxes.push(inbox(node, &topic).await?);
        inboxes.push(inbox(node, &topic).await?);
    }
    let payload = Bytes::from_static(b"to everybody");
    publish(&nodes[0], &topic, payload.clone()).await?;
    for inbox in &mut inboxes {
        inbox.expect(&payload).await?;
    }
    for inbox in &mut inboxes {
        inbox.expect_nothing(&nodes[0], &topic).await?;
    }
    Ok(())
}

async fn a_node_receives_what_it_publishes(context: Context) -> Verdict {
    let topic = namespace("/echo");
    let node = context.node().await?;
    let mut inbox = inbox(&node, &topic).await?;
    let payload = Bytes::from_static(b"to myself");
    publish(&node, &topic, payload.clone()).await?;
    inbox.expect(&payload).await?;
    inbox.expect_nothing(&node, &topic).await
}

async fn payloads_arrive_byte_for_byte(context: Context) -> Verdict {
    let topic = namespace("/binary");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut inbox = inbox(&two, &topic).await?;
    let every_byte: Vec<u8> = (0..=255).collect();
    let payloads: [&[u8]; 8] = [
        &every_byte,
        &[0],
        &[0xff; 100],
        b"\r\n\r\n",
        b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"PUB a 3\r\nabc\r\n",
        b"\xce\xce\xce\xce",
        "\u{feff}\u{202e}\u{1f980}".as_bytes(),
    ];
    for payload in payloads {
        let payload = Bytes::copy_from_slice(payload);
        publish(&one, &topic, payload.clone()).await?;
        inbox.expect(&payload).await?;
    }
    Ok(())
}

async fn nothing_is_lost_or_doubled_while_connected(context: Context) -> Verdict {
    const COUNT: u64 = 5_000;
    let topic = namespace("/flood");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut inboxes = [inbox(&one, &topic).await?, inbox(&two, &topic).await?];
    publish_many(&one, &topic, 0, COUNT, 64).await?;
    let repeats = may_repeat(one.capabilities());
    for inbox in &mut inboxes {
        let mut copies = vec![0_u32; COUNT as usize];
        for id in inbox.fenced_ids(&one, &topic).await? {
            copies[id.number as usize] += 1;
        }
        let lost = copies.iter().filter(|copies| **copies == 0).count();
        let doubled = copies.iter().filter(|copies| **copies > 1).count();
        ensure!(
            lost == 0 && (doubled == 0 || repeats),
            "of {COUNT} payloads, {lost} were lost and {doubled} came more than once"
        );
    }
    Ok(())
}

async fn nothing_published_before_the_subscription_arrives(context: Context) -> Verdict {
    let topic = namespace("/history");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut witness = inbox(&one, &topic).await?;
    let payload = Bytes::from_static(b"too early");
    publish(&one, &topic, payload.clone()).await?;
    witness.expect(&payload).await?;
    let mut late = inbox(&two, &topic).await?;
    late.expect_nothing(&one, &topic).await
}

async fn a_topic_without_subscribers_takes_payloads(context: Context) -> Verdict {
    let (nobody, topic) = (namespace("/nobody"), namespace("/somebody"));
    let node = context.node().await?;
    let mut inbox = inbox(&node, &topic).await?;
    for _ in 0..10 {
        publish(&node, &nobody, Bytes::from_static(b"into the void")).await?;
    }
    inbox.expect_nothing(&node, &topic).await
}
