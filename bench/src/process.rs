//! The measuring side of a child process.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child as Process, ChildStdin, Command as Program, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use crate::{
    child::{Answer, Command},
    node::{Kind, Result, Role},
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
    /// Starts a child and waits until its nodes are ready. `program` is another build of this one.
    pub(crate) fn start(role: &Role, program: Option<&Path>) -> Result<Self> {
        let json = serde_json::to_string(role).map_err(|error| error.to_string())?;
        let mut command = match (role.kind, program) {
            (Kind::Node { .. }, _) => {
                let mut node = Program::new("node");
                node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/peer.mjs"));
                node
            }
            (_, Some(program)) => this_program(program),
            (_, None) => this_program(&env::current_exe().map_err(|error| error.to_string())?),
        };
        let mut process = command
            .arg(json)
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

fn this_program(path: &Path) -> Program {
    let mut program = Program::new(path);
    program.arg("child");
    program
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
