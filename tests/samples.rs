//! Every real record of the shared samples becomes exactly the message that is expected of it.
//!
//! The samples are not part of the project; without them these tests say so and pass.

use std::io::Read;
use std::path::{Path, PathBuf};

use discogs_extractor::dump::Kind;
use discogs_extractor::message::{Profile, Transcoder};
use flate2::read::MultiGzDecoder;
use serde_json::Value;

fn samples() -> Option<PathBuf> {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples");
    let is_there = samples.is_dir();
    if !is_there {
        println!("{} is absent: nothing to compare with", samples.display());
    }
    is_there.then_some(samples)
}

/// The bytes of a gzip file, as far as they can be read.
fn inflate(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = read(path);
    let _ = MultiGzDecoder::new(file.as_slice()).read_to_end(&mut bytes);
    bytes
}

#[expect(clippy::disallowed_methods, reason = "samples are real files")]
fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The whole records in `xml`: from a start tag of the kind's name to the end tag that matches it.
fn split(kind: Kind, xml: &[u8]) -> Vec<&[u8]> {
    let name = kind.record_name();
    let (start, end) = (format!("<{name}"), format!("</{name}>"));
    let starts = |at: usize| {
        xml[at..].starts_with(start.as_bytes())
            && matches!(xml[at + start.len()], b' ' | b'>' | b'/')
    };
    let (mut records, mut depth, mut first) = (Vec::new(), 0_usize, 0);
    for at in memchr::memchr_iter(b'<', xml) {
        if starts(at) {
            let tag = memchr::memchr(b'>', &xml[at..]).unwrap_or(0);
            first = if depth == 0 { at } else { first };
            depth += usize::from(xml[at + tag - 1] != b'/');
        } else if xml[at..].starts_with(end.as_bytes()) {
            depth -= 1;
            if depth == 0 {
                records.push(&xml[first..at + end.len()]);
            }
        }
    }
    records
}

#[test]
fn every_sample_becomes_the_expected_message() {
    let Some(samples) = samples() else { return };
    for kind in Kind::ALL {
        let xml = inflate(&samples.join(format!("dumps/discogs_20200806_{kind}.xml.gz")));
        let expected = inflate(&samples.join(format!("expected/discogs_20200806_{kind}.jsonl.gz")));
        let expected: Vec<Value> = serde_json::Deserializer::from_slice(&expected)
            .into_iter()
            .collect::<Result<_, _>>()
            .unwrap();
        let records = split(kind, &xml);
        assert_eq!(records.len(), expected.len(), "{kind}");
        assert_eq!(records.len(), 1000, "{kind}");

        let mut transcoder = Transcoder::new(kind, Profile::Normalised);
        for (record, expected) in records.into_iter().zip(expected) {
            let content = transcoder.transcode(record).unwrap();
            let message: Value = serde_json::from_slice(&content.body).unwrap();
            assert_eq!(message, expected, "{kind} {}", expected["id"]);
            assert_eq!(
                content.sha256(),
                expected["sha256"],
                "{kind} {}",
                expected["id"]
            );
            assert!(!content.repaired);
        }
    }
}

#[test]
fn odd_samples_are_read() {
    let Some(samples) = samples() else { return };
    let check = |kind, xml: &[u8], count| {
        let records = split(kind, xml);
        assert_eq!(records.len(), count, "{kind}");
        for profile in [Profile::Normalised, Profile::Raw] {
            let mut transcoder = Transcoder::new(kind, profile);
            for record in &records {
                let content = transcoder.transcode(record).unwrap();
                let message: Value = serde_json::from_slice(&content.body).unwrap();
                assert_ne!(message["id"], Value::Null);
            }
        }
    };
    let odd = samples.join("odd");
    let masters = inflate(&odd.join("masters_2025_cut_inside_a_record.xml.gz"));
    check(Kind::Masters, &masters, 3267);
    for name in ["release_40299_2023.xml", "release_40299_2025.xml"] {
        check(Kind::Releases, &read(&odd.join(name)), 1);
    }
    let raw_returns = read(&odd.join("releases_2014_raw_carriage_returns.xml"));
    check(Kind::Releases, &raw_returns, 6);
}
