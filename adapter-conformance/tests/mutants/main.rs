//! Deliberately broken transports: the suite must catch each of them, in the right cases and in no others.
#![allow(clippy::unwrap_used)] // a harness of its own is no `cfg(test)`

mod bug;
mod keeping;
mod reading;
mod transport;

use std::{collections::BTreeSet, process::ExitCode, sync::Arc, time::Duration};

use async_trait::async_trait;
use libtest_mimic::{Arguments, Failed, Trial};
use socketioxide_adapter_conformance::{
    Ability, Faults, Gate, Lab, LabResult, MemoryLab, Outcome, Suite,
};
use socketioxide_adapter_core::{memory::MemoryTransport, transport::Transport};

use crate::{
    bug::{Bug, EXPECTED},
    keeping::{Keeping, Logs},
    transport::{History, Mutant},
};

/// Mutants tried at once. Most of their time they wait for what does not come.
const THREADS: usize = 8;
/// Measures the memory of the process, which others use here: tried only where it must fail.
const ALONE: &str = "backlog::a_thousand_dropped_subscriptions_leave_nothing";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let trials = EXPECTED
        .iter()
        .map(|(bug, cases)| Trial::test(format!("{bug:?}"), move || try_mutant(*bug, cases)));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn try_mutant(bug: Bug, expected: &[&str]) -> Result<(), Failed> {
    let runtime = tokio::runtime::Runtime::new()?;
    let suite = runtime.block_on(Suite::new(MutantLab::new(bug)));
    let suite = suite.map_err(|error| error.to_string())?;
    let mut failed = BTreeSet::new();
    let mut report = String::new();
    for name in Suite::names() {
        let Some(short) = name.strip_prefix("transport::") else {
            continue;
        };
        if short == ALONE && !expected.contains(&ALONE) {
            continue;
        }
        let reason = match suite.run(name) {
            Outcome::Passed => continue,
            Outcome::Failed(reason) => reason,
            Outcome::Ignored(reason) if bug.keeps() && short.starts_with("replay::") => reason,
            Outcome::Ignored(_) => continue,
        };
        failed.insert(short);
        report.push_str(&format!("  {short}: {reason}\n"));
    }
    if failed == expected.iter().copied().collect() {
        return Ok(());
    }
    let missed: Vec<_> = expected
        .iter()
        .filter(|name| !failed.contains(*name))
        .collect();
    Err(format!("not caught by {missed:?}; failed:\n{report}").into())
}

struct MutantLab {
    bug: Bug,
    memory: MemoryLab,
    history: History,
    logs: Logs,
}

impl MutantLab {
    fn new(bug: Bug) -> Self {
        Self {
            bug,
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
        Duration::from_secs(3)
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
