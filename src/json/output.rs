//! Bytes of JSON, written one short piece after the other.

use std::fmt;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::Span;
use crate::encoded::Encoding;
use crate::lanes::{self, Lanes, equal, escaped};

/// How many bytes a short piece is copied with, whatever its length.
const CHUNK: usize = 32;

/// How many bytes of output share one allocation.
const SHARED_BYTES: usize = 64 * 1024;
/// The largest content that shares one, so that little of it is left unused at its end: who counts
/// the bytes of contents knows what memory they take.
const SHARING_MAX: usize = SHARED_BYTES / 8;

/// Bytes that are written one short piece after the other.
///
/// Copying a fixed number of bytes takes two instructions, a copy of any length a call, which is
/// what writing JSON would spend its time with. So there is always room behind the end, and what a
/// short piece is copied with beyond its length is overwritten by the next.
///
/// One small content after the other is taken out of the same allocation, which is released with the
/// last of them: an allocation for each would cost more than copying it, and most on the thread that
/// releases it.
#[derive(Default)]
pub(crate) struct Output {
    /// The content, and then room.
    bytes: BytesMut,
    length: usize,
}

impl Output {
    /// Forgets the content.
    pub(crate) fn clear(&mut self) {
        self.length = 0;
    }

    /// Takes the content out.
    pub(crate) fn take(&mut self) -> Bytes {
        let content = match self.length {
            0..=SHARING_MAX => self.bytes.split_to(self.length).freeze(),
            _ => Bytes::copy_from_slice(self.bytes()),
        };
        self.clear();
        if self.bytes.len() > SHARED_BYTES {
            // What a huge content needed.
            self.bytes = BytesMut::new();
        }
        content
    }

    /// What was written.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// What was written, to be changed.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }

    /// Appends one byte.
    pub(crate) fn push(&mut self, byte: u8) {
        self.reserve(1);
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    /// Appends `bytes`.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.bytes[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// What was written from `start` on, and `room` bytes behind it that mean nothing.
    pub(crate) fn with_room(&mut self, start: usize, room: usize) -> &mut [u8] {
        self.reserve(room);
        &mut self.bytes[start..self.length + room]
    }

    /// Begins a list, and says where.
    pub(super) fn open(&mut self, bracket: u8) -> usize {
        self.push(bracket);
        self.length
    }

    /// Ends the list that began at `start`, whose parts have a comma behind each, and puts one behind
    /// it.
    pub(super) fn close(&mut self, start: usize, bracket: u8) {
        if self.length > start {
            self.drop_comma();
        }
        self.put(&[bracket, b',']);
    }

    /// Drops the comma behind what was written last.
    pub(super) fn drop_comma(&mut self) {
        self.length -= 1;
    }

    /// Appends `piece` of `text` between `before` and `after`.
    #[inline]
    pub(super) fn put_between<const B: usize, const A: usize>(
        &mut self,
        before: &[u8; B],
        text: &[u8],
        piece: Span,
        after: &[u8; A],
    ) {
        let length = piece.length();
        let most = B + length.max(CHUNK) + A;
        self.reserve(most);
        let room = &mut self.bytes[self.length..][..most];
        room[..B].copy_from_slice(before);
        match text[piece.start()..].first_chunk::<CHUNK>() {
            Some(chunk) if length <= CHUNK => room[B..B + CHUNK].copy_from_slice(chunk),
            _ => copy_long(&mut room[B..B + length], &text[piece.range()]),
        }
        room[B + length..][..A].copy_from_slice(after);
        self.length += B + length + A;
    }

    /// Appends two pieces of `text` as `"key":"value",`.
    #[inline]
    pub(super) fn put_entry(&mut self, text: &[u8], key: Span, value: Span) {
        let lengths = (key.length(), value.length());
        let chunk = |span: Span| text[span.start()..].first_chunk::<CHUNK>();
        match (chunk(key), chunk(value), lengths) {
            (Some(key), Some(value), (0..=CHUNK, 0..=CHUNK)) => {
                const MOST: usize = 2 * CHUNK + 6;
                self.reserve(MOST);
                let room = &mut self.bytes[self.length..][..MOST];
                let end = 1 + lengths.0;
                room[0] = b'"';
                room[1..1 + CHUNK].copy_from_slice(key);
                room[end..end + 3].copy_from_slice(b"\":\"");
                room[end + 3..][..CHUNK].copy_from_slice(value);
                room[end + 3 + lengths.1..][..2].copy_from_slice(b"\",");
                self.length += lengths.0 + lengths.1 + 6;
            }
            _ => {
                self.put_between(b"\"", text, key, b"\":");
                self.put_between(b"\"", text, value, b"\",");
            }
        }
    }

    /// Appends a piece of `text` as a JSON string, and a comma.
    pub(super) fn put_string(&mut self, text: &[u8], piece: Span) {
        self.put_letters(text, piece, escaped, |raw| (char::from(raw[0]), 1));
    }

    /// Likewise, where `text` is as XML has it: what it stands for.
    pub(super) fn put_encoded(&mut self, text: &[u8], piece: Span) {
        // Of what does not stand for itself, all but `&` would be escaped too.
        let is_special = |lanes| escaped(lanes) | equal(lanes, b'&');
        self.put_letters(text, piece, is_special, |raw| Encoding::Text.character(raw));
    }

    /// Appends a piece of `text` as a JSON string, and a comma. Where `is_special` marks a byte,
    /// `character` says what stands there, and how many bytes do; all others stand for themselves.
    #[inline(always)]
    fn put_letters(
        &mut self,
        text: &[u8],
        piece: Span,
        is_special: impl Fn(Lanes) -> Lanes,
        character: impl Fn(&[u8]) -> (char, usize),
    ) {
        self.push(b'"');
        let Range { mut start, end } = piece.range();
        while start < end {
            let chunk = lanes::first::<CHUNK>(&text[start..]);
            let plain = lanes::find(&chunk, &is_special).unwrap_or(CHUNK);
            let count = plain.min(end - start);
            self.reserve(CHUNK + size_of::<Letter>());
            self.bytes[self.length..][..CHUNK].copy_from_slice(&chunk);
            self.length += count;
            start += count;
            if count < CHUNK && start < end {
                let (character, used) = character(&text[start..end]);
                let letter = Letter::new(character);
                self.bytes[self.length..][..size_of::<Letter>()].copy_from_slice(&letter.0);
                self.length += letter.length();
                start += used;
            }
        }
        self.put(b"\",");
    }

    fn reserve(&mut self, count: usize) {
        if self.bytes.len() - self.length < count {
            self.grow(count);
        }
    }

    #[cold]
    fn grow(&mut self, count: usize) {
        let length = (2 * (self.length + count)).max(SHARED_BYTES);
        let bytes = std::mem::replace(&mut self.bytes, BytesMut::zeroed(length));
        self.bytes[..self.length].copy_from_slice(&bytes[..self.length]);
    }
}

/// The content, without the room.
impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().fmt(f)
    }
}

/// Copies a piece of any length. On its own, or else the compiler makes one call of both copies.
#[inline(never)]
fn copy_long(room: &mut [u8], piece: &[u8]) {
    room.copy_from_slice(piece);
}

/// A character as it stands in a JSON string: up to seven bytes, and in the last how many they are.
#[derive(Clone, Copy)]
struct Letter([u8; 8]);

impl Letter {
    /// What stands for each of the first characters.
    const ASCII: [Self; 128] = {
        let mut letters = [Self([0; 8]); 128];
        let mut byte = 0;
        while byte < 128 {
            letters[byte as usize] = Self::ascii(byte);
            byte += 1;
        }
        letters
    };

    const fn ascii(byte: u8) -> Self {
        let letter = match byte {
            b'"' | b'\\' => byte,
            0x08 => b'b',
            0x0C => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x20.. => return Self([byte, 0, 0, 0, 0, 0, 0, 1]),
            _ => {
                let low = b"0123456789abcdef"[byte as usize & 0xF];
                return Self([b'\\', b'u', b'0', b'0', b'0' + (byte >> 4), low, 0, 6]);
            }
        };
        Self([b'\\', letter, 0, 0, 0, 0, 0, 2])
    }

    fn new(character: char) -> Self {
        match Self::ASCII.get(character as usize) {
            Some(letter) => *letter,
            None => {
                let mut bytes = [0; 8];
                bytes[7] = character.encode_utf8(&mut bytes).len() as u8;
                Self(bytes)
            }
        }
    }

    const fn length(self) -> usize {
        self.0[7] as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoded::decode;

    fn check_string(text: &str) {
        let expected = serde_json::to_string(text).unwrap();
        // Alone, and amid text that would have to be escaped.
        for around in ["", "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n"] {
            let all = [around, text, around].concat();
            let piece = Span::new(around.len()..around.len() + text.len());
            let mut out = Output::default();
            out.put_string(all.as_bytes(), piece);
            assert_eq!(str::from_utf8(out.bytes()).unwrap(), format!("{expected},"));
        }
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

    #[test]
    fn encoded_text_is_written_as_what_it_stands_for() {
        let pieces = [
            "\r\n",
            "\r",
            "\n",
            "\0",
            "&amp;",
            "&#13;",
            "&#10;",
            "&#34;",
            "&#x5c;",
            "&#x1F3B5;",
            "&#0;",
            "&",
            "&nbsp;",
            "&#",
            "\t",
            "\"",
            "é",
            "",
        ];
        for (one, other) in pieces
            .iter()
            .flat_map(|one| pieces.map(|other| (one, other)))
        {
            for length in 0..40 {
                let raw = ["x".repeat(length).as_str(), one, other, "y"].concat();
                let mut decoded = Vec::new();
                decode(raw.as_bytes(), Encoding::Text, &mut decoded);
                let decoded = String::from_utf8(decoded).unwrap();
                // What follows the piece must not be taken for a part of it.
                let all = raw.clone() + "\nmp;";
                let mut out = Output::default();
                out.put_encoded(all.as_bytes(), Span::new(0..raw.len()));
                let expected = serde_json::to_string(&decoded).unwrap() + ",";
                assert_eq!(str::from_utf8(out.bytes()).unwrap(), expected);
            }
        }
    }

    #[test]
    fn contents_that_share_memory_stay_as_they_were_taken() {
        let mut out = Output::default();
        let texts = (0..300).map(|number: usize| number.to_string().repeat(number * number));
        let contents: Vec<_> = texts
            .map(|text| {
                out.put(b"forgotten");
                out.clear();
                out.put_between(b"<", text.as_bytes(), Span::new(0..text.len()), b">");
                let content = out.take();
                assert!(content.len() <= SHARING_MAX || content.is_unique());
                assert!(out.bytes.len() <= SHARED_BYTES, "what a huge one needed");
                (content, format!("<{text}>"))
            })
            .collect();
        for (content, expected) in &contents {
            assert_eq!(content, expected);
        }
    }
}
