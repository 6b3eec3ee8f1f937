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

mod output;

use std::cmp::Ordering;
use std::num::NonZeroU32;
use std::ops::Range;

pub(crate) use self::output::Output;
use crate::lanes;

/// How many nodes an arena keeps room for between documents: ten times the largest record seen.
const NODES_KEPT: usize = 1 << 16;
/// How many bytes of text an arena keeps room for between documents.
const TEXT_KEPT: usize = 1 << 20;

/// A piece of an arena's text: its end and its start, in one number, because a processor waits for
/// what was stored in two pieces and is loaded in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(u64);

impl Span {
    /// Of no bytes.
    pub(crate) const EMPTY: Self = Self(0);

    /// The bytes of `range`. It fits because an arena refuses texts of 4 GiB and more.
    pub(crate) const fn new(range: Range<usize>) -> Self {
        Self((range.end as u64) << 32 | range.start as u64)
    }

    /// The bytes that it is of.
    pub(crate) const fn range(self) -> Range<usize> {
        self.start()..(self.0 >> 32) as usize
    }

    /// Where it begins.
    pub(crate) const fn start(self) -> usize {
        self.0 as u32 as usize
    }

    /// How many bytes it is of.
    pub(crate) const fn length(self) -> usize {
        (self.0 >> 32) as usize - self.start()
    }
}

/// What is looked at first of a key, because it is one number: the first seven bytes of the key, the
/// first one on top, and below them its length, or 8 if it is longer than that.
///
/// No key holds a zero, so these numbers are ordered as the keys are, and of short keys they are
/// equal only if the keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(u64);

impl Rank {
    const PREFIX_BYTES: usize = 7;
    const LONG: usize = 8;

    /// Of a key of `length` bytes that `bytes` begin with.
    const fn new(bytes: [u8; 8], length: usize) -> Self {
        let length = if length < Self::LONG {
            length
        } else {
            Self::LONG
        };
        Self(u64::from_be_bytes(bytes) & Self::KEPT[length] | length as u64)
    }

    /// What is kept of the first bytes of a key, by its length up to 8.
    const KEPT: [u64; 9] = {
        let mut kept = [!0xFF; 9];
        let mut length = 0;
        while length < Self::PREFIX_BYTES {
            kept[length] = !(u64::MAX >> (8 * length));
            length += 1;
        }
        kept
    };

    /// The first byte of the key; 0 if it is empty.
    const fn first(self) -> u8 {
        self.0.to_be_bytes()[0]
    }

    /// Whether it says everything about the key.
    const fn is_short(self) -> bool {
        self.0 & 0xFF < Self::LONG as u64
    }
}

/// A set of keys, in which others may seem to be too: asking it is cheaper than looking for a key that
/// is not there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names(u64);

impl Names {
    /// Whether `name` may be one of them.
    pub(crate) const fn may_hold(self, name: Name) -> bool {
        self.0 & Self::bit(name.rank) != 0
    }

    /// The bit that stands for a key: the top bits of a product depend on all bits of its factor.
    const fn bit(rank: Rank) -> u64 {
        1 << (rank.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58)
    }
}

/// The key of a node: a piece of the arena's text. It is written as it is, so it must need no
/// escape; XML names, with `@` or `#` before them, need none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    span: Span,
    rank: Rank,
}

impl Key {
    /// Of no bytes.
    pub(crate) const EMPTY: Self = Self {
        span: Span::EMPTY,
        rank: Rank(0),
    };

    /// How many bytes it has.
    pub(crate) fn length(self) -> usize {
        self.span.length()
    }

    /// Whether its name begins at `start` of `text`, of which it is a key itself.
    #[inline(always)]
    pub(crate) fn is_at(self, start: usize, text: &[u8]) -> bool {
        let (key, other) = (text.get(self.span.start()..), text.get(start..));
        let both = key.zip(other);
        both.is_some_and(|(key, other)| lanes::begin_alike(key, other, self.length()))
    }
}

/// A key to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) text: &'static str,
    rank: Rank,
}

impl Name {
    pub(crate) const fn new(text: &'static str) -> Self {
        let (mut bytes, mut at) = ([0; 8], 0);
        while at < text.len() && at < bytes.len() {
            bytes[at] = text.as_bytes()[at];
            at += 1;
        }
        let rank = Rank::new(bytes, text.len());
        Self { text, rank }
    }
}

/// The key of an element's text beside other entries, in the model of xmltodict.
pub(crate) const TEXT: Name = Name::new("#text");

/// A node of an arena. Later nodes are larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(NonZeroU32);

impl NodeId {
    fn from_index(index: usize) -> Self {
        let number = u32::try_from(index).expect("records are bounded below 4 G nodes");
        Self(NonZeroU32::new(number).expect("the first node is nobody's"))
    }

    fn from_number(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    fn index(self) -> usize {
        self.0.get() as usize
    }
}

/// A chain of nodes; a node is in at most one. The last one and the first one in one number, as in a
/// [`Span`]; 0 if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain(u64);

impl Chain {
    /// Of no nodes.
    pub(crate) const EMPTY: Self = Self(0);

    fn new(first: NodeId, last: NodeId) -> Self {
        let number = |id: NodeId| u64::from(id.0.get());
        Self(number(last) << 32 | number(first))
    }

    /// The first node.
    pub(crate) fn first(self) -> Option<NodeId> {
        NodeId::from_number(self.0 as u32)
    }

    /// The index of the last node; 0 if there is none.
    const fn last_index(self) -> usize {
        (self.0 >> 32) as usize
    }

    /// The only node, if it is the only one.
    pub(crate) fn only(self) -> Option<NodeId> {
        self.first()
            .filter(|first| first.index() == self.last_index())
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
    /// A string without anything that JSON escapes.
    Plain(Span),
    /// A string with something visible in it, as XML has it: it is decoded when it is written.
    Encoded(Span),
    /// Entries in document order; several of one key are an array.
    Object(Chain),
    /// Items; their keys mean nothing.
    Array(Chain),
}

impl Value {
    /// Whether it is a string.
    pub(crate) const fn is_string(self) -> bool {
        matches!(self, Self::String(_) | Self::Plain(_) | Self::Encoded(_))
    }
}

/// An entry of an object, or an item of an array.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    /// The name of the entry.
    pub(crate) key: Key,
    /// What it holds.
    pub(crate) value: Value,
    /// Whether it beats the entries of the same key that are not.
    pub(crate) sole: bool,
    next: Option<NodeId>,
}

impl Node {
    /// In no document.
    const NOBODY: Self = Self {
        key: Key::EMPTY,
        value: Value::Absent,
        sole: false,
        next: None,
    };
}

/// An entry in the order in which it is written.
#[derive(Clone, Copy, Debug)]
struct Sorted {
    rank: Rank,
    id: NodeId,
}

/// One document at a time, in memory that is kept for the next.
#[derive(Debug)]
pub(crate) struct Arena {
    /// The first one is nobody's: it takes what would otherwise be written to no node, which costs
    /// less than asking.
    nodes: Vec<Node>,
    /// UTF-8, and every span is of whole characters.
    text: Vec<u8>,
    /// How much of the text was loaded.
    loaded: usize,
    /// The entries of the objects that are being written, sorted; a stack.
    sorted: Vec<Sorted>,
}

impl Default for Arena {
    fn default() -> Self {
        Self {
            nodes: vec![Node::NOBODY],
            text: Vec::new(),
            loaded: 0,
            sorted: Vec::new(),
        }
    }
}

impl Arena {
    /// Forgets the document, and keeps the memory unless the document was huge.
    pub(crate) fn clear(&mut self) {
        self.nodes.truncate(1);
        self.nodes.shrink_to(NODES_KEPT);
        self.text.clear();
        self.text.shrink_to(TEXT_KEPT);
        self.sorted.shrink_to(NODES_KEPT);
    }

    /// Forgets the document, and makes `text` the start of the text: spans may be of it.
    pub(crate) fn load(&mut self, text: &str) {
        self.clear();
        self.loaded = self.push_text(text).length();
    }

    /// Adds to the text whatever `write` appends, in whole characters.
    pub(crate) fn write_text(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Span {
        let start = self.text.len();
        write(&mut self.text);
        self.span_from(start)
    }

    /// What was added to the text from `start` on.
    fn span_from(&self, start: usize) -> Span {
        let end = self.text.len();
        assert!(
            u32::try_from(end).is_ok(),
            "records are bounded far below 4 GiB"
        );
        Span::new(start..end)
    }

    /// Adds `text`.
    pub(crate) fn push_text(&mut self, text: &str) -> Span {
        self.write_text(|all| all.extend_from_slice(text.as_bytes()))
    }

    /// The key that stands at `span`.
    #[inline]
    pub(crate) fn key(&self, span: Span) -> Key {
        let bytes = match self.text[span.start()..].first_chunk() {
            Some(bytes) => *bytes,
            None => self.first_bytes(span),
        };
        let rank = Rank::new(bytes, span.length());
        Key { span, rank }
    }

    /// The first bytes of a span near the end of the text, and zeros.
    #[cold]
    fn first_bytes(&self, span: Span) -> [u8; 8] {
        std::array::from_fn(|at| self.bytes(span).get(at).copied().unwrap_or(0))
    }

    /// Adds `name`, and makes a key of it.
    pub(crate) fn push_name(&mut self, name: Name) -> Key {
        Key {
            span: self.push_text(name.text),
            rank: name.rank,
        }
    }

    /// Adds `text`, and makes a key of it.
    pub(crate) fn push_key(&mut self, text: &str) -> Key {
        let span = self.push_text(text);
        self.key(span)
    }

    /// `key` without its first byte, which must be a character of its own.
    pub(crate) fn without_first(&self, key: Key) -> Key {
        let Range { start, end } = key.span.range();
        assert!(start < end, "the key is not empty");
        self.key(Span::new(start + 1..end))
    }

    /// One span that holds the text of all `pieces`, which are in document order.
    pub(crate) fn join(&mut self, pieces: &[Span]) -> Span {
        let start = self.text.len();
        if let (Some(first), Some(last)) = (pieces.first(), pieces.last()) {
            let are_adjacent = |pair: &[Span]| pair[0].range().end == pair[1].start();
            if pieces.windows(2).all(are_adjacent) {
                return Span::new(first.start()..last.range().end);
            }
            for piece in pieces {
                self.text.extend_from_within(piece.range());
            }
        }
        self.span_from(start)
    }

    /// One span that holds the text of both. `None` if something was added behind a span that is
    /// itself joined: then each further piece would copy all those before it.
    pub(crate) fn join_two(&mut self, first: Span, second: Span) -> Option<Span> {
        let is_joined = first.start() >= self.loaded;
        if is_joined && first.range().end != self.text.len() {
            return None;
        }
        let start = match is_joined {
            true => first.start(),
            false => self.text.len(),
        };
        if !is_joined {
            self.text.extend_from_within(first.range());
        }
        self.text.extend_from_within(second.range());
        Some(self.span_from(start))
    }

    /// The text of a span.
    pub(crate) fn text(&self, span: Span) -> &str {
        str::from_utf8(self.bytes(span)).expect("text is added in whole characters")
    }

    /// The text of a span, as bytes.
    pub(crate) fn bytes(&self, span: Span) -> &[u8] {
        &self.text[span.range()]
    }

    /// Whether the text of a span is white space, or empty.
    pub(crate) fn is_blank(&self, span: Span) -> bool {
        // Nearly always the first character decides, and validating a whole text is not cheap.
        let text = self.bytes(span).trim_ascii_start();
        match text.first() {
            None => true,
            Some(&first) if begins_visibly(first) => false,
            Some(_) if first_character(text).is_some_and(|first| !first.is_whitespace()) => false,
            Some(_) => self.text(span).trim().is_empty(),
        }
    }

    /// Whether a value is a string with something visible in it.
    pub(crate) fn is_visible(&self, value: Value) -> bool {
        match value {
            Value::String(span) | Value::Plain(span) => !self.is_blank(span),
            Value::Encoded(_) => true,
            Value::Absent | Value::Null | Value::Object(_) | Value::Array(_) => false,
        }
    }

    /// Adds a node that is in no chain yet.
    pub(crate) fn add(&mut self, key: Key, value: Value, sole: bool) -> NodeId {
        let id = NodeId::from_index(self.nodes.len());
        self.nodes.push(Node {
            key,
            value,
            sole,
            next: None,
        });
        id
    }

    /// Adds a node, and appends it to `chain`.
    #[inline]
    pub(crate) fn append_new(&mut self, chain: &mut Chain, key: Key, value: Value, sole: bool) {
        let node = self.add(key, value, sole);
        self.link(chain, node);
    }

    /// Appends `node` to `chain`, wherever it was before.
    pub(crate) fn append(&mut self, chain: &mut Chain, node: NodeId) {
        self.node_mut(node).next = None;
        self.link(chain, node);
    }

    fn link(&mut self, chain: &mut Chain, node: NodeId) {
        self.nodes[chain.last_index()].next = Some(node);
        *chain = Chain::new(chain.first().unwrap_or(node), node);
    }

    /// Appends `child` to the entries of `parent`, which becomes an object if it is not one.
    pub(crate) fn append_entry(&mut self, parent: NodeId, child: NodeId) {
        let mut entries = match self.node(parent).value {
            Value::Object(entries) => entries,
            _ => Chain::EMPTY,
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

    /// The text of a key.
    pub(crate) fn key_text(&self, key: Key) -> &str {
        self.text(key.span)
    }

    /// Whether the name of an entry is `name`.
    #[inline]
    pub(crate) fn is_named(&self, id: NodeId, name: Name) -> bool {
        let key = self.node(id).key;
        key.rank == name.rank
            && (name.rank.is_short() || self.bytes(key.span) == name.text.as_bytes())
    }

    /// Whether the name of an entry begins with `@`.
    pub(crate) fn is_attribute(&self, id: NodeId) -> bool {
        self.node(id).key.rank.first() == b'@'
    }

    fn is_same(&self, one: Key, other: Key) -> bool {
        one.rank == other.rank
            && (one.rank.is_short() || self.bytes(one.span) == self.bytes(other.span))
    }

    /// Whether an entry of the name `key` is in `chain`.
    pub(crate) fn has_key(&self, chain: Chain, key: Key) -> bool {
        self.iter(chain)
            .any(|id| self.is_same(self.node(id).key, key))
    }

    /// Overwrites the byte before `range` with `byte`, both ASCII, and gives both as one span.
    pub(crate) fn overwrite_before(&mut self, byte: u8, range: Range<usize>) -> Span {
        let before = &mut self.text[range.start - 1];
        assert!(
            before.is_ascii() && byte.is_ascii(),
            "characters stay whole"
        );
        *before = byte;
        Span::new(range.start - 1..range.end)
    }

    /// The names of the entries.
    pub(crate) fn names(&self, chain: Chain) -> Names {
        let bits = self
            .iter(chain)
            .map(|id| Names::bit(self.node(id).key.rank));
        Names(bits.fold(0, |all, bit| all | bit))
    }

    /// The first entry of the name `name`.
    pub(crate) fn find(&self, chain: Chain, name: Name) -> Option<NodeId> {
        self.iter(chain).find(|&id| self.is_named(id, name))
    }

    /// Appends the value of `root` to `out` as compact JSON, keys sorted by bytes at every level.
    pub(crate) fn write(&mut self, root: NodeId, out: &mut Output) {
        let mut sorted = std::mem::take(&mut self.sorted);
        self.write_value(self.node(root).value, &mut sorted, out);
        out.drop_comma();
        sorted.clear();
        self.sorted = sorted;
    }

    /// Writes a value, and a comma behind it: the end of what it is in takes the place of the last.
    #[inline]
    fn write_value(&self, value: Value, sorted: &mut Vec<Sorted>, out: &mut Output) {
        match value {
            Value::Absent | Value::Null => out.put(b"null,"),
            Value::String(span) => out.put_string(&self.text, span),
            Value::Plain(span) => out.put_between(b"\"", &self.text, span, b"\","),
            Value::Encoded(span) => out.put_encoded(&self.text, span),
            Value::Object(entries) => self.write_object(entries, sorted, out),
            Value::Array(items) => {
                let start = out.open(b'[');
                for item in self.iter(items) {
                    self.write_value(self.node(item).value, sorted, out);
                }
                out.close(start, b']');
            }
        }
    }

    fn write_object(&self, entries: Chain, sorted: &mut Vec<Sorted>, out: &mut Output) {
        let base = sorted.len();
        self.sort(entries, sorted);
        let end = sorted.len();
        let start = out.open(b'{');
        let mut at = base;
        while at < end {
            let group = at..self.group_end(sorted, at);
            at = group.end;
            self.write_entry(group, sorted, out);
        }
        out.close(start, b'}');
        sorted.truncate(base);
    }

    /// Pushes the entries of a chain in the order in which they are written.
    #[inline]
    fn sort(&self, entries: Chain, sorted: &mut Vec<Sorted>) {
        let base = sorted.len();
        let mut last = Rank(0);
        let mut is_sorted = true;
        for id in self.iter(entries) {
            let rank = self.node(id).key.rank;
            is_sorted &= last < rank;
            last = rank;
            sorted.push(Sorted { rank, id });
        }
        if !is_sorted {
            sorted[base..].sort_unstable_by(|a, b| self.order(a, b));
        }
    }

    /// By key; of one key the sole entry first, then document order.
    #[inline]
    fn order(&self, a: &Sorted, b: &Sorted) -> Ordering {
        match a.rank.cmp(&b.rank) {
            Ordering::Equal => self.order_of_one_rank(a, b),
            order => order,
        }
    }

    fn order_of_one_rank(&self, a: &Sorted, b: &Sorted) -> Ordering {
        let (first, second) = (self.node(a.id), self.node(b.id));
        let by_key = match a.rank.is_short() {
            true => Ordering::Equal,
            false => self.bytes(first.key.span).cmp(self.bytes(second.key.span)),
        };
        by_key
            .then_with(|| second.sole.cmp(&first.sole))
            .then_with(|| a.id.cmp(&b.id))
    }

    /// The end of the entries that have the same key as the one at `start`.
    #[inline]
    fn group_end(&self, sorted: &[Sorted], start: usize) -> usize {
        let first = sorted[start];
        let is_same = |other: &Sorted| {
            other.rank == first.rank
                && self.is_same(self.node(other.id).key, self.node(first.id).key)
        };
        let mut end = start + 1;
        while sorted.get(end).is_some_and(is_same) {
            end += 1;
        }
        end
    }

    /// Writes the entries of one key, and a comma behind them.
    #[inline]
    fn write_entry(&self, group: Range<usize>, sorted: &mut Vec<Sorted>, out: &mut Output) {
        let first = self.node(sorted[group.start].id);
        let key = first.key.span;
        let is_one = first.sole || group.end - group.start == 1;
        match first.value {
            Value::Absent => return,
            Value::Plain(span) if is_one => return out.put_entry(&self.text, key, span),
            _ => out.put_between(b"\"", &self.text, key, b"\":"),
        }
        if is_one {
            return self.write_value(first.value, sorted, out);
        }
        let start = out.open(b'[');
        for at in group {
            self.write_value(self.node(sorted[at].id).value, sorted, out);
        }
        out.close(start, b']');
    }
}

/// Whether no white space begins with this byte in UTF-8. If one does, other characters may as well.
pub(crate) const fn begins_visibly(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xC3..=0xE0 | 0xE4..)
}

/// The first character of UTF-8.
fn first_character(text: &[u8]) -> Option<char> {
    let length = text.first()?.leading_ones().max(1) as usize;
    str::from_utf8(text.get(..length)?).ok()?.chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_what_unicode_says() {
        for character in (0..=0x10_FFFF).filter_map(char::from_u32) {
            let mut arena = Arena::default();
            let span = arena.push_text(&format!(" {character}\n"));
            assert_eq!(
                arena.is_blank(span),
                character.is_whitespace(),
                "{character:?}"
            );
        }
    }

    /// Writes the object whose entries are `entries`: key, value, sole. A value of `None` is absent.
    fn check_object(entries: &[(&str, Option<&str>, bool)], expected: &str) {
        let mut arena = Arena::default();
        let key = arena.push_key("root");
        let root = arena.add(key, Value::Object(Chain::EMPTY), false);
        for &(key, text, sole) in entries {
            let key = arena.push_key(key);
            let value = match text {
                Some(text) => Value::String(arena.push_text(text)),
                None => Value::Absent,
            };
            let entry = arena.add(key, value, sole);
            arena.append_entry(root, entry);
        }
        let mut out = Output::default();
        arena.write(root, &mut out);
        assert_eq!(str::from_utf8(out.bytes()).unwrap(), expected);
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
        let key = arena.key(text);
        for _ in 0..2 * NODES_KEPT {
            arena.add(key, Value::Null, false);
        }
        arena.clear();
        assert!(arena.text.capacity() <= TEXT_KEPT && arena.nodes.capacity() <= NODES_KEPT);
    }
}
