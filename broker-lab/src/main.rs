//! Runs one broker for a program in another language: `broker-lab SCHEME [PASSWORD]`.
//!
//! Prints `{"url": …}` once the broker takes connections, then obeys the words on its standard input, one a line: `kill`,
//! `restart`, `freeze`, `thaw`, `fail-over`. Each is answered by one line, `{}` or `{"error": …}`. The broker ends with the input.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{env, io, process::ExitCode};

use serde_json::json;
use socketioxide_broker_lab::{self as lab, Broker};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let (scheme, password) = match args.as_slice() {
        [scheme] => (scheme, None),
        [scheme, password] => (scheme, Some(password.as_str())),
        _ => {
            eprintln!("usage: broker-lab SCHEME [PASSWORD]");
            return ExitCode::from(2);
        }
    };
    let broker = match lab::start(scheme, password) {
        Ok(broker) => broker,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", json!({ "url": broker.url() }));
    for line in io::stdin().lines().map_while(Result::ok) {
        match obey(&*broker, line.trim()) {
            Ok(()) => println!("{{}}"),
            Err(error) => println!("{}", json!({ "error": error.to_string() })),
        }
    }
    ExitCode::SUCCESS
}

fn obey(broker: &dyn Broker, word: &str) -> Result<(), Box<dyn std::error::Error>> {
    match word {
        "kill" => broker.kill()?,
        "restart" => broker.restart()?,
        "freeze" => broker.freeze()?,
        "thaw" => broker.thaw()?,
        "fail-over" => broker.fail_over()?,
        _ => {
            return Err(format!(
                "unknown word {word:?}, expected kill, restart, freeze, thaw or fail-over"
            )
            .into());
        }
    }
    Ok(())
}
