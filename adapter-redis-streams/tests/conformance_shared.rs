//! The conformance suite on a real Redis: two logs that everything goes through, membership and answers too.

#[path = "common/lab.rs"]
mod lab;

use std::process::ExitCode;

use lab::RedisLab;

fn main() -> ExitCode {
    socketioxide_adapter_conformance::main(async || RedisLab::shared_logs())
}
