//! Replays the corpus of the fuzz target on the stable toolchain.

use std::{fs, path::Path};

mod wire_support;
use wire_support::{check::check, samples};

#[test]
fn the_fuzz_corpus_does_no_harm_and_holds_every_golden_frame() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/frame_decode");
    let corpus: Vec<Vec<u8>> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    for input in &corpus {
        check(input);
    }
    for sample in samples() {
        let seeded = corpus.iter().any(|input| *input == sample.bytes);
        assert!(
            seeded,
            "save {} as a file in {}",
            sample.name,
            dir.display()
        );
    }
}
