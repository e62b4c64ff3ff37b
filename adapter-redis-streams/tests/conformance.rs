//! The conformance suite on a real Redis, a log for each namespace.

#[path = "common/lab.rs"]
mod lab;

use std::process::ExitCode;

use lab::RedisLab;

fn main() -> ExitCode {
    socketioxide_adapter_conformance::main(async || RedisLab::own_logs())
}
