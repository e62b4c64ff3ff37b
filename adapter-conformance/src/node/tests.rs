//! What a node must do to be believed.

use std::time::Duration;

use serde_json::json;
use socketioxide_adapter_core::memory::MemoryBus;
use tokio::time::{Instant, sleep};

use super::*;

fn node(bus: &MemoryBus) -> Node {
    Node::new(Arc::new(bus.connect()), ClusterConfig::default()).unwrap()
}

#[tokio::test]
async fn a_client_sees_names_arguments_binaries_and_the_end() {
    let node = node(&MemoryBus::new());
    node.namespace("/room").await.unwrap();
    let client = node.client("/room").await.unwrap();
    let socket = node.socket("/room", client.sid()).unwrap();
    let blob = bytes::Bytes::from_static(&[0, 255]);
    let io = node.of("/room").unwrap();
    io.emit("blob", &("first", &blob)).await.unwrap();
    socket.disconnect().unwrap();
    let arrivals = client.arrivals();
    arrivals.wait_for(|arrivals| arrivals.len() == 2).await;
    let event = Event {
        name: "blob".into(),
        data: vec![json!("first"), json!({"_placeholder": true, "num": 0})],
        attachments: vec![blob],
        wants_ack: false,
    };
    assert_eq!(
        arrivals.all(),
        [Arrival::Event(event), Arrival::Disconnected]
    );
}

#[tokio::test(start_paused = true)]
async fn it_works_with_a_paused_clock_and_answers_when_told_to() {
    let bus = MemoryBus::new();
    let nodes = [node(&bus), node(&bus)];
    for node in &nodes {
        node.namespace("/").await.unwrap();
    }
    let late = Reply::After(Duration::from_secs(3), json!("late"));
    let _client = nodes[1].client_that_replies("/", late).await.unwrap();
    // Longer than Engine.IO waits for the answer to a ping.
    sleep(Duration::from_secs(100)).await;
    let start = Instant::now();
    let acks = nodes[0].io().emit_with_ack::<_, String>("ask", &());
    let mut acks = Box::pin(acks.await.unwrap());
    let (_, ack) = futures_util::StreamExt::next(&mut acks).await.unwrap();
    assert_eq!(ack.unwrap(), "late");
    assert_eq!(start.elapsed().as_secs(), 3);
}

#[tokio::test]
async fn a_namespace_that_is_not_there_lets_nobody_in() {
    let node = node(&MemoryBus::new());
    node.namespace("/").await.unwrap();
    let error = node.client("/nowhere").await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_socket_loses_nothing_of_a_flood_that_its_client_reads_later() {
    const COUNT: usize = 20_000;
    let node = node(&MemoryBus::new());
    node.namespace("/").await.unwrap();
    let client = node.client("/").await.unwrap();
    for number in 0..COUNT {
        node.io().emit("n", &number.to_string()).await.unwrap();
    }
    let arrivals = client.arrivals();
    arrivals.wait_for(|arrivals| arrivals.len() == COUNT).await;
    let expected: Vec<String> = (0..COUNT).map(|number| number.to_string()).collect();
    assert_eq!(client.texts(), expected);
}
