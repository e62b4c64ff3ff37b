//! Operations on sockets of other nodes: join, leave, disconnect, find.

use std::collections::BTreeMap;

use socketioxide::operators::BroadcastOperators;

use super::stage::{SAID, brisk, clients, disconnected, expect_heard, heard};
use crate::{
    cases::cases,
    check::{Failure, Verdict, ensure_eq, eventually},
    context::{Context, patience},
    node::{Adapter, Node},
};

cases!("cluster::sockets":
    a_join_is_never_overtaken_by_the_emit_behind_it,
    joins_and_leaves_reach_the_selected_sockets_of_all_nodes,
    a_disconnect_reaches_the_selected_sockets_of_all_nodes,
    every_socket_is_found_with_its_node,
    rooms_are_those_of_all_nodes,
    a_remote_socket_can_be_joined_asked_and_disconnected,
);

async fn a_join_is_never_overtaken_by_the_emit_behind_it(context: Context) -> Verdict {
    const ROUNDS: usize = 100;
    let nodes = context.cluster::<3>(brisk()).await?;
    let clients = clients(&nodes).await?;
    let io = nodes[0].io();
    let mut expected = Vec::new();
    for round in 0..ROUNDS {
        let room = format!("room {round}");
        io.clone().join(room.clone()).await?;
        io.to(room.clone()).emit(SAID, &room).await?;
        io.clone().leave(room.clone()).await?;
        io.to(room.clone())
            .emit(SAID, "nobody is left to hear this")
            .await?;
        expected.push(room);
    }
    for client in &clients {
        expect_heard(&nodes[0], client, &expected).await?;
    }
    Ok(())
}

/// The rooms of all sockets, as sorted words.
async fn rooms_of(io: BroadcastOperators<Adapter>) -> Verdict<Vec<String>> {
    let mut rooms: Vec<String> = io.rooms().await?.into_iter().map(Into::into).collect();
    rooms.sort();
    Ok(rooms)
}

async fn joins_and_leaves_reach_the_selected_sockets_of_all_nodes(context: Context) -> Verdict {
    let nodes = context.cluster::<3>(brisk()).await?;
    let clients = clients(&nodes).await?;
    for (node, client) in nodes.iter().zip(&clients).skip(1) {
        node.socket("/", client.sid())?.join("red");
    }
    let io = nodes[0].io();
    io.to("red").join(["blue", "green"]).await?;
    io.to("blue").emit(SAID, "red ones are blue").await?;
    io.except("red").join("grey").await?;
    io.to("grey").emit(SAID, "all others are grey").await?;
    io.to("green").leave("blue").await?;
    io.to("blue").emit(SAID, "nobody is blue").await?;
    let expected = [
        ["all others are grey"],
        ["red ones are blue"],
        ["red ones are blue"],
    ];
    for (client, expected) in clients.iter().zip(expected) {
        expect_heard(&nodes[0], client, expected).await?;
    }
    ensure_eq(
        "rooms",
        &rooms_of(io.broadcast()).await?,
        &["green", "grey", "red"].map(str::to_owned).to_vec(),
    )
}

async fn a_disconnect_reaches_the_selected_sockets_of_all_nodes(context: Context) -> Verdict {
    let nodes = context.cluster::<3>(brisk()).await?;
    let (leaving, staying) = (clients(&nodes).await?, clients(&nodes).await?);
    for (node, client) in nodes.iter().zip(&leaving) {
        node.socket("/", client.sid())?.join("out");
    }
    nodes[0].io().to("out").disconnect().await?;
    for client in &leaving {
        disconnected(client).await?;
    }
    nodes[0].io().emit(SAID, "still here?").await?;
    for client in &staying {
        expect_heard(&nodes[0], client, ["still here?"]).await?;
    }
    ensure_eq(
        "sockets",
        &nodes[0].io().fetch_sockets().await?.len(),
        &staying.len(),
    )
}

async fn every_socket_is_found_with_its_node(context: Context) -> Verdict {
    let nodes = context.cluster::<3>(brisk()).await?;
    let (red, grey) = (clients(&nodes).await?, clients(&nodes).await?);
    let mut expected = [BTreeMap::new(), BTreeMap::new()];
    for (number, node) in nodes.iter().enumerate() {
        node.socket("/", red[number].sid())?.join("red");
        for (expected, client) in expected.iter_mut().zip([&red[number], &grey[number]]) {
            expected.insert(client.sid(), node.id()?.to_uid());
        }
    }
    for node in &nodes {
        for (io, expected) in [node.io().to("red"), node.io().except("red")]
            .into_iter()
            .zip(&expected)
        {
            let found = io.fetch_sockets().await?;
            let namespaces = found.iter().filter(|socket| socket.data().ns == "/");
            ensure_eq(
                "sockets of the namespace",
                &namespaces.count(),
                &expected.len(),
            )?;
            let found = found
                .iter()
                .map(|socket| (socket.data().id, socket.data().server_id));
            ensure_eq("sockets and their nodes", &found.collect(), expected)?;
        }
    }
    Ok(())
}

async fn rooms_are_those_of_all_nodes(context: Context) -> Verdict {
    let nodes = context.cluster::<3>(brisk()).await?;
    let clients = clients(&nodes).await?;
    for (number, (node, client)) in nodes.iter().zip(&clients).enumerate() {
        let socket = node.socket("/", client.sid())?;
        socket.join(["shared".to_owned(), format!("own {number}")]);
    }
    let all = ["own 0", "own 1", "own 2", "shared"]
        .map(str::to_owned)
        .to_vec();
    for node in &nodes {
        ensure_eq("rooms", &rooms_of(node.io().broadcast()).await?, &all)?;
        ensure_eq(
            "rooms next to one",
            &rooms_of(node.io().to("own 1")).await?,
            &vec![all[1].clone(), all[3].clone()],
        )?;
    }
    Ok(())
}

/// Waits until the sockets of a room that the node has itself are so many.
async fn has_members(node: &Node, room: &str, count: usize) -> Verdict {
    let members = async || Ok(node.io().within(room.to_owned()).sockets().len() == count);
    eventually(patience(), &format!("{count} members of {room:?}"), members).await
}

async fn a_remote_socket_can_be_joined_asked_and_disconnected(context: Context) -> Verdict {
    let [one, two] = context.cluster(brisk()).await?;
    let (client, other) = (two.client("/").await?, two.client("/").await?);
    let found = one.io().fetch_sockets().await?;
    let socket = found
        .into_iter()
        .find(|socket| socket.data().id == client.sid());
    let socket = socket.ok_or_else(|| Failure("the remote socket was not found".into()))?;
    socket.join(vec!["a".to_owned(), "b".to_owned()]).await?;
    socket.leave("a".to_owned()).await?;
    let rooms: Vec<String> = socket.rooms().await?.into_iter().map(Into::into).collect();
    ensure_eq("rooms of the remote socket", &rooms, &vec!["b".to_owned()])?;
    has_members(&two, "b", 1).await?;
    one.io().to("b").emit(SAID, "you alone").await?;
    expect_heard(&one, &client, ["you alone"]).await?;
    socket.disconnect().await?;
    disconnected(&client).await?;
    has_members(&two, "b", 0).await?;
    let heard = heard(&one, &other).await?;
    ensure_eq("what the other socket heard", &heard, &Vec::new())
}
