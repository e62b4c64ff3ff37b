//! Strangers on the same broker: other clusters, other secrets, damaged and repeated frames, noise.

use bytes::Bytes;
use socketioxide_adapter_core::{ClusterConfig, ClusterEvent, transport::Topic, wire::Keys};

use super::{
    forge::{Stranger, main_topic},
    stage::{
        assemble, brisk, expect_heard, expect_lost_in_all, heard, heard_so_far, hears, say,
        say_apart, told, told_lost, was_told, words,
    },
    tap::Fate,
};
use crate::{
    cases::cases,
    check::{Verdict, ensure, ensure_eq, eventually, within},
    context::{Context, patience},
    node::Node,
};

cases!("cluster::trust":
    clusters_with_other_prefixes_do_not_notice_each_other,
    nodes_with_other_secrets_are_strangers,
    a_node_without_a_secret_is_a_stranger_to_those_with_one,
    a_secret_can_be_rotated_without_a_loss,
    a_signed_frame_with_a_flipped_bit_is_dropped_and_told_as_lost,
    a_signed_frame_that_is_repeated_is_delivered_once,
    a_node_that_left_is_not_brought_back_by_its_old_frames,
    a_signed_frame_does_not_count_on_another_topic,
    noise_on_all_topics_disturbs_nothing,
);

const SECRET: &str = "a secret of this cluster";
const OTHER: &str = "another, of whoever it is";

fn keys(secret: &str) -> Verdict<Keys> {
    Ok(Keys::new(secret)?)
}

fn signing(keys: Keys) -> ClusterConfig {
    brisk().with_keys(Some(keys))
}

async fn join(node: &Node) -> Verdict {
    Ok(within(patience(), "joining", node.namespace("/")).await??)
}

async fn clusters_with_other_prefixes_do_not_notice_each_other(context: Context) -> Verdict {
    let [one, two] = context.cluster(brisk()).await?;
    let other = format!("{}x", context.prefix);
    let theirs = [
        context.serve(context.node_of(&other).await?, brisk())?,
        context.serve(context.node_of(&other).await?, brisk())?,
    ];
    assemble(&[&theirs[0], &theirs[1]]).await?;
    let clients = [two.client("/").await?, theirs[1].client("/").await?];
    for number in 0..10 {
        say(&one, &format!("ours {number}")).await?;
        say(&theirs[0], &format!("theirs {number}")).await?;
    }
    let all = |whose| (0..10).map(move |number| format!("{whose} {number}"));
    expect_heard(&one, &clients[0], all("ours")).await?;
    expect_heard(&theirs[0], &clients[1], all("theirs")).await?;
    for node in [&one, &theirs[0]] {
        ensure_eq("nodes known", &node.cluster().nodes().len(), &1)?;
        ensure_eq("sockets", &node.io().fetch_sockets().await?.len(), &1)?;
    }
    Ok(())
}

/// Wants two nodes not to hear each other, and to count what they refuse.
async fn are_strangers(one: &Node, two: &Node) -> Verdict {
    join(one).await?;
    join(two).await?;
    let clients = [two.client("/").await?, one.client("/").await?];
    for ((from, to), client) in [(one, two), (two, one)].into_iter().zip(&clients) {
        let refused = || to.cluster().stats().frames_unauthentic;
        let before = refused();
        let secrets = vec![from.id()?.to_string(); 10];
        say_apart(from, &secrets).await?;
        let all = async || Ok(refused() >= before + 10);
        eventually(patience(), "ten refused frames", all).await?;
        let heard = heard(to, client).await?;
        ensure!(
            !heard.contains(&secrets[0]),
            "a stranger's words were heard"
        );
        ensure_eq("nodes known", &to.cluster().nodes().len(), &0)?;
    }
    Ok(())
}

async fn nodes_with_other_secrets_are_strangers(context: Context) -> Verdict {
    let one = context.server(signing(keys(SECRET)?)).await?;
    let two = context.server(signing(keys(OTHER)?)).await?;
    are_strangers(&one, &two).await
}

async fn a_node_without_a_secret_is_a_stranger_to_those_with_one(context: Context) -> Verdict {
    let one = context.server(signing(keys(SECRET)?)).await?;
    let two = context.server(brisk()).await?;
    are_strangers(&one, &two).await
}

async fn a_secret_can_be_rotated_without_a_loss(context: Context) -> Verdict {
    let steps = [
        keys(SECRET)?,
        keys(SECRET)?.accepting(OTHER)?,
        keys(OTHER)?.accepting(SECRET)?,
        keys(OTHER)?,
    ];
    // While a rotation goes on, some nodes are one step ahead.
    for (number, pair) in steps.windows(2).enumerate() {
        let [old, new] = pair else { continue };
        let prefix = format!("{}r{number}", context.prefix);
        let nodes = [
            context.serve(context.node_of(&prefix).await?, signing(old.clone()))?,
            context.serve(context.node_of(&prefix).await?, signing(new.clone()))?,
        ];
        assemble(&[&nodes[0], &nodes[1]]).await?;
        let clients = [nodes[0].client("/").await?, nodes[1].client("/").await?];
        for (node, word) in nodes.iter().zip(["first", "second"]) {
            say(node, word).await?;
            for client in &clients {
                hears(client, word).await?;
            }
        }
        for node in &nodes {
            ensure_eq(
                "frames refused",
                &node.cluster().stats().frames_unauthentic,
                &0,
            )?;
        }
    }
    Ok(())
}

async fn a_signed_frame_with_a_flipped_bit_is_dropped_and_told_as_lost(
    context: Context,
) -> Verdict {
    const DAMAGED: u64 = 40;
    let (one, tap, two) = context.pair(signing(keys(SECRET)?)).await?;
    let client = two.client("/").await?;
    say(&one, "before").await?;
    hears(&client, "before").await?;
    let mut rng = fastrand::Rng::with_seed(context.seed);
    let mut left = DAMAGED;
    tap.rule(move |out| {
        if !out.is_data() || left == 0 {
            return Fate::Pass;
        }
        left -= 1;
        let mut bytes = out.payload.to_vec();
        let at = rng.usize(..bytes.len());
        bytes[at] ^= 1 << rng.u8(..8);
        Fate::Change(bytes.into())
    });
    say_apart(&one, words(0..DAMAGED)).await?;
    tap.pass();
    say(&one, "after").await?;
    expect_heard(&one, &client, ["before", "after"]).await?;
    told_lost(&two, one.id()?, DAMAGED).await?;
    expect_lost_in_all(&two, DAMAGED).await
}

async fn a_signed_frame_that_is_repeated_is_delivered_once(context: Context) -> Verdict {
    let (one, tap, two) = context.pair(signing(keys(SECRET)?)).await?;
    let client = two.client("/").await?;
    say_apart(&one, words(0..20)).await?;
    hears(&client, "19").await?;
    let attacker = Stranger::new(context.node().await?);
    for _ in 0..2 {
        for (topic, payload) in tap.published() {
            attacker.publish(&topic, payload).await?;
        }
    }
    let dropped = async || Ok(two.cluster().stats().duplicates_dropped >= 40);
    eventually(patience(), "forty repetitions dropped", dropped).await?;
    say(&one, "last").await?;
    let expected = words(0..20).into_iter().chain(["last".into()]);
    expect_heard(&one, &client, expected).await?;
    ensure_eq("nodes known", &two.cluster().nodes().len(), &1)?;
    expect_lost_in_all(&two, 0).await
}

async fn a_node_that_left_is_not_brought_back_by_its_old_frames(context: Context) -> Verdict {
    let (one, tap, two) = context.pair(signing(keys(SECRET)?)).await?;
    let id = one.id()?;
    one.shutdown().await?;
    let left =
        |event: &ClusterEvent| matches!(event, ClusterEvent::Left { node, .. } if *node == id);
    told(&two, "the goodbye", left).await?;
    let attacker = Stranger::new(context.node().await?);
    for (topic, payload) in tap.published() {
        attacker.publish(&topic, payload).await?;
    }
    // Behind them, so that they are through when it is refused.
    let refused = two.cluster().stats().frames_malformed;
    attacker
        .publish(&Topic::Cluster, Bytes::from_static(b"noise"))
        .await?;
    let through = async || Ok(two.cluster().stats().frames_malformed > refused);
    eventually(patience(), "the end of the attack", through).await?;
    ensure_eq("nodes known", &two.cluster().nodes().len(), &0)?;
    let joined = two.events().with(|events| {
        let joined = events
            .iter()
            .filter(|event| **event == ClusterEvent::Joined { node: id });
        joined.count()
    });
    ensure_eq("times the node was told to have joined", &joined, &1)
}

async fn a_signed_frame_does_not_count_on_another_topic(context: Context) -> Verdict {
    let (one, tap, two) = context.pair(signing(keys(SECRET)?)).await?;
    for node in [&one, &two] {
        within(patience(), "a namespace", node.namespace("/x")).await??;
    }
    let client = two.client("/x").await?;
    say_apart(&one, words(0..5)).await?;
    let attacker = Stranger::new(context.node().await?);
    let refused = two.cluster().stats().frames_malformed;
    let mut count = 0;
    for (topic, payload) in tap.published() {
        if topic == main_topic() {
            attacker
                .publish(&Topic::Namespace("/x".into()), payload)
                .await?;
            count += 1;
        }
    }
    ensure!(count >= 5, "only {count} frames were published");
    let all = async || Ok(two.cluster().stats().frames_malformed >= refused + count);
    eventually(patience(), "all of them being refused", all).await?;
    expect_heard(&one, &client, [""; 0]).await
}

async fn noise_on_all_topics_disturbs_nothing(context: Context) -> Verdict {
    let [one, two] = context.cluster(brisk()).await?;
    let client = two.client("/").await?;
    let mut stranger = Stranger::new(context.node().await?);
    let whole = stranger.frame(&main_topic(), &[super::forge::saying("noise")])?;
    let mut rng = fastrand::Rng::with_seed(context.seed);
    let random: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(1_000).collect();
    let noise = [
        Bytes::new(),
        Bytes::from_static(b"\xc1"),
        Bytes::from_static(b"\xc1S"),
        Bytes::from_static(b"2[\"said\",\"noise\"]"),
        Bytes::from_static(b"{\"uid\":\"x\",\"type\":3}"),
        Bytes::from(random),
        whole.slice(..whole.len() - 1),
        whole.slice(..20),
        Bytes::from([&whole[..], b"more"].concat()),
    ];
    let topics = [Topic::Cluster, main_topic(), Topic::Node(two.id()?)];
    for number in 0..20 {
        for topic in &topics {
            for payload in &noise {
                stranger.publish(topic, payload.clone()).await?;
            }
        }
        say(&one, &number.to_string()).await?;
    }
    expect_heard(&one, &client, words(0..20)).await?;
    let expected = 20 * (topics.len() * noise.len()) as u64;
    let all = async || Ok(two.cluster().stats().frames_malformed >= expected);
    eventually(patience(), "a count of all the noise", all).await?;
    ensure_eq("nodes known", &two.cluster().nodes().len(), &1)?;
    ensure!(
        !was_told(&two, |event| matches!(
            event,
            ClusterEvent::Left { .. } | ClusterEvent::Gap { .. }
        )),
        "noise was taken for an event: {:?}",
        two.events()
    );
    ensure_eq("words heard", &heard_so_far(&client).len(), &20)
}
