//! The conformance suite every socketioxide-adapter transport is judged by.
//!
//! A transport author writes a [`Lab`]: it starts a broker, connects transports to it, and can, as far as it says, make
//! the broker fail. Every case then runs by its name, as with `cargo test`: filters, `--list` and `--exact` work.
//!
//! ```no_run
//! // tests/conformance.rs, with `harness = false` for this test in Cargo.toml
//! use std::process::ExitCode;
//! use socketioxide_adapter_conformance::MemoryLab;
//!
//! fn main() -> ExitCode {
//!     socketioxide_adapter_conformance::main(|| MemoryLab::start())
//! }
//! ```
//!
//! What a case needs is read from the live transport's
//! [`capabilities()`](socketioxide_adapter_core::transport::Transport::capabilities) and from the lab's [`Faults`]. A case
//! that does not apply is reported *ignored* with the reason beside its name; a lab that cannot start makes every case
//! *fail*. Absence is proved by a sentinel that arrives, never by waiting a while. Cases that draw random numbers name
//! their seed when they fail; `CONFORMANCE_SEED` sets it.
//!
//! The cases of the level `faults::` are brief by default. `--soak <minutes>`, as in `cargo test --test conformance --
//! faults:: --soak 60`, gives them faults as long as they are in production, again and again for as long as that.
//!
//! `CONFORMANCE_ROWS` names a folder: a run of the whole suite then writes a file of JSON there, which says for each
//! promise how many cases passed and failed, and why the others do not apply.

mod cases;
mod check;
mod context;
mod guarantees;
mod journal;
mod lab;
pub mod ledger;
mod length;
mod load;
mod memory;
pub mod node;
mod payload;
pub mod proxy;
mod suite;

pub use self::{
    lab::{Ability, Faults, Gate, Lab, LabError, LabResult},
    memory::MemoryLab,
    suite::{Outcome, Suite, main},
};
