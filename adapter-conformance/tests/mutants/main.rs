//! Deliberately broken transports: the suite must catch each of them, in the right cases and in no others.
#![allow(clippy::unwrap_used)] // a harness of its own is no `cfg(test)`

mod bug;
mod reading;
mod transport;

use std::{collections::BTreeSet, process::ExitCode, sync::Arc, time::Duration};

use async_trait::async_trait;
use libtest_mimic::{Arguments, Failed, Trial};
use socketioxide_adapter_conformance::{Faults, Gate, Lab, LabResult, MemoryLab, Outcome, Suite};
use socketioxide_adapter_core::transport::Transport;

use crate::{
    bug::{Bug, EXPECTED},
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
        if let Outcome::Failed(reason) = suite.run(name) {
            failed.insert(short);
            report.push_str(&format!("  {short}: {reason}\n"));
        }
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
}

impl MutantLab {
    fn new(bug: Bug) -> Self {
        Self {
            bug,
            memory: MemoryLab::new(),
            history: History::default(),
        }
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
        let node = self.memory.join(&prefix);
        Ok(Arc::new(Mutant::new(
            self.bug,
            node,
            &prefix,
            self.history.clone(),
        )))
    }

    fn faults(&self) -> Option<&dyn Faults> {
        self.memory.faults()
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
        let mutant = Mutant::new(self.bug, node, &prefix, self.history.clone());
        Ok((Arc::new(mutant), gate))
    }
}
