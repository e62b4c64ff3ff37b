//! The conformance suite on a real RabbitMQ, for nodes that read from an exclusive queue.

mod lab;

use std::process::ExitCode;

use socketioxide_adapter_amqp::Queue;
use socketioxide_broker_lab::RabbitMq;

fn main() -> ExitCode {
    // A small payload has 36 bytes.
    lab::main(RabbitMq::start, Queue::EXCLUSIVE, |queue, retained| {
        queue.max_bytes = 60 * retained;
    })
}
