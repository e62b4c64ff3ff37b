//! The bytes of wire version 1 never change: golden files pin them in both directions.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use bytes::Bytes;
use socketioxide_adapter_core::wire::{HEADER_LEN, TAG_LEN, Wire};

mod wire_support;
use wire_support::{Sample, golden, golden_dir, lane, samples};

#[test]
fn what_is_written_equals_the_golden_files() {
    for sample in samples() {
        let Some(expected) = golden(sample.name) else {
            panic!(
                "no {}.hex; if this frame is new, save it as\n{}",
                sample.name,
                annotate(&sample)
            );
        };
        assert_eq!(
            hex(&sample.bytes),
            hex(&expected),
            "{} is written differently: old nodes cannot read it",
            sample.name
        );
    }
}

#[test]
fn the_golden_files_are_read_as_what_they_were_written_from() {
    for sample in samples() {
        let bytes = Bytes::from(golden(sample.name).expect("a golden file for every sample"));
        let frame = sample.wire.open(lane(), bytes).expect(sample.name);
        assert_eq!(frame.head, sample.head, "{}", sample.name);
        let read: Vec<_> = frame
            .envelopes()
            .map(|incoming| {
                let incoming = incoming.expect(sample.name);
                (incoming.only, incoming.decode().expect(sample.name))
            })
            .collect();
        assert_eq!(read, sample.envelopes, "{}", sample.name);
    }
}

#[test]
fn there_is_no_golden_file_without_a_test() {
    let mut files: Vec<String> = std::fs::read_dir(golden_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut names: Vec<String> = samples()
        .iter()
        .map(|sample| format!("{}.hex", sample.name))
        .collect();
    files.sort();
    names.sort();
    assert_eq!(files, names);
}

/// The text of a golden file.
fn annotate(sample: &Sample) -> String {
    let (header, mut body) = sample.bytes.split_at(HEADER_LEN);
    let mut lines = Vec::new();
    let mut line = |bytes: &[u8], what: &str| lines.push(format!("{:<40} # {what}", hex(bytes)));
    line(&header[..2], "magic");
    line(&header[2..3], "version");
    line(&header[3..4], "frame kind");
    line(&header[4..20], "origin");
    line(&header[20..28], "lane");
    line(&header[28..36], "sequence number");
    line(&header[36..], "count");
    for (only, envelope) in &sample.envelopes {
        let (len, rest) = body.split_first_chunk().expect("a length");
        line(len, "envelope length");
        let (envelope_bytes, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
        line(&envelope_bytes[..1], &format!("{:?}", envelope.kind()));
        let mut at = 1;
        if only.is_some() {
            at += 16;
            line(&envelope_bytes[1..at], "for this node only");
        }
        for chunk in envelope_bytes[at..].chunks(20) {
            line(chunk, "body");
        }
        body = rest;
    }
    if sample.is_signed() {
        assert_eq!(body.len(), TAG_LEN);
        line(body, "signature");
    }
    lines.join("\n") + "\n"
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
