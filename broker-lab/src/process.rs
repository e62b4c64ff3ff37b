//! A broker process: started, signalled and reaped by its own pid, never by a name.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::error::{Error, Result};

/// How often a condition is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(5);
/// How long a process may take to stand still after SIGSTOP.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Kills the broker when the test process is gone: its stdin is a pipe from us, which ends when we do, however we end.
/// A line on it means that we reaped the broker ourselves.
const WATCHDOG: &str = r#"read -r _ || kill -9 "$1""#;

/// A running broker process. Dropping it kills the process (SIGKILL) and reaps it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    watchdog: Option<Child>,
    log: PathBuf,
    /// Where the log of this run starts in the file, which all runs append to.
    log_start: u64,
}

impl Process {
    /// Starts `command` with null stdin and both outputs appended to `log`; `install` is what installs a missing program.
    ///
    /// # Errors
    /// If the program is missing or the process cannot be started.
    pub fn spawn(mut command: Command, install: &str, log: &Path) -> Result<Self> {
        let output = OpenOptions::new().create(true).append(true).open(log);
        let output =
            output.map_err(|error| Error::io(format_args!("log {}", log.display()), &error))?;
        let log_start = output.metadata().map_or(0, |meta| meta.len());
        let program = PathBuf::from(command.get_program());
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Error::missing(&program, install),
            _ => Error::io(program.display(), &error),
        };
        let duplicate = |file: &File| file.try_clone().map_err(failed);
        // A process group of its own: Ctrl-C in a terminal reaches us first, and we stop the broker in order.
        command
            .stdin(Stdio::null())
            .stdout(duplicate(&output)?)
            .stderr(output)
            .process_group(0);
        let child = command.spawn().map_err(failed)?;
        let mut process = Self {
            child,
            watchdog: None,
            log: log.to_owned(),
            log_start,
        };
        process.watchdog = Some(watch(process.child.id())?);
        Ok(process)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What this run wrote so far.
    pub fn log(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let start = usize::try_from(self.log_start).unwrap_or(usize::MAX);
        String::from_utf8_lossy(log.get(start..).unwrap_or_default()).into_owned()
    }

    /// Waits until `ready`, which is given the log of this run.
    ///
    /// # Errors
    /// If the process exits first or is not ready within `limit`; both with the end of its log.
    pub fn wait_until(&mut self, limit: Duration, ready: impl Fn(&str) -> bool) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            // In this order: a process that was ready and died at once counts as dead.
            let log = self.log();
            if let Some(status) = self.exited() {
                return Err(Error::new(format!("exited with {status}\n{}", tail(&log))));
            }
            if ready(&log) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::new(format!(
                    "not ready within {limit:?}\n{}",
                    tail(&log)
                )));
            }
            thread::sleep(POLL);
        }
    }

    /// Kills the process at once (SIGKILL) and reaps it.
    pub fn kill(mut self) {
        self.end();
    }

    /// Asks the process to end (SIGTERM), waits up to `grace` and then kills it.
    ///
    /// # Errors
    /// If it had to be killed.
    pub fn stop(mut self, grace: Duration) -> Result<()> {
        self.signal(Signal::TERM)?;
        // A frozen process would sleep through it.
        self.signal(Signal::CONT)?;
        let deadline = Instant::now() + grace;
        while self.exited().is_none() {
            if Instant::now() >= deadline {
                return Err(Error::new(format!("did not stop within {grace:?}")));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Freezes the process (SIGSTOP): its connections stay open and silent. Returns when all its threads stand still; those
    /// of a broker with many may still answer for a moment after the signal.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            let stopped = waitid(WaitId::Pid(Pid::from_child(&self.child)), options);
            match stopped
                .map_err(|error| Error::io("waiting for a frozen process", &error.into()))?
            {
                Some(_) => return Ok(()),
                None if Instant::now() >= deadline => {
                    return Err(Error::new(format!("did not freeze within {STOP_LIMIT:?}")));
                }
                None => thread::sleep(POLL),
            }
        }
    }

    /// Lets a frozen process run on (SIGCONT).
    ///
    /// # Errors
    /// If the process is gone.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        // Not yet reaped, so the pid is still ours even if the process has exited.
        kill_process(Pid::from_child(&self.child), signal)
            .map_err(|error| Error::io("signal", &error.into()))
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(mut watchdog) = self.watchdog.take() {
            let told = watchdog.stdin.take().map(|mut pipe| pipe.write_all(b"\n"));
            if !matches!(told, Some(Ok(()))) {
                let _ = watchdog.kill();
            }
            let _ = watchdog.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn watch(pid: u32) -> Result<Child> {
    Command::new("sh")
        .args(["-c", WATCHDOG, "watchdog", &pid.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| Error::io("sh", &error))
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
