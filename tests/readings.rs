//! The fast reader against the one that decides what is right, over generated records, whole and
//! damaged.
//!
//! `PROPTEST_CASES=1000000 cargo test --release --test readings` is the long form.

use discogs_extractor::dump::Kind;
use discogs_extractor::message::{Profile, Reading, Transcoder};
use proptest::prelude::*;
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

proptest! {
    #[test]
    fn both_readers_give_the_same(
        seed in any::<u64>(),
        form in prop::sample::select(&[Form::Y2020, Form::Y2025][..]),
        kind in prop::sample::select(&Kind::ALL[..]),
        profile in prop::sample::select(&[Profile::Normalised, Profile::Raw][..]),
        ordinal in 1..1_000_000_u64,
        damages in prop::collection::vec(damage(), 0..4),
    ) {
        let mut xml = Dumps::new(seed, form).record(kind, ordinal).xml.into_bytes();
        check(kind, profile, &xml);
        for damage in damages {
            damage.apply(&mut xml);
            check(kind, profile, &xml);
        }
    }
}
