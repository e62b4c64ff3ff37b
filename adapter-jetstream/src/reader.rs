//! Reading the stream: a consumer that is asked for frames in portions, and noticed when it falls silent.

use std::{convert::Infallible, time::Duration};

use async_nats::{
    Message, StatusCode,
    jetstream::{self, Context},
};
use futures_util::StreamExt as _;
use serde_json::json;
use socketioxide_adapter_core::{Result, transport::log::Page};
use socketioxide_adapter_nats::companion::Session;
use tokio::time::{Instant, timeout};

use crate::{JetStream, error::broken, stream::nanos};

/// Most bytes that the server may send unasked for: two portions of frames as large as can be.
const UNASKED: usize = 64 << 20;
/// Bytes of a portion at most, about.
const PORTION: usize = 4 << 20;
/// When the server gives up a portion that does not become full.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often the server says that there is nothing new. NATS allows no less than 100 ms.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How long a reader that stands still may hold up the other namespaces of this node. Less than the three heartbeats
/// after which they would be taken for deaf.
const PATIENCE: Duration = Duration::from_secs(5);
/// Without a frame or a heartbeat for so long, the consumer is taken for deaf.
const SILENCE: Duration = Duration::from_millis(2_500);

pub(crate) struct Reader {
    pub(crate) context: Context,
    /// Where portions are asked for.
    pub(crate) next: String,
    pub(crate) session: Session,
}

/// A portion, while it comes.
#[derive(Default)]
struct Coming {
    asked: usize,
    frames: usize,
    bytes: usize,
    /// How long it was waited for while the server had frames.
    waited: Option<Duration>,
}

impl Coming {
    fn new(asked: usize) -> Self {
        Self {
            asked,
            ..Self::default()
        }
    }
}

impl Reader {
    /// Hands out frames in order until something is wrong.
    pub(crate) async fn run(mut self, log: &JetStream) -> Result<Infallible> {
        let mut portion = page(self.session.client.max_payload());
        // One comes while the next one is on its way.
        let (mut coming, mut following) = (Coming::new(portion.entries()), portion.entries());
        self.ask(coming.asked).await?;
        self.ask(following).await?;
        let (mut expected, mut is_behind) = (1, false);
        loop {
            let began = Instant::now();
            let message = timeout(SILENCE, self.session.messages.next()).await;
            if is_behind {
                *coming.waited.get_or_insert_default() += began.elapsed();
            }
            let message = message.map_err(|_| broken("the consumer is silent"))?;
            let message = message.ok_or_else(|| broken("the connection was lost"))?;
            // Only the server can send with such a reply. A status could also be the work of a publisher.
            if !message
                .reply
                .as_ref()
                .is_some_and(|it| it.starts_with("$JS.ACK."))
            {
                if let Some(left) = unfilled(&message, coming.asked)? {
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
            expected += 1;
            is_behind = info.pending > 0;
            let (number, published) = (info.stream_sequence, info.published);
            if let Some(verdict) = log.position.before(number, info.pending) {
                let continuity = |subject: &str| Some(verdict.of(subject));
                log.topics.tell(number, continuity);
            }
            let Message {
                subject,
                payload,
                length,
                ..
            } = message.message;
            log.topics.pass(&subject, number, payload, PATIENCE).await;
            log.position.advance(&subject, number, published);
            coming.frames += 1;
            coming.bytes += length;
            if coming.frames == coming.asked {
                portion.saw(coming.frames, coming.bytes, coming.waited);
                coming = Coming::new(std::mem::replace(&mut following, portion.entries()));
                self.ask(following).await?;
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
        let (next, inbox) = (self.next.clone(), self.session.inbox.clone());
        let payload = request.to_string().into();
        let call = self.session.client.publish_with_reply(next, inbox, payload);
        call.await.map_err(|_| broken("the connection was lost"))
    }
}

/// How many frames a portion has, which can have so many bytes each.
fn page(largest: usize) -> Page {
    Page::new((UNASKED / 2 / largest.max(1)).clamp(8, 256), PORTION)
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
