//! From the XML of one record to the JSON of one message.
//!
//! A message is one line of compact JSON: `{"type":"data","sha256":"..",` and then the fields of the
//! record, `id` among them, keys sorted by bytes at every level, every key once. `sha256` is the
//! SHA-256 of the record alone: the same bytes without `type` and `sha256`. Consumers only test it
//! for equality, so the same record must give the same bytes for ever.
//!
//! The record is read as [`crate::xml`] says, and then, unless the profile is [`Profile::Raw`],
//! normalised by a table of rules per kind, in place. What the rules decide:
//!
//! | field | becomes |
//! |---|---|
//! | artists: `members`, `groups`, `aliases` | list of the `name` children |
//! | labels: `sublabels` | list of the `label` children |
//! | labels: `parentLabel` | stripped; a bare string or `null` stays |
//! | masters, releases: `artists`, `extraartists`, `labels` | list of the `artist` or `label` children |
//! | releases: `formats` | list of the `format` children; a bare string stays a string |
//! | masters, releases: `genres`, `styles` | list of the `genre` or `style` children as they are |
//! | releases: `master_id` | its text; `null` if it has none |
//! | masters, releases: the record itself | stripped |
//! | everything else | as it was read |
//!
//! - A **list** is an array even of one item. Its items are the children of that name only (the
//!   `<id>` children of `members` do not count); an item with attributes or children is stripped, a
//!   bare string becomes `{"id": text}`, an empty one is `null`. A container that is a bare string is
//!   a list of that string. Containers that occur several times are one list. A list without items,
//!   or whose only item is `null`, is omitted.
//! - **Stripping** concerns the keys of one object, not of what is below: `@x` becomes `x`, and if a
//!   child `x` exists, the attribute stays and the child is dropped. `#text` becomes `name`; if there
//!   is a `name` (child or attribute), `#text` keeps its key.
//! - The **id** is the attribute `id` of the record, else its one child `<id>`; in every kind and
//!   profile a child `<id>` beside the attribute is dropped. An id that is missing, white space only,
//!   repeated, or has attributes or children is no id, and the record is malformed. It is not trimmed.
//! - The envelope owns `type` and `sha256`: a field of the record with one of these names is dropped,
//!   from the hash too.
//! - The raw profile keeps `@id` as well, and adds `id`.

use bytes::Bytes;
use sha2::block_api::compress256;

use crate::dump::Kind;
use crate::json::{Arena, Chain, Name, Names, NodeId, Output, TEXT, Value};
use crate::xml::RecordReader;

pub use crate::xml::{Malformed, Reading};

/// The largest record: what keeps every offset within 32 bits, with room for U+FFFD (three bytes for
/// one). Sources are expected to refuse records long before this.
const RECORD_BYTES_MAX: usize = 512 << 20;

/// What precedes the record in a message, with room for the hash. The last byte takes the place of
/// the record's opening brace.
const HEAD: &[u8] = br#"{"type":"data","sha256":""#;
const HASH_LENGTH: usize = 64;

/// What becomes of one well-formed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The whole message body: compact JSON on one line. Small ones share memory.
    pub body: Bytes,
    /// Whether bytes that are not UTF-8 had to be replaced by U+FFFD.
    pub repaired: bool,
}

impl Content {
    /// SHA-256 of the normalised record, 64 lowercase hexadecimal digits, as the body has it.
    ///
    /// # Panics
    /// If the body is not one that a transcoder has made.
    pub fn sha256(&self) -> &str {
        let digits = &self.body[HEAD.len()..][..HASH_LENGTH];
        str::from_utf8(digits).expect("digits are ASCII")
    }
}

/// The shape of the fields of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// Flat lists and plain keys, as present consumers expect.
    #[default]
    Normalised,
    /// As xmltodict shapes a record, for older consumers.
    Raw,
}

/// What happens to the fields of one name.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// A list of the children of this name; objects are stripped, strings become `{"id": ..}`.
    References(Name),
    /// A list of the children of this name; objects are stripped.
    Objects(Name),
    /// A list of the children of this name, as they are.
    Plain(Name),
    /// An object is stripped.
    Stripped,
    /// An object becomes its `#text`.
    Text,
}

const ARTIST: Name = Name::new("artist");
const FORMAT: Name = Name::new("format");
const GENRE: Name = Name::new("genre");
const ID: Name = Name::new("id");
const ID_ATTRIBUTE: Name = Name::new("@id");
const LABEL: Name = Name::new("label");
const NAME: Name = Name::new("name");
const STYLE: Name = Name::new("style");
/// The fields that the envelope owns.
const ENVELOPE: [Name; 2] = [Name::new("type"), Name::new("sha256")];

const RULES_OF_ARTISTS: &[(Name, Rule)] = &[
    (Name::new("members"), Rule::References(NAME)),
    (Name::new("groups"), Rule::References(NAME)),
    (Name::new("aliases"), Rule::References(NAME)),
];
const RULES_OF_LABELS: &[(Name, Rule)] = &[
    (Name::new("parentLabel"), Rule::Stripped),
    (Name::new("sublabels"), Rule::References(LABEL)),
];
const RULES_OF_MASTERS: &[(Name, Rule)] = &[
    (Name::new("artists"), Rule::References(ARTIST)),
    (Name::new("genres"), Rule::Plain(GENRE)),
    (Name::new("styles"), Rule::Plain(STYLE)),
];
const RULES_OF_RELEASES: &[(Name, Rule)] = &[
    (Name::new("artists"), Rule::References(ARTIST)),
    (Name::new("labels"), Rule::References(LABEL)),
    (Name::new("extraartists"), Rule::References(ARTIST)),
    (Name::new("formats"), Rule::Objects(FORMAT)),
    (Name::new("genres"), Rule::Plain(GENRE)),
    (Name::new("styles"), Rule::Plain(STYLE)),
    (Name::new("master_id"), Rule::Text),
];

/// The rules of a kind, by field.
const fn rules(kind: Kind) -> &'static [(Name, Rule)] {
    match kind {
        Kind::Artists => RULES_OF_ARTISTS,
        Kind::Labels => RULES_OF_LABELS,
        Kind::Masters => RULES_OF_MASTERS,
        Kind::Releases => RULES_OF_RELEASES,
    }
}

/// Whether the attributes of a kind's record lose their `@`.
const fn strips_record(kind: Kind) -> bool {
    matches!(kind, Kind::Masters | Kind::Releases)
}

/// Turns the records of one dump into messages. It keeps its memory from record to record, except
/// what a huge record needed; every thread has its own.
#[derive(Debug)]
pub struct Transcoder {
    kind: Kind,
    /// The name of a record.
    name: Name,
    profile: Profile,
    arena: Arena,
    reader: RecordReader,
    body: Output,
}

impl Transcoder {
    /// A transcoder for records of `kind`.
    pub fn new(kind: Kind, profile: Profile) -> Self {
        Self::with_reading(kind, profile, Reading::default())
    }

    /// A transcoder that reads XML in this way. Both ways give the same.
    pub fn with_reading(kind: Kind, profile: Profile, reading: Reading) -> Self {
        Self {
            kind,
            name: Name::new(kind.record_name()),
            profile,
            arena: Arena::default(),
            reader: RecordReader::new(reading),
            body: Output::default(),
        }
    }

    /// The message of the record whose XML, from `<` to `>`, is `xml`. White space and comments
    /// around it are ignored.
    ///
    /// # Errors
    /// [`Malformed`] if `xml` is not one element of the kind's name with an id, as [`crate::xml`] and
    /// the module's documentation say, or if it is larger than 512 MiB. The transcoder stays usable.
    pub fn transcode(&mut self, xml: &[u8]) -> Result<Content, Malformed> {
        match simdutf8::basic::from_utf8(xml) {
            Ok(text) => self.transcode_text(text),
            Err(_) => self.transcode_repaired(xml),
        }
    }

    /// Likewise, for a record that is UTF-8.
    pub(crate) fn transcode_text(&mut self, xml: &str) -> Result<Content, Malformed> {
        check_length(xml.as_bytes())?;
        self.transcode_checked(xml, false)
    }

    fn transcode_repaired(&mut self, xml: &[u8]) -> Result<Content, Malformed> {
        check_length(xml)?;
        self.transcode_checked(&String::from_utf8_lossy(xml), true)
            .map_err(|malformed| Malformed {
                offset: offset_before_repair(xml, malformed.offset),
                ..malformed
            })
    }

    fn transcode_checked(&mut self, xml: &str, repaired: bool) -> Result<Content, Malformed> {
        let record = self.reader.read(xml, self.name, &mut self.arena)?;
        self.identify(record).ok_or_else(no_id)?;
        let is_normalised = self.profile == Profile::Normalised;
        if is_normalised && strips_record(self.kind) {
            strip(&mut self.arena, record);
        }
        let fields = self.fields(record);
        let names = self.arena.names(fields);
        if is_normalised {
            self.normalise(fields, names);
        }
        self.drop_envelope_fields(fields, names);
        self.write_body(record);
        Ok(Content {
            body: self.body.take(),
            repaired,
        })
    }

    /// The fields of a record; none if it has only text, or nothing.
    fn fields(&self, record: NodeId) -> Chain {
        match self.arena.node(record).value {
            Value::Object(fields) => fields,
            _ => Chain::EMPTY,
        }
    }

    /// Gives a record a field `id` that beats all others of this name. `None` if it has no id.
    fn identify(&mut self, record: NodeId) -> Option<()> {
        let fields = self.fields(record);
        let attribute = self.id_attribute(fields);
        let field = attribute.or_else(|| self.only_field(fields, ID))?;
        let value = self.arena.node(field).value;
        if !self.arena.is_visible(value) {
            return None;
        }
        if attribute.is_some() {
            let key = self.arena.push_name(ID);
            let entry = self.arena.add(key, value, true);
            self.arena.append_entry(record, entry);
        }
        Some(())
    }

    fn id_attribute(&self, fields: Chain) -> Option<NodeId> {
        // Attributes stand before children.
        let is_attribute = |&id: &NodeId| self.arena.is_attribute(id);
        let mut attributes = self.arena.iter(fields).take_while(is_attribute);
        attributes.find(|&id| self.arena.is_named(id, ID_ATTRIBUTE))
    }

    fn only_field(&self, fields: Chain, name: Name) -> Option<NodeId> {
        let mut found = self
            .arena
            .iter(fields)
            .filter(|&id| self.arena.is_named(id, name));
        let only = found.next();
        only.filter(|_| found.next().is_none())
    }

    fn normalise(&mut self, fields: Chain, names: Names) {
        let rules = rules(self.kind).iter();
        for &(name, rule) in rules.filter(|(name, _)| names.may_hold(*name)) {
            match rule {
                Rule::References(of) => list(&mut self.arena, fields, name, of, reference),
                Rule::Objects(of) => list(&mut self.arena, fields, name, of, strip),
                Rule::Plain(of) => list(&mut self.arena, fields, name, of, |_, _| ()),
                Rule::Stripped => each_field(&mut self.arena, fields, name, strip),
                Rule::Text => each_field(&mut self.arena, fields, name, only_text),
            }
        }
    }

    fn drop_envelope_fields(&mut self, fields: Chain, names: Names) {
        for name in ENVELOPE.into_iter().filter(|name| names.may_hold(*name)) {
            each_field(&mut self.arena, fields, name, |arena, field| {
                arena.node_mut(field).value = Value::Absent;
            });
        }
    }

    /// Writes the message. The record is written once: its opening brace is needed for the hash only,
    /// and becomes the comma between the envelope and its first field.
    fn write_body(&mut self, record: NodeId) {
        self.body.clear();
        self.body.put(HEAD);
        self.body.put(&[b'0'; HASH_LENGTH]);
        self.body.push(b'"');
        let start = self.body.bytes().len();
        self.arena.write(record, &mut self.body);
        let sha256 = hexadecimal(sha256(&mut self.body, start));
        let body = self.body.bytes_mut();
        body[HEAD.len()..HEAD.len() + HASH_LENGTH].copy_from_slice(&sha256);
        body[start] = b',';
    }
}

fn check_length(xml: &[u8]) -> Result<(), Malformed> {
    if xml.len() <= RECORD_BYTES_MAX {
        return Ok(());
    }
    let reason = format!("the record has more than {RECORD_BYTES_MAX} bytes");
    Err(Malformed::new(RECORD_BYTES_MAX, reason))
}

fn no_id() -> Malformed {
    Malformed::new(0, "the record has no id")
}

/// Applies `change` to each node of a chain.
fn each(arena: &mut Arena, chain: Chain, change: impl Fn(&mut Arena, NodeId)) {
    let mut next = chain.first();
    while let Some(node) = next {
        change(arena, node);
        next = arena.next(node);
    }
}

/// Applies `change` to each field of the name `name`.
fn each_field(arena: &mut Arena, fields: Chain, name: Name, change: impl Fn(&mut Arena, NodeId)) {
    each(arena, fields, |arena, field| {
        if arena.is_named(field, name) {
            change(arena, field);
        }
    });
}

/// Makes all containers of the name `name` one list of their children of the name `of`, each changed
/// by `change`. The first container becomes the list and beats the others.
fn list(
    arena: &mut Arena,
    fields: Chain,
    name: Name,
    of: Name,
    change: impl Fn(&mut Arena, NodeId),
) {
    let Some(first) = arena.find(fields, name) else {
        return;
    };
    let mut items = Chain::EMPTY;
    let mut next = Some(first);
    while let Some(field) = next {
        // An attribute of that name beats its namesakes as everywhere.
        next = arena.next(field).filter(|_| !arena.node(first).sole);
        if arena.is_named(field, name) {
            move_items(arena, field, of, &mut items);
        }
    }
    let is_null = |item| arena.node(item).value == Value::Null;
    let value = if items.first().is_none() || items.only().is_some_and(is_null) {
        Value::Absent
    } else {
        each(arena, items, change);
        Value::Array(items)
    };
    let first = arena.node_mut(first);
    first.value = value;
    first.sole = true;
}

/// Moves the children of the name `of` from `container` to `items`; a bare string is one item.
fn move_items(arena: &mut Arena, container: NodeId, of: Name, items: &mut Chain) {
    let container = *arena.node(container);
    match container.value {
        Value::Object(children) => {
            let mut next = children.first();
            while let Some(child) = next {
                next = arena.next(child);
                if arena.is_named(child, of) {
                    arena.append(items, child);
                }
            }
        }
        Value::String(_) | Value::Plain(_) | Value::Encoded(_) => {
            arena.append_new(items, container.key, container.value, false);
        }
        Value::Absent | Value::Null | Value::Array(_) => (),
    }
}

/// Strips an object; makes a bare string the id of one.
fn reference(arena: &mut Arena, item: NodeId) {
    if arena.node(item).value.is_string() {
        let key = arena.push_name(ID);
        let entry = arena.add(key, arena.node(item).value, false);
        arena.append_entry(item, entry);
    } else {
        strip(arena, item);
    }
}

/// `@x` becomes `x`, and `#text` becomes `name` unless there is one.
fn strip(arena: &mut Arena, node: NodeId) {
    let Value::Object(entries) = arena.node(node).value else {
        return;
    };
    let (mut next, mut text, mut has_name) = (entries.first(), None, false);
    while let Some(entry) = next {
        let key = arena.node(entry).key;
        if arena.is_attribute(entry) {
            arena.node_mut(entry).key = arena.without_first(key);
        }
        has_name = has_name || arena.is_named(entry, NAME);
        if arena.is_named(entry, TEXT) {
            text = Some(entry);
        }
        next = arena.next(entry);
    }
    if let (Some(text), false) = (text, has_name) {
        arena.node_mut(text).key = arena.push_name(NAME);
    }
}

/// An object becomes its text.
fn only_text(arena: &mut Arena, node: NodeId) {
    if let Value::Object(entries) = arena.node(node).value {
        let text = arena.find(entries, TEXT);
        arena.node_mut(node).value = text.map_or(Value::Null, |text| arena.node(text).value);
    }
}

/// The SHA-256 of what was written from `start` on, as FIPS 180-4 has it.
///
/// The padding is written behind it, into the room that is there anyway: so all of it is hashed where
/// it lies, in one go, while a hasher would have to collect the blocks of a record in a buffer first.
fn sha256(body: &mut Output, start: usize) -> [u8; HASH_LENGTH / 2] {
    const BLOCK: usize = 64;
    const INITIAL: [u32; 8] = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ];
    let length = body.bytes().len() - start;
    let bits = (8 * length as u64).to_be_bytes();
    let padding = (length + 1 + bits.len()).next_multiple_of(BLOCK) - length;
    let blocks = body.with_room(start, padding);
    let (mark, rest) = blocks[length..].split_first_mut().expect("there is room");
    let (zeros, end) = rest.split_at_mut(rest.len() - bits.len());
    *mark = 0x80;
    zeros.fill(0);
    end.copy_from_slice(&bits);
    let mut state = INITIAL;
    compress256(&mut state, blocks.as_chunks().0);
    let mut hash = [0; HASH_LENGTH / 2];
    for (bytes, word) in hash.as_chunks_mut().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    hash
}

/// Lowercase hexadecimal digits. Counted up from `0` or `a` instead of looked up, because the compiler
/// does that for many at once.
fn hexadecimal(hash: [u8; HASH_LENGTH / 2]) -> [u8; HASH_LENGTH] {
    let digit = |nibble: u8| nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
    let mut digits = [0; HASH_LENGTH];
    for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(hash) {
        *pair = [digit(byte >> 4), digit(byte & 0xF)];
    }
    digits
}

/// Where byte `offset` of the repaired text was in the record.
fn offset_before_repair(xml: &[u8], offset: usize) -> usize {
    let (mut before, mut after) = (0, 0);
    for chunk in xml.utf8_chunks() {
        let valid = chunk.valid().len();
        if offset < after + valid {
            return before + (offset - after);
        }
        before += valid;
        after += valid;
        if !chunk.invalid().is_empty() {
            if offset < after + char::REPLACEMENT_CHARACTER.len_utf8() {
                return before;
            }
            before += chunk.invalid().len();
            after += char::REPLACEMENT_CHARACTER.len_utf8();
        }
    }
    before
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn offsets_go_back_through_a_repair() {
        let xml = b"ab\xff\xe2\x82c\xe9";
        let repaired = String::from_utf8_lossy(xml);
        assert_eq!(repaired.len(), 12);
        // a, b, three bytes for \xff, three for \xe2\x82, c, three for \xe9, and the end.
        let before = [0, 1, 2, 2, 2, 3, 3, 3, 5, 6, 6, 6, 7];
        for (offset, before) in before.into_iter().enumerate() {
            assert_eq!(offset_before_repair(xml, offset), before, "{offset}");
        }
    }

    #[test]
    fn hashes_are_those_of_the_library() {
        let content: Vec<u8> = (0..=u8::MAX).collect();
        for length in 0..content.len() {
            let mut body = Output::default();
            body.put(b"head");
            body.put(&content[..length]);
            let expected: [u8; 32] = Sha256::digest(&content[..length]).into();
            assert_eq!(sha256(&mut body, 4), expected, "{length}");
            assert_eq!(body.bytes()[4..], content[..length]);
        }
    }

    #[test]
    fn nothing_accumulates() {
        let mut transcoder = Transcoder::new(Kind::Labels, Profile::Normalised);
        let record = b"<label><id>1</id><x a='1'>t<y/><z>u</z></x><sublabels/></label>";
        let states = [(); 3].map(|()| {
            transcoder.transcode(record).unwrap();
            format!("{transcoder:?}")
        });
        assert_eq!(states[0], states[1]);
        assert_eq!(states[1], states[2]);
    }

    #[test]
    fn a_field_has_one_rule() {
        for kind in Kind::ALL {
            let rules = rules(kind);
            for (at, (field, _)) in rules.iter().enumerate() {
                assert!(
                    rules[..at].iter().all(|(other, _)| other != field),
                    "{kind} {field:?}"
                );
            }
        }
    }
}
