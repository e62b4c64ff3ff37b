//! Numbered messages of one client, published in the order in which they came.
//!
//! socketioxide runs each asynchronous handler in a task of its own, so two messages of one client may overtake each
//! other before the adapter ever sees them. But it calls the handlers themselves in order: what a handler does before it
//! returns its future is ordered, so here it puts the message in a queue and one task takes them out.

use std::{
    future::ready,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use socketioxide::{
    SocketIo,
    adapter::Adapter,
    extract::{AckSender, Data, SocketRef},
};
use tokio::sync::mpsc;

const QUEUE: usize = 1 << 14;

/// Message number `n` of the publisher `by`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Numbered {
    by: u32,
    n: u32,
}

/// What became of the call that published it.
#[derive(Debug, Serialize)]
struct Outcome {
    error: Option<String>,
    micros: u64,
}

pub(crate) fn listen<A: Adapter>(socket: &SocketRef<A>) {
    let (queue, mut waiting) = mpsc::channel::<(Numbered, AckSender<A>, SocketIo<A>)>(QUEUE);
    tokio::spawn(async move {
        while let Some((message, ack, io)) = waiting.recv().await {
            let started = Instant::now();
            let result = io.emit("numbered", &message).await;
            answer(ack, result.err().map(|error| error.to_string()), started.elapsed());
        }
    });
    socket.on("publish", move |io: SocketIo<A>, Data::<Numbered>(message), ack: AckSender<A>| {
        if let Err(mpsc::error::TrySendError::Full((_, ack, _))) = queue.try_send((message, ack, io)) {
            answer(ack, Some("test server: queue is full".to_owned()), Duration::ZERO);
        }
        ready(())
    });
}

fn answer<A: Adapter>(ack: AckSender<A>, error: Option<String>, took: Duration) {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    // The publisher may be gone; then nobody asks.
    let _ = ack.send(&Outcome { error, micros });
}
