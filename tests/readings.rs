//! The fast reader against the one that decides what is right, over generated records, whole and
//! damaged.
//!
//! `PROPTEST_CASES=1000000 cargo test --release --test readings` is the long form, and
//! `READINGS_SECONDS=3600 cargo test --release --test readings -- --nocapture` the one that goes on
//! for so long, and says how many records it has compared.

#![expect(
    clippy::disallowed_methods,
    reason = "how long to go on is for whoever runs the test to say"
)]

use std::cell::Cell;
use std::time::{Duration, Instant};

use discogs_extractor::dump::Kind;
use discogs_extractor::message::{Profile, Reading, Transcoder};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use sim::dumps::{Dumps, Form};

/// What damage is made of: what XML gives a meaning, and what is near to it.
const PIECES: &[&str] = &[
    "<",
    ">",
    "/",
    "</",
    "/>",
    "=",
    "\"",
    "'",
    "&",
    ";",
    "&#",
    "&#x",
    "&amp;",
    "&#13;",
    "&nope;",
    "&#0;",
    "&#xD800;",
    "<!--",
    "-->",
    "--",
    "->",
    "<!-->",
    "<!--->",
    "<![CDATA[",
    "]]>",
    "]]",
    "<?x ?>",
    "<?",
    "?>",
    "<!DOCTYPE x>",
    " ",
    "\n",
    "\r",
    "\r\n",
    "\t",
    "\0",
    "\u{1}",
    "\u{7f}",
    "\u{85}",
    "\u{a0}",
    "\u{2028}",
    "\u{feff}",
    "é",
    "夜",
    "🎧",
    "\\",
    "@",
    "#text",
    "a",
    "<a>",
    "</a>",
    "<a/>",
    "<a b='c'>",
    "<a b=\"c\" b=\"d\"/>",
    " a = 'b'",
    " a='<'",
    " a='>'",
    "<id>7</id>",
    "<1>",
    "<a:b.c-d/>",
    "<é/>",
];

/// One change of a record: at a place, in thousandths of its length, some bytes are replaced.
#[derive(Clone, Debug)]
struct Damage {
    place: usize,
    removed: usize,
    added: Vec<u8>,
}

fn damage() -> impl Strategy<Value = Damage> {
    let piece = prop::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec());
    let added = prop_oneof![4 => piece, 1 => prop::collection::vec(any::<u8>(), 0..3)];
    (0..1000_usize, 0..6_usize, added).prop_map(|(place, removed, added)| Damage {
        place,
        removed,
        added,
    })
}

impl Damage {
    fn apply(&self, xml: &mut Vec<u8>) {
        let start = xml.len() * self.place / 1000;
        let end = xml.len().min(start + self.removed);
        xml.splice(start..end, self.added.iter().copied());
    }
}

fn check(kind: Kind, profile: Profile, xml: &[u8]) {
    let read = |reading| Transcoder::with_reading(kind, profile, reading).transcode(xml);
    assert_eq!(
        read(Reading::Fast),
        read(Reading::Reference),
        "{}",
        String::from_utf8_lossy(xml)
    );
}

#[test]
fn what_fuzzing_has_found() {
    for xml in ["\0artist><id>1</id></artist>", "Martist id='1'/>"] {
        check(Kind::Artists, Profile::Normalised, xml.as_bytes());
    }
}

/// A record and what becomes of it.
#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    form: Form,
    kind: Kind,
    profile: Profile,
    ordinal: u64,
    damages: Vec<Damage>,
}

fn case() -> impl Strategy<Value = Case> {
    (
        any::<u64>(),
        prop::sample::select(&[Form::Y2020, Form::Y2025][..]),
        prop::sample::select(&Kind::ALL[..]),
        prop::sample::select(&[Profile::Normalised, Profile::Raw][..]),
        1..1_000_000_u64,
        prop::collection::vec(damage(), 0..4),
    )
        .prop_map(|(seed, form, kind, profile, ordinal, damages)| Case {
            seed,
            form,
            kind,
            profile,
            ordinal,
            damages,
        })
}

/// Compares the record of a case, whole and after each damage; how many records that are.
fn check_case(case: &Case) -> u64 {
    let dumps = Dumps::new(case.seed, case.form);
    let mut xml = dumps.record(case.kind, case.ordinal).xml.into_bytes();
    check(case.kind, case.profile, &xml);
    for damage in &case.damages {
        damage.apply(&mut xml);
        check(case.kind, case.profile, &xml);
    }
    1 + case.damages.len() as u64
}

#[test]
fn both_readers_give_the_same() {
    let seconds = std::env::var("READINGS_SECONDS").map_or(0, |text| text.parse().unwrap());
    let (start, records) = (Instant::now(), Cell::new(0));
    loop {
        let mut runner = TestRunner::new(ProptestConfig::with_source_file(file!()));
        let outcome = runner.run(&case(), |case| {
            records.set(records.get() + check_case(&case));
            Ok(())
        });
        if let Err(failure) = outcome {
            panic!("{failure}");
        }
        if start.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
    }
    println!("{} records without a difference", records.get());
}
