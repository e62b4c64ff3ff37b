//! What is lost is told exactly, what comes twice is delivered once, and nothing is delivered late. The tap makes it happen.

use std::time::Duration;

use socketioxide_adapter_core::{ClusterEvent, ErrorKind, PublishMode};

use super::{
    stage::{
        SAID, assemble, brisk, expect_failure, expect_heard, expect_lost_in_all, heard,
        heard_so_far, hears, say, say_apart, say_until_heard, told, told_lost, words,
    },
    tap::Fate,
};
use crate::{
    cases::cases,
    check::{Verdict, ensure, ensure_eq, eventually, within},
    context::{Context, patience},
};

cases!("cluster::loss":
    a_loss_in_the_middle_is_told_exactly,
    a_loss_at_the_end_is_told_although_nothing_follows,
    the_loss_of_a_first_message_is_told,
    losses_of_several_nodes_are_told_apart,
    a_frame_that_comes_twice_is_delivered_once,
    a_frame_that_comes_late_is_not_delivered_after_what_followed_it,
    a_frame_of_unknown_fate_is_sent_again_and_delivered_once,
    what_the_broker_refuses_is_told_by_the_sender_alone,
    what_a_broker_refuses_that_takes_nothing_is_told_by_the_sender_alone,
    what_is_not_sent_in_time_is_told_by_the_sender_alone,
    what_was_emitted_before_a_node_came_is_no_loss_of_it,
    many_losses_at_once_are_told_exactly,
);

async fn a_loss_in_the_middle_is_told_exactly(context: Context) -> Verdict {
    let (one, tap, two) = context.pair(brisk()).await?;
    let client = two.client("/").await?;
    say_apart(&one, words(0..3)).await?;
    tap.next_data(2, || Fate::Lose);
    say_apart(&one, words(3..8)).await?;
    told_lost(&two, one.id()?, 2).await?;
    expect_heard(&one, &client, ["0", "1", "2", "5", "6", "7"]).await?;
    expect_lost_in_all(&two, 2).await
}

async fn a_loss_at_the_end_is_told_although_nothing_follows(context: Context) -> Verdict {
    let (one, tap, two) = context.pair(brisk()).await?;
    let client = two.client("/").await?;
    say(&one, "heard").await?;
    hears(&client, "heard").await?;
    tap.next_data(1, || Fate::Lose);
    say(&one, "lost").await?;
    told_lost(&two, one.id()?, 1).await?;
    expect_heard(&one, &client, ["heard"]).await?;
    expect_lost_in_all(&two, 1).await
}

async fn the_loss_of_a_first_message_is_told(context: Context) -> Verdict {
    let (one, tap, two) = context.pair(brisk()).await?;
    let client = two.client("/").await?;
    tap.next_data(1, || Fate::Lose);
    say_apart(&one, ["lost", "heard"]).await?;
    told_lost(&two, one.id()?, 1).await?;
    expect_heard(&one, &client, ["heard"]).await?;
    expect_lost_in_all(&two, 1).await
}

async fn losses_of_several_nodes_are_told_apart(context: Context) -> Verdict {
    let (one, tap) = context.tapped(brisk()).await?;
    let (three, other_tap) = context.tapped(brisk()).await?;
    let two = context.server(brisk()).await?;
    assemble(&[&one, &two, &three]).await?;
    let client = two.client("/").await?;
    for (node, word) in [(&one, "I am one"), (&three, "I am three")] {
        say(node, word).await?;
        hears(&client, word).await?;
    }
    tap.next_data(1, || Fate::Lose);
    other_tap.next_data(3, || Fate::Lose);
    for node in [&one, &three] {
        say_apart(node, words(0..5)).await?;
    }
    told_lost(&two, one.id()?, 1).await?;
    told_lost(&two, three.id()?, 3).await?;
    expect_lost_in_all(&two, 4).await
}

async fn a_frame_that_comes_twice_is_delivered_once(context: Context) -> Verdict {
    const COUNT: u64 = 50;
    let (one, tap, two) = context.pair(brisk()).await?;
    let client = two.client("/").await?;
    tap.rule(|_| Fate::Double);
    say_apart(&one, words(0..COUNT)).await?;
    expect_heard(&one, &client, words(0..COUNT)).await?;
    let dropped = async || Ok(two.cluster().stats().duplicates_dropped > COUNT);
    eventually(patience(), "a count of what came twice", dropped).await?;
    expect_lost_in_all(&two, 0).await
}

async fn a_frame_that_comes_late_is_not_delivered_after_what_followed_it(
    context: Context,
) -> Verdict {
    let (one, tap, two) = context.pair(brisk()).await?;
    let client = two.client("/").await?;
    say(&one, "first").await?;
    hears(&client, "first").await?;
    tap.next_data(1, || Fate::Hold);
    say_apart(&one, ["late", "in time"]).await?;
    told_lost(&two, one.id()?, 1).await?;
    tap.release().await?;
    say(&one, "last").await?;
    expect_heard(&one, &client, ["first", "in time", "last"]).await?;
    expect_lost_in_all(&two, 1).await
}

async fn a_frame_of_unknown_fate_is_sent_again_and_delivered_once(context: Context) -> Verdict {
    let config = brisk().with_publish_mode(PublishMode::Confirmed);
    let (one, tap, two) = context.pair(config).await?;
    let client = two.client("/").await?;
    tap.next_data(1, || Fate::Doubt);
    say(&one, "arrived in doubt").await?;
    tap.next_data(1, || Fate::LoseInDoubt);
    say(&one, "lost in doubt").await?;
    say(&one, "last").await?;
    expect_heard(&one, &client, ["arrived in doubt", "lost in doubt", "last"]).await?;
    ensure_eq(
        "frames sent again",
        &one.cluster().stats().frames_resent,
        &2,
    )?;
    expect_lost_in_all(&two, 0).await
}

fn is_unsent(expected: u64) -> impl Fn(&ClusterEvent) -> bool {
    move |event| matches!(event, ClusterEvent::Unsent { count, .. } if *count == expected)
}

async fn what_the_broker_refuses_is_told_by_the_sender_alone(context: Context) -> Verdict {
    let config = brisk().with_publish_mode(PublishMode::Confirmed);
    let (one, tap, two) = context.pair(config).await?;
    let clients = [one.client("/").await?, two.client("/").await?];
    tap.next_data(1, || Fate::Refuse(ErrorKind::Rejected));
    let refused = one.io().emit(SAID, "refused").await;
    expect_failure(refused, ErrorKind::Rejected)?;
    say(&one, "taken").await?;
    expect_heard(&one, &clients[0], ["refused", "taken"]).await?;
    expect_heard(&one, &clients[1], ["taken"]).await?;
    told(&one, "what was refused", is_unsent(1)).await?;
    expect_lost_in_all(&two, 0).await
}

/// The broker refuses the withdrawal too.
async fn what_a_broker_refuses_that_takes_nothing_is_told_by_the_sender_alone(
    context: Context,
) -> Verdict {
    let config = brisk().with_publish_mode(PublishMode::Confirmed);
    let (one, tap, two) = context.pair(config).await?;
    let client = two.client("/").await?;
    tap.rule(|out| match out.is_data() || out.is_withdrawal() {
        true => Fate::Refuse(ErrorKind::Rejected),
        false => Fate::Pass,
    });
    let refused = one.io().emit(SAID, "refused").await;
    expect_failure(refused, ErrorKind::Rejected)?;
    let tried = async || Ok(tap.withdrawals() > 0);
    eventually(patience(), "the withdrawal", tried).await?;
    tap.pass();
    say(&one, "taken").await?;
    expect_heard(&one, &client, ["taken"]).await?;
    told(&one, "what was refused", is_unsent(1)).await?;
    expect_lost_in_all(&two, 0).await
}

async fn what_is_not_sent_in_time_is_told_by_the_sender_alone(context: Context) -> Verdict {
    let config = brisk().with_retry_for(Duration::from_millis(300));
    let (one, tap, two) = context.pair(config).await?;
    let client = two.client("/").await?;
    tap.rule(|out| match out.is_data() {
        true => Fate::Refuse(ErrorKind::Unavailable),
        false => Fate::Pass,
    });
    say(&one, "never sent").await?;
    told(&one, "what was not sent", is_unsent(1)).await?;
    tap.pass();
    // The lane may be waiting for its next attempt for longer than it keeps what waits.
    say_until_heard(&one, &client).await?;
    let heard = heard(&one, &client).await?;
    ensure!(
        !heard.contains(&"never sent".to_owned()),
        "what was told as unsent arrived"
    );
    expect_lost_in_all(&two, 0).await
}

async fn what_was_emitted_before_a_node_came_is_no_loss_of_it(context: Context) -> Verdict {
    let (one, _tap, two) = context.pair(brisk()).await?;
    say_apart(&one, words(0..20)).await?;
    let newcomer = context.server(brisk()).await?;
    within(patience(), "joining", newcomer.namespace("/")).await??;
    let client = newcomer.client("/").await?;
    say_apart(&one, ["first", "second"]).await?;
    expect_heard(&one, &client, ["first", "second"]).await?;
    expect_lost_in_all(&newcomer, 0).await?;
    expect_lost_in_all(&two, 0).await
}

async fn many_losses_at_once_are_told_exactly(context: Context) -> Verdict {
    const COUNT: u64 = 600;
    let (one, tap, two) = context.pair(brisk()).await?;
    let client = two.client("/").await?;
    // Every third frame is lost, the last one too; frames that only tell where the lane stands pass.
    let mut frames = 0_u64;
    let mut rng = fastrand::Rng::with_seed(context.seed);
    tap.rule(move |out| {
        frames += u64::from(out.is_data());
        match out.is_data() && (rng.u8(..3) == 0 || frames == COUNT) {
            true => Fate::Lose,
            false => Fate::Pass,
        }
    });
    say_apart(&one, words(0..COUNT)).await?;
    let lost = async || {
        let arrived = heard_so_far(&client).len() as u64;
        Ok(arrived + two.cluster().stats().envelopes_lost == COUNT)
    };
    eventually(
        patience(),
        "as many arrivals and told losses as emits",
        lost,
    )
    .await?;
    let lost = two.cluster().stats().envelopes_lost;
    ensure!(lost > COUNT / 6, "only {lost} were lost on purpose");
    told_lost(&two, one.id()?, lost).await
}
