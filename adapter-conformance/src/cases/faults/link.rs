//! The way of some nodes to the broker breaks, while the others go on.

use std::time::{Duration, Instant};

use socketioxide_adapter_core::{ClusterEvent, ErrorKind, LeaveReason};

use super::{drill::Drill, member::Seat, publisher::FILLER};
use crate::{
    Ability,
    cases::{
        Need, cases,
        cluster::stage::{mortal, told},
    },
    check::{Verdict, ensure, ensure_eq, within},
    context::{Context, patience},
    proxy::{Flow, Proxy, Way},
};

cases!("faults::link":
    one_node_cut_off [Need::Gate],
    most_nodes_cut_off [Need::Gate],
    cut_off_until_it_counts_as_dead [Need::Gate],
    flapping [Need::Gate],
    closed_again_and_again [Need::Proxy],
    reset_amid_frames [Need::Proxy],
    half_open [Need::Proxy],
    deaf [Need::Proxy],
    mute [Need::Proxy],
    trimmed_while_away [Need::Gate, Need::Replay, Need::Fault(Ability::Retain)],
    replayed_slowly [Need::Replay, Need::Proxy],
);

/// Three nodes, the last of which can be cut off.
async fn gated(context: &Context) -> Verdict<Drill<'_>> {
    let seats = [Seat::confirmed(), Seat::queued(), Seat::queued().gated()];
    Drill::of(context, seats).await
}

/// Three nodes, the last of which is behind a proxy.
async fn proxied(context: &Context) -> Verdict<Drill<'_>> {
    let seats = [Seat::queued(), Seat::queued(), Seat::confirmed().proxied()];
    Drill::of(context, seats).await
}

/// Cuts some of three nodes off, as long as a fault lasts. They know that they are, and say so.
async fn cut_off(drill: &mut Drill<'_>, away: &[usize]) -> Verdict {
    let steady: Vec<usize> = (0..3).filter(|at| !away.contains(at)).collect();
    let epochs = drill.epochs();
    for at in away {
        drill.note(&format!("{} is cut off", drill.members[*at].name));
        drill.members[*at].gate()?.shut().await?;
    }
    drill.notice(away).await?;
    for at in away {
        // "I am alone" would be a lie.
        let asked = drill.members[*at].node.io().fetch_sockets();
        let asked = within(patience(), "the end of a question while cut off", asked).await?;
        let kind = asked.map(drop).map_err(|error| error.kind());
        ensure_eq("a question while cut off", &kind, &Err(ErrorKind::LinkDown))?;
    }
    let accepted = steady
        .iter()
        .map(|at| drill.members[*at].publisher.accepted());
    let accepted: Vec<u64> = accepted.collect();
    drill.holds().await?;
    drill
        .until(2 * patience(), "the others going on", |drill| {
            let mut steady = steady.iter().zip(&accepted);
            steady.all(|(at, before)| drill.members[*at].publisher.accepted() > *before)
        })
        .await?;
    for at in away {
        drill.note(&format!("{} is let in again", drill.members[*at].name));
        drill.members[*at].gate()?.open().await?;
    }
    drill
        .until(2 * patience(), "new sessions", |drill| {
            let mut away = away.iter();
            away.all(|at| drill.members[*at].epoch() > epochs[*at])
        })
        .await?;
    drill.recovers().await
}

async fn one_node_cut_off(context: Context) -> Verdict {
    let mut drill = gated(&context).await?;
    while drill.goes_on(3).await? {
        cut_off(&mut drill, &[2]).await?;
    }
    drill.ends().await.map(drop)
}

async fn most_nodes_cut_off(context: Context) -> Verdict {
    let gated = || Seat::queued().gated();
    let mut drill = Drill::of(&context, [Seat::confirmed(), gated(), gated()]).await?;
    while drill.goes_on(2).await? {
        cut_off(&mut drill, &[1, 2]).await?;
    }
    drill.ends().await.map(drop)
}

async fn cut_off_until_it_counts_as_dead(context: Context) -> Verdict {
    let config = || Seat::queued().set(|config| config.with_dead_after(mortal().dead_after));
    let seats = [config(), config(), config().gated()];
    let mut drill = Drill::of(&context, seats).await?;
    while drill.goes_on(1).await? {
        let node = drill.members[2].id;
        let reason = LeaveReason::Dead;
        drill.note("node 3 is cut off");
        drill.members[2].gate()?.shut().await?;
        for other in &drill.members[..2] {
            told(&other.node, "the silence", |event| {
                *event == ClusterEvent::Left { node, reason }
            })
            .await?;
        }
        drill.holds().await?;
        drill.note("node 3 is let in again");
        drill.members[2].gate()?.open().await?;
        drill.recovers().await?;
        // The same node, not another one beside it.
        drill.acquainted().await?;
    }
    drill.ends().await.map(drop)
}

async fn flapping(context: Context) -> Verdict {
    let mut drill = gated(&context).await?;
    while drill.goes_on(1).await? {
        drill.note("the link flaps");
        for _ in 0..10 {
            let attempts = drill.attempted() + 3;
            drill.members[2].gate()?.shut().await?;
            drill
                .until(patience(), "attempts", |drill| {
                    drill.attempted() >= attempts
                })
                .await?;
            let attempts = drill.attempted() + 20;
            drill.members[2].gate()?.open().await?;
            drill
                .until(patience(), "attempts", |drill| {
                    drill.attempted() >= attempts
                })
                .await?;
        }
        drill.note("the link stays up");
        drill.recovers().await?;
    }
    drill.ends().await.map(drop)
}

async fn closed_again_and_again(context: Context) -> Verdict {
    let mut drill = proxied(&context).await?;
    while drill.goes_on(5).await? {
        let before = drill.members[2].epoch();
        drill.note("the connections of node 3 are closed");
        drill.members[2].proxy()?.cut();
        drill
            .until(2 * patience(), "a new session", |drill| {
                drill.members[2].epoch() > before
            })
            .await?;
        drill.recovers().await?;
    }
    drill.ends().await.map(drop)
}

async fn reset_amid_frames(context: Context) -> Verdict {
    const CONNECTIONS: u64 = 20;
    let mut drill = proxied(&context).await?;
    while drill.goes_on(1).await? {
        let way = Way::default().with_reset_after(1_000..10_000);
        let proxy = drill.members[2].proxy()?;
        let enough = proxy.accepted() + CONNECTIONS;
        drill.note("connections of node 3 are reset after some thousand bytes");
        proxy.set_both(way);
        drill
            .until(
                3 * patience(),
                "twenty connections that were reset",
                |drill| {
                    let proxy = drill.members[2].proxy();
                    proxy.is_ok_and(|proxy| proxy.accepted() >= enough)
                },
            )
            .await?;
        drill.note("connections last again");
        let proxy = drill.members[2].proxy()?;
        proxy.set_both(Way::default());
        // Those that already carry a limit would still be reset later.
        proxy.reset();
        drill.recovers().await?;
    }
    drill.ends().await.map(drop)
}

/// Makes the network of one node bad until that is noticed, then good again.
async fn bad_until_noticed(context: &Context, what: &str, worsen: fn(&Proxy)) -> Verdict {
    let mut drill = proxied(context).await?;
    while drill.goes_on(1).await? {
        let before = drill.members[2].epoch();
        drill.note(what);
        worsen(drill.members[2].proxy()?);
        drill.notice(&[2]).await?;
        drill.holds().await?;
        drill.note("the network of node 3 is good again");
        let proxy = drill.members[2].proxy()?;
        proxy.set_both(Way::default());
        drill
            .until(2 * patience(), "a new session", |drill| {
                drill.members[2].epoch() > before
            })
            .await?;
        drill.recovers().await?;
    }
    drill.ends().await.map(drop)
}

async fn half_open(context: Context) -> Verdict {
    bad_until_noticed(
        &context,
        "nothing moves between node 3 and the broker",
        |proxy| {
            proxy.set_both(Way::default().with_flow(Flow::Hold));
        },
    )
    .await
}

async fn deaf(context: Context) -> Verdict {
    bad_until_noticed(
        &context,
        "what the broker sends to node 3 vanishes",
        |proxy| {
            proxy.set_to_client(Way::default().with_flow(Flow::BlackHole));
        },
    )
    .await
}

async fn mute(context: Context) -> Verdict {
    bad_until_noticed(&context, "what node 3 sends vanishes", |proxy| {
        proxy.set_to_broker(Way::default().with_flow(Flow::BlackHole));
    })
    .await
}

async fn trimmed_while_away(context: Context) -> Verdict {
    const RETAINED: u64 = 200;
    /// Less than ten times as many are retained, of each lane.
    const MISSED: u64 = 2 * 12 * RETAINED;
    context.faults()?.retain(RETAINED).await?;
    let seats = [
        // One frame each.
        Seat::confirmed().in_turn(),
        Seat::queued().idle(),
        Seat::queued().idle().gated(),
    ];
    let mut drill = Drill::of(&context, seats).await?;
    while drill.goes_on(1).await? {
        drill.note("node 3 is cut off");
        let before = drill.members[2].epoch();
        drill.members[2].gate()?.shut().await?;
        drill.notice(&[2]).await?;
        drill.members[0].publisher.at_once(MISSED);
        drill.burst_ends().await?;
        drill.note("node 3 is let in again");
        drill.members[2].gate()?.open().await?;
        drill
            .until(2 * patience(), "a new session", |drill| {
                drill.members[2].epoch() > before
            })
            .await?;
        drill.recovers().await?;
    }
    let judgement = drill.ends_with_losses().await?;
    let away = judgement.receivers["node 3"];
    let lost = away.lost_prefix + away.lost_middle + away.lost_suffix;
    ensure!(
        lost > 0,
        "far more was missed than is retained, but nothing was lost"
    );
    ensure_eq("messages told as lost", &away.reported, &lost)
}

/// What a node missed takes longer to come back than a session without it has until it counts as deaf, and a node that says
/// nothing until it counts as dead.
async fn replayed_slowly(context: Context) -> Verdict {
    const SIZE: usize = 32 << 10;
    const MISSED: u64 = 170;
    const BYTES_PER_SECOND: u32 = 512 << 10;
    const SLOW: Duration = Duration::from_secs(7);
    let idle = || Seat::queued().idle();
    let mut drill = Drill::of(&context, [idle(), idle(), idle().proxied()]).await?;
    let left = |drill: &Drill<'_>| {
        let is_left = |event: &&ClusterEvent| matches!(event, ClusterEvent::Left { .. });
        let others = drill.members[..2].iter();
        let left = others.map(|other| {
            let events = other.node.events();
            events.with(|events| events.iter().filter(is_left).count())
        });
        left.sum::<usize>()
    };
    while drill.goes_on(1).await? {
        drill.note("node 3 is cut off");
        let before = drill.members[2].epoch();
        drill.members[2].proxy()?.shut();
        drill.notice(&[2]).await?;
        drill.filler(SIZE);
        drill.members[0].publisher.at_once(MISSED);
        drill.burst_ends().await?;
        drill.filler(FILLER);
        drill.note("node 3 is let in again, by a narrow way");
        let proxy = drill.members[2].proxy()?;
        proxy.set_to_client(Way::default().with_bandwidth(BYTES_PER_SECOND));
        proxy.open();
        let start = Instant::now();
        drill
            .until(2 * patience(), "a new session", |drill| {
                drill.members[2].epoch() > before
            })
            .await?;
        let (session, gone) = (drill.members[2].epoch(), left(&drill));
        let missed: Vec<_> = drill.members[0].publisher.latest().collect();
        drill
            .until(4 * patience(), "the end of the replay", |drill| {
                let mut missed = missed.iter();
                missed.all(|entry| drill.ledger.is_everywhere(*entry))
            })
            .await?;
        let took = start.elapsed();
        drill.note(&format!("all of it is there after {took:?}"));
        ensure!(took > SLOW, "the replay took {took:?} only");
        drill.recovers().await?;
        ensure_eq("sessions", &drill.members[2].epoch(), &session)?;
        ensure_eq("nodes declared gone", &left(&drill), &gone)?;
        drill.members[2].proxy()?.set_to_client(Way::default());
    }
    drill.ends().await.map(drop)
}
