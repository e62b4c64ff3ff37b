//! The broker: copies every frame that a client sends to all clients, the sender included.
//!
//! `hub 127.0.0.1:7000` serves until it is killed; on SIGHUP it closes all connections.

use std::{
    collections::HashMap,
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use custom_transport::protocol::framed;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::sleep,
};

/// Frames that may wait for a client. One that falls further behind is cut off, so that it does not hold up the others.
const WAITING: usize = 8_192;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: hub ADDRESS")?;
    let listener = TcpListener::bind(address).await?;
    let mut hangup = signal(SignalKind::hangup())?;
    let hub = Hub::default();
    for connection in 0.. {
        tokio::select! {
            _ = hangup.recv() => hub.clients().clear(),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(hub.clone().serve(connection, stream))),
                // Out of files, for example; soon some will be free.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
        }
    }
    Ok(())
}

/// The present connection of each client, and what is to be sent on it. Removing one closes it.
type Clients = HashMap<u64, (u64, mpsc::Sender<Bytes>)>;

#[derive(Clone, Default)]
struct Hub(Arc<Mutex<Clients>>);

impl Hub {
    async fn serve(self, connection: u64, stream: TcpStream) {
        let (mut sink, mut stream) = framed(stream).split();
        let (queue, mut frames) = mpsc::channel::<Bytes>(WAITING);
        let writing = async {
            while let Some(frame) = frames.recv().await {
                sink.send(frame).await?;
            }
            std::io::Result::Ok(())
        };
        let reading = async {
            let mut new = Some(queue);
            while let Some(Ok(frame)) = stream.next().await {
                let frame = frame.freeze();
                let Ok(client) = frame.clone().try_get_u64() else {
                    return;
                };
                // Under one lock, so that all clients get all frames in the same order.
                let mut clients = self.clients();
                if let Some(queue) = new.take() {
                    clients.insert(client, (connection, queue));
                }
                // A client that came back on another connection: what was still on its way here would be late.
                if clients
                    .get(&client)
                    .is_none_or(|(now, _)| *now != connection)
                {
                    return;
                }
                clients.retain(|_, (_, queue)| queue.try_send(frame.clone()).is_ok());
            }
        };
        tokio::select! {
            _ = writing => {}
            () = reading => {}
        }
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
