//! The broker dies, hangs, forgets or is replaced while the load goes on.

use super::{
    drill::{Drill, pick},
    member::Seat,
};
use crate::{
    Ability,
    cases::{Need, cases},
    check::Verdict,
    context::{Context, patience},
};

cases!("faults::broker":
    killed_again_and_again [Need::Fault(Ability::Restart)],
    killed_amid_a_burst [Need::Fault(Ability::Restart)],
    stopped_and_started [Need::Fault(Ability::Stop)],
    stopped_twice_with_nothing_in_between [Need::Fault(Ability::Stop)],
    frozen_for_a_moment [Need::Fault(Ability::Freeze)],
    frozen_until_it_is_noticed [Need::Fault(Ability::Freeze)],
    all_connections_cut [Need::Fault(Ability::Cut)],
    wiped [Need::Fault(Ability::Wipe)],
    another_server_takes_over [Need::Fault(Ability::FailOver)],
    one_fault_after_another [Need::Fault(Ability::Restart)],
);

async fn killed_again_and_again(context: Context) -> Verdict {
    let mut drill = Drill::of_three(&context).await?;
    while drill.goes_on(5).await? {
        let before = drill.epochs();
        drill.note("the broker is killed and restarted");
        drill.faults()?.restart().await?;
        drill.recovers_from(&before).await?;
    }
    drill.ends().await.map(drop)
}

async fn killed_amid_a_burst(context: Context) -> Verdict {
    let burst = context.length.burst;
    let mut drill = Drill::of_three(&context).await?;
    while drill.goes_on(2).await? {
        let before = drill.epochs();
        let attempts = drill.attempted();
        drill.burst(burst);
        drill.note("a burst begins");
        drill
            .until(3 * patience(), "the middle of a burst", |drill| {
                drill.attempted() > attempts + burst
            })
            .await?;
        drill.note("the broker is killed and restarted");
        drill.faults()?.restart().await?;
        drill.burst_ends().await?;
        drill.recovers_from(&before).await?;
    }
    drill.ends().await.map(drop)
}

async fn stopped_and_started(context: Context) -> Verdict {
    let mut drill = Drill::of_three(&context).await?;
    while drill.goes_on(2).await? {
        let before = drill.loses_the_broker().await?;
        drill.holds().await?;
        drill.regains_the_broker(&before).await?;
    }
    drill.ends().await.map(drop)
}

async fn stopped_twice_with_nothing_in_between(context: Context) -> Verdict {
    let mut drill = Drill::of_three(&context).await?;
    while drill.goes_on(1).await? {
        for member in &drill.members {
            member.publisher.steady(false);
        }
        for _ in 0..2 {
            let before = drill.loses_the_broker().await?;
            drill.regains_the_broker(&before).await?;
        }
        for member in &drill.members {
            member.publisher.steady(true);
        }
    }
    drill.ends().await.map(drop)
}

async fn frozen_for_a_moment(context: Context) -> Verdict {
    let mut drill = Drill::of_three(&context).await?;
    while drill.goes_on(3).await? {
        drill.note("the broker is frozen");
        drill.faults()?.freeze().await?;
        drill.holds().await?;
        drill.note("the broker is thawed");
        drill.faults()?.thaw().await?;
        drill.recovers().await?;
    }
    drill.ends().await.map(drop)
}

async fn frozen_until_it_is_noticed(context: Context) -> Verdict {
    let mut drill = Drill::of_three(&context).await?;
    while drill.goes_on(1).await? {
        let failed = drill.members[0].publisher.failed();
        drill.note("the broker is frozen");
        drill.faults()?.freeze().await?;
        // What is not confirmed in time fails, and so does what is emitted once the link is known to be down.
        drill
            .until(2 * patience(), "an emit that fails", |drill| {
                drill.members[0].publisher.failed() > failed
            })
            .await?;
        drill.holds().await?;
        drill.note("the broker is thawed");
        drill.faults()?.thaw().await?;
        drill.recovers().await?;
    }
    drill.ends().await.map(drop)
}

async fn all_connections_cut(context: Context) -> Verdict {
    let mut drill = Drill::of_three(&context).await?;
    while drill.goes_on(5).await? {
        let before = drill.epochs();
        drill.note("all connections are cut");
        drill.faults()?.cut().await?;
        drill.recovers_from(&before).await?;
    }
    drill.ends().await.map(drop)
}

async fn wiped(context: Context) -> Verdict {
    let mut drill = Drill::of_three(&context).await?;
    while drill.goes_on(2).await? {
        let before = drill.epochs();
        drill.note("the broker is restarted without its data");
        drill.faults()?.wipe().await?;
        drill.recovers_from(&before).await?;
    }
    drill.ends_with_losses().await.map(drop)
}

async fn another_server_takes_over(context: Context) -> Verdict {
    let mut drill = Drill::of_three(&context).await?;
    while drill.goes_on(1).await? {
        let before = drill.epochs();
        drill.note("another server takes over");
        drill.faults()?.fail_over().await?;
        drill.recovers_from(&before).await?;
    }
    // A copy that lags behind is what takes over.
    drill.ends_with_losses().await.map(drop)
}

/// What can happen in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Restart,
    Stop,
    Freeze,
    Cut,
    CutOneOff,
}

async fn one_fault_after_another(context: Context) -> Verdict {
    // A gate need not outlast its broker, but a proxy does.
    let proxied = context.lab.endpoint().is_some();
    let has = |ability| {
        let faults = context.lab.faults();
        faults.is_some_and(|faults| faults.abilities().contains(&ability))
    };
    let all = [
        (Fault::Restart, true),
        (Fault::Stop, has(Ability::Stop)),
        (Fault::Freeze, has(Ability::Freeze)),
        (Fault::Cut, has(Ability::Cut)),
        (Fault::CutOneOff, proxied),
    ];
    let possible = all.into_iter().filter(|(_, possible)| *possible);
    let possible: Vec<Fault> = possible.map(|(fault, _)| fault).collect();
    let last = match proxied {
        true => Seat::queued().proxied(),
        false => Seat::queued(),
    };
    let mut drill = Drill::of(&context, [Seat::confirmed(), Seat::queued(), last]).await?;
    while drill.goes_on(4).await? {
        let fault = *pick(drill.rng(), &possible)?;
        drill.note(&format!("a fault: {fault:?}"));
        let faults = drill.faults()?;
        match fault {
            Fault::Restart => faults.restart().await?,
            Fault::Cut => faults.cut().await?,
            Fault::Stop => {
                faults.stop().await?;
                drill.holds().await?;
                faults.start().await?;
            }
            Fault::Freeze => {
                faults.freeze().await?;
                drill.holds().await?;
                faults.thaw().await?;
            }
            Fault::CutOneOff => {
                drill.members[2].proxy()?.shut();
                drill.holds().await?;
                drill.members[2].proxy()?.open();
            }
        }
        drill.note("the fault is over");
        // The next one may come before everybody has recovered: what is wanted is only that somebody gets something through.
        if drill.rng().bool() {
            drill.recovers().await?;
        }
    }
    drill.ends().await.map(drop)
}
