//! The end of a drill, and the verdict.
//!
//! Peace is made: every link is up, and what each node emits reaches every client, and goes on to. Then the nodes leave, which
//! makes them tell what they hold back, and the books are judged.

use std::time::Duration;

use socketioxide_adapter_core::transport::Replay;

use super::{
    drill::{Drill, tasks},
    member::Member,
    publisher::LANES,
};
use crate::{
    cases::memory::resident_bytes,
    check::{Verdict, ensure, eventually, within},
    context::patience,
    ledger::Judgement,
};

/// How much the process may grow, beyond the books themselves: the lanes and subscriptions of four nodes, at 16 MiB each.
const GROWTH: u64 = 128 << 20;
/// What the books and the clients keep of one message, beside its payload.
const NOTE: u64 = 1 << 10;

impl Drill<'_> {
    /// Makes peace, ends the load, and wants the books to balance. Transports that replay may have lost nothing.
    pub(super) async fn ends(self) -> Verdict<Judgement> {
        let replays = self.members.iter().all(|member| {
            let capabilities = member.node.transport().capabilities();
            capabilities.replay != Replay::None
        });
        let judgement = self.ends_with_losses().await?;
        ensure!(
            judgement.total().reported == 0 || !replays,
            "a transport that replays lost messages within its retention"
        );
        Ok(judgement)
    }

    /// The same where nothing that happened may lose anything, unless a session ended all the same, as on a machine that
    /// is too busy.
    pub(super) async fn ends_without_losses(self) -> Verdict {
        let before = self.epochs.clone();
        let (judgement, after) = self.judged().await?;
        ensure!(
            judgement.lost() == 0 || before != after,
            "messages were lost although no link was"
        );
        Ok(())
    }

    /// The same where also a log may lose something.
    pub(super) async fn ends_with_losses(self) -> Verdict<Judgement> {
        Ok(self.judged().await?.0)
    }

    async fn judged(mut self) -> Verdict<(Judgement, Vec<u64>)> {
        self.makes_peace().await?;
        let epochs = self.epochs();
        let journal = &self.context.journal;
        for member in &mut self.members {
            within(
                2 * patience(),
                "the end of the load",
                member.publisher.end(),
            )
            .await?;
            let longest = format!("longest emit of {}, ms", member.name);
            let (took, bound) = (member.publisher.longest_call_ms(), member.call_bound_ms());
            self.ledger.measures(&longest, took, bound);
        }
        for member in &self.members {
            let who = |id| self.numbers.get(&id).copied();
            let leaves = member.expect_accounts(&self.ledger, journal, who);
            within(3 * patience(), "leaving", leaves).await??;
        }
        if self.context.alone {
            let grown = (resident_bytes() as u64).saturating_sub(self.memory);
            let notes = self.ledger.counts().attempted * (NOTE + self.filler);
            let bound = GROWTH + notes * self.members.len() as u64;
            self.ledger
                .measures("growth of the process, bytes", grown, bound);
        }
        self.members.clear();
        let before = self.tasks as u64;
        // Too many is for the ledger to say.
        let gone = async || Ok(tasks() as u64 <= before);
        let _ = eventually(patience(), "the end of all tasks", gone).await;
        self.ledger.measures("tasks left", tasks() as u64, before);
        let judgement = self.ledger.judge();
        ensure!(judgement.is_clean(), "the ledger does not balance");
        Ok((judgement, epochs))
    }

    /// Ends the load, waits until all is well, then emits what must arrive everywhere. Should a session end meanwhile, that was no peace.
    async fn makes_peace(&self) -> Verdict {
        for member in &self.members {
            member.publisher.steady(false);
        }
        let peace = async {
            loop {
                self.recovers().await?;
                let before = self.epochs();
                // What is idle hears again by itself, so it is the last one to speak.
                for idle in [false, true] {
                    let speak = self.members.iter().filter(|member| member.idle == idle);
                    for member in speak {
                        self.is_heard(member).await?;
                    }
                }
                self.acquainted().await?;
                self.ledger.finals();
                for member in &self.members {
                    member.publisher.at_once(self.context.length.finals);
                }
                self.burst_ends().await?;
                // What is missing is for the ledger to say.
                self.comes_to_be(patience(), |drill| {
                    drill.ledger.finals_arrived() || drill.epochs() != before
                })
                .await?;
                if self.epochs() == before {
                    self.note("peace");
                    return Ok(());
                }
                self.note("no peace yet: a session has ended");
                self.ledger.unsettles();
            }
        };
        within(6 * patience(), "peace", peace).await?
    }

    /// Emits until one message has reached everybody, in every lane.
    async fn is_heard(&self, member: &Member) -> Verdict {
        let heard = async {
            loop {
                member.publisher.at_once(LANES.len() as u64);
                let done = |_: &Self| member.publisher.is_done();
                self.until(patience(), "the end of an emit", done).await?;
                let probes: Vec<_> = member.publisher.latest().collect();
                let soon = Duration::from_millis(200);
                let everywhere = self.comes_to_be(soon, |drill| {
                    probes
                        .iter()
                        .all(|probe| drill.ledger.is_everywhere(*probe))
                });
                if everywhere.await? {
                    return Ok(());
                }
            }
        };
        let what = format!("{} being heard by everybody", member.name);
        within(3 * patience(), &what, heard).await?
    }
}
