//! A client: a real socket of a node, and everything that arrives at it.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream::FuturesUnordered};
use serde_json::Value;
use socketioxide::socket::Sid;
use tokio::{
    io::{DuplexStream, duplex},
    sync::{oneshot, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as WebSocketError, Message,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{
    Service,
    log::Log,
    packet::{self, Packet},
};
use crate::{LabError, LabResult};

/// Bytes on their way between a client and its server before the sender waits.
const PIPE: usize = 256 << 10;

/// Something that came to a client.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Arrival {
    /// An event.
    Event(Event),
    /// The server disconnected the socket, or is gone; nothing follows.
    Disconnected,
}

/// An event as a client sees it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// Its name.
    pub name: String,
    /// Its arguments; binary ones are placeholders.
    pub data: Vec<Value>,
    /// The binary arguments.
    pub attachments: Vec<Bytes>,
    /// Whether an acknowledgement is wanted.
    pub wants_ack: bool,
}

impl Event {
    /// The first argument, if it is a string.
    pub fn text(&self) -> Option<&str> {
        self.data.first()?.as_str()
    }
}

/// What a client does when an event wants an acknowledgement.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Reply {
    /// Nothing.
    #[default]
    Never,
    /// It answers at once.
    Now(Value),
    /// It answers later.
    After(Duration, Value),
}

/// A client that is connected to one namespace of a node. It writes down what arrives until it is dropped, which closes
/// its connection.
pub struct Client {
    sid: Sid,
    namespace: String,
    arrivals: Arc<Log<Arrival>>,
    reads: watch::Sender<bool>,
    /// Ends with the client.
    _task: JoinSet<()>,
}

impl Client {
    /// Connects over an in-process pipe; resolves once the namespace has let the socket in.
    pub(super) async fn connect(
        mut service: Service,
        namespace: &str,
        reply: Reply,
    ) -> LabResult<Self> {
        let (ours, theirs) = duplex(PIPE);
        let request = http::Request::get("/socket.io/?EIO=4&transport=websocket").body(())?;
        tower_service::Service::call(&mut service, (theirs, request)).await?;
        let arrivals = Arc::new(Log::new());
        let (connected, is_connected) = oneshot::channel();
        let reads = watch::Sender::new(true);
        let unlimited = WebSocketConfig::default()
            .max_message_size(None)
            .max_frame_size(None);
        let session = Session {
            socket: WebSocketStream::from_raw_socket(ours, Role::Client, Some(unlimited)).await,
            namespace: namespace.to_owned(),
            reply,
            arrivals: arrivals.clone(),
            reads: reads.subscribe(),
            connected: Some(connected),
        };
        let mut task = JoinSet::new();
        task.spawn(session.run());
        let gone = |_| LabError::from("the server closed the connection");
        let sid = is_connected.await.map_err(gone)??;
        Ok(Self {
            sid: sid.parse()?,
            namespace: namespace.to_owned(),
            arrivals,
            reads,
            _task: task,
        })
    }

    /// The id of the socket on the server.
    pub const fn sid(&self) -> Sid {
        self.sid
    }

    /// The namespace it is connected to.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Everything that has arrived.
    pub fn arrivals(&self) -> &Log<Arrival> {
        &self.arrivals
    }

    /// Begins or ceases to read from the connection, like one that is too slow: what the server sends piles up, first on the
    /// way, then at the server. One more event may arrive.
    pub fn reads(&self, reads: bool) {
        self.reads.send_replace(reads);
    }

    /// The first arguments of all events that have arrived, as far as they are strings.
    pub fn texts(&self) -> Vec<String> {
        self.arrivals.with(|arrivals| {
            let texts = arrivals.iter().filter_map(Arrival::text);
            texts.map(str::to_owned).collect()
        })
    }
}

impl Arrival {
    /// The first argument of an event, if it is a string.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Event(event) => event.text(),
            Self::Disconnected => None,
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("sid", &self.sid)
            .field("arrivals", &self.arrivals.len())
            .finish_non_exhaustive()
    }
}

/// The client's end of the connection.
struct Session {
    socket: WebSocketStream<DuplexStream>,
    namespace: String,
    reply: Reply,
    arrivals: Arc<Log<Arrival>>,
    reads: watch::Receiver<bool>,
    /// Told the socket's id once the namespace has let it in.
    connected: Option<oneshot::Sender<LabResult<String>>>,
}

impl Session {
    async fn run(mut self) {
        // An error is the end of the connection, which is an arrival like any other.
        let _ = self.serve().await;
        self.arrivals.push(Arrival::Disconnected);
    }

    async fn serve(&mut self) -> Result<(), WebSocketError> {
        let mut later = FuturesUnordered::new();
        loop {
            let message = tokio::select! {
                message = next(&mut self.socket, &mut self.reads) => message,
                Some(ack) = later.next(), if !later.is_empty() => {
                    self.socket.send(Message::text::<String>(ack)).await?;
                    continue;
                }
            };
            let text = match message.transpose()? {
                Some(Message::Text(text)) => text,
                Some(_) => continue,
                None => return Ok(()),
            };
            match Packet::parse(&text) {
                Packet::Open => {
                    let connect = packet::connect(&self.namespace);
                    self.socket.send(Message::text(connect)).await?;
                }
                Packet::Ping => self.socket.send(Message::text(packet::PONG)).await?,
                Packet::Connected { sid } => self.is_connected(Ok(sid)),
                Packet::Refused { reason } => {
                    self.is_connected(Err(format!("the namespace refused: {reason}").into()));
                }
                Packet::Disconnected => return Ok(()),
                Packet::Event {
                    data,
                    ack,
                    attachments,
                } => {
                    self.take_event(data, ack, attachments).await?;
                    let Some(id) = ack else { continue };
                    match self.reply.clone() {
                        Reply::Never => {}
                        Reply::Now(value) => {
                            let ack = packet::ack(&self.namespace, id, &value);
                            self.socket.send(Message::text(ack)).await?;
                        }
                        Reply::After(delay, value) => {
                            let ack = packet::ack(&self.namespace, id, &value);
                            later.push(async move {
                                sleep(delay).await;
                                ack
                            });
                        }
                    }
                }
                Packet::Other => {}
            }
        }
    }

    fn is_connected(&mut self, sid: LabResult<String>) {
        if let Some(connected) = self.connected.take() {
            // Whoever connects may have given up.
            let _ = connected.send(sid);
        }
    }

    /// Writes an event down once its attachments are there.
    async fn take_event(
        &mut self,
        data: Vec<Value>,
        ack: Option<u64>,
        attachments: usize,
    ) -> Result<(), WebSocketError> {
        let mut binary = Vec::new();
        while binary.len() < attachments {
            match self.socket.next().await.transpose()? {
                Some(Message::Binary(bytes)) => binary.push(bytes),
                Some(_) => {}
                None => return Ok(()),
            }
        }
        let mut data = data.into_iter();
        let name = match data.next() {
            Some(Value::String(name)) => name,
            _ => return Ok(()),
        };
        self.arrivals.push(Arrival::Event(Event {
            name,
            data: data.collect(),
            attachments: binary,
            wants_ack: ack.is_some(),
        }));
        Ok(())
    }
}

/// The next message, once the client is willing to read it.
async fn next(
    socket: &mut WebSocketStream<DuplexStream>,
    reads: &mut watch::Receiver<bool>,
) -> Option<Result<Message, WebSocketError>> {
    // A client that is gone reads to the end, which is near.
    let _ = reads.wait_for(|reads| *reads).await;
    socket.next().await
}
