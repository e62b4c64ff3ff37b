//! The conformance suite on JetStream.

#[path = "common/lab.rs"]
mod lab;

use std::process::ExitCode;

use lab::NatsLab;

fn main() -> ExitCode {
    socketioxide_adapter_conformance::main(async || NatsLab::jetstream())
}
