//! The messages that the checks publish.

use std::sync::Arc;

use discogs_extractor::broker::{Message, Subject};
use discogs_extractor::dump::Kind;
use discogs_extractor::record::Ordinal;

/// Bodies that are damaged by whoever takes bytes for text, text for ASCII, or JSON for a value.
const DELICATE: [&str; 9] = [
    r#"{"b":1,"a":2}"#,
    r#"{ "spaces" :  1 } "#,
    r#"{"number":1.0e2,"same":1,"same":2}"#,
    r#"{"escapes":"\u0000\n\"\\\/"}"#,
    "{\"umlauts\":\"Motörhead\",\"beyond the plane\":\"𝄞\"}",
    "{\"separators\":\"\u{2028}\u{85}\u{b}\u{c}\"}",
    "\u{feff}{\"mark\":true}",
    "{\"delete\":\"\u{7f}\",\"null\":\"\0\",\"tab\":\"\t\"}",
    "{\"end\":\"\r\"}\r",
];

/// More than a frame of AMQP, a page, or a commit of small messages.
pub(super) const LARGE_BYTES: usize = 1 << 20;

/// A message. Its ordinal is ahead of its sequence, as after records that were not published.
fn message(route: Kind, sequence: u64, body: String) -> Arc<Message> {
    Arc::new(Message {
        version: "20260801".parse().expect("a date"),
        route,
        subject: Subject::Record(Ordinal(sequence + 3)),
        sequence,
        sha256: "5eed".repeat(16),
        body: body.into(),
    })
}

/// Record messages of a route with these sequences.
pub(super) fn records(route: Kind, sequences: impl Iterator<Item = u64>) -> Vec<Arc<Message>> {
    let body = |sequence| format!(r#"{{"type":"data","route":"{route}","n":{sequence}}}"#);
    sequences
        .map(|sequence| message(route, sequence, body(sequence)))
        .collect()
}

/// The same records of a route in two versions, the older one first.
pub(super) fn records_of_two_versions(route: Kind, count: u64) -> Vec<Arc<Message>> {
    let older = records(route, 1..=count);
    let newer = older.iter().map(|message| {
        let version = "20260901".parse().expect("a date");
        let mut newer = Message::clone(message);
        newer.version = version;
        Arc::new(newer)
    });
    older.iter().map(Arc::clone).chain(newer).collect()
}

/// `count` records of each route, one of each in turn.
pub(super) fn records_of_all_routes(count: u64) -> Vec<Arc<Message>> {
    (1..=count)
        .flat_map(|sequence| Kind::ALL.map(|route| records(route, sequence..=sequence)))
        .flatten()
        .collect()
}

/// Messages with delicate bodies.
pub(super) fn delicate(route: Kind) -> Vec<Arc<Message>> {
    (1..)
        .zip(DELICATE)
        .map(|(sequence, body)| message(route, sequence, body.to_owned()))
        .collect()
}

/// A large message between small ones.
pub(super) fn large(route: Kind) -> Vec<Arc<Message>> {
    let mut messages = records(route, 1..=3);
    let frame = r#"{"text":""}"#.len();
    let text = "large ".repeat(LARGE_BYTES / 6 + 1);
    let body = format!(r#"{{"text":"{}"}}"#, &text[..LARGE_BYTES - frame]);
    messages[1] = message(route, 2, body);
    messages
}

/// What ends a version, on all routes in turn: a record, the end of the file, the end of all.
pub(super) fn endings() -> Vec<Arc<Message>> {
    let ending = |subject, sequence| {
        Kind::ALL.map(|route| {
            let mut ending = Message::clone(&message(route, sequence, String::new()));
            ending.subject = subject;
            ending.sha256.clear();
            ending.body = format!(r#"{{"type":"{}"}}"#, ending.type_name()).into();
            Arc::new(ending)
        })
    };
    let mut messages = records_of_all_routes(1);
    messages.extend(ending(Subject::FileComplete, 2));
    messages.extend(ending(Subject::ExtractionComplete, 3));
    messages
}
