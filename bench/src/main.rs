//! Measures the adapter against its peers and the brokers' own limits, in one run.
//!
//! ```sh
//! cargo run --release -p bench -- compare                      # everything
//! cargo run --release -p bench -- compare throughput latency   # some of it
//! cargo run --release -p bench -- quick                        # that it runs; three minutes at most
//! ```
//!
//! The subjects take turns within each round, and ratios are taken within a round, so that whatever else the machine does
//! weighs on all of them alike. Publisher, receiver and broker are processes of their own.

mod alloc;
mod broker;
mod child;
mod heard;
mod message;
mod node;
mod process;
mod results;
mod scenarios;
mod table;

use std::{fs, path::PathBuf, process::ExitCode, time::Instant};

use clap::{Parser, Subcommand, ValueEnum as _};

use self::{
    broker::Broker,
    node::{Result, Role},
    results::Results,
    scenarios::{BASE, Bench, Scenario},
};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

#[derive(Parser)]
#[command(about)]
struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measures and prints tables.
    Compare {
        /// What to measure; everything if none is named.
        scenarios: Vec<Scenario>,
        /// Rounds; the median of them counts.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Only the cases with this in their name, for example "1 KiB, 64".
        #[arg(long)]
        only: Option<String>,
        /// Writes all numbers to this file, as JSON.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Runs a little of everything, to see that it runs.
    Quick,
    /// A process that is measured.
    #[command(hide = true)]
    Child {
        /// What it is, as JSON.
        role: String,
    },
}

fn main() -> ExitCode {
    let done = match Options::parse().task {
        Task::Compare {
            scenarios,
            rounds,
            only,
            out,
        } => compare(&scenarios, rounds.max(1), false, only).and_then(|results| match out {
            Some(out) => write(&results, &out),
            None => Ok(()),
        }),
        Task::Quick => compare(&[], 1, true, None).map(drop),
        Task::Child { role } => child(&role),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(
    scenarios: &[Scenario],
    rounds: usize,
    quick: bool,
    filter: Option<String>,
) -> Result<Results> {
    if cfg!(debug_assertions) {
        return Err("an unoptimised build measures nothing: add --release".to_owned());
    }
    let scenarios = if scenarios.is_empty() {
        Scenario::value_variants()
    } else {
        scenarios
    };
    let mut bench = Bench {
        broker: Broker::redis()?,
        rounds,
        quick,
        filter,
        results: Results::default(),
    };
    println!(
        "Median of {rounds} rounds ± distance of the quartiles (× the median ratio to {BASE})."
    );
    for scenario in scenarios {
        let start = Instant::now();
        scenario.run(&mut bench)?;
        println!("{}", table::tables(&bench.results, scenario.title(), BASE));
        eprintln!("{} took {:.0?}", scenario.title(), start.elapsed());
    }
    Ok(bench.results)
}

fn write(results: &Results, out: &PathBuf) -> Result<()> {
    let json = serde_json::to_string(results.rows()).map_err(|error| error.to_string())?;
    fs::write(out, json + "\n").map_err(|error| format!("{}: {error}", out.display()))
}

fn child(role: &str) -> Result<()> {
    let role: Role = serde_json::from_str(role).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(child::run(role));
    Ok(())
}
