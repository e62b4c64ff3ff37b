//! With sentinels: another server is the primary, and its copy of the log may lack the end.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use socketioxide_adapter_core::transport::{Event, Transport};
use socketioxide_broker_lab::RedisSentinel;
use tokio::task::block_in_place;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fail_over_is_followed_and_the_log_is_read_on_in_the_copy() {
    let set = RedisSentinel::start().unwrap();
    let node = try_connect(&set.url()).await.unwrap();
    let mut inbox = node.subscribe(&chat()).await.unwrap();
    say(&node, 0..100).await;
    hears(&mut inbox, 0..100).await;
    // Sentinels ask the old primary to hand over, which waits for its replica.
    block_in_place(|| set.fail_over().unwrap());
    up(&node, 2).await;
    let mut number = 100;
    let fence = loop {
        // The old primary may be found once more before the sentinels agree.
        if node
            .publish(&chat(), number.to_string().into())
            .await
            .is_ok()
        {
            break message(number);
        }
        number += 1;
    };
    loop {
        match next(&mut inbox).await {
            event if event == fence => break,
            Event::Resumed(continuity) => {
                assert_eq!(Event::Resumed(continuity), unbroken(0));
            }
            other => panic!("{other:?}"),
        }
    }
}
