//! Nodes of other versions, during a rolling upgrade and beyond it.

use bytes::Bytes;
use socketioxide_adapter_core::{
    ClusterEvent, NodeId,
    transport::Topic,
    wire::{HEADER_LEN, MIN_VERSION, VERSION},
};

use super::{
    forge::{Stranger, main_topic, saying},
    stage::{brisk, expect_heard, heard, hears, say, told},
};
use crate::{
    cases::cases,
    check::{Verdict, ensure, ensure_eq, eventually, within},
    context::{Context, patience},
};

cases!("cluster::versions":
    a_neighbour_that_speaks_our_version_too_is_a_member_and_is_written_to_in_it,
    a_newer_node_without_a_version_in_common_is_told_and_not_waited_for,
    an_older_node_without_a_version_in_common_is_told_and_not_waited_for,
    frames_of_unknown_versions_and_kinds_are_skipped_alone,
);

async fn a_neighbour_that_speaks_our_version_too_is_a_member_and_is_written_to_in_it(
    context: Context,
) -> Verdict {
    let (one, tap, two) = context.pair(brisk()).await?;
    let client = two.client("/").await?;
    let mut next = Stranger::new(context.node().await?);
    let mut previous = Stranger::new(context.node().await?);
    next.appears(VERSION, VERSION + 1).await?;
    previous.appears(MIN_VERSION - 1, VERSION).await?;
    for stranger in [&next, &previous] {
        let joined = ClusterEvent::Joined { node: stranger.id };
        told(&one, "a node of the next version", |event| *event == joined).await?;
    }
    tap.forget();
    say(&one, "understood").await?;
    expect_heard(&one, &client, ["understood"]).await?;
    for stranger in [&mut next, &mut previous] {
        let word = stranger.id.to_string();
        let frame = stranger.frame(&main_topic(), &[saying(&word)])?;
        stranger.publish(&main_topic(), frame).await?;
        hears(&client, &word).await?;
    }
    let versions = tap
        .published()
        .into_iter()
        .map(|(_, payload)| payload.get(2).copied());
    ensure!(
        versions.clone().all(|version| version == Some(VERSION)),
        "frames were written in a version that not everybody reads"
    );
    Ok(())
}

/// Lets a node of these versions appear; wants it to be told about and otherwise ignored.
async fn is_incompatible(context: &Context, min_version: u8, max_version: u8) -> Verdict {
    let [one, two] = context.cluster::<2>(brisk()).await?;
    let client = two.client("/").await?;
    let mut stranger = Stranger::new(context.node().await?);
    for _ in 0..3 {
        stranger.appears(min_version, max_version).await?;
    }
    let node: NodeId = stranger.id;
    let expected = ClusterEvent::Incompatible {
        node,
        min_version,
        max_version,
    };
    told(&one, "an incompatible node", |event| *event == expected).await?;
    ensure_eq("nodes known", &one.cluster().nodes().len(), &1)?;
    // One that is waited for would not answer.
    let found = within(patience(), "the end of a query", one.io().fetch_sockets()).await??;
    ensure_eq("sockets found", &found.len(), &1)?;
    say(&one, "goes on").await?;
    expect_heard(&one, &client, ["goes on"]).await?;
    let times = one
        .events()
        .with(|events| events.iter().filter(|event| **event == expected).count());
    ensure_eq("times it was told", &times, &1)
}

async fn a_newer_node_without_a_version_in_common_is_told_and_not_waited_for(
    context: Context,
) -> Verdict {
    is_incompatible(&context, VERSION + 1, VERSION + 2).await
}

async fn an_older_node_without_a_version_in_common_is_told_and_not_waited_for(
    context: Context,
) -> Verdict {
    is_incompatible(&context, 0, MIN_VERSION - 1).await
}

async fn frames_of_unknown_versions_and_kinds_are_skipped_alone(context: Context) -> Verdict {
    let [one, two] = context.cluster::<2>(brisk()).await?;
    let client = two.client("/").await?;
    let mut stranger = Stranger::new(context.node().await?);
    let with_byte = |frame: &Bytes, at: usize, byte: u8| {
        let mut bytes = frame.to_vec();
        bytes[at] = byte;
        Bytes::from(bytes)
    };
    let topic = main_topic();
    let versions = [0, MIN_VERSION - 1, VERSION + 1, 255];
    for version in versions {
        let frame = stranger.frame(&topic, &[saying("of another version")])?;
        stranger
            .publish(&topic, with_byte(&frame, 2, version))
            .await?;
        say(&one, &format!("after version {version}")).await?;
    }
    let frame = stranger.frame(&topic, &[saying("of an unknown kind of frame")])?;
    stranger.publish(&topic, with_byte(&frame, 3, 99)).await?;
    // An envelope of an unknown kind, between two that are understood; its kind follows its length.
    let frame = stranger.frame(&topic, &["first", "unknown", "third"].map(saying))?;
    let length = frame[HEADER_LEN..]
        .first_chunk()
        .map(|length| u32::from_le_bytes(*length));
    let second = HEADER_LEN + 4 + length.unwrap_or_default() as usize;
    stranger
        .publish(&topic, with_byte(&frame, second + 4, 99))
        .await?;
    hears(&client, "third").await?;
    let versions = versions.map(|version| format!("after version {version}"));
    let heard = heard(&one, &client).await?;
    let (ours, theirs): (Vec<_>, Vec<_>) = heard
        .into_iter()
        .partition(|word| word.starts_with("after"));
    ensure_eq("what was heard of the node", &ours, &versions.to_vec())?;
    ensure_eq(
        "what was heard of the stranger",
        &theirs,
        &["first", "third"].map(str::to_owned).to_vec(),
    )?;
    let counted = async || {
        let stats = two.cluster().stats();
        Ok(stats.frames_incompatible == 4 && stats.frames_malformed == 2)
    };
    eventually(patience(), "a count of what was skipped", counted).await?;
    let topic = Topic::Cluster;
    let frame = stranger.frame(&topic, &[])?;
    stranger
        .publish(&topic, with_byte(&frame, 2, VERSION + 1))
        .await?;
    let counted = async || Ok(two.cluster().stats().frames_incompatible == 5);
    eventually(patience(), "a count on the cluster's topic", counted).await
}
