//! The message that must come out for a record: a second, independent model of the product.
//!
//! Built from the tree that the record was made from, with `serde_json` values, and as plainly as
//! possible; it never sees the XML and shares no code with the product's parser. The rules are
//! those of xmltodict (attributes as `@name`, text beside attributes as `#text`, repeated names as
//! arrays, empty and blank leaves as null) and, on top, the normalisation that the consumers of
//! these messages expect.

use discogs_extractor::dump::Kind;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::element::Element;

/// The message for a record; `None` if the record has no id, which makes it a dead letter.
///
/// `serde_json` without `preserve_order` keeps keys sorted by bytes at every level, so the compact
/// text of the value is what the contract hashes.
pub fn message(kind: Kind, record: &Element) -> Option<Value> {
    let mut fields = normalised(kind, record);
    let id = fields.get("id")?.as_str()?;
    if id.is_empty() {
        return None;
    }
    let sha256 = sha256(Value::Object(fields.clone()).to_string().as_bytes());
    fields.insert("sha256".to_owned(), Value::String(sha256));
    fields.insert("type".to_owned(), json!("data"));
    Some(Value::Object(fields))
}

/// SHA-256 as 64 lowercase hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn normalised(kind: Kind, record: &Element) -> Map<String, Value> {
    let Value::Object(mut fields) = converted(record) else {
        return Map::new();
    };
    match kind {
        Kind::Artists => {
            for container in ["members", "groups", "aliases"] {
                items(&mut fields, container, "name", stripped);
            }
        }
        Kind::Labels => {
            if let Some(parent) = fields.remove("parentLabel") {
                fields.insert("parentLabel".to_owned(), own_keys_stripped(parent));
            }
            items(&mut fields, "sublabels", "label", stripped);
        }
        Kind::Masters | Kind::Releases => credits(kind, &mut fields),
    }
    fields
}

/// What masters and releases have in common, and what only releases have.
fn credits(kind: Kind, fields: &mut Map<String, Value>) {
    fields.remove("id");
    for attribute in ["id", "status"] {
        if let Some(value) = fields.remove(&format!("@{attribute}")) {
            fields.insert(attribute.to_owned(), value);
        }
    }
    items(fields, "artists", "artist", stripped);
    items(fields, "genres", "genre", |genre| genre);
    items(fields, "styles", "style", |style| style);
    if kind == Kind::Releases {
        items(fields, "labels", "label", stripped);
        items(fields, "extraartists", "artist", stripped);
        items(fields, "formats", "format", stripped);
        if let Some(Value::Object(mut master)) = fields.remove("master_id") {
            fields.insert(
                "master_id".to_owned(),
                master.remove("#text").unwrap_or_default(),
            );
        }
    }
}

/// Replaces a container by the array of its items, and removes it if there are none.
fn items(fields: &mut Map<String, Value>, container: &str, item: &str, change: fn(Value) -> Value) {
    let found = match fields.remove(container) {
        Some(Value::Object(mut children)) => children.remove(item),
        _ => None,
    };
    let found = match found {
        Some(Value::Array(found)) => found,
        Some(Value::Null) | None => return,
        Some(one) => vec![one],
    };
    let changed = found.into_iter().map(change).collect();
    fields.insert(container.to_owned(), Value::Array(changed));
}

/// An item as an object with plain keys; a bare text is taken for the id.
fn stripped(item: Value) -> Value {
    match item {
        Value::String(text) => json!({ "id": text }),
        other => own_keys_stripped(other),
    }
}

fn own_keys_stripped(item: Value) -> Value {
    let Value::Object(fields) = item else {
        return item;
    };
    let has_name = fields.contains_key("name");
    let renamed = |key: String| match key.strip_prefix('@') {
        Some(plain) => plain.to_owned(),
        None if key == "#text" && !has_name => "name".to_owned(),
        None => key,
    };
    fields
        .into_iter()
        .map(|(key, value)| (renamed(key), value))
        .collect()
}

/// An element as xmltodict converts it.
fn converted(element: &Element) -> Value {
    let blank = element.text.trim().is_empty();
    if element.attributes.is_empty() && element.children.is_empty() {
        return if blank {
            Value::Null
        } else {
            json!(element.text)
        };
    }
    let attributes = element.attributes.iter();
    let mut fields = attributes
        .map(|(name, value)| (format!("@{name}"), json!(value)))
        .collect::<Map<_, _>>();
    if !blank {
        fields.insert("#text".to_owned(), json!(element.text));
    }
    for child in &element.children {
        insert(&mut fields, child.name, converted(child));
    }
    Value::Object(fields)
}

/// The first of a name stands alone, a second one makes an array.
fn insert(fields: &mut Map<String, Value>, name: &str, value: Value) {
    let present = fields.remove(name);
    let value = match present {
        None => value,
        Some(Value::Array(mut values)) => {
            values.push(value);
            Value::Array(values)
        }
        Some(first) => Value::Array(vec![first, value]),
    };
    fields.insert(name.to_owned(), value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Kind, record: &Element, expected: &Value) {
        let mut message = message(kind, record).unwrap();
        let fields = message.as_object_mut().unwrap();
        assert_eq!(fields.remove("type"), Some(json!("data")));
        let hash = fields.remove("sha256").unwrap();
        assert_eq!(hash, json!(sha256(expected.to_string().as_bytes())));
        assert_eq!(message, *expected);
    }

    #[test]
    fn an_artist_lists_names_as_objects() {
        let member = |id: &str, name: &str| Element::leaf("name", name).with("id", id);
        let record = Element::parent(
            "artist",
            vec![
                Element::leaf("id", "2"),
                Element::leaf("name", " A & B "),
                Element::leaf("profile", " \u{a0}\r\n"),
                Element::parent(
                    "members",
                    vec![
                        Element::leaf("id", "26"),
                        member("26", "Alexi"),
                        member("27", "Cari"),
                    ],
                ),
                Element::leaf("groups", ""),
                Element::parent("aliases", vec![Element::leaf("name", "77")]),
                Element::parent("namevariations", vec![Element::leaf("name", "B & A")]),
            ],
        );
        check(
            Kind::Artists,
            &record,
            &json!({
                "id": "2", "name": " A & B ", "profile": null,
                "members": [{"id": "26", "name": "Alexi"}, {"id": "27", "name": "Cari"}],
                "aliases": [{"id": "77"}],
                "namevariations": {"name": "B & A"},
            }),
        );
    }

    #[test]
    fn a_label_names_its_parent() {
        let record = Element::parent(
            "label",
            vec![
                Element::leaf("id", "7"),
                Element::leaf("parentLabel", "Big").with("id", "1"),
                Element::parent("sublabels", vec![Element::leaf("label", ""); 2]),
            ],
        );
        let expected = json!({
            "id": "7", "parentLabel": {"id": "1", "name": "Big"}, "sublabels": [null, null],
        });
        check(Kind::Labels, &record, &expected);
    }

    #[test]
    fn a_release_has_plain_lists_and_raw_rest() {
        let format = Element::parent(
            "format",
            vec![Element::parent(
                "descriptions",
                vec![Element::leaf("description", "LP")],
            )],
        );
        let record = Element::parent(
            "release",
            vec![
                Element::parent(
                    "labels",
                    vec![
                        Element::leaf("label", "")
                            .with("name", "L")
                            .with("catno", ""),
                    ],
                ),
                Element::leaf("extraartists", ""),
                Element::parent("formats", vec![format.with("name", "Vinyl")]),
                Element::parent("genres", vec![Element::leaf("genre", "Rock")]),
                Element::leaf("master_id", "12").with("is_main_release", "true"),
                Element::leaf("companies", ""),
                Element::leaf("id", "never"),
                Element::parent(
                    "videos",
                    vec![
                        Element::leaf("video", "").with("src", "s"),
                        Element::leaf("video", ""),
                    ],
                ),
            ],
        )
        .with("id", "9")
        .with("status", "Accepted");
        check(
            Kind::Releases,
            &record,
            &json!({
                "id": "9", "status": "Accepted", "labels": [{"name": "L", "catno": ""}],
                "formats": [{"name": "Vinyl", "descriptions": {"description": "LP"}}],
                "genres": ["Rock"], "master_id": "12", "companies": null,
                "videos": {"video": [{"@src": "s"}, null]},
            }),
        );
    }

    #[test]
    fn a_record_without_an_id_has_no_message() {
        for id in [
            vec![],
            vec![Element::leaf("id", "")],
            vec![Element::leaf("id", " ")],
        ] {
            let record = Element::parent("label", id);
            assert_eq!(message(Kind::Labels, &record), None);
        }
    }
}
