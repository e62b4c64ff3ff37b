//! The transport: what somebody has to write for a broker that exists.

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    transport::{
        Backoff, BufferLimits, Capabilities, Connected, Continuity, Delivery, LinkState, LinkWatch,
        Receipt, SessionUp, Sessions, Subscription, SubscriptionSender, Topic, Transport,
    },
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, mpsc::error::TrySendError, oneshot},
    time::{Instant, interval, timeout, timeout_at},
};
use tokio_util::task::TaskTracker;

use crate::protocol::{Frame, framed};

/// Every call, and every attempt to connect, ends by then.
const CALL: Duration = Duration::from_secs(5);
/// The hub is asked for a sign of life this often; a connection on which nothing of ours comes back for four times as long is
/// dead. What others send proves nothing about the way to the hub.
const PING: Duration = Duration::from_millis(500);
/// How many frames may wait to be sent, and how many to come back. The next one is refused.
const WAITING: usize = 1_024;

/// A connection to a hub. Dropping it closes it.
#[derive(Debug)]
pub struct HubTransport(Connected<Hub>);

/// What outlives a session.
#[derive(Debug)]
struct Hub {
    address: String,
    prefix: String,
    client: u64,
    /// Leads to the present session, which has ended if nobody receives.
    queue: Mutex<mpsc::Sender<Request>>,
    /// What is wanted in every session: the name of a topic, and where its payloads go.
    subscriptions: Mutex<Vec<Wanted>>,
}

type Wanted = (String, SubscriptionSender);
/// A frame to send; once it has come back, who is told, and what is wanted from then on.
type Request = (Bytes, oneshot::Sender<()>, Option<Wanted>);

impl HubTransport {
    /// Connects to the hub at `address`, a host and a port. Transports with the same `prefix` are one cluster.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if no hub answers within 5 s.
    pub async fn connect(address: &str, prefix: &str) -> Result<Self> {
        let hub = Hub {
            address: address.to_owned(),
            // With the length in front, no two pairs of prefix and topic have the same name.
            prefix: format!("{}:{prefix}:", prefix.len()),
            client: fastrand::u64(..),
            queue: Mutex::new(mpsc::channel(1).0), // nobody receives
            subscriptions: Mutex::default(),
        };
        let connected = Connected::start("hub", hub, Backoff::default(), CALL);
        connected.await.map(Self)
    }

    /// Sends a frame to everybody and waits until it has come back: then the hub had it. It is put into the queue by the
    /// first poll, so the order is that of these.
    async fn send(&self, step: &'static str, frame: Bytes, wanted: Option<Wanted>) -> Result<()> {
        let (back, arrival) = oneshot::channel();
        if self.0.link().state() == LinkState::Closed {
            return Err(error(ErrorKind::Closed, step, "the transport was closed"));
        }
        let queued = lock(&self.0.sessions().queue).try_send((frame, back, wanted));
        queued.map_err(|refused| match refused {
            TrySendError::Full(_) => error(ErrorKind::Full, step, "the hub is too slow"),
            TrySendError::Closed(_) => error(ErrorKind::LinkDown, step, "the hub is away"),
        })?;
        match timeout(CALL, arrival).await {
            Ok(back) => back.map_err(|_| error(ErrorKind::Interrupted, step, "the hub went away")),
            Err(_) => Err(error(ErrorKind::Timeout, step, "the hub does not answer")),
        }
    }
}

#[async_trait]
impl Transport for HubTransport {
    fn name(&self) -> &'static str {
        "hub"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Delivery::AtMostOnce)
            .with_confirms(true)
            .with_total_order(true)
            .with_max_payload(256 << 10)
    }

    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        if payload.len() > self.capabilities().max_payload {
            return Err(error(ErrorKind::TooLarge, "publish", "over 256 KiB"));
        }
        let Hub { prefix, client, .. } = self.0.sessions();
        let frame = Frame::encode(*client, &format!("{prefix}{topic}"), &payload);
        self.send("publish", frame, None).await?;
        Ok(Receipt::default())
    }

    async fn subscribe(&self, topic: &Topic) -> Result<Subscription> {
        let (sender, subscription) = Subscription::channel(BufferLimits::default());
        // The hub sends everything to everybody. What comes before this frame was published before, and is not wanted.
        let Hub { prefix, client, .. } = self.0.sessions();
        let wanted = Some((format!("{prefix}{topic}"), sender));
        self.send("subscribe", Frame::ping(*client), wanted).await?;
        Ok(subscription)
    }

    fn link(&self) -> LinkWatch {
        self.0.link()
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await;
        Ok(())
    }
}

impl Sessions for Hub {
    async fn run(self: Arc<Self>, _: TaskTracker, up: SessionUp) -> Error {
        let Err(cause) = serve(&self, up).await;
        error(ErrorKind::Unavailable, "connect", "no connection").with_source(cause)
    }

    fn close(&self) {
        let mut subscriptions = lock(&self.subscriptions);
        subscriptions.drain(..).for_each(|(_, sender)| sender.end());
    }

    fn silent(&self, limit: Duration) -> String {
        format!("{}: no answer within {limit:?}", self.address)
    }
}

/// One connection's life.
async fn serve(hub: &Hub, up: SessionUp) -> io::Result<Infallible> {
    let (mut sink, mut stream) = framed(TcpStream::connect(&hub.address).await?).split();
    let (queue, mut requests) = mpsc::channel(WAITING);
    let (sent, mut waiting) = mpsc::channel(WAITING);
    let mut pings = interval(PING);
    let writing = async {
        loop {
            let (frame, back, wanted) = tokio::select! {
                Some(request) = requests.recv() => request,
                _ = pings.tick() => (Frame::ping(hub.client), oneshot::channel().0, None),
            };
            // First this: the frame may be back at once. Who receives it lives as long as we do.
            let _ = sent.send((back, wanted)).await;
            sink.send(frame).await?;
        }
    };
    let reading = async {
        let (mut starting, mut answered) = (Some((queue, up)), Instant::now());
        loop {
            let frame = timeout_at(answered + 4 * PING, Frame::read(&mut stream)).await??;
            lock(&hub.subscriptions).retain(|(topic, sender)| {
                if starting.is_some() {
                    sender.resumed(Continuity::Unknown);
                }
                if *topic == frame.topic {
                    sender.push(frame.payload.clone());
                }
                !sender.is_closed()
            });
            // Whatever came first: the hub knows us, and sends us everything from now on.
            if let Some((queue, up)) = starting.take() {
                *lock(&hub.queue) = queue;
                up.up();
            }
            // Our own frames come back in the order in which they were sent.
            if frame.client == hub.client {
                answered = Instant::now();
                if let Ok((back, wanted)) = waiting.try_recv() {
                    lock(&hub.subscriptions).extend(wanted);
                    let _ = back.send(());
                }
            }
        }
    };
    // Side by side, so that neither direction can block the other.
    tokio::select! { ended = reading => ended, ended = writing => ended }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn error(kind: ErrorKind, step: &str, what: &'static str) -> Error {
    Error::new(kind, format!("hub: {step}"), what)
}
