//! From the XML of one record to a document in an arena, as Python's xmltodict shapes it.
//!
//! An element is an entry of its parent: `null` if it has neither attributes nor children nor text,
//! a string if it has text only, otherwise an object with its attributes as `@name`, its children,
//! and its text as `#text`. Text is whatever stands between the tags, joined across children,
//! comments and processing instructions; it counts only if some character of it is not white space
//! ([`char::is_whitespace`], Unicode's `White_Space`), *after* references are decoded, and it is
//! never trimmed. An attribute is a string even if it is empty.
//!
//! Reading is exact where XML is clear, and keeps the bytes where dumps are known to be wrong:
//!
//! | in the record | becomes |
//! |---|---|
//! | CR, CR LF in text or CDATA | LF (XML 1.0, 2.11); `&#13;` stays CR |
//! | tab, LF, CR, CR LF in an attribute | one space (XML 1.0, 3.3.3); references stay what they are |
//! | `&amp;` `&lt;` `&gt;` `&apos;` `&quot;`, `&#38;`, `&#x26;` | the character, in attributes too |
//! | a reference to no character: `&#0;`, `&#xD800;`, `&#99999999;` | U+FFFD |
//! | a bare `&`, an unknown entity (`&nbsp;`), a broken reference (`&#x;`) | itself, literally |
//! | NUL | U+FFFD: databases refuse NUL |
//! | other control characters | themselves |
//! | `<` or `>` in an attribute, `]]>` in text | itself |
//! | comments, processing instructions, white space around the record | nothing |
//! | a duplicate attribute, a name that XML does not allow, a document type | [`Malformed`] |
//! | text, or a second element, beside the record's element | [`Malformed`] |
//! | elements nested deeper than 256 | [`Malformed`]: the stack stays bounded |
//!
//! Records without anything unusual are read by `plain`, all others here, with an XML library: it
//! decides what is right. The tokenizer, and what iterates over the attributes of a tag, are all that
//! knows which library it is.

mod plain;

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::events::Event;
use quick_xml::events::attributes::{AttrError, Attributes};

use self::plain::PlainReader;
use crate::encoded::{Encoding, decode};
use crate::json::{Arena, Name, NodeId, Span, TEXT, Value};

/// How deep elements may nest, the record's own included. Real records reach 8.
const DEPTH_MAX: usize = 256;

/// Why a record can't become a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed record at byte {offset}: {reason}")]
pub struct Malformed {
    /// What is wrong, for people.
    pub reason: String,
    /// Where, in bytes from the start of the record.
    pub offset: usize,
    /// Whether tags or quotes do not pair up: an end tag is missing or wrong, or some markup never
    /// ends. Whatever cut the record out may then have swallowed the start of the next one.
    pub unbalanced: bool,
}

impl Malformed {
    pub(crate) fn new(offset: usize, reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            offset,
            unbalanced: false,
        }
    }

    fn unbalanced(offset: usize, reason: impl Into<String>) -> Self {
        Self {
            unbalanced: true,
            ..Self::new(offset, reason)
        }
    }
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `<name attributes>`, or `<name attributes/>` if it is empty.
    Start { empty: bool },
    /// `</name>`
    End,
    /// Text in which references are not decoded.
    Text,
    /// `<![CDATA[text]]>`
    CharacterData,
    /// `<!DOCTYPE ..>`
    DocumentType,
    /// A comment, a processing instruction or an XML declaration.
    Ignored,
}

/// A token: what it is, its bytes with all delimiters, and where they start.
#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    form: Form,
    raw: &'a str,
    offset: usize,
}

impl<'a> Token<'a> {
    /// The raw bytes without `before` bytes at the start and `after` at the end.
    fn inner(self, before: usize, after: usize) -> &'a str {
        &self.raw[before..self.raw.len() - after]
    }
}

/// Cuts a record into tokens. It does not check that tags pair up.
struct Tokenizer<'a> {
    xml: &'a str,
    reader: Reader<&'a [u8]>,
}

impl<'a> Tokenizer<'a> {
    fn new(xml: &'a str) -> Self {
        let mut reader = Reader::from_str(xml);
        let config = reader.config_mut();
        config.allow_dangling_amp = true;
        config.allow_unmatched_ends = true;
        config.check_end_names = false;
        Self { xml, reader }
    }

    fn position(&self) -> usize {
        usize::try_from(self.reader.buffer_position()).expect("the record is in memory")
    }

    /// The next token, or `None` at the end of the record.
    fn next(&mut self) -> Result<Option<Token<'a>>, Malformed> {
        let offset = self.position();
        let event = self.reader.read_event().map_err(|error| {
            let offset = usize::try_from(self.reader.error_position());
            let offset = offset.expect("the record is in memory");
            Malformed::unbalanced(offset, error.to_string())
        })?;
        let form = match event {
            Event::Start(_) => Form::Start { empty: false },
            Event::Empty(_) => Form::Start { empty: true },
            Event::End(_) => Form::End,
            Event::Text(_) | Event::GeneralRef(_) => Form::Text,
            Event::CData(_) => Form::CharacterData,
            Event::DocType(_) => Form::DocumentType,
            Event::Comment(_) | Event::PI(_) | Event::Decl(_) => Form::Ignored,
            Event::Eof => return Ok(None),
        };
        let raw = &self.xml[offset..self.position()];
        Ok(Some(Token { form, raw, offset }))
    }
}

/// The attributes in `raw`, which starts at byte `offset` of the record: names, and values in which
/// references are not decoded.
fn attributes(
    raw: &str,
    offset: usize,
) -> impl Iterator<Item = Result<(&str, Cow<'_, str>), Malformed>> {
    Attributes::new(raw, 0).map(move |attribute| {
        let attribute = attribute.map_err(|error| broken_attribute(&error, offset))?;
        Ok((attribute.key.0, attribute.value))
    })
}

/// All but a duplicate may come from a missing quote, which makes a tag swallow what follows it.
fn broken_attribute(error: &AttrError, offset: usize) -> Malformed {
    match *error {
        AttrError::Duplicated(at, _) => Malformed::new(offset + at, "an attribute occurs twice"),
        AttrError::ExpectedEq(at) => Malformed::unbalanced(offset + at, "an attribute lacks `=`"),
        AttrError::ExpectedValue(at)
        | AttrError::UnquotedValue(at)
        | AttrError::ExpectedQuote(at, _) => {
            Malformed::unbalanced(offset + at, "the value of an attribute is not quoted")
        }
    }
}

/// An element that is still open.
#[derive(Clone, Copy, Debug)]
struct Open {
    node: NodeId,
    /// Where its pieces of text start in the stack of pieces.
    pieces: usize,
    /// Whether all its text so far is white space.
    blank: bool,
    offset: usize,
}

/// Which of the readers reads a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// The plain one, and where that gives up the reference.
    #[default]
    Fast,
    /// The one that decides what is right, in several times the time.
    Reference,
}

/// Reads records, one at a time, in memory that is kept for the next.
#[derive(Debug, Default)]
pub(crate) struct RecordReader {
    reading: Reading,
    plain: PlainReader,
    root: Option<NodeId>,
    open: Vec<Open>,
    /// The pieces of text of all open elements, outermost first: children end before their parent
    /// goes on, so this is a stack.
    pieces: Vec<Span>,
}

impl RecordReader {
    pub(crate) fn new(reading: Reading) -> Self {
        Self {
            reading,
            ..Self::default()
        }
    }

    /// Reads `xml`, which must be one element called `name`, into `arena`, and returns its node.
    pub(crate) fn read(
        &mut self,
        xml: &str,
        name: Name,
        arena: &mut Arena,
    ) -> Result<NodeId, Malformed> {
        if self.reading == Reading::Fast
            && let Some(root) = self.plain.read(xml, name, arena)
        {
            return Ok(root);
        }
        self.read_by_reference(xml, name.text, arena)
    }

    fn read_by_reference(
        &mut self,
        xml: &str,
        name: &str,
        arena: &mut Arena,
    ) -> Result<NodeId, Malformed> {
        arena.clear();
        self.root = None;
        self.open.clear();
        self.pieces.clear();
        // The XML library would skip a byte order mark without counting it; a record has none.
        if !xml.trim_start_matches(is_xml_space).starts_with('<') {
            return Err(Malformed::new(0, "a record starts with `<`"));
        }
        let mut tokenizer = Tokenizer::new(xml);
        while let Some(token) = tokenizer.next()? {
            if self.open.is_empty() {
                self.check_outside(token, name)?;
            }
            self.take(token, arena)?;
        }
        if let Some(open) = self.open.last() {
            let name = arena.key_text(arena.node(open.node).key);
            let reason = format!("`<{name}>` at byte {} is not closed", open.offset);
            return Err(Malformed::unbalanced(xml.len(), reason));
        }
        self.root
            .ok_or_else(|| Malformed::new(0, format!("there is no `<{name}>`")))
    }

    /// Refuses what may not stand before or after the record's element, and other elements.
    fn check_outside(&self, token: Token<'_>, name: &str) -> Result<(), Malformed> {
        let reason = match token.form {
            Form::Start { .. } if self.root.is_some() => "an element follows the record".to_owned(),
            Form::Start { empty } => {
                let (found, _) = split_tag(token, empty)?;
                if found == name {
                    return Ok(());
                }
                format!("`<{found}>` where `<{name}>` was expected")
            }
            Form::Text if !token.raw.chars().all(is_xml_space) => {
                "text stands outside of the record".to_owned()
            }
            Form::CharacterData => "CDATA stands outside of the record".to_owned(),
            Form::Text | Form::End | Form::DocumentType | Form::Ignored => return Ok(()),
        };
        Err(Malformed::new(token.offset, reason))
    }

    fn take(&mut self, token: Token<'_>, arena: &mut Arena) -> Result<(), Malformed> {
        match token.form {
            Form::Start { empty } => {
                self.start(token, empty, arena)?;
                if empty {
                    self.close(arena);
                }
            }
            Form::End => {
                self.check_end(token, arena)?;
                self.close(arena);
            }
            Form::Text => self.text(token.raw, Encoding::Text, arena),
            Form::CharacterData => self.text(token.inner(9, 3), Encoding::CharacterData, arena),
            Form::DocumentType => {
                let reason = "a document type is no part of a record";
                return Err(Malformed::new(token.offset, reason));
            }
            Form::Ignored => (),
        }
        Ok(())
    }

    fn start(&mut self, token: Token<'_>, empty: bool, arena: &mut Arena) -> Result<(), Malformed> {
        let (name, attributes) = split_tag(token, empty)?;
        if self.open.len() == DEPTH_MAX {
            let reason = format!("elements nest deeper than {DEPTH_MAX}");
            return Err(Malformed::new(token.offset, reason));
        }
        let key = arena.push_key(name);
        let node = arena.add(key, Value::Null, false);
        self.root.get_or_insert(node);
        self.open.push(Open {
            node,
            pieces: self.pieces.len(),
            blank: true,
            offset: token.offset,
        });
        read_attributes(attributes, token.offset + 1 + name.len(), node, arena)
    }

    fn check_end(&self, token: Token<'_>, arena: &Arena) -> Result<(), Malformed> {
        let name = token.inner(2, 1).trim_end_matches(is_xml_space);
        let Some(open) = self.open.last() else {
            let reason = format!("`</{name}>` closes nothing");
            return Err(Malformed::unbalanced(token.offset, reason));
        };
        let expected = arena.key_text(arena.node(open.node).key);
        if expected == name {
            return Ok(());
        }
        let reason = format!(
            "`</{name}>` where `</{expected}>` was expected, opened at byte {}",
            open.offset
        );
        Err(Malformed::unbalanced(token.offset, reason))
    }

    fn text(&mut self, raw: &str, encoding: Encoding, arena: &mut Arena) {
        // Outside of the record's element only white space gets here.
        let Some(open) = self.open.last_mut() else {
            return;
        };
        let piece = arena.write_text(|text| decode(raw.as_bytes(), encoding, text));
        open.blank = open.blank && arena.text(piece).chars().all(char::is_whitespace);
        self.pieces.push(piece);
    }

    /// Closes the innermost element: gives it its text, and its parent a new entry.
    fn close(&mut self, arena: &mut Arena) {
        let open = self.open.pop().expect("an element is open");
        if !open.blank {
            let text = Value::String(arena.join(&self.pieces[open.pieces..]));
            if arena.node(open.node).value == Value::Null {
                arena.node_mut(open.node).value = text;
            } else {
                let key = arena.push_name(TEXT);
                let entry = arena.add(key, text, false);
                arena.append_entry(open.node, entry);
            }
        }
        self.pieces.truncate(open.pieces);
        if let Some(parent) = self.open.last() {
            arena.append_entry(parent.node, open.node);
        }
    }
}

/// The name of a start tag, and what follows it.
fn split_tag(token: Token<'_>, empty: bool) -> Result<(&str, &str), Malformed> {
    let inner = token.inner(1, if empty { 2 } else { 1 });
    let length = name_length(inner.as_bytes());
    let ends = inner[length..].is_empty() || inner[length..].starts_with(is_xml_space);
    if length == 0 || !ends {
        let name = inner.split(is_xml_space).next();
        return Err(no_name(name.unwrap_or(inner), token.offset + 1));
    }
    Ok(inner.split_at(length))
}

/// Adds the attributes in `raw`, which starts at byte `offset` of the record, to `node`.
fn read_attributes(
    raw: &str,
    offset: usize,
    node: NodeId,
    arena: &mut Arena,
) -> Result<(), Malformed> {
    for attribute in attributes(raw, offset) {
        let (name, value) = attribute?;
        if name_length(name.as_bytes()) != name.len() || name.is_empty() {
            return Err(no_name(name, offset));
        }
        let key = arena.write_text(|text| {
            text.push(b'@');
            text.extend_from_slice(name.as_bytes());
        });
        let value = arena.write_text(|text| decode(value.as_bytes(), Encoding::Attribute, text));
        let key = arena.key(key);
        let entry = arena.add(key, Value::String(value), true);
        arena.append_entry(node, entry);
    }
    Ok(())
}

/// Whether a byte may start a name, and whether it may go on in one, as XML has it but for what it
/// excludes beyond ASCII.
const NAMES: [(bool, bool); 256] = {
    let mut names = [(false, false); 256];
    let mut index = 0;
    while index < names.len() {
        let byte = index as u8;
        let starts = byte.is_ascii_alphabetic() || byte >= 0x80 || matches!(byte, b'_' | b':');
        let goes_on = starts || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        names[index] = (starts, goes_on);
        index += 1;
    }
    names
};

/// How many bytes at the start of `bytes` are a name.
fn name_length(bytes: &[u8]) -> usize {
    match bytes.first() {
        Some(&first) if NAMES[usize::from(first)].0 => bytes
            .iter()
            .position(|&byte| !NAMES[usize::from(byte)].1)
            .unwrap_or(bytes.len()),
        _ => 0,
    }
}

/// Names that XML does not allow are refused: `#text` and `@id` would collide with keys that mean
/// something else.
fn no_name(text: &str, offset: usize) -> Malformed {
    let shown: String = text.chars().take(40).collect();
    Malformed::new(offset, format!("`{shown}` is not a name"))
}

/// White space as XML has it.
const fn is_xml_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}
