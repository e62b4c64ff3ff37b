//! A cluster under load that has faults.
//!
//! Every node emits all the time, in two namespaces, and has a client in each of them, whose arrivals are what counts.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use socketioxide_adapter_core::{NodeId, transport::LinkState};
use tokio::{runtime::Handle, time::sleep};

use super::{
    member::{Connected, Member, Seat},
    publisher::FILLER,
};
use crate::{
    Faults,
    cases::{cluster::stage::acquainted, memory::resident_bytes},
    check::{Failure, Verdict, ensure, within},
    context::{Context, patience},
    lab::USUAL_PATIENCE,
    ledger::Ledger,
};

/// Between two looks at what has arrived.
const POLL: Duration = Duration::from_millis(5);

/// A cluster under load.
pub(super) struct Drill<'a> {
    pub(super) context: &'a Context,
    pub(super) ledger: Arc<Ledger>,
    pub(super) members: Vec<Member>,
    /// Everybody who was ever there.
    pub(super) numbers: BTreeMap<NodeId, u32>,
    pub(super) filler: u64,
    rng: fastrand::Rng,
    rounds: u32,
    start: Instant,
    pub(super) tasks: usize,
    pub(super) memory: u64,
    pub(super) epochs: Vec<u64>,
}

impl<'a> Drill<'a> {
    /// Three nodes with a direct way to the broker, one of which has its emits confirmed.
    pub(super) async fn of_three(context: &'a Context) -> Verdict<Self> {
        let seats = [Seat::confirmed(), Seat::queued(), Seat::queued()];
        Self::of(context, seats).await
    }

    /// These nodes, which know each other and are under load.
    pub(super) async fn of(
        context: &'a Context,
        seats: impl IntoIterator<Item = Seat> + Send,
    ) -> Verdict<Self> {
        let ledger = Arc::<Ledger>::default();
        context.journal.books(&ledger);
        let mut drill = Self {
            context,
            ledger,
            members: Vec::new(),
            numbers: BTreeMap::new(),
            filler: FILLER as u64,
            rng: fastrand::Rng::with_seed(context.seed),
            rounds: 0,
            start: Instant::now(),
            tasks: tasks(),
            memory: resident_bytes() as u64,
            epochs: Vec::new(),
        };
        for seat in seats {
            drill.seat(seat).await?;
        }
        drill.acquainted().await?;
        drill.note("everybody knows everybody");
        Ok(drill)
    }

    /// Lets a node connect and join.
    pub(super) async fn seat(&mut self, seat: Seat) -> Verdict {
        let connected = Connected::new(self.context, seat).await?;
        let member = self.join(connected).await?;
        self.takes_in(member);
        Ok(())
    }

    /// Lets a node join that is connected.
    pub(super) async fn join(&self, connected: Connected) -> Verdict<Member> {
        let number = self.numbers.len() as u32 + 1;
        Member::join(self.context, &self.ledger, number, connected).await
    }

    /// Puts a node that has joined under load, unless it is to be idle.
    pub(super) fn takes_in(&mut self, member: Member) {
        member.publisher.steady(!member.idle);
        self.numbers.insert(member.id, member.number);
        self.epochs.push(member.epoch());
        self.members.push(member);
    }

    /// Waits until everybody knows everybody.
    pub(super) async fn acquainted(&self) -> Verdict {
        let nodes: Vec<_> = self.members.iter().map(|member| &member.node).collect();
        acquainted(&nodes).await
    }

    /// Notes what is done to the cluster, for the case that it fails.
    pub(super) fn note(&self, what: &str) {
        self.context.journal.note(what);
    }

    /// The faults of the lab.
    pub(super) fn faults(&self) -> Verdict<&'a dyn Faults> {
        self.context.faults()
    }

    /// Randomness of the case.
    pub(super) const fn rng(&mut self) -> &mut fastrand::Rng {
        &mut self.rng
    }

    /// Writes down what has arrived and what was told.
    fn write_down(&self) -> Verdict {
        let journal = &self.context.journal;
        for member in &self.members {
            member.write_down(&self.ledger, journal, |id| self.numbers.get(&id).copied())?;
            member.expect_connected()?;
        }
        Ok(())
    }

    /// Waits for a condition, and keeps the books meanwhile. Returns whether it came to be.
    pub(super) async fn comes_to_be(
        &self,
        deadline: Duration,
        condition: impl Fn(&Self) -> bool,
    ) -> Verdict<bool> {
        let end = Instant::now() + deadline;
        loop {
            self.write_down()?;
            if condition(self) {
                return Ok(true);
            }
            if Instant::now() >= end {
                return Ok(false);
            }
            sleep(POLL).await;
        }
    }

    /// The same, and fails if it does not come to be.
    pub(super) async fn until(
        &self,
        deadline: Duration,
        what: &str,
        condition: impl Fn(&Self) -> bool,
    ) -> Verdict {
        let came = self.comes_to_be(deadline, condition).await?;
        ensure!(came, "{what} did not happen within {deadline:?}");
        Ok(())
    }

    /// Lets every node that is under load get some messages through. Returns whether there is to be another round of faults:
    /// of so many at least, and as long as the soak lasts. In a lab that needs more patience than others, whose broker
    /// takes seconds to start, a third of them is enough.
    pub(super) async fn goes_on(&mut self, rounds: u32) -> Verdict<bool> {
        self.load_goes_on().await?;
        self.rounds += 1;
        let rounds = match patience() > USUAL_PATIENCE {
            true => rounds.div_ceil(3),
            false => rounds,
        };
        Ok(self.rounds <= rounds || self.start.elapsed() < self.context.length.share)
    }

    /// Lets every node that is under load get some messages through.
    pub(super) async fn load_goes_on(&self) -> Verdict {
        let load = self.context.length.load;
        let goals = self.members.iter().filter(|member| !member.idle);
        let goals = goals.map(|member| (member.number, member.publisher.accepted() + load));
        let goals: BTreeMap<u32, u64> = goals.collect();
        self.until(3 * patience(), "the load going on", |drill| {
            drill.members.iter().all(|member| {
                let goal = goals.get(&member.number);
                goal.is_none_or(|goal| member.publisher.accepted() >= *goal)
            })
        })
        .await
    }

    /// Lets a fault last: some attempts long, and in a soak some time.
    pub(super) async fn holds(&mut self) -> Verdict {
        let active = self.members.iter().filter(|member| !member.idle).count() as u64;
        let enough = self.attempted() + active * self.context.length.attempts;
        self.until(2 * patience(), "attempts during a fault", |drill| {
            drill.attempted() >= enough
        })
        .await?;
        let hold = self.context.length.hold.clone();
        let more = (hold.end - hold.start).mul_f64(self.rng.f64());
        sleep(hold.start + more).await;
        Ok(())
    }

    /// Makes every node emit `count` messages as fast as it can.
    pub(super) fn burst(&self, count: u64) {
        for member in self.members.iter().filter(|member| !member.idle) {
            member.publisher.at_once(count);
        }
    }

    /// Waits until bursts have ended.
    pub(super) async fn burst_ends(&self) -> Verdict {
        self.until(4 * patience(), "the end of a burst", |drill| {
            drill
                .members
                .iter()
                .all(|member| member.publisher.is_done())
        })
        .await
    }

    /// Sets the size of payloads.
    pub(super) fn filler(&mut self, filler: usize) {
        self.filler = self.filler.max(filler as u64);
        for member in &self.members {
            member.publisher.filler(filler);
        }
    }

    /// How many attempts have been made in all.
    pub(super) fn attempted(&self) -> u64 {
        let members = self.members.iter();
        members.map(|member| member.publisher.attempted()).sum()
    }

    /// The number of sessions that each transport has had.
    pub(super) fn epochs(&self) -> Vec<u64> {
        self.members.iter().map(Member::epoch).collect()
    }

    /// Waits until every transport has had a session more than `before`, and every link delivers.
    pub(super) async fn recovers_from(&self, before: &[u64]) -> Verdict {
        let wait = patience() + Duration::from_secs(10);
        self.until(wait, "a new session of every node", |drill| {
            let mut epochs = drill.members.iter().map(Member::epoch).zip(before);
            epochs.all(|(epoch, before)| epoch > *before)
        })
        .await?;
        self.recovers().await
    }

    /// Waits until every link delivers.
    pub(super) async fn recovers(&self) -> Verdict {
        // Probes take their time to be given up.
        let wait = 2 * patience() + Duration::from_secs(10);
        let up = self.until(wait, "every link being up", |drill| {
            drill.members.iter().all(Member::is_up)
        });
        if let Err(late) = up.await {
            for member in &self.members {
                self.note(&format!("{}: {}", member.name, member.link()));
            }
            return Err(late);
        }
        self.note("every link is up");
        Ok(())
    }

    /// Stops the broker and waits until everybody knows; returns the numbers of sessions until then.
    pub(super) async fn loses_the_broker(&self) -> Verdict<Vec<u64>> {
        let before = self.epochs();
        self.note("the broker is stopped");
        self.faults()?.stop().await?;
        self.notice(&Vec::from_iter(0..self.members.len())).await?;
        Ok(before)
    }

    /// Starts it again and waits until every link delivers.
    pub(super) async fn regains_the_broker(&self, before: &[u64]) -> Verdict {
        self.note("the broker is started");
        self.faults()?.start().await?;
        self.recovers_from(before).await
    }

    /// Waits until nodes know that their link is down.
    pub(super) async fn notice(&self, members: &[usize]) -> Verdict {
        let wait = patience() + Duration::from_secs(10);
        self.until(wait, "the loss of the link being noticed", |drill| {
            let mut members = members.iter().filter_map(|at| drill.members.get(*at));
            members.all(|member| member.node.cluster().link().state() == LinkState::Down)
        })
        .await
    }

    /// Lets a node leave in order, amid its load.
    pub(super) async fn leaves(&mut self, at: usize) -> Verdict {
        let member = self.members.get(at);
        let member = member.ok_or_else(|| Failure("nobody is there to leave".into()))?;
        self.note(&format!("{} leaves", member.name));
        // From here on its own clients are not owed anything either.
        self.ledger.leaves(&member.name);
        within(2 * patience(), "leaving", member.node.shutdown()).await??;
        self.parts(at).await
    }

    /// Takes a node out that is gone.
    pub(super) async fn parts(&mut self, at: usize) -> Verdict {
        let mut member = self.members.remove(at);
        within(patience(), "the end of a load", member.publisher.end()).await?;
        let who = |id| self.numbers.get(&id).copied();
        member.write_down(&self.ledger, &self.context.journal, who)?;
        self.ledger.leaves(&member.name);
        self.epochs.remove(at);
        Ok(())
    }
}

pub(super) fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// A random element; the case has said that there is one.
pub(super) fn pick<'e, T>(rng: &mut fastrand::Rng, all: &'e [T]) -> Verdict<&'e T> {
    let none = || Failure("nothing to choose from".into());
    all.get(rng.usize(..all.len().max(1))).ok_or_else(none)
}
