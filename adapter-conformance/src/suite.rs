//! Runs the cases: one by one by name, or all of them behind a command line.

use std::{
    fmt,
    future::Future,
    io::{self, Write as _},
    process::ExitCode,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use libtest_mimic::{Arguments, Completion, Trial};
use socketioxide_adapter_core::transport::{Capabilities, Transport};
use tokio::{runtime::Runtime, time::timeout};

use crate::{
    Lab, LabResult,
    cases::{self, Case},
    context::{Context, PATIENCE, Sabotage},
    guarantees::Found,
    journal::Journal,
    length::{Length, take_soak},
};

/// How long one case may take in all, in units of the lab's patience: 90 s by default.
const CASE_PATIENCE: u32 = 9;
/// The exit code for arguments that make no sense.
const USAGE: u8 = 2;
/// How long the lab may take to restore the broker after a fault.
const RESTORE_DEADLINE: Duration = Duration::from_secs(60);

/// Runs the suite on a lab with the command line of `cargo test`; call it from the `main` of a test with
/// `harness = false`.
///
/// `--list` starts no lab.
pub fn main<L, F>(start: impl FnOnce() -> F) -> ExitCode
where
    L: Lab,
    F: Future<Output = LabResult<L>>,
{
    let (arguments, soak) = match take_soak(std::env::args_os()) {
        Ok((rest, soak)) => (Arguments::from_iter(rest), soak),
        Err(error) => {
            tell(&error.to_string());
            return ExitCode::from(USAGE);
        }
    };
    if arguments.list {
        let trial = |case: &Case| Trial::test(case.name, || Ok(()));
        return libtest_mimic::run(&arguments, cases::all().map(trial).collect()).exit_code();
    }
    // The lab's own tasks live here; every case has a runtime of its own.
    let runtime = runtime(1);
    let suite = match &runtime {
        Ok(runtime) => runtime.block_on(async {
            let mut suite = Suite::new(start().await?).await?;
            suite.owns_process = true;
            if let Some(time) = soak {
                suite.share_out(time, &arguments);
            }
            Ok(Arc::new(suite))
        }),
        Err(error) => Err(error.to_string().into()),
    };
    let conclusion = libtest_mimic::run(&arguments, trials(&suite));
    if let Ok(suite) = &suite
        && let Err(error) = suite.write_row()
    {
        tell(&format!("the row of this lab was not written: {error}"));
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// One trial per case; without a suite, each of them fails.
fn trials(suite: &LabResult<Arc<Suite>>) -> Vec<Trial> {
    match suite {
        Ok(suite) => cases::all().map(|case| trial(suite, case)).collect(),
        Err(error) => {
            let message = format!("the lab did not start: {error}");
            let fail = |case: &Case| {
                let message = message.clone();
                Trial::test(case.name, move || Err(message.into()))
            };
            cases::all().map(fail).collect()
        }
    }
}

fn trial(suite: &Arc<Suite>, case: &'static Case) -> Trial {
    let reason = suite.inapplicable(case);
    let ignored = reason.is_some();
    let suite = suite.clone();
    let trial = Trial::ignorable_test(case.name, move || {
        let outcome = suite.run_case(case);
        suite.found.note(case.name, &outcome);
        match outcome {
            Outcome::Passed => Ok(Completion::Completed),
            Outcome::Ignored(reason) => Ok(Completion::ignored_with(reason)),
            Outcome::Failed(reason) => Err(reason.into()),
        }
    });
    trial
        .with_kind(reason.unwrap_or_default())
        .with_ignored_flag(ignored)
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The transport has the property.
    Passed,
    /// The case does not apply, for this reason.
    Ignored(String),
    /// The transport lacks the property, or the lab failed.
    Failed(String),
}

/// All cases on one lab, for programs that want the outcomes themselves.
pub struct Suite {
    lab: Arc<dyn Lab>,
    capabilities: Capabilities,
    /// Cases that use faults take it for writing, all others for reading.
    turn: RwLock<()>,
    seed: u64,
    sabotage: Option<Sabotage>,
    length: Length,
    /// Whether nothing but this suite runs in the process, so that its memory can be measured.
    owns_process: bool,
    found: Found,
}

impl Suite {
    /// Takes a lab and connects once, to learn the capabilities of its transport.
    ///
    /// # Errors
    /// What the lab says.
    pub async fn new(lab: impl Lab) -> LabResult<Self> {
        let prefix = format!("probe-{:08x}", fastrand::u32(..));
        let probe = timeout(RESTORE_DEADLINE, lab.connect(&prefix))
            .await
            .map_err(|_| format!("no transport could connect within {RESTORE_DEADLINE:?}"))??;
        let capabilities = probe.capabilities();
        probe.close().await?;
        let seed = std::env::var("CONFORMANCE_SEED").ok();
        let seed = seed.map(|seed| seed.parse()).transpose()?;
        Ok(Self {
            lab: Arc::new(lab),
            capabilities,
            turn: RwLock::new(()),
            seed: seed.unwrap_or_else(|| fastrand::u64(..)),
            sabotage: None,
            length: Length::brief(),
            owns_process: false,
            found: Found::default(),
        })
    }

    /// Gives the fault cases that are selected an equal share of the time each.
    fn share_out(&mut self, time: Duration, arguments: &Arguments) {
        let selected = cases::all().filter(|case| {
            let runs = case.is_about_faults() && self.inapplicable(case).is_none();
            runs && !arguments.is_filtered_out(&Trial::test(case.name, || Ok(())))
        });
        let count = u32::try_from(selected.count()).unwrap_or(u32::MAX);
        self.length = Length::soak(time / count.max(1));
    }

    /// Puts something between every server of the cluster cases and its transport, above whatever the cases themselves put
    /// there: to learn whether they would notice a fault of the cluster logic.
    #[must_use]
    pub fn with_sabotage(
        mut self,
        sabotage: impl Fn(Arc<dyn Transport>) -> Arc<dyn Transport> + Send + Sync + 'static,
    ) -> Self {
        self.sabotage = Some(Arc::new(sabotage));
        self
    }

    /// The names of all cases, `level::concern::claim`.
    pub fn names() -> impl Iterator<Item = &'static str> {
        cases::all().map(|case| case.name)
    }

    /// Runs one case to its end on threads of its own. Call it outside of async code.
    pub fn run(&self, name: &str) -> Outcome {
        cases::all().find(|case| case.name == name).map_or_else(
            || Outcome::Failed(format!("there is no case {name:?}")),
            |case| self.run_case(case),
        )
    }

    /// Tells the documentation what was found, where it is asked for.
    fn write_row(&self) -> io::Result<()> {
        for case in cases::all() {
            if let Some(reason) = self.inapplicable(case) {
                self.found.note(case.name, &Outcome::Ignored(reason));
            }
        }
        self.found.write(&self.capabilities, Self::names())
    }

    fn inapplicable(&self, case: &Case) -> Option<String> {
        let unmet = case.unmet(self.lab.as_ref(), &self.capabilities)?;
        Some(format!("not applicable: {unmet}"))
    }

    fn run_case(&self, case: &'static Case) -> Outcome {
        if let Some(reason) = self.inapplicable(case) {
            return Outcome::Ignored(reason);
        }
        if case.runs_alone() {
            let _turn = self.turn.write().unwrap_or_else(PoisonError::into_inner);
            self.run_now(case)
        } else {
            let _turn = self.turn.read().unwrap_or_else(PoisonError::into_inner);
            self.run_now(case)
        }
    }

    fn run_now(&self, case: &'static Case) -> Outcome {
        let runtime = match runtime(2) {
            Ok(runtime) => runtime,
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        let journal = Arc::new(Journal::new());
        let context = Context {
            lab: self.lab.clone(),
            prefix: format!("t{:08x}", fastrand::u32(..)),
            seed: self.seed,
            sabotage: self.sabotage.clone(),
            length: self.length.clone(),
            journal: journal.clone(),
            alone: case.runs_alone() && self.owns_process,
        };
        let patience = self.lab.patience();
        let result = runtime.block_on(async {
            // A task of its own, so that a panic of the transport is a failure like any other.
            let run = tokio::spawn(PATIENCE.scope(patience, (case.run)(context)));
            let extra = match case.is_about_faults() {
                true => self.length.share,
                false => Duration::ZERO,
            };
            let deadline = CASE_PATIENCE * patience + extra;
            let run = timeout(deadline, run);
            let result = match run.await {
                Ok(Ok(verdict)) => verdict.map_err(|failure| failure.to_string()),
                Ok(Err(panic)) => Err(format!("a panic: {panic}")),
                Err(_) => Err(format!("not done within {deadline:?}")),
            };
            if !case.breaks_the_broker() {
                return result;
            }
            let restored = self.restore().await;
            result.and(restored)
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
        match result {
            Ok(()) => {
                if let Some(summary) = journal.summary() {
                    tell(&format!("{}: {summary}", case.name));
                }
                Outcome::Passed
            }
            Err(reason) => {
                let seed = self.seed;
                Outcome::Failed(format!("{reason} (CONFORMANCE_SEED={seed})\n{journal}"))
            }
        }
    }

    async fn restore(&self) -> Result<(), String> {
        let Some(faults) = self.lab.faults() else {
            return Ok(());
        };
        match timeout(RESTORE_DEADLINE, faults.restore()).await {
            Ok(restored) => {
                restored.map_err(|error| format!("the broker was not restored: {error}"))
            }
            Err(_) => Err(format!(
                "the broker was not restored within {RESTORE_DEADLINE:?}"
            )),
        }
    }
}

impl fmt::Debug for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suite")
            .field("capabilities", &self.capabilities)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// Says something to whoever runs the suite; a standard error that is closed is no reason to stop.
fn tell(what: &str) {
    let _ = writeln!(io::stderr(), "{what}");
}

fn runtime(threads: usize) -> LabResult<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use socketioxide_adapter_core::transport::Transport;

    use super::*;
    use crate::MemoryLab;

    /// A lab that can connect, or not even that.
    struct PoorLab(Option<MemoryLab>);

    #[async_trait]
    impl Lab for PoorLab {
        async fn connect(&self, prefix: &str) -> LabResult<Arc<dyn Transport>> {
            let memory = self
                .0
                .as_ref()
                .ok_or("install the broker: apt install broker")?;
            memory.connect(prefix).await
        }
    }

    fn suite(lab: PoorLab) -> LabResult<Suite> {
        runtime(1)?.block_on(Suite::new(lab))
    }

    #[test]
    fn a_lab_that_cannot_connect_is_an_error_that_says_why() {
        let error = suite(PoorLab(None)).unwrap_err().to_string();
        assert_eq!(error, "install the broker: apt install broker");
    }

    #[test]
    fn without_faults_their_cases_are_ignored_with_the_reason_and_the_others_run() {
        let suite = suite(PoorLab(Some(MemoryLab::new()))).unwrap();
        let outcome = suite.run("transport::reconnect::the_link_follows_the_broker");
        let reason = "not applicable: the lab cannot stop and start the broker";
        assert_eq!(outcome, Outcome::Ignored(reason.into()));
        let outcome = suite.run("transport::limits::an_empty_payload_arrives");
        assert_eq!(outcome, Outcome::Passed);
    }

    #[test]
    fn a_case_that_does_not_exist_fails() {
        let suite = suite(PoorLab(Some(MemoryLab::new()))).unwrap();
        assert!(matches!(suite.run("typo"), Outcome::Failed(_)));
    }

    #[test]
    fn no_start_fails_every_case_that_is_selected() {
        let trials = trials(&Err("no broker".into()));
        assert_eq!(trials.len(), Suite::names().count());
        let conclusion = libtest_mimic::run(&quiet("limits"), trials);
        assert_eq!((conclusion.num_failed, conclusion.num_passed), (4, 0));
    }

    fn quiet(filter: &str) -> Arguments {
        Arguments {
            filter: Some(filter.into()),
            logfile: Some("/dev/null".into()),
            ..Arguments::default()
        }
    }
}
