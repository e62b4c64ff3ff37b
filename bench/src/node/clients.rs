//! Socket.IO clients over WebSocket, as many as wanted, connected to one server.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use socketioxide_core::Value;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use super::{Node, Nodes, Result, Role, text};
use crate::heard::Heard;

/// Longest wait for one client to be let in.
const PATIENCE: Duration = Duration::from_secs(10);

/// The clients of a process; they only listen.
pub(crate) struct Clients {
    _tasks: JoinSet<Result<()>>,
}

/// Connects `role.sockets` clients to the server at `role.url`.
pub(crate) async fn clients(role: &Role) -> Result<Nodes<Clients>> {
    let heard = Arc::<Heard>::default();
    let mut tasks = JoinSet::new();
    for _ in 0..role.sockets {
        let socket = timeout(PATIENCE, connect(&role.url))
            .await
            .map_err(text)??;
        tasks.spawn(listen(socket, heard.clone()));
    }
    let nodes = vec![Arc::new(Clients { _tasks: tasks })];
    Ok(Nodes { nodes, heard })
}

/// Opens the connection and the default namespace.
async fn connect(address: &str) -> Result<WebSocketStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.map_err(text)?;
    stream.set_nodelay(true).map_err(text)?;
    let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
    let (mut socket, _) = client_async(url, stream).await.map_err(text)?;
    loop {
        match next(&mut socket).await?.as_str() {
            open if open.starts_with('0') => {
                socket.send(Message::text("40")).await.map_err(text)?;
            }
            connected if connected.starts_with("40") => return Ok(socket),
            _ => {}
        }
    }
}

/// Hears events and answers pings until the connection ends.
async fn listen(mut socket: WebSocketStream<TcpStream>, heard: Arc<Heard>) -> Result<()> {
    loop {
        let packet = next(&mut socket).await?;
        if packet == "2" {
            socket.send(Message::text("3")).await.map_err(text)?;
        } else if let Some(event) = packet.strip_prefix('4') {
            heard.message(event.as_bytes());
        }
    }
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Result<String> {
    let message = socket
        .next()
        .await
        .ok_or("the server closed the connection")?;
    Ok(message
        .map_err(text)?
        .into_text()
        .map_err(text)?
        .to_string())
}

impl Node for Clients {
    async fn send(&self, _message: Value) -> Result<()> {
        Err("clients only listen".to_owned())
    }
}
