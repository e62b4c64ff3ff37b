//! The conformance suite on a real nats-server.

#[path = "common/lab.rs"]
mod lab;

use std::process::ExitCode;

use lab::NatsLab;
use socketioxide_adapter_nats::BACKEND;
use socketioxide_broker_lab::Nats;

fn main() -> ExitCode {
    socketioxide_adapter_conformance::main(async || Ok(NatsLab::new(Nats::start()?, BACKEND)))
}
