//! The server of the end-to-end tests: every operation of the adapter, at the command of a client.
//!
//! It prints JSON lines on standard output: one `ready` with the nodes and their ports, then every cluster event as it
//! happens. It stops, saying goodbye, when its standard input ends, so that it cannot outlive the test that started it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod operations;
mod publisher;

use std::{
    error::Error,
    future::ready,
    process::ExitCode,
    time::{Duration, Instant},
};

use serde_json::json;
use socketioxide::{ParserConfig, SocketIo, handler::ConnectHandler as _};
use socketioxide_adapter::{
    Cluster, ClusterAdapter, ClusterConfig, ClusterEvent, ClusterEvents, connect_with,
};
use tokio::{io::AsyncReadExt, net::TcpListener, task::JoinSet};

const USAGE: &str =
    "usage: e2e-server BUS_URL [--nodes N] [--parser common|msgpack] [--retry-for-ms MS]";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let bus = args.next().ok_or(USAGE)?;
    let (mut nodes, mut msgpack, mut config) = (1_usize, false, ClusterConfig::default());
    while let Some(name) = args.next() {
        let value = args.next().ok_or(USAGE)?;
        match (name.as_str(), value.as_str()) {
            ("--nodes", count) => nodes = count.parse()?,
            ("--parser", "common") => msgpack = false,
            ("--parser", "msgpack") => msgpack = true,
            ("--retry-for-ms", ms) => {
                config = config.with_retry_for(Duration::from_millis(ms.parse()?));
            }
            _ => return Err(USAGE.into()),
        }
    }

    let mut tasks = JoinSet::new();
    let mut clusters = Vec::new();
    let mut ready = Vec::new();
    for _ in 0..nodes {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let cluster = start(&bus, config.clone(), msgpack, listener, &mut tasks).await?;
        ready.push(json!({ "node": name(&cluster), "port": port }));
        clusters.push(cluster);
    }
    println!("{}", json!({ "ready": ready }));

    let mut rest = Vec::new();
    tokio::io::stdin().read_to_end(&mut rest).await?;
    for cluster in clusters {
        cluster.shutdown().await?;
    }
    println!("{}", json!({ "stopped": true }));
    Ok(())
}

async fn start(
    bus: &str,
    config: ClusterConfig,
    msgpack: bool,
    listener: TcpListener,
    tasks: &mut JoinSet<()>,
) -> Result<Cluster, Box<dyn Error>> {
    let cluster = connect_with(bus, config).await?;
    let mut builder = SocketIo::builder();
    if msgpack {
        builder = builder.with_parser(ParserConfig::msgpack());
    }
    let (layer, io) = builder
        // The tests prove that the adapter loses nothing; a client's own queue must not be the one that does.
        .max_buffer_size(1 << 16)
        .max_payload(4 << 20)
        .with_adapter::<ClusterAdapter<_>>(cluster.clone())
        .with_state(cluster.clone())
        .build_layer();
    tasks.spawn(report(cluster.events(), cluster.clone()));
    let connected = (|| ready(())).with(operations::register);
    io.ns("/", connected.clone()).await?;
    io.dyn_ns("/dynamic/{name}", connected)?;
    let app = axum::Router::new().layer(layer);
    tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            eprintln!("web server: {error}");
        }
    });
    Ok(cluster)
}

/// Prints the events of one node, each with the milliseconds since the start of its process.
async fn report(mut events: ClusterEvents, cluster: Cluster) {
    let started = Instant::now();
    while let Some(event) = events.recv().await {
        let mut line = json!({ "at": name(&cluster), "ms": started.elapsed().as_millis(), "text": event.to_string() });
        let (kind, details) = describe(&event);
        line["event"] = kind.into();
        line["details"] = details;
        println!("{line}");
    }
}

fn describe(event: &ClusterEvent) -> (&'static str, serde_json::Value) {
    match event {
        ClusterEvent::Joined { node } => ("joined", json!({ "node": node.to_string() })),
        ClusterEvent::Left { node, reason } => (
            "left",
            json!({ "node": node.to_string(), "reason": format!("{reason:?}") }),
        ),
        ClusterEvent::LinkUp => ("link-up", json!({})),
        ClusterEvent::LinkDown { .. } => ("link-down", json!({})),
        ClusterEvent::Gap {
            origin,
            namespace,
            count,
            ..
        } => (
            "gap",
            json!({ "origin": origin.to_string(), "namespace": namespace.as_str(), "count": count }),
        ),
        ClusterEvent::Unsent {
            namespace, count, ..
        } => (
            "unsent",
            json!({ "namespace": namespace.as_str(), "count": count }),
        ),
        ClusterEvent::Incomplete { missing, .. } => {
            let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
            ("incomplete", json!({ "missing": missing }))
        }
        _ => ("other", json!({})),
    }
}

/// The node's id as the tests know it.
pub(crate) fn name(cluster: &Cluster) -> String {
    cluster
        .node_id()
        .map(|id| id.to_string())
        .unwrap_or_default()
}
