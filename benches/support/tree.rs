//! What other extractors do: a tree of `serde_json::Value` per record, written twice, once for its
//! hash. The baseline.

use discogs_extractor::dump::Kind;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// The message of a record, without normalising it.
pub(crate) fn transcode(kind: Kind, xml: &str) -> Vec<u8> {
    let mut open = vec![Map::new()];
    let mut reader = Reader::from_str(xml);
    loop {
        match reader.read_event().expect("generated records are XML") {
            Event::Start(tag) => open.push(attributes(&tag)),
            Event::Empty(tag) => {
                let element = attributes(&tag);
                let name = tag.name().0.to_owned();
                add(
                    open.last_mut().expect("something is open"),
                    name,
                    close(element),
                );
            }
            Event::End(tag) => {
                let element = open.pop().expect("tags match");
                let name = tag.name().0.to_owned();
                add(
                    open.last_mut().expect("something is open"),
                    name,
                    close(element),
                );
            }
            Event::Text(text) => add_text(&mut open, &text),
            Event::GeneralRef(_) => add_text(&mut open, "&"),
            Event::CData(text) => add_text(&mut open, &text),
            Event::Eof => break,
            _ => (),
        }
    }
    let mut root = open.pop().expect("the root is open");
    let mut record = root.remove(kind.record_name()).expect("it is a record");
    let hash = Sha256::digest(record.to_string());
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    record["sha256"] = Value::String(digits);
    serde_json::to_vec(&record).expect("a value is JSON")
}

fn attributes(tag: &BytesStart<'_>) -> Map<String, Value> {
    let attributes = tag.attributes().flatten();
    attributes
        .map(|attribute| {
            let value = attribute.value.into_owned();
            (format!("@{}", attribute.key.0), Value::String(value))
        })
        .collect()
}

fn add_text(open: &mut [Map<String, Value>], text: &str) {
    let element = open.last_mut().expect("something is open");
    match element.get_mut("#text") {
        Some(Value::String(all)) => all.push_str(text),
        _ => drop(element.insert("#text".to_owned(), Value::String(text.to_owned()))),
    }
}

fn close(mut element: Map<String, Value>) -> Value {
    match element.len() {
        0 => Value::Null,
        1 if element.contains_key("#text") => element.remove("#text").expect("it is there"),
        _ => Value::Object(element),
    }
}

fn add(parent: &mut Map<String, Value>, name: String, value: Value) {
    match parent.get_mut(&name) {
        None => drop(parent.insert(name, value)),
        Some(Value::Array(all)) => all.push(value),
        Some(one) => {
            let first = one.take();
            *one = Value::Array(vec![first, value]);
        }
    }
}
