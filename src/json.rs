//! A JSON document in one arena, and its compact form with keys sorted by bytes.
//!
//! Millions of records are turned into JSON one after another, so no node owns memory of its own:
//! the nodes of a document lie in one vector, its keys and strings in one string, and clearing the
//! arena keeps both for the next document, unless they have become far larger than usual. An object
//! is a chain of entries in document order, and entries of one key are that key's array, which is
//! how repeated XML elements become arrays (the model of Python's xmltodict). An entry that is
//! *sole* beats every other entry of its key; it is how a key stays unique when an entry is renamed
//! to one that exists.
//!
//! The output is byte for byte what `serde_json` writes for the same value with sorted keys:
//! no spaces, UTF-8 not escaped, `\u00xx` in lower case. Hashes are taken from it.

use std::num::NonZeroU32;
use std::ops::Range;

/// How many nodes an arena keeps room for between documents: ten times the largest record seen.
const NODES_KEPT: usize = 1 << 16;
/// How many bytes of text an arena keeps room for between documents.
const TEXT_KEPT: usize = 1 << 20;

/// A piece of an arena's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn new(range: Range<usize>) -> Self {
        let offset = |offset| u32::try_from(offset).expect("records are bounded below 4 GiB");
        Self {
            start: offset(range.start),
            end: offset(range.end),
        }
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// This piece without its first byte, which must be a character of its own.
    pub(crate) fn without_first(self) -> Self {
        assert!(self.start < self.end, "the span is not empty");
        Self {
            start: self.start + 1,
            end: self.end,
        }
    }
}

/// A node of an arena. Later nodes are larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(NonZeroU32);

impl NodeId {
    fn from_index(index: usize) -> Self {
        let number = u32::try_from(index + 1).expect("records are bounded below 4 G nodes");
        Self(NonZeroU32::new(number).expect("an index plus one is not zero"))
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// A chain of nodes; a node is in at most one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    ends: Option<(NodeId, NodeId)>,
}

impl Chain {
    /// The first node.
    pub(crate) fn first(self) -> Option<NodeId> {
        self.ends.map(|(first, _)| first)
    }

    /// The only node, if it is the only one.
    pub(crate) fn only(self) -> Option<NodeId> {
        self.ends
            .and_then(|(first, last)| (first == last).then_some(first))
    }
}

/// The value of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Not there: a key whose first entry has this value is left out.
    Absent,
    /// `null`
    Null,
    /// A string.
    String(Span),
    /// Entries in document order; several of one key are an array.
    Object(Chain),
    /// Items; their keys mean nothing.
    Array(Chain),
}

/// An entry of an object, or an item of an array.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    /// The name of the entry. It is written as it is, so it must need no escape; XML names, with
    /// `@` or `#` before them, need none.
    pub(crate) key: Span,
    /// What it holds.
    pub(crate) value: Value,
    /// Whether it beats the entries of the same key that are not.
    pub(crate) sole: bool,
    next: Option<NodeId>,
}

/// One document at a time, in memory that is kept for the next.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    nodes: Vec<Node>,
    text: String,
    /// The entries of the objects that are being written, sorted; a stack.
    sorted: Vec<NodeId>,
}

impl Arena {
    /// Forgets the document, and keeps the memory unless the document was huge.
    pub(crate) fn clear(&mut self) {
        self.nodes.clear();
        self.nodes.shrink_to(NODES_KEPT);
        self.text.clear();
        self.text.shrink_to(TEXT_KEPT);
        self.sorted.shrink_to(NODES_KEPT);
    }

    /// Adds to the text whatever `write` appends.
    pub(crate) fn write_text(&mut self, write: impl FnOnce(&mut String)) -> Span {
        let start = self.text.len();
        write(&mut self.text);
        Span::new(start..self.text.len())
    }

    /// Adds `text`.
    pub(crate) fn push_text(&mut self, text: &str) -> Span {
        self.write_text(|all| all.push_str(text))
    }

    /// One span that holds the text of all `pieces`, which are in document order.
    pub(crate) fn join(&mut self, pieces: &[Span]) -> Span {
        let start = self.text.len();
        if let (Some(first), Some(last)) = (pieces.first(), pieces.last()) {
            if pieces.windows(2).all(|pair| pair[0].end == pair[1].start) {
                return Span::new(first.range().start..last.range().end);
            }
            for piece in pieces {
                self.text.extend_from_within(piece.range());
            }
        }
        Span::new(start..self.text.len())
    }

    /// The text of a span.
    pub(crate) fn text(&self, span: Span) -> &str {
        &self.text[span.range()]
    }

    /// Adds a node that is in no chain yet.
    pub(crate) fn add(&mut self, key: Span, value: Value, sole: bool) -> NodeId {
        let id = NodeId::from_index(self.nodes.len());
        self.nodes.push(Node {
            key,
            value,
            sole,
            next: None,
        });
        id
    }

    /// Appends `node` to `chain`.
    pub(crate) fn append(&mut self, chain: &mut Chain, node: NodeId) {
        self.node_mut(node).next = None;
        let first = match chain.ends {
            None => node,
            Some((first, last)) => {
                self.node_mut(last).next = Some(node);
                first
            }
        };
        chain.ends = Some((first, node));
    }

    /// Appends `child` to the entries of `parent`, which becomes an object if it is not one.
    pub(crate) fn append_entry(&mut self, parent: NodeId, child: NodeId) {
        let mut entries = match self.node(parent).value {
            Value::Object(entries) => entries,
            _ => Chain::default(),
        };
        self.append(&mut entries, child);
        self.node_mut(parent).value = Value::Object(entries);
    }

    /// A node.
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// A node, to be changed.
    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// The node that follows in the same chain.
    pub(crate) fn next(&self, id: NodeId) -> Option<NodeId> {
        self.node(id).next
    }

    /// The nodes of a chain.
    pub(crate) fn iter(&self, chain: Chain) -> impl Iterator<Item = NodeId> {
        std::iter::successors(chain.first(), |&id| self.next(id))
    }

    /// The name of an entry.
    pub(crate) fn key(&self, id: NodeId) -> &str {
        self.text(self.node(id).key)
    }

    fn key_bytes(&self, id: NodeId) -> &[u8] {
        &self.text.as_bytes()[self.node(id).key.range()]
    }

    /// The first entry of the name `key`.
    pub(crate) fn find(&self, chain: Chain, key: &str) -> Option<NodeId> {
        self.iter(chain)
            .find(|&id| self.key_bytes(id) == key.as_bytes())
    }

    /// Appends the value of `root` to `out` as compact JSON, keys sorted by bytes at every level.
    pub(crate) fn write(&mut self, root: NodeId, out: &mut Vec<u8>) {
        let mut sorted = std::mem::take(&mut self.sorted);
        self.write_value(self.node(root).value, &mut sorted, out);
        sorted.clear();
        self.sorted = sorted;
    }

    fn write_value(&self, value: Value, sorted: &mut Vec<NodeId>, out: &mut Vec<u8>) {
        match value {
            Value::Absent | Value::Null => out.extend_from_slice(b"null"),
            Value::String(span) => write_string(self.text(span), out),
            Value::Object(entries) => self.write_object(entries, sorted, out),
            Value::Array(items) => self.write_array(self.iter(items), sorted, out),
        }
    }

    fn write_array(
        &self,
        items: impl Iterator<Item = NodeId>,
        sorted: &mut Vec<NodeId>,
        out: &mut Vec<u8>,
    ) {
        out.push(b'[');
        for (index, item) in items.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.write_value(self.node(item).value, sorted, out);
        }
        out.push(b']');
    }

    fn write_object(&self, entries: Chain, sorted: &mut Vec<NodeId>, out: &mut Vec<u8>) {
        let base = sorted.len();
        sorted.extend(self.iter(entries));
        let end = sorted.len();
        sorted[base..].sort_unstable_by(|&a, &b| self.order(a, b));
        out.push(b'{');
        let mut separator = None;
        let mut at = base;
        while at < end {
            let group = at..self.group_end(&sorted[..end], at);
            at = group.end;
            if self.node(sorted[group.start]).value != Value::Absent {
                out.extend(separator.replace(b','));
                self.write_entry(group, sorted, out);
            }
        }
        out.push(b'}');
        sorted.truncate(base);
    }

    /// By key; of one key the sole entry first, then document order.
    fn order(&self, a: NodeId, b: NodeId) -> std::cmp::Ordering {
        let (left, right) = (self.node(a), self.node(b));
        let by_key = self.key_bytes(a).cmp(self.key_bytes(b));
        by_key
            .then_with(|| right.sole.cmp(&left.sole))
            .then_with(|| a.cmp(&b))
    }

    /// The end of the entries that have the same key as the one at `start`.
    fn group_end(&self, sorted: &[NodeId], start: usize) -> usize {
        let key = self.key_bytes(sorted[start]);
        let same = sorted[start..]
            .iter()
            .take_while(|&&id| self.key_bytes(id) == key);
        start + same.count()
    }

    fn write_entry(&self, group: Range<usize>, sorted: &mut Vec<NodeId>, out: &mut Vec<u8>) {
        let first = *self.node(sorted[group.start]);
        out.push(b'"');
        out.extend_from_slice(self.key_bytes(sorted[group.start]));
        out.extend_from_slice(b"\":");
        if first.sole || group.len() == 1 {
            return self.write_value(first.value, sorted, out);
        }
        out.push(b'[');
        for at in group.clone() {
            if at > group.start {
                out.push(b',');
            }
            self.write_value(self.node(sorted[at]).value, sorted, out);
        }
        out.push(b']');
    }
}

/// Appends `text` to `out` as a JSON string.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = find_escaped(rest) {
        out.extend_from_slice(&rest[..at]);
        write_escape(rest[at], out);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn write_escape(byte: u8, out: &mut Vec<u8>) {
    let letter = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x0C => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
            out.extend_from_slice(b"\\u00");
            return out.extend_from_slice(&[digit(byte >> 4), digit(byte & 0xF)]);
        }
    };
    out.extend_from_slice(&[b'\\', letter]);
}

const fn is_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// The first byte that may not stand in a JSON string as it is. Most strings have none, so eight
/// bytes are looked at at once.
fn find_escaped(bytes: &[u8]) -> Option<usize> {
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        if has_escaped(u64::from_le_bytes(*word)) {
            let at = word.iter().position(|&byte| is_escaped(byte));
            return at.map(|at| index * 8 + at);
        }
    }
    let at = tail.iter().position(|&byte| is_escaped(byte))?;
    Some(words.len() * 8 + at)
}

/// Whether any of the eight bytes is escaped. A byte is below 0x20 if subtracting 0x20 borrows from
/// its top bit and that bit was clear; it is a quote or a backslash if it is 0 after `^`. A borrow
/// can only spill out of a byte that is itself a hit, so the answer for the whole word is exact.
const fn has_escaped(word: u64) -> bool {
    const ONES: u64 = u64::MAX / 0xFF;
    const TOPS: u64 = ONES * 0x80;
    const QUOTES: u64 = ONES * b'"' as u64;
    const BACKSLASHES: u64 = ONES * b'\\' as u64;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = (word ^ QUOTES).wrapping_sub(ONES) & !(word ^ QUOTES);
    let backslash = (word ^ BACKSLASHES).wrapping_sub(ONES) & !(word ^ BACKSLASHES);
    (control | quote | backslash) & TOPS != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_string(text: &str) {
        let mut out = Vec::new();
        write_string(text, &mut out);
        let expected = serde_json::to_string(text).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn strings_are_escaped_as_serde_json_does() {
        for code in 0..=0xFF {
            let character = char::from(code);
            check_string(&character.to_string());
            // At every place of a word, and in the tail, between bytes that are the nearest to it.
            for at in 0..20 {
                let mut text = "!#[]\u{7f} é".repeat(3);
                text.insert(text.floor_char_boundary(at), character);
                check_string(&text);
            }
        }
        check_string("");
        check_string("\\\\\"\"\n\n\u{0}\u{1f}\u{20}\u{2028}🎵");
    }

    /// Writes the object whose entries are `entries`: key, value, sole. A value of `None` is absent.
    fn check_object(entries: &[(&str, Option<&str>, bool)], expected: &str) {
        let mut arena = Arena::default();
        let key = arena.push_text("root");
        let root = arena.add(key, Value::Object(Chain::default()), false);
        for &(key, text, sole) in entries {
            let key = arena.push_text(key);
            let value = match text {
                Some(text) => Value::String(arena.push_text(text)),
                None => Value::Absent,
            };
            let entry = arena.add(key, value, sole);
            arena.append_entry(root, entry);
        }
        let mut out = Vec::new();
        arena.write(root, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn every_key_is_written_once() {
        check_object(&[], "{}");
        check_object(
            &[("b", Some("1"), false), ("a", Some("2"), false)],
            r#"{"a":"2","b":"1"}"#,
        );
        check_object(
            &[
                ("a", Some("1"), false),
                ("b", Some("2"), false),
                ("a", Some("3"), false),
            ],
            r#"{"a":["1","3"],"b":"2"}"#,
        );
        check_object(
            &[("a", Some("1"), false), ("a", Some("2"), true)],
            r#"{"a":"2"}"#,
        );
        check_object(
            &[("a", Some("1"), true), ("a", Some("2"), true)],
            r#"{"a":"1"}"#,
        );
        check_object(&[("a", None, true), ("a", Some("2"), false)], "{}");
        check_object(
            &[
                ("a", None, false),
                ("b", Some("1"), false),
                ("c", None, false),
                ("d", Some("2"), false),
            ],
            r#"{"b":"1","d":"2"}"#,
        );
    }

    #[test]
    fn pieces_are_joined_without_a_copy_where_they_are_adjacent() {
        let mut arena = Arena::default();
        let [a, b, c] = ["a", "b", "c"].map(|text| arena.push_text(text));
        let joined = arena.join(&[a, b, c]);
        assert_eq!((arena.text(joined), arena.text.len()), ("abc", 3));
        let joined = arena.join(&[a, c]);
        assert_eq!((arena.text(joined), arena.text.len()), ("ac", 5));
    }

    #[test]
    fn a_huge_document_is_not_kept() {
        let mut arena = Arena::default();
        let text = arena.push_text(&"x".repeat(2 * TEXT_KEPT));
        for _ in 0..2 * NODES_KEPT {
            arena.add(text, Value::Null, false);
        }
        arena.clear();
        assert!(arena.text.capacity() <= TEXT_KEPT && arena.nodes.capacity() <= NODES_KEPT);
    }
}
