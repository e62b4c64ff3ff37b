//! The guide names cases that exist, and says the truth about the length of the example.

#![allow(clippy::unwrap_used, reason = "a helper of a test")]

use std::collections::HashSet;

use socketioxide_adapter_conformance::Suite;

const GUIDE: &str = include_str!("../../../docs/writing-a-transport.md");
const TRANSPORT: &str = include_str!("../src/transport.rs");

#[test]
fn every_mistake_is_caught_by_a_case_that_exists() {
    let cases: HashSet<&str> = Suite::names().collect();
    let (_, mistakes) = GUIDE.split_once("## Common mistakes").unwrap();
    let (mistakes, _) = mistakes.split_once("\n## ").unwrap();
    let rows: Vec<&str> = mistakes
        .lines()
        .filter(|line| line.ends_with("` |"))
        .collect();
    assert!(rows.len() > 20, "{}", rows.len());
    for row in rows {
        let case = row.split('`').rev().nth(1).unwrap();
        assert!(cases.contains(&*format!("transport::{case}")), "{case}");
    }
}

#[test]
fn the_transport_has_150_lines_without_imports_and_comments() {
    let (_, code) = TRANSPORT.split_once("use crate::").unwrap();
    let lines = code.lines().skip(1).map(str::trim);
    let code = lines.filter(|line| !line.is_empty() && !line.starts_with("//"));
    assert!(code.count() <= 150);
}
