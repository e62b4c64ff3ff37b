//! Deliberately broken transports and cluster logic: the suite must catch each of them, in the right cases.
#![allow(clippy::unwrap_used)] // a harness of its own is no `cfg(test)`

mod bug;
mod flaw;
mod keeping;
mod reading;
mod sabotage;
mod transport;

use std::{collections::BTreeSet, process::ExitCode, sync::Arc, time::Duration};

use async_trait::async_trait;
use libtest_mimic::{Arguments, Failed, Trial};
use socketioxide_adapter_conformance::{
    Ability, Faults, Gate, Lab, LabResult, MemoryLab, Outcome, Suite,
};
use socketioxide_adapter_core::{memory::MemoryTransport, transport::Transport};

use crate::{
    bug::Bug,
    flaw::Flaw,
    keeping::{Keeping, Logs},
    sabotage::Sabotage,
    transport::{History, Mutant},
};

/// Mutants tried at once. Most of their time they wait for what does not come.
const THREADS: usize = 8;
/// The case that measures the memory of the process.
const ALONE: &str = "backlog::a_thousand_dropped_subscriptions_leave_nothing";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let bugs = bug::EXPECTED.iter();
    let bugs =
        bugs.map(|(bug, cases)| Trial::test(format!("{bug:?}"), move || try_bug(*bug, cases)));
    let faulty_bugs = bug::UNDER_FAULTS.iter().map(|(bug, cases)| {
        Trial::test(format!("faults::{bug:?}"), move || {
            fails(&of_bug(*bug)?, "faults::", cases)
        })
    });
    let flaws = flaw::EXPECTED.iter();
    let flaws = flaws.map(|(flaw, cases)| {
        Trial::test(format!("cluster::{flaw:?}"), move || try_flaw(*flaw, cases))
    });
    let faulty_flaws = flaw::UNDER_FAULTS.iter().map(|(flaw, cases)| {
        Trial::test(format!("faults::{flaw:?}"), move || {
            fails(&of_flaw(*flaw)?, "faults::", cases)
        })
    });
    let controls = [
        Trial::test("None", || {
            passes(&of_bug(Bug::None)?, "transport::", bug::EXPECTED)
        }),
        Trial::test("NoneWithALog", || {
            passes(&of_bug(Bug::NoneWithALog)?, "transport::", bug::EXPECTED)
        }),
        Trial::test("cluster::None", || {
            passes(&of_flaw(Flaw::None)?, "cluster::", flaw::EXPECTED)
        }),
        Trial::test("faults::None", || {
            passes(&of_flaw(Flaw::None)?, "faults::", flaw::UNDER_FAULTS)
        }),
        Trial::test("faults::NoneWithALog", || {
            passes(&of_bug(Bug::NoneWithALog)?, "faults::", bug::UNDER_FAULTS)
        }),
    ];
    let under_faults = faulty_bugs.chain(faulty_flaws);
    let trials = bugs.chain(flaws).chain(under_faults).chain(controls);
    let trials = trials.collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn try_bug(bug: Bug, cases: &[&str]) -> Result<(), Failed> {
    fails(&of_bug(bug)?, "transport::", cases)
}

fn try_flaw(flaw: Flaw, cases: &[&str]) -> Result<(), Failed> {
    fails(&of_flaw(flaw)?, "cluster::", cases)
}

/// The suite on a transport with a bug.
fn of_bug(bug: Bug) -> Result<Suite, Failed> {
    suite(MutantLab::new(bug, Duration::from_secs(3)))
}

/// The suite on cluster logic with a flaw.
fn of_flaw(flaw: Flaw) -> Result<Suite, Failed> {
    let suite = suite(MutantLab::new(Bug::None, Duration::from_secs(6)))?;
    Ok(suite.with_sabotage(move |transport| Arc::new(Sabotage::new(flaw, transport))))
}

fn suite(lab: MutantLab) -> Result<Suite, Failed> {
    let runtime = tokio::runtime::Runtime::new()?;
    let suite = runtime.block_on(Suite::new(lab));
    Ok(suite.map_err(|error| error.to_string())?)
}

/// All of the cases must fail.
fn fails(suite: &Suite, level: &str, cases: &[&str]) -> Result<(), Failed> {
    let catches = |case: &str| {
        let name = format!("{level}{case}");
        Suite::names().any(|known| known == name) && matches!(suite.run(&name), Outcome::Failed(_))
    };
    let missed: Vec<_> = cases.iter().filter(|case| !catches(case)).collect();
    match missed.is_empty() {
        true => Ok(()),
        false => Err(format!("not caught by {missed:?}").into()),
    }
}

/// All cases that catch some mutant must pass without it, though on the same detours.
fn passes<M>(suite: &Suite, level: &str, mutants: &[(M, &[&str])]) -> Result<(), Failed> {
    let cases = mutants.iter().flat_map(|(_, cases)| *cases);
    let cases: BTreeSet<_> = cases.filter(|case| **case != ALONE).collect();
    let mut report = String::new();
    for case in cases {
        if let Outcome::Failed(reason) = suite.run(&format!("{level}{case}")) {
            report.push_str(&format!("  {case}: {reason}\n"));
        }
    }
    match report.is_empty() {
        true => Ok(()),
        false => Err(format!("failed without a mistake:\n{report}").into()),
    }
}

struct MutantLab {
    bug: Bug,
    memory: MemoryLab,
    history: History,
    logs: Logs,
    patience: Duration,
}

impl MutantLab {
    fn new(bug: Bug, patience: Duration) -> Self {
        Self {
            bug,
            patience,
            memory: MemoryLab::new(),
            history: History::default(),
            logs: Logs::default(),
        }
    }

    fn transport(&self, node: Arc<MemoryTransport>, prefix: &str) -> Arc<dyn Transport> {
        if self.bug.keeps() {
            return Arc::new(Keeping::new(self.bug, node, prefix, self.logs.clone()));
        }
        Arc::new(Mutant::new(self.bug, node, prefix, self.history.clone()))
    }

    fn prefix(&self, prefix: &str) -> String {
        match self.bug {
            Bug::DropsPunctuationFromPrefixes => {
                prefix.chars().filter(char::is_ascii_alphanumeric).collect()
            }
            _ => prefix.to_owned(),
        }
    }
}

#[async_trait]
impl Lab for MutantLab {
    async fn connect(&self, prefix: &str) -> LabResult<Arc<dyn Transport>> {
        let prefix = self.prefix(prefix);
        Ok(self.transport(self.memory.join(&prefix), &prefix))
    }

    fn faults(&self) -> Option<&dyn Faults> {
        match self.bug.keeps() {
            true => Some(self),
            false => self.memory.faults(),
        }
    }

    fn call_deadline(&self) -> Duration {
        self.memory.call_deadline()
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn has_gates(&self) -> bool {
        true
    }

    async fn connect_gated(&self, prefix: &str) -> LabResult<(Arc<dyn Transport>, Box<dyn Gate>)> {
        let prefix = self.prefix(prefix);
        let node = self.memory.join(&prefix);
        let gate = MemoryLab::gate(&node);
        Ok((self.transport(node, &prefix), gate))
    }
}

/// The faults of the bus, and those of the logs.
#[async_trait]
impl Faults for MutantLab {
    fn abilities(&self) -> &[Ability] {
        &[
            Ability::Restart,
            Ability::Stop,
            Ability::Freeze,
            Ability::Cut,
            Ability::Wipe,
            Ability::Retain,
        ]
    }

    async fn restore(&self) -> LabResult {
        self.logs.retain(0);
        self.memory.restore().await
    }

    async fn restart(&self) -> LabResult {
        self.memory.restart().await
    }

    async fn stop(&self) -> LabResult {
        self.memory.stop().await
    }

    async fn start(&self) -> LabResult {
        self.memory.start().await
    }

    async fn freeze(&self) -> LabResult {
        self.memory.freeze().await
    }

    async fn thaw(&self) -> LabResult {
        self.memory.thaw().await
    }

    async fn cut(&self) -> LabResult {
        self.memory.cut().await
    }

    async fn wipe(&self) -> LabResult {
        self.memory.stop().await?;
        self.logs.wipe();
        self.memory.start().await
    }

    async fn retain(&self, payloads: u64) -> LabResult {
        self.logs.retain(payloads);
        Ok(())
    }
}
