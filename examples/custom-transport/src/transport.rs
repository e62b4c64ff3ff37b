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
        Backoff, BufferLimits, Capabilities, Continuity, Delivery, LinkSender, LinkState,
        LinkWatch, Receipt, SessionUp, Subscription, SubscriptionSender, Supervisor, Topic,
        Transport, link, supervise,
    },
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, mpsc::error::TrySendError, oneshot},
    time::{Instant, interval, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

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
pub struct HubTransport {
    shared: Arc<Shared>,
    link: LinkSender,
    task: AbortOnDropHandle<Option<Error>>,
}

/// What outlives a session.
#[derive(Debug)]
struct Shared {
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
        let shared = Arc::new(Shared {
            address: address.to_owned(),
            // With the length in front, no two pairs of prefix and topic have the same name.
            prefix: format!("{}:{prefix}:", prefix.len()),
            client: fastrand::u64(..),
            queue: Mutex::new(mpsc::channel(1).0), // nobody receives
            subscriptions: Mutex::default(),
        });
        let (link, mut watch) = link();
        let supervisor = Supervisor {
            name: "hub",
            link: link.clone(),
            backoff: Backoff::default(),
            connect_timeout: CALL,
            shutdown: CancellationToken::new(),
        };
        let sessions = shared.clone();
        let task = supervise(supervisor, move |up| session(sessions.clone(), up));
        let task = AbortOnDropHandle::new(tokio::spawn(task));
        let up = timeout(CALL, watch.wait_for(|status| status.epoch > 0)).await;
        up.map_err(|_| error(ErrorKind::Unavailable, "connect", "no hub answers"))?;
        Ok(Self { shared, link, task })
    }

    /// Sends a frame to everybody and waits until it has come back: then the hub had it. It is put into the queue by the
    /// first poll, so the order is that of these.
    async fn send(&self, step: &'static str, frame: Bytes, wanted: Option<Wanted>) -> Result<()> {
        let (back, arrival) = oneshot::channel();
        if self.link.watch().state() == LinkState::Closed {
            return Err(error(ErrorKind::Closed, step, "the transport was closed"));
        }
        let queued = lock(&self.shared.queue).try_send((frame, back, wanted));
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
        let name = format!("{}{topic}", self.shared.prefix);
        let frame = Frame::encode(self.shared.client, &name, &payload);
        self.send("publish", frame, None).await?;
        Ok(Receipt::default())
    }

    async fn subscribe(&self, topic: &Topic) -> Result<Subscription> {
        let (sender, subscription) = Subscription::channel(BufferLimits::default());
        // The hub sends everything to everybody. What comes before this frame was published before, and is not wanted.
        let wanted = Some((format!("{}{topic}", self.shared.prefix), sender));
        let ping = Frame::ping(self.shared.client);
        self.send("subscribe", ping, wanted).await?;
        Ok(subscription)
    }

    fn link(&self) -> LinkWatch {
        self.link.watch()
    }

    async fn close(&self) -> Result<()> {
        self.link.closed(None);
        self.task.abort();
        let mut subscriptions = lock(&self.shared.subscriptions);
        subscriptions.drain(..).for_each(|(_, sender)| sender.end());
        Ok(())
    }
}

/// One connection's life; returns why it ended.
async fn session(shared: Arc<Shared>, up: SessionUp) -> Error {
    let Err(cause) = serve(&shared, up).await;
    error(ErrorKind::Unavailable, "session", "no connection").with_source(cause)
}

async fn serve(shared: &Shared, up: SessionUp) -> io::Result<Infallible> {
    let (mut sink, mut stream) = framed(TcpStream::connect(&shared.address).await?).split();
    let (queue, mut requests) = mpsc::channel(WAITING);
    let (sent, mut waiting) = mpsc::channel(WAITING);
    let mut pings = interval(PING);
    let writing = async {
        loop {
            let (frame, back, wanted) = tokio::select! {
                Some(request) = requests.recv() => request,
                _ = pings.tick() => (Frame::ping(shared.client), oneshot::channel().0, None),
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
            lock(&shared.subscriptions).retain(|(topic, sender)| {
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
                *lock(&shared.queue) = queue;
                up.up();
            }
            // Our own frames come back in the order in which they were sent.
            if frame.client == shared.client {
                answered = Instant::now();
                if let Ok((back, wanted)) = waiting.try_recv() {
                    lock(&shared.subscriptions).extend(wanted);
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
