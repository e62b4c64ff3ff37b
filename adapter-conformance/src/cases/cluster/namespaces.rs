//! Namespaces: apart from each other, static and dynamic, many at no cost, and gone when deleted.

use std::time::Duration;

use futures_util::future::try_join_all;
use socketioxide_adapter_core::transport::Topic;
use tokio::time::Instant;

use super::stage::{SAID, brisk, expect_heard, expect_lost_in_all, hears};
use crate::{
    cases::cases,
    check::{Verdict, ensure, ensure_eq, eventually, within},
    context::{Context, patience},
    node::Node,
};

cases!("cluster::namespaces":
    namespaces_do_not_mix,
    a_node_hears_only_the_namespaces_it_has,
    a_dynamic_namespace_joins_with_its_first_client,
    two_first_clients_of_a_dynamic_namespace_both_hear_other_nodes,
    a_deleted_namespace_is_left,
    a_namespace_that_is_deleted_and_added_again_is_heard_again,
    a_thousand_namespaces_cost_the_traffic_of_one,
);

async fn say_in(node: &Node, namespace: &str, word: &str) -> Verdict {
    Ok(node.of(namespace)?.emit(SAID, word).await?)
}

async fn add(node: &Node, namespace: &str) -> Verdict {
    Ok(within(patience(), "a namespace", node.namespace(namespace)).await??)
}

async fn namespaces_do_not_mix(context: Context) -> Verdict {
    // Names that a broker could take for patterns, levels or the same name.
    const PATHS: [&str; 12] = [
        "/", "/a", "/A", "/a/b", "/a.b", "/a.*", "/a/#", "/>", "/*", "/é", "/a b", "/%61",
    ];
    let [one, two] = context.cluster(brisk()).await?;
    for path in PATHS {
        add(&one, path).await?;
        add(&two, path).await?;
    }
    let clients = try_join_all(PATHS.iter().map(|path| two.client(path))).await?;
    for path in PATHS {
        say_in(&one, path, path).await?;
        one.of(path)?
            .to("room")
            .emit(SAID, "a room's members")
            .await?;
    }
    for (path, client) in PATHS.iter().zip(&clients) {
        expect_heard(&one, client, [path]).await?;
        let found = one.of(path)?.fetch_sockets().await?;
        let found: Vec<_> = found.iter().map(|socket| socket.data().id).collect();
        ensure_eq("sockets of the namespace", &found, &vec![client.sid()])?;
    }
    Ok(())
}

async fn a_node_hears_only_the_namespaces_it_has(context: Context) -> Verdict {
    let [one, two] = context.cluster(brisk()).await?;
    add(&one, "/one").await?;
    let before = two.cluster().stats().frames_received;
    let published = one.cluster().stats().frames_published;
    for number in 0..50 {
        say_in(&one, "/one", &number.to_string()).await?;
    }
    one.cluster().flush().await?;
    ensure!(
        one.cluster().stats().frames_published > published,
        "nothing was published"
    );
    let client = two.client("/").await?;
    expect_heard(&one, &client, [""; 0]).await?;
    let received = two.cluster().stats().envelopes_received;
    ensure!(
        received < 50,
        "a node received {received} messages of a namespace it does not have"
    );
    ensure!(
        two.cluster().stats().frames_received > before,
        "not even the fence was received"
    );
    let found = one.of("/one")?.fetch_sockets().await?;
    ensure_eq("sockets of the namespace", &found.len(), &0)
}

async fn a_dynamic_namespace_joins_with_its_first_client(context: Context) -> Verdict {
    let [one, two] = context.cluster(brisk()).await?;
    one.dynamic_namespace("/room/{name}")?;
    add(&two, "/room/a").await?;
    let client = one.client("/room/a").await?;
    // The client is let in before the namespace is in the cluster.
    let joined = async || Ok(two.of("/room/a")?.fetch_sockets().await?.len() == 1);
    eventually(patience(), "the dynamic namespace in the cluster", joined).await?;
    say_in(&two, "/room/a", "welcome").await?;
    hears(&client, "welcome").await?;
    ensure!(
        one.of("/room/b").is_err(),
        "a namespace that nobody asked for"
    );
    expect_heard(&two, &client, ["welcome"]).await
}

async fn two_first_clients_of_a_dynamic_namespace_both_hear_other_nodes(
    context: Context,
) -> Verdict {
    const ROUNDS: usize = 20;
    let [one, two] = context.cluster(brisk()).await?;
    one.dynamic_namespace("/race/{name}")?;
    for round in 0..ROUNDS {
        let path = format!("/race/{round}");
        add(&two, &path).await?;
        // socketioxide may make the namespace once for each of them.
        let (first, second) = tokio::join!(one.client(&path), one.client(&path));
        let clients = [first?, second?];
        let joined = async || {
            say_in(&two, &path, "anybody there?").await?;
            let heard = |client| super::stage::heard_so_far(client).len();
            Ok(clients.iter().all(|client| heard(client) > 0))
        };
        eventually(patience(), "an emit at both first clients", joined).await?;
        for client in &clients {
            let heard = super::stage::heard(&two, client).await?;
            ensure!(heard.len() < 1_000, "an emit arrived again and again");
        }
    }
    Ok(())
}

async fn a_deleted_namespace_is_left(context: Context) -> Verdict {
    let config = brisk().with_request_timeout(Duration::from_secs(60));
    let (one, tap) = context.tapped(config.clone()).await?;
    let two = context.server(config).await?;
    super::stage::assemble(&[&one, &two]).await?;
    for node in [&one, &two] {
        add(node, "/x").await?;
    }
    let client = two.client("/x").await?;
    let asked = async || Ok(two.of("/x")?.fetch_sockets().await?.len() == 1);
    eventually(patience(), "an answer of both nodes", asked).await?;
    one.io().delete_ns("/x");
    let left = || {
        let announced = tap.published();
        announced
            .iter()
            .filter(|(topic, _)| *topic == Topic::Cluster)
            .count()
    };
    let before = left();
    let told = async || Ok(left() > before);
    eventually(patience(), "the announcement", told).await?;
    // One that is still asked would not answer for a minute.
    let found = within(
        patience(),
        "the end of a query",
        two.of("/x")?.fetch_sockets(),
    )
    .await??;
    ensure_eq("sockets of the namespace", &found.len(), &1)?;
    say_in(&two, "/x", "alone").await?;
    expect_heard(&two, &client, ["alone"]).await
}

async fn a_namespace_that_is_deleted_and_added_again_is_heard_again(context: Context) -> Verdict {
    let [one, two] = context.cluster(brisk()).await?;
    for node in [&one, &two] {
        add(node, "/x").await?;
    }
    let client = two.client("/x").await?;
    let mut expected = Vec::new();
    // Kept to the end: an emit that meets a socket whose client has just gone ends with an error.
    let mut own = Vec::new();
    for round in 0..3 {
        for number in 0..5 {
            let word = format!("{round}.{number}");
            say_in(&one, "/x", &word).await?;
            expected.push(word);
        }
        if let Some(word) = expected.last() {
            hears(&client, word).await?;
        }
        one.io().delete_ns("/x");
        add(&one, "/x").await?;
        let mine = one.client("/x").await?;
        let word = format!("to you {round}");
        say_in(&two, "/x", &word).await?;
        hears(&mine, &word).await?;
        hears(&client, &word).await?;
        expected.push(word);
        own.push(mine);
    }
    expect_heard(&one, &client, expected).await?;
    expect_lost_in_all(&two, 0).await
}

async fn a_thousand_namespaces_cost_the_traffic_of_one(context: Context) -> Verdict {
    const MANY: usize = 1_000;
    const HEARTBEATS: usize = 10;
    let heartbeat = Duration::from_millis(100);
    let (one, tap) = context.tapped(brisk().with_heartbeat(heartbeat)).await?;
    let two = context.server(brisk()).await?;
    super::stage::assemble(&[&one, &two]).await?;
    let paths: Vec<String> = (0..MANY).map(|number| format!("/{number}")).collect();
    let adding = try_join_all(paths.iter().map(|path| one.namespace(path)));
    within(3 * patience(), "a thousand namespaces", adding).await??;
    // What a namespace tells about itself in the beginning has its end.
    let quiet = async || {
        tap.forget();
        tokio::time::sleep(4 * heartbeat).await;
        let published = tap.published();
        Ok(published.iter().all(|(topic, _)| *topic == Topic::Cluster))
    };
    eventually(3 * patience(), "nothing but heartbeats", quiet).await?;
    tap.forget();
    let start = Instant::now();
    // A heartbeat and a probe each time.
    let enough = async || Ok(tap.published().len() >= 2 * HEARTBEATS);
    eventually(patience(), "the heartbeats", enough).await?;
    let published = tap.published();
    let beats = start.elapsed().as_secs_f64() / (heartbeat.as_secs_f64() * 0.9);
    let most = (2.0 * beats).ceil() as usize + 2;
    ensure!(
        published.len() <= most,
        "{} payloads in {HEARTBEATS} heartbeats, at most {most} expected",
        published.len()
    );
    let largest = published.iter().map(|(_, payload)| payload.len()).max();
    ensure!(largest < Some(200), "a heartbeat has {largest:?} bytes");
    Ok(())
}
