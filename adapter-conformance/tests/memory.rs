//! The suite on the in-process bus.

use std::process::ExitCode;

use socketioxide_adapter_conformance::MemoryLab;

fn main() -> ExitCode {
    socketioxide_adapter_conformance::main(MemoryLab::start)
}
