//! Every backend crate is small, and begins with the files that all of them have.

#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Lines of code that a backend may have, without comments, blank lines and tests.
const MOST: usize = 900;
/// Folders that begin with `adapter-` and are no backend.
const OTHERS: [&str; 2] = ["adapter-core", "adapter-conformance"];
/// What every backend has that does not stand on another one.
const FILES: [&str; 5] = [
    "lib.rs",
    "config.rs",
    "transport.rs",
    "session.rs",
    "error.rs",
];

fn backends() -> Vec<PathBuf> {
    let folders = fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap();
    let folders = folders.map(|folder| folder.unwrap().path());
    let is_backend = |folder: &PathBuf| {
        let name = folder.file_name().unwrap().to_str().unwrap();
        name.starts_with("adapter-") && !OTHERS.contains(&name)
    };
    folders.filter(is_backend).collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let entries = entries.map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                sources(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

/// Everything behind a module of unit tests, which stands at the end of its file, is a test.
fn lines_of_code(source: &str) -> usize {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let is_code = |line: &&str| !line.is_empty() && !line.starts_with("//");
    code.lines().map(str::trim).filter(is_code).count()
}

#[test]
fn a_backend_has_900_lines_of_code_at_most() {
    let backends = backends();
    assert!(backends.len() >= 7, "{backends:?}");
    for backend in backends {
        let files = sources(&backend.join("src"));
        let lines = files
            .iter()
            .map(|file| lines_of_code(&fs::read_to_string(file).unwrap()));
        let lines: usize = lines.sum();
        println!("{:4} {}", lines, backend.display());
        assert!(
            (50..=MOST).contains(&lines),
            "{}: {lines}",
            backend.display()
        );
    }
}

#[test]
fn who_knows_one_backend_finds_his_way_in_all() {
    for backend in backends() {
        let manifest = fs::read_to_string(backend.join("Cargo.toml")).unwrap();
        let (_, dependencies) = manifest.split_once("[dependencies]").unwrap();
        let (dependencies, _) = dependencies.split_once("[dev-dependencies]").unwrap();
        let stands_alone = dependencies.matches("socketioxide-adapter-").count() == 1;
        for file in FILES
            .iter()
            .filter(|file| stands_alone || **file == "lib.rs")
        {
            let path = backend.join("src").join(file);
            let source = fs::read_to_string(&path).unwrap();
            assert!(source.starts_with("//! "), "{}", path.display());
        }
    }
}

#[test]
fn comments_blank_lines_and_tests_are_not_counted() {
    let source = "//! Doc.\n\nfn a() {\n    // Why.\n    b();\n}\n\n#[cfg(test)]\nmod tests {\n    fn c() {}\n}\n";
    assert_eq!(lines_of_code(source), 3);
}
