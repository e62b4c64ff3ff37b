//! The transport: what somebody has to write for a broker that exists.

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use socketioxide_adapter_core::{
    ErrorKind, Result,
    backend::Endpoint,
    transport::{
        Capabilities, Connected, Continuity, Delivery, Driver, Limits, Name, Receipt, SessionUp,
        Step, Topic, Topics,
        pulse::{SILENT_TICKS, TICK, ticks},
    },
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, mpsc::error::TrySendError, oneshot},
    time::{Instant, timeout_at},
};
use tokio_util::task::TaskTracker;

use crate::protocol::{Frame, framed};

const NAME: &str = "hub";
/// How many frames may wait to be sent, and how many to come back. The next one is refused.
const WAITING: usize = 1_024;

/// A connection to a hub. Dropping it closes it.
pub type HubTransport = Connected<Hub>;

/// What outlives a session.
#[derive(Debug)]
pub struct Hub {
    endpoint: Endpoint,
    topics: Topics,
    /// Leads to the present session, which has ended if nobody receives.
    queue: Mutex<mpsc::Sender<Outgoing>>,
}

/// What is sent, and what to do once it has come back.
#[derive(Debug)]
struct Outgoing {
    topic: String,
    payload: Bytes,
    back: Back,
}

#[derive(Debug)]
enum Back {
    /// The hub had it: this one is told.
    Published(oneshot::Sender<()>),
    /// What is published to these from now on arrives.
    Subscribed(Vec<Name>),
}

/// Connects to a hub. Transports with the same prefix are one cluster.
///
/// # Errors
/// [`ErrorKind::Config`] if the endpoint cannot be used, [`ErrorKind::Unavailable`] if no hub answers by its
/// `connect_timeout`.
pub async fn connect(endpoint: Endpoint) -> Result<HubTransport> {
    endpoint.validate("hub: config", 8 << 20)?;
    Connected::start(Hub {
        endpoint,
        topics: Topics::default(),
        queue: Mutex::new(mpsc::channel(1).0), // nobody receives
    })
    .await
}

impl Driver for Hub {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Delivery::AtMostOnce)
            .with_confirms(true)
            .with_total_order(true)
            .with_max_payload(256 << 10)
    }

    fn limits(&self) -> &Limits {
        &self.endpoint.limits
    }

    fn at(&self) -> String {
        self.endpoint.at()
    }

    fn topics(&self) -> &Topics {
        &self.topics
    }

    fn topic(&self, topic: &Topic) -> (String, bool) {
        // With the length in front, no two pairs of prefix and topic have the same name.
        let prefix = &self.endpoint.prefix;
        (format!("{}:{prefix}:{topic}", prefix.len()), false)
    }

    /// Waits until the payload has come back: then the hub had it. It is put into the queue by the first poll, so the order is
    /// that of these.
    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        const STEP: Step = Step::Publish;
        let (told, arrival) = oneshot::channel();
        let outgoing = Outgoing {
            topic: self.topic(topic).0,
            payload,
            back: Back::Published(told),
        };
        self.queue()
            .try_send(outgoing)
            .map_err(|refused| match refused {
                TrySendError::Full(_) => STEP.error(NAME, ErrorKind::Full, "the hub is too slow"),
                TrySendError::Closed(_) => STEP.down(NAME, self.at()),
            })?;
        let lost = |_| STEP.interrupted(NAME, self.at());
        arrival.await.map_err(lost)?;
        Ok(Receipt::default())
    }

    async fn run(self: Arc<Self>, _: TaskTracker, up: SessionUp) -> Result<Infallible> {
        let failed = |cause: io::Error| {
            let message = format!("{}: no connection", self.at());
            let error = Step::Connect.error(NAME, ErrorKind::Unavailable, message);
            error.with_source(cause)
        };
        self.serve(up).await.map_err(failed)
    }
}

impl Hub {
    fn queue(&self) -> std::sync::MutexGuard<'_, mpsc::Sender<Outgoing>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One connection's life.
    async fn serve(&self, up: SessionUp) -> io::Result<Infallible> {
        let server = self.endpoint.servers.first();
        let address = server.map(|server| (server.host(), server.port()));
        let connection = TcpStream::connect(address.unwrap_or_default()).await?;
        let (mut sink, mut stream) = framed(connection).split();
        let (queue, mut outgoing) = mpsc::channel(WAITING);
        let (sent, mut waiting) = mpsc::channel(WAITING);
        // Frames of the connection before may still come from the hub: they are no answers to ours.
        let (session, client) = (self.topics.session(), fastrand::u64(..));
        let mut ticks = ticks();
        let writing = async {
            loop {
                let next = tokio::select! {
                    Some(next) = outgoing.recv() => next,
                    // The hub sends everything to everybody and need not be told what is wanted. What comes before this
                    // frame was published before, and is not. Without a wish, it is a question for a sign of life.
                    () = self.topics.changed() => self.ask(),
                    _ = ticks.tick() => self.ask(),
                };
                // First this: the frame may be back at once. Who receives it lives as long as we do.
                let _ = sent.send(next.back).await;
                let frame = Frame::encode(client, &next.topic, &next.payload);
                sink.send(frame).await?;
            }
        };
        let reading = async {
            let (mut starting, mut answered) = (Some((queue, up)), Instant::now());
            loop {
                // What others send proves nothing about the way to the hub.
                let silent = answered + SILENT_TICKS * TICK;
                let frame = timeout_at(silent, Frame::read(&mut stream)).await??;
                self.topics.push(session, &frame.topic, frame.payload);
                if frame.client != client {
                    continue;
                }
                answered = Instant::now();
                // Our own frames come back in the order in which they were sent.
                match waiting.try_recv() {
                    Ok(Back::Published(told)) => drop(told.send(())),
                    Ok(Back::Subscribed(names)) => {
                        let unknown = |_: &str| Continuity::Unknown;
                        self.topics.confirm(&names, 0, unknown);
                    }
                    Err(_) => return Err(io::ErrorKind::InvalidData.into()),
                }
                // The hub knows us, and everything that was wanted when the session began arrives.
                if let Some((queue, up)) = starting.take() {
                    *self.queue() = queue;
                    up.up();
                }
            }
        };
        // Side by side, so that neither direction can block the other.
        tokio::select! { ended = reading => ended, ended = writing => ended }
    }

    /// A frame that is only to come back, after which all that is wanted arrives.
    fn ask(&self) -> Outgoing {
        let missing = self.topics.differences().missing;
        self.topics.ask(&missing);
        Outgoing {
            topic: String::new(),
            payload: Bytes::new(),
            back: Back::Subscribed(missing),
        }
    }
}
