//! Reading the log: a consumer that is asked for frames in portions, and noticed when it falls silent.

use std::{convert::Infallible, time::Duration};

use async_nats::{
    Message, StatusCode, Subscriber,
    jetstream::{self, Context},
};
use futures_util::StreamExt as _;
use serde_json::json;
use socketioxide_adapter_core::{Error, ErrorKind, Result};
use tokio::time::timeout;

use super::{nanos, position::Position};
use crate::{error::Step, transport::Shared};

/// Most bytes that the server may send unasked for: two portions.
const BYTES: usize = 64 << 20;
/// How many frames a portion has, depending on how large a frame may be.
const PORTION: std::ops::RangeInclusive<usize> = 8..=256;
/// When the server gives up a portion that does not become full.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often the server says that there is nothing new. NATS allows no less than 100 ms.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How long a reader that stands still may hold up the other namespaces of this node. Less than the three heartbeats
/// after which they would be taken for deaf.
const PATIENCE: Duration = Duration::from_secs(5);
/// Without a frame or a heartbeat for so long, the consumer is taken for deaf.
const SILENCE: Duration = Duration::from_millis(2_500);

pub(super) struct Reader<'a> {
    context: Context,
    /// Where portions are asked for.
    next: String,
    inbox: &'a str,
    messages: Subscriber,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        context: Context,
        next: String,
        inbox: &'a str,
        messages: Subscriber,
    ) -> Self {
        Self {
            context,
            next,
            inbox,
            messages,
        }
    }

    /// Hands out frames in order until something is wrong.
    pub(super) async fn run(mut self, shared: &Shared, position: &Position) -> Result<Infallible> {
        let largest = self.context.client().max_payload().max(1);
        let portion = (BYTES / 2 / largest).clamp(*PORTION.start(), *PORTION.end());
        self.ask(portion).await?;
        self.ask(portion).await?;
        let (mut expected, mut of_portion) = (1, 0);
        loop {
            let message = timeout(SILENCE, self.messages.next()).await;
            let message = message.map_err(|_| broken("the consumer is silent"))?;
            let message = message.ok_or_else(|| broken("the connection was lost"))?;
            // Only the server can send with such a reply. A status could also be the work of a publisher.
            if !message
                .reply
                .as_ref()
                .is_some_and(|it| it.starts_with("$JS.ACK."))
            {
                if let Some(left) = unfilled(&message, portion)? {
                    self.ask(left).await?;
                }
                continue;
            }
            let message = jetstream::Message {
                message,
                context: self.context.clone(),
            };
            let info = message
                .info()
                .map_err(|_| broken("a frame without a number"))?;
            if info.consumer_sequence != expected {
                return Err(broken("the client could not hold all frames"));
            }
            let subject = message.subject.as_str();
            let number = info.stream_sequence;
            if let Some(verdict) = position.before(number, info.pending) {
                let continuity =
                    |subject: &str| shared.is_logged(subject).then(|| verdict.of(subject));
                shared.topics.tell(number, continuity);
            }
            for recipient in shared.topics.recipients(subject, number) {
                recipient.receive(&message.payload, PATIENCE).await;
            }
            position.advance(subject, number, info.published);
            expected += 1;
            of_portion += 1;
            if of_portion == portion {
                of_portion = 0;
                self.ask(portion).await?;
            }
        }
    }

    /// Asks for the next `count` frames.
    async fn ask(&self, count: usize) -> Result<()> {
        let request = json!({
            "batch": count,
            "expires": nanos(EXPIRES),
            "idle_heartbeat": nanos(HEARTBEAT),
        });
        let (next, inbox) = (self.next.clone(), self.inbox.to_owned());
        let client = self.context.client();
        let call = client.publish_with_reply(next, inbox, request.to_string().into());
        call.await.map_err(|_| broken("the connection was lost"))
    }
}

/// How many frames must be asked for again, if the server has given up a portion.
fn unfilled(message: &Message, portion: usize) -> Result<Option<usize>> {
    match message.status {
        Some(StatusCode::IDLE_HEARTBEAT) => Ok(None),
        Some(StatusCode::TIMEOUT) => {
            let headers = message.headers.as_ref();
            let left = headers.and_then(|headers| headers.get("Nats-Pending-Messages"));
            let left = left.and_then(|left| left.as_str().parse().ok());
            Ok(Some(left.unwrap_or(portion)))
        }
        _ => {
            let what = message.description.as_deref().unwrap_or("no such consumer");
            Err(broken(&format!("the consumer was lost ({what})")))
        }
    }
}

fn broken(what: &str) -> Error {
    Step::Link.error(ErrorKind::Interrupted, format!("JetStream: {what}"))
}
