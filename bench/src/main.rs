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
mod plot;
mod process;
mod results;
mod scenarios;
mod table;
mod targets;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use clap::{Parser, Subcommand, ValueEnum as _};

use self::{
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
        /// Only the subjects with this in their name; may be repeated.
        #[arg(long)]
        subject: Vec<String>,
        /// An earlier build of this program, to be measured beside it.
        #[arg(long)]
        before: Option<PathBuf>,
        /// Writes all numbers to this file, as JSON.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Runs a little of everything, to see that it runs.
    Quick,
    /// Prints and draws what earlier runs wrote.
    Show {
        /// What `compare --out` wrote; several are shown as one.
        #[arg(required = true)]
        results: Vec<PathBuf>,
        /// Writes plots to this folder.
        #[arg(long)]
        plots: Option<PathBuf>,
    },
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
            subject,
            before,
            out,
        } => Bench::start(false).and_then(|bench| {
            let bench = Bench {
                rounds: rounds.max(1),
                filter: only,
                subjects: subject,
                before,
                ..bench
            };
            compare(&scenarios, bench, out.as_deref())
        }),
        Task::Quick => Bench::start(true).and_then(|bench| compare(&[], bench, None)),
        Task::Show { results, plots } => show(&results, plots.as_deref()),
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

fn compare(scenarios: &[Scenario], mut bench: Bench, out: Option<&Path>) -> Result<()> {
    if cfg!(debug_assertions) && !bench.quick {
        return Err("an unoptimised build measures nothing: add --release".to_owned());
    }
    let scenarios = if scenarios.is_empty() {
        Scenario::value_variants()
    } else {
        scenarios
    };
    let rounds = bench.rounds;
    println!(
        "Median of {rounds} rounds ± distance of the quartiles (× the median ratio to {BASE})."
    );
    for scenario in scenarios {
        let start = Instant::now();
        scenario.run(&mut bench)?;
        println!("{}", table::tables(&bench.results, scenario.title(), BASE));
        eprintln!("{} took {:.0?}", scenario.title(), start.elapsed());
        // After each of them: a run that is cut off keeps what it has.
        if let Some(out) = out {
            write(&bench.results, out)?;
        }
    }
    println!("\n**What is wanted**\n\n{}", targets::table(&bench.results));
    if bench.quick && bench.failed > 0 {
        return Err(format!("{} measurements failed", bench.failed));
    }
    Ok(())
}

fn show(files: &[PathBuf], plots: Option<&Path>) -> Result<()> {
    let mut rows = Vec::new();
    for file in files {
        let json = fs::read_to_string(file).map_err(|error| error.to_string())?;
        let more: Vec<_> = serde_json::from_str(&json).map_err(|error| error.to_string())?;
        rows.extend(more);
    }
    let results = Results::from_rows(rows);
    for scenario in Scenario::value_variants() {
        print!("{}", table::tables(&results, scenario.title(), BASE));
    }
    println!("\n**What is wanted**\n\n{}", targets::table(&results));
    plots.map_or(Ok(()), |folder| plot::all(&results, folder))
}

fn write(results: &Results, out: &Path) -> Result<()> {
    let json = serde_json::to_string(results.rows()).map_err(|error| error.to_string())?;
    fs::write(out, json + "\n").map_err(|error| format!("{}: {error}", out.display()))
}

fn child(role: &str) -> Result<()> {
    let role: Role = serde_json::from_str(role).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(child::run(role));
    Ok(())
}
