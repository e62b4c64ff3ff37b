//! One server, any broker: only the URL changes.
//!
//! Start it as often as you like, with the same URL, and connect Socket.IO clients to any of them:
//!
//! ```text
//! cargo run --example swap-backend -- redis://127.0.0.1:6379
//! cargo run --example swap-backend --features full -- nats://127.0.0.1:4222
//! ```
//!
//! A client that emits `say` with a text reaches the clients of all servers; one that emits `who` is told the ids of all
//! others.
#![allow(clippy::print_stdout)]

use std::{convert::Infallible, error::Error, future::ready};

use socketioxide::{
    SocketIo,
    adapter::Adapter,
    extract::{AckSender, Data, SocketRef},
    handler::ConnectHandler as _,
    socket::Sid,
};
use socketioxide_adapter::{ClusterAdapter, connect};
use tokio::{net::TcpListener, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "memory://swap".to_owned());

    let cluster = connect(&url).await?;
    let (layer, io) = SocketIo::builder()
        .with_adapter::<ClusterAdapter<_>>(cluster.clone())
        .build_layer();
    // A middleware has set the handlers before a client is told that it is connected: its first event finds them.
    io.ns("/", (|| ready(())).with(handlers)).await?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    let app = axum::Router::new().layer(layer);
    let served = axum::serve(listener, app);
    tokio::select! {
        served = served.into_future() => served?,
        stop = signal::ctrl_c() => stop?,
    }
    // Tells the other servers, so that they do not have to find out.
    io.close().await;
    cluster.shutdown().await?;
    Ok(())
}

async fn handlers<A: Adapter>(socket: SocketRef<A>) -> Result<(), Infallible> {
    socket.on("say", say);
    socket.on("who", who);
    Ok(())
}

async fn say<A: Adapter>(socket: SocketRef<A>, Data(text): Data<String>) {
    if let Err(error) = socket.broadcast().emit("said", &text).await {
        socket.emit("problem", &error.to_string()).ok();
    }
}

async fn who<A: Adapter>(socket: SocketRef<A>, ack: AckSender<A>) {
    let found = socket.broadcast().fetch_sockets().await;
    match found {
        Ok(found) => {
            let ids: Vec<Sid> = found.iter().map(|socket| socket.data().id).collect();
            ack.send(&ids).ok();
        }
        Err(error) => {
            socket.emit("problem", &error.to_string()).ok();
        }
    }
}
