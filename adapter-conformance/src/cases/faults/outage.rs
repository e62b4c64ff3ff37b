//! What nodes do while the broker is away, by their settings: fail, keep, wait, or not even try.

use std::time::Duration;

use socketioxide_adapter_core::{ClusterConfig, OutagePolicy, transport::BufferLimits};

use super::{
    drill::Drill,
    member::{Connected, Seat},
    publisher::LANES,
};
use crate::{
    Ability,
    cases::{Need, cases},
    check::{Verdict, ensure, ensure_eq},
    context::{Context, patience},
    ledger::Judgement,
};

cases!("faults::outage":
    emits_that_are_kept [Need::Fault(Ability::Stop)],
    emits_that_wait [Need::Fault(Ability::Stop)],
    longer_than_emits_are_kept [Need::Fault(Ability::Stop)],
    a_storm_of_emits_that_fail [Need::Fault(Ability::Stop)],
    a_storm_of_emits_that_are_kept [Need::Fault(Ability::Stop)],
    a_node_that_is_idle [Need::Fault(Ability::Stop)],
    a_node_that_joins_meanwhile [Need::Fault(Ability::Stop)],
);

const LONG: Duration = Duration::from_secs(60);

fn keeping(config: ClusterConfig, max_age: Duration) -> ClusterConfig {
    config.with_outage(OutagePolicy::Buffer { max_age })
}

/// Three nodes, of which those that do not confirm have these settings.
async fn three<'a>(
    context: &'a Context,
    change: impl Fn(ClusterConfig) -> ClusterConfig + Send,
) -> Verdict<Drill<'a>> {
    let queued = || Seat::queued().set(&change);
    Drill::of(context, [Seat::confirmed(), queued(), queued()]).await
}

async fn emits_that_are_kept(context: Context) -> Verdict {
    let mut drill = three(&context, |config| keeping(config, LONG)).await?;
    while drill.goes_on(2).await? {
        let before = drill.loses_the_broker().await?;
        drill.holds().await?;
        drill.regains_the_broker(&before).await?;
    }
    let counts = drill.ends().await?.counts;
    ensure_eq("emits that were kept in vain", &counts.withdrawn, &0)
}

async fn emits_that_wait(context: Context) -> Verdict {
    let waiting = |config: ClusterConfig| config.with_outage(OutagePolicy::Block { timeout: LONG });
    let mut drill = three(&context, waiting).await?;
    while drill.goes_on(2).await? {
        let failed = |drill: &Drill<'_>| {
            let queued = drill.members[1..].iter();
            queued.map(|member| member.publisher.failed()).sum::<u64>()
        };
        let before = drill.loses_the_broker().await?;
        // The confirmed one does not wait; the others are at their first emit.
        let attempts = drill.members[0].publisher.attempted() + context.length.attempts;
        drill
            .until(patience(), "attempts during a fault", |drill| {
                drill.members[0].publisher.attempted() >= attempts
            })
            .await?;
        drill.regains_the_broker(&before).await?;
        ensure_eq("emits that wait and fail", &failed(&drill), &0)?;
    }
    drill.ends().await.map(drop)
}

async fn longer_than_emits_are_kept(context: Context) -> Verdict {
    let max_age = Duration::from_millis(100);
    let mut drill = three(&context, |config| keeping(config, max_age)).await?;
    while drill.goes_on(2).await? {
        let withdrawn = drill.ledger.counts().withdrawn + context.length.attempts;
        let before = drill.loses_the_broker().await?;
        drill
            .until(2 * patience(), "emits that are too old", |drill| {
                drill.ledger.counts().withdrawn > withdrawn
            })
            .await?;
        drill.regains_the_broker(&before).await?;
    }
    // What was on its way when the broker went is given up too, and a log that never got it cannot give it back.
    drill.ends_with_losses().await.map(drop)
}

/// Emits much more than any lane holds while the broker is away.
async fn storm(
    context: &Context,
    change: fn(ClusterConfig) -> ClusterConfig,
) -> Verdict<Judgement> {
    let mut drill = three(context, change).await?;
    while drill.goes_on(1).await? {
        let before = drill.loses_the_broker().await?;
        drill.burst(STORM * context.length.burst);
        drill.burst_ends().await?;
        drill.regains_the_broker(&before).await?;
    }
    drill.ends().await
}

/// Bursts in a storm.
const STORM: u64 = 2;
/// Messages that a lane holds in a storm.
const ROOM: usize = 200;

async fn a_storm_of_emits_that_fail(context: Context) -> Verdict {
    let judgement = storm(&context, |config| config).await?;
    let refused = 3 * STORM * context.length.burst;
    ensure!(
        judgement.counts.not_sent >= refused,
        "{refused} emits during an outage, but only {} failed",
        judgement.counts.not_sent
    );
    Ok(())
}

async fn a_storm_of_emits_that_are_kept(context: Context) -> Verdict {
    let small = |config: ClusterConfig| {
        let config = keeping(config, LONG);
        config.with_lane(BufferLimits::new(ROOM, 1 << 20))
    };
    let judgement = storm(&context, small).await?;
    let lanes = LANES.len() as u64;
    let refused = 2 * (STORM * context.length.burst - lanes * ROOM as u64);
    ensure!(
        judgement.counts.not_sent >= refused,
        "lanes that hold {ROOM} were given much more, but only {} were refused",
        judgement.counts.not_sent
    );
    ensure_eq(
        "emits that were kept in vain",
        &judgement.counts.withdrawn,
        &0,
    )
}

async fn a_node_that_is_idle(context: Context) -> Verdict {
    let seats = [Seat::confirmed(), Seat::queued(), Seat::queued().idle()];
    let mut drill = Drill::of(&context, seats).await?;
    while drill.goes_on(2).await? {
        let before = drill.loses_the_broker().await?;
        drill.holds().await?;
        drill.regains_the_broker(&before).await?;
    }
    drill.ends().await.map(drop)
}

async fn a_node_that_joins_meanwhile(context: Context) -> Verdict {
    let mut drill = Drill::of_three(&context).await?;
    while drill.goes_on(1).await? {
        let seat = Seat::queued().set(|config| config.with_init_timeout(LONG));
        let connected = Connected::new(&context, seat).await?;
        let before = drill.loses_the_broker().await?;
        drill.note("a node joins");
        let both = async {
            // Joining comes first, and waits.
            tokio::try_join!(biased; drill.join(connected), drill.regains_the_broker(&before))
        };
        let (member, ()) = both.await?;
        drill.takes_in(member);
        drill.acquainted().await?;
        drill.load_goes_on().await?;
        drill.leaves(3).await?;
    }
    drill.ends().await.map(drop)
}
