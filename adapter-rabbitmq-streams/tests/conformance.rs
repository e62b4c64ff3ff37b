//! The conformance suite on a real RabbitMQ, for nodes that read from a RabbitMQ stream.

#[path = "../../adapter-amqp/tests/lab/mod.rs"]
mod lab;

use std::process::ExitCode;

use socketioxide_adapter_rabbitmq_streams::{Source as _, Stream};
use socketioxide_broker_lab::RabbitMq;

fn main() -> ExitCode {
    let server = || RabbitMq::builder().streams().start();
    // What a message is published with is stored too. Only whole segments are deleted.
    lab::main(server, Stream::DEFAULT, |stream, retained| {
        (stream.max_bytes, stream.segment_bytes) = (800 * retained, 200 * retained);
    })
}
