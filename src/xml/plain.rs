//! A reader for records as dumps spell them, which is nearly all.
//!
//! It knows tags, attributes in quotes, text, references, comments and CDATA. Whatever else there
//! is, right or wrong, makes it give up: processing instructions, space around `=`, text that is cut
//! into pieces in a way that nobody does, anything malformed. The record is then read by the parent
//! module, which decides what it means or what is wrong with it. So this reader has no errors, and
//! where it does not give up it gives exactly what the other one does.
//!
//! It is several times as fast because it looks at each byte once and copies few: the arena holds
//! the record itself, and nodes refer to it. Only text that has to be decoded is written anew. The
//! search for the end of a text also finds out whether JSON has to escape something in it.

use std::mem;
use std::ops::Range;

use super::{DEPTH_MAX, NAMES, is_xml_space};
use crate::encoded::{Encoding, decode};
use crate::json::{Arena, Chain, Key, Name, NodeId, Span, TEXT, Value, begins_visibly};
use crate::lanes::{self, equal, escaped, unlettered};

/// An element that is still open.
#[derive(Clone, Copy, Debug)]
struct Open {
    key: Key,
    /// Its attributes and children so far.
    entries: Chain,
    /// All its text so far.
    text: Text,
}

impl Open {
    /// What the record is in.
    const DOCUMENT: Self = Self {
        key: Key::EMPTY,
        entries: Chain::EMPTY,
        text: Text::EMPTY,
    };

    /// Closes the element, and gives it to its parent.
    #[inline(always)]
    fn close(self, parent: &mut Self, arena: &mut Arena) {
        let value = value(self.entries, self.text, arena);
        arena.append_new(&mut parent.entries, self.key, value, false);
    }
}

/// The text of an element, or a piece of it.
#[derive(Clone, Copy, Debug)]
struct Text {
    span: Span,
    look: Look,
}

/// What a text looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// It is empty.
    Empty,
    /// White space, which is no text on its own.
    Blank,
    /// Something that is not only white space.
    Visible,
    /// Likewise, and as plain as [`Value::Plain`].
    Plain,
    /// Likewise, and not yet decoded.
    Encoded,
}

/// Reads records, one at a time, in memory that is kept for the next.
#[derive(Debug, Default)]
pub(super) struct PlainReader {
    /// The elements around the one that is being read, the document first.
    outer: Vec<Open>,
}

impl PlainReader {
    /// Reads `xml`, which must be one element called `name` and nothing else, into `arena`, and
    /// returns its node. `None` if there is something unusual in it; what is then in the arena means
    /// nothing.
    pub(super) fn read(&mut self, xml: &str, name: Name, arena: &mut Arena) -> Option<NodeId> {
        arena.load(xml);
        self.outer.clear();
        let mut scan = Scan {
            bytes: xml.as_bytes(),
            at: 0,
        };
        let mut open = Open::DOCUMENT;
        while let Some(next) = scan.bytes.get(scan.at..scan.at + 2) {
            match next {
                b"</" => {
                    scan.end_tag(open.key)?;
                    let mut parent = self.outer.pop()?;
                    open.close(&mut parent, arena);
                    open = parent;
                }
                b"<!" if self.outer.is_empty() => return None,
                b"<!" => {
                    let piece = scan.section(arena)?;
                    open.text = open.text.and(piece, &scan, arena)?;
                }
                [b'<', _] => {
                    let (mut inner, mut is_closed) = scan.start_tag(arena)?;
                    if !is_closed {
                        inner.text = scan.text(arena)?;
                        is_closed = scan.bytes.get(scan.at + 1) == Some(&b'/');
                        if !is_closed {
                            // What is in it is one deeper.
                            if self.outer.len() + 1 == DEPTH_MAX {
                                return None;
                            }
                            self.outer.push(mem::replace(&mut open, inner));
                            continue;
                        }
                        scan.end_tag(inner.key)?;
                    }
                    inner.close(&mut open, arena);
                }
                _ => {
                    let piece = scan.text(arena)?;
                    open.text = open.text.and(piece, &scan, arena)?;
                }
            }
        }
        let is_over = scan.at == xml.len() && self.outer.is_empty();
        let is_alone = open.text.look == Look::Empty;
        let root = open.entries.only().filter(|_| is_over && is_alone)?;
        arena.is_named(root, name).then_some(root)
    }
}

/// The value of an element.
#[inline(always)]
fn value(mut entries: Chain, text: Text, arena: &mut Arena) -> Value {
    let text = match text.look {
        Look::Empty | Look::Blank => Value::Null,
        Look::Visible => Value::String(text.span),
        Look::Plain => Value::Plain(text.span),
        Look::Encoded => Value::Encoded(text.span),
    };
    if entries.first().is_none() {
        return text;
    }
    if text != Value::Null {
        add_text(&mut entries, text, arena);
    }
    Value::Object(entries)
}

/// Adds the text of an element that has other entries.
#[inline(never)]
fn add_text(entries: &mut Chain, text: Value, arena: &mut Arena) {
    let key = arena.push_name(TEXT);
    arena.append_new(entries, key, text, false);
}

impl Text {
    const EMPTY: Self = Self {
        span: Span::EMPTY,
        look: Look::Empty,
    };

    /// What `span` holds; `look` if that is not only white space.
    fn new(span: Span, look: Look, arena: &Arena) -> Self {
        let look = if span.length() == 0 {
            Look::Empty
        } else if arena.is_blank(span) {
            Look::Blank
        } else {
            look
        };
        Self { span, look }
    }

    /// The span of what the text stands for.
    fn decoded(self, scan: &Scan<'_>, arena: &mut Arena) -> Span {
        match self.look {
            Look::Encoded => scan.decoded(self.span.range(), Encoding::Text, arena),
            _ => self.span,
        }
    }

    /// The text with another piece behind it. `None` if joining them is not worth knowing how.
    fn and(self, piece: Self, scan: &Scan<'_>, arena: &mut Arena) -> Option<Self> {
        match (self.look, piece.look) {
            (_, Look::Empty) => Some(self),
            (Look::Empty, _) | (Look::Blank, Look::Blank) => Some(piece),
            (Look::Blank, _) => None,
            _ => {
                let second = piece.decoded(scan, arena);
                let first = self.decoded(scan, arena);
                let span = arena.join_two(first, second)?;
                let look = Look::Visible;
                Some(Self { span, look })
            }
        }
    }
}

/// How a comment begins and ends.
const COMMENT: (&[u8], &[u8]) = (b"<!--", b"-->");
/// How CDATA begins and ends.
const CDATA: (&[u8], &[u8]) = (b"<![CDATA[", b"]]>");

/// The record, and how far it is read.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Passes over a start tag, and says whether it is that of an empty element.
    #[inline(always)]
    fn start_tag(&mut self, arena: &mut Arena) -> Option<(Open, bool)> {
        let start = self.at + 1;
        let end = start + name_length(self.bytes.get(start..)?);
        if end == start {
            return None;
        }
        let mut open = Open {
            key: arena.key(Span::new(start..end)),
            ..Open::DOCUMENT
        };
        if self.bytes.get(end) == Some(&b'>') {
            self.at = end + 1;
            return Some((open, false));
        }
        self.at = end;
        let is_empty = self.attributes(&mut open.entries, arena)?;
        Some((open, is_empty))
    }

    /// Passes over `</name>`.
    #[inline(always)]
    fn end_tag(&mut self, name: Key) -> Option<()> {
        let start = self.at + 2;
        if !name.is_at(start, self.bytes) {
            return None;
        }
        let mut end = start + name.length();
        if self.bytes.get(end) != Some(&b'>') {
            end += spaces(self.bytes.get(end..)?);
            if self.bytes.get(end) != Some(&b'>') {
                return None;
            }
        }
        self.at = end + 1;
        Some(())
    }

    /// Passes over a comment, which is no text, or CDATA.
    fn section(&mut self, arena: &mut Arena) -> Option<Text> {
        let (opener, terminator) = match self.rest() {
            // `<!-->` is not a comment to everybody.
            [b'<', b'!', b'-', b'-', b'>', ..] | [b'<', b'!', b'-', b'-', b'-', b'>', ..] => {
                return None;
            }
            rest if rest.starts_with(COMMENT.0) => COMMENT,
            rest if rest.starts_with(CDATA.0) => CDATA,
            _ => return None,
        };
        let start = self.at + opener.len();
        let end = start + memchr::memmem::find(&self.bytes[start..], terminator)?;
        self.at = end + terminator.len();
        if opener == COMMENT.0 {
            return Some(Text::EMPTY);
        }
        let span = self.decoded(start..end, Encoding::CharacterData, arena);
        Some(Text::new(span, Look::Visible, arena))
    }

    /// Adds the attributes of a tag to `entries`, up to the tag's end, and says whether it is `/>`.
    #[inline(never)]
    fn attributes(&mut self, entries: &mut Chain, arena: &mut Arena) -> Option<bool> {
        loop {
            let next = *self.bytes.get(self.at)?;
            self.at += 1;
            match next {
                b'>' => return Some(false),
                b'/' => {
                    self.at += 1;
                    return (self.bytes.get(self.at - 1) == Some(&b'>')).then_some(true);
                }
                _ if !is_xml_space(char::from(next)) => return None,
                _ => {
                    self.at += spaces(self.rest());
                    if !matches!(self.bytes.get(self.at)?, b'>' | b'/') {
                        self.attribute(entries, arena)?;
                    }
                }
            }
        }
    }

    /// Adds the attribute here, `name="value"` or `name='value'`, to `entries`. In the arena the
    /// space before it becomes the `@` of its key.
    fn attribute(&mut self, entries: &mut Chain, arena: &mut Arena) -> Option<()> {
        let start = self.at;
        let length = name_length(self.rest());
        let [b'=', quote @ (b'"' | b'\''), ..] = self.rest()[length..] else {
            return None;
        };
        let key = arena.overwrite_before(b'@', start..start + length);
        let key = arena.key(key);
        if length == 0 || arena.has_key(*entries, key) {
            return None;
        }
        self.at += length + 2;
        let value = self.quoted(quote, arena)?;
        arena.append_new(entries, key, value, true);
        Some(())
    }

    /// Passes over the value of an attribute and the `quote` behind it.
    fn quoted(&mut self, quote: u8, arena: &mut Arena) -> Option<Value> {
        let start = self.at;
        let special = start + find_special(self.rest());
        if *self.bytes.get(special)? == quote {
            self.at = special + 1;
            return Some(Value::Plain(Span::new(start..special)));
        }
        let length = memchr::memchr2(quote, b'<', self.rest())?;
        let end = start + length;
        self.at = end + 1;
        (self.bytes[end] == quote)
            .then(|| Value::String(self.decoded(start..end, Encoding::Attribute, arena)))
    }

    /// Passes over the text up to the next `<`.
    #[inline(always)]
    fn text(&mut self, arena: &mut Arena) -> Option<Text> {
        let start = self.at;
        let first = *self.bytes.get(start)?;
        if first == b'<' {
            return Some(Text::EMPTY);
        }
        self.at += find_special(self.rest());
        if *self.bytes.get(self.at)? != b'<' {
            return self.unusual_text(start, arena);
        }
        let span = Span::new(start..self.at);
        let look = Look::Plain;
        Some(match first.is_ascii_graphic() {
            true => Text { span, look },
            false => Text::new(span, look, arena),
        })
    }

    /// Passes over the rest of a text that begins at `start` and holds something special here.
    #[inline(never)]
    fn unusual_text(&mut self, start: usize, arena: &mut Arena) -> Option<Text> {
        self.at += memchr::memchr(b'<', self.rest())?;
        let first = self.bytes[start..self.at].trim_ascii_start().first();
        if first.is_some_and(|&first| first != b'&' && begins_visibly(first)) {
            let (span, look) = (Span::new(start..self.at), Look::Encoded);
            return Some(Text { span, look });
        }
        let span = self.decoded(start..self.at, Encoding::Text, arena);
        Some(Text::new(span, Look::Visible, arena))
    }

    /// What the bytes of `range` stand for, which something in them may change.
    fn decoded(&self, range: Range<usize>, encoding: Encoding, arena: &mut Arena) -> Span {
        let raw = &self.bytes[range.clone()];
        match encoding.find_special(raw) {
            None => Span::new(range),
            Some(_) => arena.write_text(|text| decode(raw, encoding, text)),
        }
    }
}

/// How many bytes at the start of `bytes` are a name, nearly always of letters only.
#[inline(always)]
fn name_length(bytes: &[u8]) -> usize {
    match lanes::find(bytes, unlettered) {
        Some(length) if length > 0 && !NAMES[usize::from(bytes[length])].1 => length,
        _ => super::name_length(bytes),
    }
}

/// How many bytes at the start of `bytes` are white space.
fn spaces(bytes: &[u8]) -> usize {
    let is_space = |byte: &&u8| is_xml_space(char::from(**byte));
    bytes.iter().take_while(is_space).count()
}

/// How many bytes at the start of `bytes` neither end a text or a value, nor stand for something
/// else, nor are escaped in JSON.
fn find_special(bytes: &[u8]) -> usize {
    let is_special = |lanes| escaped(lanes) | equal(lanes, b'<') | equal(lanes, b'&');
    lanes::find(bytes, is_special).unwrap_or(bytes.len())
}
