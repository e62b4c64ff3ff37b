//! Emits reach exactly the sockets they are meant for, on every node, once and in order.

use bytes::Bytes;
use futures_util::future::try_join_all;
use serde_json::json;
use socketioxide_adapter_core::{ErrorKind, wire};

use super::stage::{
    SAID, acquainted, brisk, clients, expect_failure, expect_heard, heard, hears, say, words,
};
use crate::{
    cases::cases,
    check::{Verdict, ensure, ensure_eq, within},
    context::{Context, patience},
    node::{Arrival, Client, Node},
};

cases!("cluster::broadcast":
    an_emit_reaches_every_socket_of_every_node_once,
    eight_nodes_hear_each_other_once,
    rooms_and_exceptions_select_on_every_node,
    a_sender_is_left_out_or_not_as_the_operator_says,
    a_local_emit_stays_on_its_node,
    a_volatile_emit_reaches_clients_that_keep_up,
    an_emit_to_a_remote_socket_reaches_it_alone,
    a_socket_that_is_gone_is_no_error,
    the_emits_of_each_node_keep_their_order,
    texts_of_all_sizes_arrive_whole,
    binaries_arrive_whole,
    what_the_broker_cannot_take_fails_and_reaches_local_sockets,
);

async fn an_emit_reaches_every_socket_of_every_node_once(context: Context) -> Verdict {
    let nodes = context.cluster::<3>(brisk()).await?;
    let clients = clients(&nodes).await?;
    let others = try_join_all(nodes.iter().map(|node| node.client("/"))).await?;
    for (number, node) in nodes.iter().enumerate() {
        say(node, &number.to_string()).await?;
    }
    for client in clients.iter().chain(&others) {
        for node in &nodes {
            heard(node, client).await?;
        }
        let mut heard = heard(&nodes[0], client).await?;
        heard.sort();
        ensure_eq("what each client heard", &heard, &words(0..3))?;
    }
    Ok(())
}

async fn eight_nodes_hear_each_other_once(context: Context) -> Verdict {
    const EACH: u64 = 20;
    let nodes = context.cluster::<8>(brisk()).await?;
    let clients = clients(&nodes).await?;
    acquainted(&nodes.iter().collect::<Vec<_>>()).await?;
    for number in 0..EACH {
        for (name, node) in nodes.iter().enumerate() {
            say(node, &format!("{name}.{number:02}")).await?;
        }
    }
    let mut expected: Vec<String> = (0..nodes.len())
        .flat_map(|name| (0..EACH).map(move |number| format!("{name}.{number:02}")))
        .collect();
    expected.sort();
    for client in &clients {
        for node in &nodes {
            heard(node, client).await?;
        }
        let mut heard = heard(&nodes[0], client).await?;
        heard.sort();
        ensure_eq("what each client heard", &heard, &expected)?;
    }
    Ok(())
}

/// Two nodes with three sockets each: one in the room `red`, one in `blue`, one in both.
struct Rooms {
    nodes: [Node; 2],
    clients: Vec<(String, Client)>,
}

impl Rooms {
    async fn new(context: &Context) -> Verdict<Self> {
        let nodes = context.cluster::<2>(brisk()).await?;
        let mut clients = Vec::new();
        for (number, node) in nodes.iter().enumerate() {
            for rooms in ["red", "blue", "red+blue"] {
                let client = node.client("/").await?;
                let names: Vec<String> = rooms.split('+').map(str::to_owned).collect();
                node.socket("/", client.sid())?.join(names);
                clients.push((format!("{number}:{rooms}"), client));
            }
        }
        Ok(Self { nodes, clients })
    }

    /// Wants each client to have heard exactly the words whose lists name it; all were emitted by the first node.
    async fn expect(&self, words: &[(&str, &[&str])]) -> Verdict {
        for (name, client) in &self.clients {
            let expected = words.iter().filter(|(_, to)| to.contains(&name.as_str()));
            let expected: Vec<String> = expected.map(|(word, _)| (*word).to_owned()).collect();
            let what = format!("what the client {name} heard");
            ensure_eq(&what, &heard(&self.nodes[0], client).await?, &expected)?;
        }
        Ok(())
    }
}

async fn rooms_and_exceptions_select_on_every_node(context: Context) -> Verdict {
    let rooms = Rooms::new(&context).await?;
    let io = rooms.nodes[0].io();
    io.to("red").emit(SAID, "to red").await?;
    io.within("red").emit(SAID, "within red").await?;
    io.to(["red", "blue"]).emit(SAID, "to both").await?;
    io.except("red").emit(SAID, "except red").await?;
    io.except(["red", "blue"]).emit(SAID, "except both").await?;
    io.to("red").except("blue").emit(SAID, "red only").await?;
    io.to("nobody").emit(SAID, "to nobody").await?;
    io.to("").emit(SAID, "to a room without a name").await?;
    let red = &["0:red", "0:red+blue", "1:red", "1:red+blue"][..];
    let everybody = &[
        "0:red",
        "0:blue",
        "0:red+blue",
        "1:red",
        "1:blue",
        "1:red+blue",
    ][..];
    rooms
        .expect(&[
            ("to red", red),
            ("within red", red),
            ("to both", everybody),
            ("except red", &["0:blue", "1:blue"]),
            ("except both", &[]),
            ("red only", &["0:red", "1:red"]),
        ])
        .await
}

async fn a_sender_is_left_out_or_not_as_the_operator_says(context: Context) -> Verdict {
    let rooms = Rooms::new(&context).await?;
    let sender = rooms.nodes[0].socket("/", rooms.clients[2].1.sid())?;
    sender.broadcast().emit(SAID, "broadcast").await?;
    sender.to("red").emit(SAID, "to").await?;
    sender.except("blue").emit(SAID, "except").await?;
    sender.within("red").emit(SAID, "within").await?;
    sender
        .to("red")
        .except("blue")
        .emit(SAID, "to, except")
        .await?;
    rooms
        .expect(&[
            (
                "broadcast",
                &["0:red", "0:blue", "1:red", "1:blue", "1:red+blue"],
            ),
            ("to", &["0:red", "1:red", "1:red+blue"]),
            ("except", &["0:red", "1:red"]),
            ("within", &["0:red", "0:red+blue", "1:red", "1:red+blue"]),
            ("to, except", &["0:red", "1:red"]),
        ])
        .await
}

async fn a_local_emit_stays_on_its_node(context: Context) -> Verdict {
    let rooms = Rooms::new(&context).await?;
    let io = rooms.nodes[0].io();
    io.local().emit(SAID, "local").await?;
    io.to("red").local().emit(SAID, "local red").await?;
    rooms
        .expect(&[
            ("local", &["0:red", "0:blue", "0:red+blue"]),
            ("local red", &["0:red", "0:red+blue"]),
        ])
        .await
}

async fn a_volatile_emit_reaches_clients_that_keep_up(context: Context) -> Verdict {
    let [one, two] = context.cluster(brisk()).await?;
    let clients = [one.client("/").await?, two.client("/").await?];
    // A socket keeps only the newest volatile packet, so the next one waits for this one.
    for word in ["first", "second"] {
        one.io().volatile().emit(SAID, word).await?;
        for client in &clients {
            hears(client, word).await?;
        }
    }
    for client in &clients {
        expect_heard(&one, client, ["first", "second"]).await?;
    }
    Ok(())
}

async fn an_emit_to_a_remote_socket_reaches_it_alone(context: Context) -> Verdict {
    let rooms = Rooms::new(&context).await?;
    for (name, client) in &rooms.clients {
        let found = rooms.nodes[0].io().fetch_sockets().await?;
        let mut found = found
            .iter()
            .filter(|socket| socket.data().id == client.sid());
        let socket = found.next();
        ensure!(socket.is_some(), "the socket of {name} was not found");
        if let Some(socket) = socket {
            socket.emit(SAID, name).await?;
        }
    }
    for (name, client) in &rooms.clients {
        expect_heard(&rooms.nodes[0], client, [name]).await?;
    }
    Ok(())
}

async fn a_socket_that_is_gone_is_no_error(context: Context) -> Verdict {
    let [one, two] = context.cluster(brisk()).await?;
    let client = two.client("/").await?;
    let gone = two.client("/").await?;
    let sid = gone.sid();
    let found = one.io().fetch_sockets().await?;
    drop(gone);
    let left = async || Ok(two.socket("/", sid).is_err());
    crate::check::eventually(patience(), "the end of a socket", left).await?;
    for socket in found.iter().filter(|socket| socket.data().id == sid) {
        socket.emit(SAID, "to the gone").await?;
        ensure_eq(
            "rooms of a socket that is gone",
            &socket.rooms().await?.len(),
            &0,
        )?;
        socket.join("ghosts".to_owned()).await?;
    }
    one.io().to("ghosts").emit(SAID, "to ghosts").await?;
    expect_heard(&one, &client, [""; 0]).await?;
    ensure_eq("rooms", &one.io().rooms().await?.len(), &0)
}

async fn the_emits_of_each_node_keep_their_order(context: Context) -> Verdict {
    const COUNT: u64 = 500;
    let nodes = context.cluster::<3>(brisk()).await?;
    let clients = clients(&nodes).await?;
    for (node, client) in nodes.iter().zip(&clients) {
        node.socket("/", client.sid())?.join("room");
    }
    let emitting = nodes.iter().enumerate().map(|(name, node)| async move {
        for number in 0..COUNT {
            let word = format!("{name}.{number}");
            match number % 3 {
                0 => node.io().emit(SAID, &word).await?,
                1 => node.io().to("room").emit(SAID, &word).await?,
                _ => node.io().except("elsewhere").emit(SAID, &word).await?,
            }
        }
        Verdict::Ok(())
    });
    within(patience(), "the end of all emits", try_join_all(emitting)).await??;
    for client in &clients {
        for (name, node) in nodes.iter().enumerate() {
            let mut heard = heard(node, client).await?;
            let prefix = format!("{name}.");
            heard.retain(|word| word.starts_with(&prefix));
            let expected: Vec<String> = (0..COUNT)
                .map(|number| format!("{name}.{number}"))
                .collect();
            let place = heard
                .iter()
                .zip(&expected)
                .position(|(heard, expected)| heard != expected);
            ensure!(
                heard == expected,
                "of {COUNT} emits of node {name}, {} arrived; out of order from {place:?}",
                heard.len()
            );
        }
    }
    Ok(())
}

/// Sizes in bytes up to what the broker takes with an envelope around it.
fn sizes(node: &Node) -> impl Iterator<Item = usize> {
    let most = node.cluster().capabilities().max_payload - 1_000;
    let sizes = [0, 1, 100, 10_000, 200_000, 700_000, 2_000_000];
    sizes.into_iter().filter(move |size| *size <= most)
}

async fn texts_of_all_sizes_arrive_whole(context: Context) -> Verdict {
    let [one, two] = context.cluster(brisk()).await?;
    let client = two.client("/").await?;
    // Nothing in it is what JSON, UTF-8 or a wire would leave alone.
    let pattern = "é\"\\\n\u{0}\u{2028}\u{1F600}{\"_placeholder\":true}";
    let texts: Vec<String> = sizes(&one)
        .map(|size| pattern.chars().cycle().take(size / 2).collect())
        .collect();
    for text in &texts {
        say(&one, text).await?;
    }
    let heard = heard(&one, &client).await?;
    ensure!(
        heard == texts,
        "texts arrived, but not as they were emitted"
    );
    Ok(())
}

async fn binaries_arrive_whole(context: Context) -> Verdict {
    let [one, two] = context.cluster(brisk()).await?;
    let clients = [one.client("/").await?, two.client("/").await?];
    let mut expected = Vec::new();
    for size in sizes(&one) {
        let blob: Bytes = (0..size).map(|at| (at % 251) as u8).collect();
        let second = Bytes::from_static(&[0, 0xc1, 0xff]);
        one.io().emit("blob", &(&blob, size, &second)).await?;
        expected.push((size, vec![blob, second]));
    }
    for client in &clients {
        heard(&one, client).await?;
        let arrived = client.arrivals().with(|arrivals| {
            let blobs = arrivals.iter().filter_map(|arrival| match arrival {
                Arrival::Event(event) if event.name == "blob" => {
                    let size = event.data.get(1).and_then(|size| size.as_u64())?;
                    Some((size as usize, event.attachments.clone()))
                }
                _ => None,
            });
            blobs.collect::<Vec<_>>()
        });
        ensure!(
            arrived == expected,
            "binaries arrived, but not as they were emitted"
        );
    }
    one.io().emit(SAID, &json!("text again")).await?;
    hears(&clients[1], "text again").await
}

async fn what_the_broker_cannot_take_fails_and_reaches_local_sockets(context: Context) -> Verdict {
    let [one, two] = context.cluster(brisk()).await?;
    let clients = [one.client("/").await?, two.client("/").await?];
    let most = one.cluster().capabilities().max_payload;
    let huge = "x".repeat(most.min(wire::DEFAULT_MAX_FRAME));
    say(&one, "before").await?;
    expect_failure(one.io().emit(SAID, &huge).await, ErrorKind::TooLarge)?;
    say(&one, "after").await?;
    expect_heard(&one, &clients[1], ["before", "after"]).await?;
    expect_heard(&one, &clients[0], ["before", &huge, "after"]).await
}
