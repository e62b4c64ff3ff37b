//! The conformance suite on a real RabbitMQ, for nodes that read from a durable queue.

mod lab;

use std::process::ExitCode;

use socketioxide_adapter_amqp::Source;

fn main() -> ExitCode {
    lab::main(Source::DURABLE)
}
