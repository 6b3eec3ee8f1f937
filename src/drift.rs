//! The fields of a dump's messages, held against those that are known: how a change of the dumps'
//! format shows before consumers stumble over it.
//!
//! A field is named by the keys on the way to it, `tracklist.track.title`; arrays don't count, so a
//! field is the same in a list of one and in a list of many. `drift/known.txt` has the fields that
//! dumps of 2020 to 2026 have in their normalised form.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::dump::Kind;

const KNOWN: &str = include_str!("drift/known.txt");

/// The fields that messages of `kind` are known to have.
pub fn known(kind: Kind) -> impl Iterator<Item = &'static str> {
    let lines = KNOWN.lines().filter_map(|line| line.split_once(' '));
    lines.filter_map(move |(of, field)| (of == kind.name()).then_some(field))
}

/// The fields that were seen, each with how often and where first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(BTreeMap<String, Field>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Field {
    occurrences: u64,
    first_record: u64,
    inner: Fields,
}

/// A field that no known dump has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewField {
    /// Its name: the keys on the way to it.
    pub field: String,
    /// How often it was seen.
    pub occurrences: u64,
    /// The ordinal of the first record that has it.
    pub first_record: u64,
}

/// How the fields of a dump differ from the known ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// Fields that are not known, sorted; of a new object only its own name, not what is in it.
    pub new: Vec<NewField>,
    /// Known fields that no record has, sorted; of a missing object only its own name.
    pub missing: Vec<String>,
}

impl Fields {
    /// Notes the fields of a message.
    ///
    /// # Panics
    /// If `message` is no JSON; every message is.
    pub fn observe(&mut self, record: u64, message: &[u8]) {
        let mut json = serde_json::Deserializer::from_slice(message);
        let fields = Observed {
            fields: self,
            record,
        };
        let observed = fields.deserialize(&mut json);
        observed.expect("a message is JSON of strings, nulls, arrays and objects");
    }

    /// How these differ from what is known of `kind`.
    pub fn drift(&self, kind: Kind) -> Drift {
        let known: BTreeSet<_> = known(kind).collect();
        let mut drift = Drift::default();
        self.add_new("", &known, &mut drift.new);
        for field in known {
            let is_told = |missing: &String| is_inside(field, missing);
            if !self.has(field) && !drift.missing.last().is_some_and(is_told) {
                drift.missing.push(field.to_owned());
            }
        }
        drift
    }

    fn add_new(&self, prefix: &str, known: &BTreeSet<&str>, new: &mut Vec<NewField>) {
        for (key, field) in &self.0 {
            let name = format!("{prefix}{key}");
            if known.contains(&*name) {
                field.inner.add_new(&format!("{name}."), known, new);
                continue;
            }
            new.push(NewField {
                field: name,
                occurrences: field.occurrences,
                first_record: field.first_record,
            });
        }
    }

    fn has(&self, name: &str) -> bool {
        match name.split_once('.') {
            Some((key, rest)) => self.0.get(key).is_some_and(|field| field.inner.has(rest)),
            None => self.0.contains_key(name),
        }
    }

    /// The field `key`, seen once more.
    fn seen(&mut self, key: &str, record: u64) -> &mut Field {
        if !self.0.contains_key(key) {
            let field = Field {
                first_record: record,
                ..Field::default()
            };
            self.0.insert(key.to_owned(), field);
        }
        let field = self.0.get_mut(key).expect("it was put there");
        field.occurrences += 1;
        field
    }
}

/// Whether `field` lies in the object `outer`.
fn is_inside(field: &str, outer: &str) -> bool {
    let rest = field.strip_prefix(outer);
    rest.is_some_and(|rest| rest.starts_with('.'))
}

/// A value whose fields are to be noted.
struct Observed<'a> {
    fields: &'a mut Fields,
    record: u64,
}

impl<'de> DeserializeSeed<'de> for Observed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Observed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of a message")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self { fields, record } = self;
        while items
            .next_element_seed(Observed { fields, record })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Self { fields, record } = self;
        while let Some(field) = entries.next_key_seed(Key {
            fields: &mut *fields,
            record,
        })? {
            let fields = &mut field.inner;
            entries.next_value_seed(Observed { fields, record })?;
        }
        Ok(())
    }
}

/// A key, which becomes the field that it names. Most keys are known, so none is copied.
struct Key<'a> {
    fields: &'a mut Fields,
    record: u64,
}

impl<'de, 'a> DeserializeSeed<'de> for Key<'a> {
    type Value = &'a mut Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'a mut Field, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Key<'a> {
    type Value = &'a mut Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<&'a mut Field, E> {
        Ok(self.fields.seen(key, self.record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drift(messages: &[&str]) -> Drift {
        let mut fields = Fields::default();
        for (record, message) in (1..).zip(messages) {
            fields.observe(record, message.as_bytes());
        }
        fields.drift(Kind::Labels)
    }

    #[test]
    fn known_fields_are_no_drift_in_any_number() {
        let one = r#"{"type":"data","id":"1","urls":{"url":"a"},"sublabels":[{"id":"2"}]}"#;
        let many = r#"{"type":"data","id":"2","urls":{"url":["a",null,"b"]}}"#;
        assert_eq!(drift(&[one, many]).new, []);
    }

    #[test]
    fn a_new_field_is_told_once_with_its_first_record() {
        let old = r#"{"id":"1","urls":{"url":"a"}}"#;
        let new = r#"{"id":"2","urls":{"url":[{"@type":"x"},{"@type":"y"}]},"n\u0065w":{"a":{"b":null}}}"#;
        let new_field = |field: &str, occurrences, first_record| NewField {
            field: field.to_owned(),
            occurrences,
            first_record,
        };
        assert_eq!(
            drift(&[old, new, new]).new,
            [new_field("new", 2, 2), new_field("urls.url.@type", 4, 2)]
        );
    }

    #[test]
    fn a_known_field_that_is_nowhere_is_missing_without_what_is_in_it() {
        let missing = drift(&[r#"{"id":"1","parentLabel":{"id":"2"},"profile":null}"#]).missing;
        assert_eq!(
            missing,
            [
                "contactinfo",
                "data_quality",
                "images",
                "name",
                "parentLabel.name",
                "sha256",
                "sublabels",
                "type",
                "urls"
            ]
        );
    }

    #[test]
    fn the_known_fields_are_sorted_and_every_outer_one_is_listed() {
        for kind in Kind::ALL {
            let fields: Vec<_> = known(kind).collect();
            assert!(fields.len() > 20, "{kind}");
            assert!(fields.is_sorted_by(|one, next| one < next), "{kind}");
            for field in &fields {
                let outer = field.rsplit_once('.').map(|(outer, _)| outer);
                assert!(outer.is_none_or(|outer| fields.contains(&outer)), "{field}");
            }
        }
    }
}
