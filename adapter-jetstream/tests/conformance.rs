//! The conformance suite on JetStream.

#[path = "../../adapter-nats/tests/common/lab.rs"]
mod lab;

use std::process::ExitCode;

use lab::NatsLab;
use socketioxide_adapter_jetstream::BACKEND;
use socketioxide_broker_lab::Nats;

fn main() -> ExitCode {
    socketioxide_adapter_conformance::main(async || {
        let nats = Nats::builder().jetstream().start()?;
        Ok(NatsLab::new(nats, BACKEND))
    })
}
