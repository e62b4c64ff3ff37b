//! Emits while the broker cannot be reached, and when an emit is done: what the settings promise.

use std::time::Duration;

use socketioxide_adapter_core::{
    ClusterConfig, ClusterEvent, ErrorKind, OutagePolicy, PublishMode,
    transport::{BufferLimits, LinkState},
};
use tokio::time::Instant;

use super::{
    stage::{
        SAID, assemble, brisk, expect_failure, expect_heard, expect_lost_in_all, heard_so_far,
        hears, link_becomes, say, say_until_heard, words,
    },
    tap::Fate,
};
use crate::{
    Ability, Gate,
    cases::{Need, cases},
    check::{Verdict, ensure, ensure_eq, eventually, within},
    context::{Context, patience},
    node::{Client, Node},
};

cases!("cluster::outage":
    failing_fast_it_fails_at_once_and_sends_nothing [Need::Gate],
    local_sockets_are_served_during_an_outage [Need::Gate],
    buffering_it_sends_in_order_when_the_link_is_back [Need::Gate],
    buffering_it_tells_what_became_too_old [Need::Gate],
    buffering_it_refuses_what_does_not_fit [Need::Gate],
    blocking_it_waits_for_the_link [Need::Gate],
    blocking_it_fails_by_its_deadline [Need::Gate],
    volatile_emits_neither_wait_nor_fail [Need::Gate],
    confirmed_an_emit_is_done_when_the_broker_has_it,
    confirmed_an_emit_fails_by_its_deadline_if_the_broker_is_frozen [Need::Fault(Ability::Freeze), Need::Confirms],
    queued_an_emit_is_done_before_the_broker_has_it,
    a_flush_waits_for_the_broker,
    a_full_lane_makes_emits_wait_and_then_fail,
);

/// A node that can be cut off, and one that cannot, each with a client.
struct CutOff {
    away: Node,
    gate: Box<dyn Gate>,
    other: Node,
    mine: Client,
    theirs: Client,
}

impl CutOff {
    /// A cluster in which the link of one node has just gone down.
    async fn new(context: &Context, config: ClusterConfig) -> Verdict<Self> {
        let (away, gate) = context.gated(config).await?;
        let other = context.server(brisk()).await?;
        assemble(&[&away, &other]).await?;
        let (mine, theirs) = (away.client("/").await?, other.client("/").await?);
        say(&away, "before").await?;
        hears(&theirs, "before").await?;
        away.cluster().flush().await?;
        gate.shut().await?;
        link_becomes(&away, LinkState::Down).await?;
        Ok(Self {
            away,
            gate,
            other,
            mine,
            theirs,
        })
    }

    /// Ends the outage.
    async fn reopen(&self) -> Verdict {
        self.gate.open().await?;
        link_becomes(&self.away, LinkState::Up).await
    }
}

fn buffering(max_age: Duration) -> ClusterConfig {
    brisk().with_outage(OutagePolicy::Buffer { max_age })
}

fn blocking(timeout: Duration) -> ClusterConfig {
    brisk().with_outage(OutagePolicy::Block { timeout })
}

const LONG: Duration = Duration::from_secs(60);

async fn failing_fast_it_fails_at_once_and_sends_nothing(context: Context) -> Verdict {
    let cut = CutOff::new(&context, brisk()).await?;
    let start = Instant::now();
    expect_failure(
        cut.away.io().emit(SAID, "refused").await,
        ErrorKind::LinkDown,
    )?;
    let joined = cut
        .away
        .io()
        .clone()
        .join("room")
        .await
        .map_err(|error| error.kind());
    ensure_eq("a join", &joined, &Err(ErrorKind::LinkDown))?;
    let left = cut.away.io().disconnect().await;
    expect_failure(left, ErrorKind::LinkDown)?;
    ensure!(
        start.elapsed() < Duration::from_secs(1),
        "it took {:?}",
        start.elapsed()
    );
    let refused = cut.away.cluster().stats().envelopes_refused;
    ensure_eq("emits counted as refused", &refused, &3)?;
    cut.reopen().await?;
    say(&cut.away, "after").await?;
    hears(&cut.theirs, "after").await?;
    expect_heard(&cut.away, &cut.theirs, ["before", "after"]).await?;
    expect_lost_in_all(&cut.other, 0).await
}

async fn local_sockets_are_served_during_an_outage(context: Context) -> Verdict {
    let cut = CutOff::new(&context, brisk()).await?;
    let io = cut.away.io();
    // The error is about the other nodes.
    expect_failure(io.emit(SAID, "to all").await, ErrorKind::LinkDown)?;
    let joined = io.clone().join("room").await.map_err(|error| error.kind());
    ensure_eq("a join", &joined, &Err(ErrorKind::LinkDown))?;
    expect_failure(
        io.to("room").emit(SAID, "to the room").await,
        ErrorKind::LinkDown,
    )?;
    io.local().emit(SAID, "local").await?;
    hears(&cut.mine, "local").await?;
    let heard = heard_so_far(&cut.mine);
    let expected = ["before", "to all", "to the room", "local"].map(str::to_owned);
    ensure_eq("what the local socket heard", &heard, &expected.to_vec())
}

async fn buffering_it_sends_in_order_when_the_link_is_back(context: Context) -> Verdict {
    let cut = CutOff::new(&context, buffering(LONG)).await?;
    for word in words(0..100) {
        say(&cut.away, &word).await?;
    }
    hears(&cut.mine, "99").await?;
    cut.reopen().await?;
    say(&cut.away, "after").await?;
    hears(&cut.theirs, "after").await?;
    let expected = ["before".to_owned()]
        .into_iter()
        .chain(words(0..100))
        .chain(["after".into()]);
    expect_heard(&cut.away, &cut.theirs, expected).await?;
    ensure_eq(
        "emits that were not sent",
        &cut.away.cluster().stats().envelopes_unsent,
        &0,
    )?;
    expect_lost_in_all(&cut.other, 0).await
}

/// Waits until a node was told that so many of its own messages were not sent.
async fn told_unsent(node: &Node, expected: u64) -> Verdict {
    let unsent = |events: &[ClusterEvent]| {
        let counts = events.iter().map(|event| match event {
            ClusterEvent::Unsent { count, .. } => *count,
            _ => 0,
        });
        counts.sum::<u64>()
    };
    let told = node.events().wait_for(|events| unsent(events) >= expected);
    within(patience(), "an event about what was not sent", told).await?;
    ensure_eq(
        "messages told as unsent",
        &node.events().with(unsent),
        &expected,
    )
}

async fn buffering_it_tells_what_became_too_old(context: Context) -> Verdict {
    let cut = CutOff::new(&context, buffering(Duration::from_millis(200))).await?;
    for word in words(0..10) {
        say(&cut.away, &word).await?;
    }
    told_unsent(&cut.away, 10).await?;
    cut.reopen().await?;
    say_until_heard(&cut.away, &cut.theirs).await?;
    let heard = heard_so_far(&cut.theirs);
    ensure!(
        !heard.contains(&"0".to_owned()),
        "what was told as unsent arrived"
    );
    expect_lost_in_all(&cut.other, 0).await
}

async fn buffering_it_refuses_what_does_not_fit(context: Context) -> Verdict {
    const ROOM: usize = 5;
    let config = buffering(LONG).with_lane(BufferLimits::new(ROOM, 1 << 20));
    let cut = CutOff::new(&context, config).await?;
    for word in words(0..ROOM as u64) {
        say(&cut.away, &word).await?;
    }
    let start = Instant::now();
    expect_failure(cut.away.io().emit(SAID, "too many").await, ErrorKind::Full)?;
    ensure!(
        start.elapsed() < Duration::from_secs(1),
        "it took {:?}",
        start.elapsed()
    );
    cut.reopen().await?;
    hears(&cut.theirs, "4").await?;
    let expected = ["before".to_owned()]
        .into_iter()
        .chain(words(0..ROOM as u64));
    expect_heard(&cut.away, &cut.theirs, expected).await
}

async fn blocking_it_waits_for_the_link(context: Context) -> Verdict {
    let cut = CutOff::new(&context, blocking(LONG)).await?;
    let emit = cut.away.io().emit(SAID, "waited");
    let reopen = async {
        // Local sockets do not wait.
        hears(&cut.mine, "waited").await?;
        let heard = heard_so_far(&cut.theirs);
        ensure_eq(
            "heard before the link was back",
            &heard,
            &vec!["before".to_owned()],
        )?;
        cut.reopen().await
    };
    let both = async { tokio::join!(emit, reopen) };
    let (emitted, reopened) = within(3 * patience(), "the end of an emit that waits", both).await?;
    reopened?;
    emitted?;
    hears(&cut.theirs, "waited").await?;
    expect_heard(&cut.away, &cut.theirs, ["before", "waited"]).await
}

async fn blocking_it_fails_by_its_deadline(context: Context) -> Verdict {
    let wait = Duration::from_millis(300);
    let cut = CutOff::new(&context, blocking(wait)).await?;
    let start = Instant::now();
    let emit = cut.away.io().emit(SAID, "waited in vain");
    let emitted = within(patience(), "the end of an emit that waits", emit).await?;
    expect_failure(emitted, ErrorKind::LinkDown)?;
    ensure!(
        start.elapsed() >= wait,
        "it failed after {:?}",
        start.elapsed()
    );
    cut.reopen().await?;
    say(&cut.away, "after").await?;
    hears(&cut.theirs, "after").await?;
    expect_heard(&cut.away, &cut.theirs, ["before", "after"]).await
}

async fn volatile_emits_neither_wait_nor_fail(context: Context) -> Verdict {
    let cut = CutOff::new(&context, blocking(LONG)).await?;
    let emit = cut.away.io().volatile().emit(SAID, "volatile");
    within(patience(), "the end of a volatile emit", emit).await??;
    hears(&cut.mine, "volatile").await?;
    cut.reopen().await?;
    say(&cut.away, "after").await?;
    hears(&cut.theirs, "after").await?;
    expect_heard(&cut.away, &cut.theirs, ["before", "after"]).await
}

async fn confirmed_an_emit_is_done_when_the_broker_has_it(context: Context) -> Verdict {
    let config = brisk().with_publish_mode(PublishMode::Confirmed);
    let (one, tap, two) = context.pair(config).await?;
    let client = two.client("/").await?;
    for word in words(0..20) {
        let before = tap.data_frames();
        say(&one, &word).await?;
        ensure!(tap.data_frames() > before, "done before it was published");
    }
    expect_heard(&one, &client, words(0..20)).await
}

async fn confirmed_an_emit_fails_by_its_deadline_if_the_broker_is_frozen(
    context: Context,
) -> Verdict {
    let wait = Duration::from_millis(500);
    let config = brisk()
        .with_publish_mode(PublishMode::Confirmed)
        .with_publish_timeout(wait);
    let [one, two] = context.cluster(config).await?;
    let clients = [one.client("/").await?, two.client("/").await?];
    context.faults()?.freeze().await?;
    let emit = one.io().emit(SAID, "in doubt");
    let emitted = within(patience(), "the end of an emit while frozen", emit).await?;
    expect_failure(emitted, ErrorKind::Timeout)?;
    hears(&clients[0], "in doubt").await?;
    context.faults()?.thaw().await?;
    say_until_heard(&one, &clients[1]).await.map(drop)
}

async fn queued_an_emit_is_done_before_the_broker_has_it(context: Context) -> Verdict {
    let (one, tap, two) = context.pair(brisk()).await?;
    let client = two.client("/").await?;
    tap.rule(|out| match out.is_data() {
        true => Fate::Refuse(ErrorKind::Unavailable),
        false => Fate::Pass,
    });
    for word in words(0..20) {
        within(patience(), "the end of an emit", say(&one, &word)).await??;
    }
    ensure_eq(
        "heard before the broker took it",
        &heard_so_far(&client),
        &Vec::new(),
    )?;
    tap.pass();
    hears(&client, "19").await?;
    expect_heard(&one, &client, words(0..20)).await?;
    expect_lost_in_all(&two, 0).await
}

async fn a_flush_waits_for_the_broker(context: Context) -> Verdict {
    let config = brisk().with_publish_timeout(Duration::from_millis(300));
    let (one, tap, two) = context.pair(config).await?;
    let client = two.client("/").await?;
    one.cluster().flush().await?;
    tap.rule(|out| match out.is_data() {
        true => Fate::Refuse(ErrorKind::Unavailable),
        false => Fate::Pass,
    });
    say(&one, "waits").await?;
    let flushed = within(patience(), "the end of a flush", one.cluster().flush()).await?;
    let kind = flushed.map_err(|error| error.kind());
    ensure_eq(
        "a flush that the broker lets wait",
        &kind,
        &Err(ErrorKind::Timeout),
    )?;
    tap.pass();
    let flushed = async || Ok(one.cluster().flush().await.is_ok());
    eventually(patience(), "a flush that is done", flushed).await?;
    expect_heard(&one, &client, ["waits"]).await
}

async fn a_full_lane_makes_emits_wait_and_then_fail(context: Context) -> Verdict {
    const ROOM: u64 = 10;
    let config = brisk()
        .with_lane(BufferLimits::new(ROOM as usize, 1 << 20))
        .with_publish_timeout(Duration::from_millis(300));
    let (one, tap, two) = context.pair(config).await?;
    let client = two.client("/").await?;
    tap.rule(|out| match out.is_data() {
        true => Fate::Refuse(ErrorKind::Unavailable),
        false => Fate::Pass,
    });
    for word in words(0..ROOM) {
        say(&one, &word).await?;
    }
    let emit = one.io().emit(SAID, "too many");
    let emitted = within(patience(), "the end of an emit", emit).await?;
    expect_failure(emitted, ErrorKind::Full)?;
    tap.pass();
    let last = async || Ok(one.io().emit(SAID, "fits again").await.is_ok());
    eventually(patience(), "room in the lane", last).await?;
    hears(&client, "fits again").await?;
    let expected = words(0..ROOM).into_iter().chain(["fits again".into()]);
    expect_heard(&one, &client, expected).await?;
    ensure_eq(
        "emits that were not sent",
        &one.cluster().stats().envelopes_unsent,
        &0,
    )
}
