//! One chat on several nodes: every page talks to one server, and everybody hears everybody.
//!
//! ```text
//! cargo run --example chat                                    three nodes in this process, on the in-memory bus
//! cargo run --example chat -- --bus redis://127.0.0.1:6379 --nodes 1 --port 3000      one node, on a real broker
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod chat;
mod options;
mod page;
mod roster;

use std::{error::Error, process::ExitCode, sync::Arc, time::Duration};

use socketioxide::{SocketIo, adapter::Emitter};
use socketioxide_adapter::{ClusterAdapter, connect};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use crate::{
    chat::{Node, Siblings},
    options::Options,
};

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{}", options::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("chat: {problem}\n\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let mut listeners = Vec::new();
    for port in options.ports() {
        let address = format!("{}:{port}", options.host);
        let listener = TcpListener::bind(&address).await;
        listeners.push(listener.map_err(|error| format!("cannot listen on {address}: {error}"))?);
    }

    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let mut nodes = Vec::new();
    let siblings = Siblings::default();
    println!(
        "One chat, {} on {}\n",
        count(listeners.len()),
        options.bus_without_secrets()
    );
    for listener in listeners {
        let address = listener.local_addr()?;
        nodes.push(start(&options, listener, &siblings, stopping.clone(), &mut tasks).await?);
        println!("  http://{}:{}", options.visible_host(), address.port());
    }
    let _ = siblings.set(nodes.iter().map(|(node, _)| node.name()).collect());
    println!("\nOpen two of them in two tabs and talk across. Ctrl-C stops.");

    wait_for_stop().await?;
    println!("\nStopping: saying goodbye to the other nodes…");
    for (node, io) in nodes {
        io.close().await;
        if let Err(error) = node.shutdown().await {
            eprintln!("chat: {error}");
        }
    }
    stop.send_replace(true);
    // A browser that keeps a connection open must not keep the process alive.
    let finish = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_secs(3), finish).await;
    Ok(())
}

/// Starts one node: its link to the bus, its Socket.IO server and its web server.
async fn start(
    options: &Options,
    listener: TcpListener,
    siblings: &Siblings,
    stopping: watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) -> Result<(Arc<Node>, SocketIo<ClusterAdapter<Emitter>>), Box<dyn Error>> {
    let cluster = connect(&options.bus).await?;
    let label = format!("{}:{}", options.host, listener.local_addr()?.port());
    let node = Node::new(
        cluster.clone(),
        label,
        options.bus_name(),
        Arc::clone(siblings),
    );

    let (layer, io) = SocketIo::builder()
        .with_adapter::<ClusterAdapter<_>>(cluster.clone())
        .with_state(Arc::clone(&node))
        .build_layer();
    let events = chat::tell_events(cluster.events(), Arc::clone(&node), io.clone());
    let until = stopped(stopping.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = events => {}
            () = until => {}
        }
    });
    io.ns("/", chat::on_connect).await?;

    let app = page::routes()?.layer(layer);
    tasks.spawn(async move {
        let server = axum::serve(listener, app).with_graceful_shutdown(stopped(stopping));
        if let Err(error) = server.await {
            eprintln!("chat: web server: {error}");
        }
    });
    Ok((node, io))
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is as good as a stop.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Waits for Ctrl-C, or for the signal with which a service manager stops a process.
async fn wait_for_stop() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

fn count(nodes: usize) -> String {
    match nodes {
        1 => "one node".into(),
        n => format!("{n} nodes"),
    }
}
