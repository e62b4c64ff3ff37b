//! The bugs on the way from the bus to the reader.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use socketioxide_adapter_core::transport::{
    BufferLimits, Continuity, Event, LinkState, LinkWatch, Subscription, SubscriptionSender,
};

use crate::bug::Bug;

/// One subscription of a mutant.
pub(crate) struct Reader {
    pub(crate) bug: Bug,
    /// Its place in the order of the node's subscriptions.
    pub(crate) number: u64,
    /// What the node itself published.
    pub(crate) own: Arc<Mutex<HashSet<Bytes>>>,
    pub(crate) link: LinkWatch,
}

/// Leads a subscription through the bug, in a task that ends with it; past it where the bug is elsewhere.
pub(crate) fn through(reader: Reader, from: Subscription, last: Option<Bytes>) -> Subscription {
    let limits = match reader.bug {
        Bug::None
        | Bug::RepeatsTheLastAfterReconnect
        | Bug::GoesDeafAfterReconnect
        | Bug::ForgetsOneSubscriptionAfterReconnect
        | Bug::NeverSaysResumed
        | Bug::SaysResumedLate
        | Bug::SaysUnbroken
        | Bug::NeverEchoes
        | Bug::ReplaysTheLastToNewcomers
        | Bug::KeepsDroppedSubscriptions => BufferLimits::default(),
        // Small, and waited for, so that the other buffer fills and the bug gets to count.
        Bug::SwallowsLag | Bug::MiscountsLag | Bug::ForgetsWhatWasBufferedOnClose => {
            BufferLimits::new(1, 1 << 20)
        }
        _ => return from,
    };
    let (sender, subscription) = Subscription::channel(limits);
    if let Some(last) = last {
        sender.push(last);
    }
    tokio::spawn(forward(reader, from, sender));
    subscription
}

async fn forward(reader: Reader, mut from: Subscription, to: SubscriptionSender) {
    let bug = reader.bug;
    let mut reconnected = false;
    let mut last = None;
    let mut late = None;
    while let Some(event) = from.recv().await {
        if to.is_closed() && bug != Bug::KeepsDroppedSubscriptions {
            return;
        }
        let closed = reader.link.state() == LinkState::Closed;
        if bug == Bug::ForgetsWhatWasBufferedOnClose && closed {
            break;
        }
        match event {
            Event::Resumed(continuity) => {
                reconnected = true;
                match bug {
                    Bug::NeverSaysResumed => {}
                    Bug::ForgetsOneSubscriptionAfterReconnect if reader.number % 3 == 2 => {}
                    Bug::SaysResumedLate => late = Some(continuity),
                    Bug::SaysUnbroken => to.resumed(Continuity::Unbroken { replayed: 0 }),
                    Bug::RepeatsTheLastAfterReconnect => {
                        to.resumed(continuity);
                        last.clone().map(|last| to.push(last));
                    }
                    _ => to.resumed(continuity),
                }
            }
            Event::Lagged(_) if bug == Bug::SwallowsLag => {}
            Event::Lagged(count) if bug == Bug::MiscountsLag => to.lagged(count + 1),
            Event::Lagged(count) => to.lagged(count),
            Event::Message(payload) => {
                let deaf = match bug {
                    Bug::GoesDeafAfterReconnect => reconnected,
                    Bug::ForgetsOneSubscriptionAfterReconnect => {
                        reconnected && reader.number % 3 == 2
                    }
                    Bug::NeverEchoes => reader.own.lock().unwrap().contains(&payload),
                    _ => false,
                };
                if deaf {
                    continue;
                }
                last = Some(payload.clone());
                match bug {
                    Bug::SwallowsLag | Bug::MiscountsLag | Bug::ForgetsWhatWasBufferedOnClose => {
                        to.push_wait(payload).await;
                    }
                    _ => {
                        to.push(payload);
                    }
                }
                if let Some(continuity) = late.take() {
                    to.resumed(continuity);
                }
            }
            _ => {}
        }
    }
    to.end();
}
