//! The measuring side of a child process.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child as Process, ChildStdin, Command as Program, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use crate::{
    child::{Answer, Command},
    node::{Result, Role},
};

/// Longest wait for an answer: a peer that hangs is a result, not a reason to hang as well.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running child. Dropping it kills it.
pub(crate) struct Child {
    process: Process,
    input: ChildStdin,
    answers: Receiver<String>,
}

impl Child {
    /// Starts a child and waits until its nodes are ready.
    pub(crate) fn start(role: &Role) -> Result<Self> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let role = serde_json::to_string(role).map_err(|error| error.to_string())?;
        let mut process = Program::new(program)
            .args(["child", &role])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (input, output) = pipes.ok_or("the child has no pipes")?;
        let (sender, answers) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let child = Self {
            process,
            input,
            answers,
        };
        child.answer()?;
        Ok(child)
    }

    pub(crate) fn ask(&mut self, command: Command) -> Result<Answer> {
        let line = serde_json::to_string(&command).map_err(|error| error.to_string())?;
        writeln!(self.input, "{line}").map_err(|error| format!("child: {error}"))?;
        self.answer()
    }

    fn answer(&self) -> Result<Answer> {
        let line = self.answers.recv_timeout(PATIENCE);
        let line = line.map_err(|error| format!("child: {error}"))?;
        match serde_json::from_str(&line).map_err(|error| format!("child: {error}: {line}"))? {
            Answer::Failed(error) => Err(error),
            answer => Ok(answer),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
