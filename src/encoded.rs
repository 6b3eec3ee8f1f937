//! What the raw characters of XML stand for: references, ends of lines, and NUL.
//!
//! [`crate::xml`] has the table of what becomes of each.

use crate::lanes::{self, Lanes, equal};

/// How raw characters are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Text,
    CharacterData,
    Attribute,
}

impl Encoding {
    /// Marks bytes that do not stand for themselves, as far as this encoding goes.
    #[inline(always)]
    fn special(self, lanes: Lanes) -> Lanes {
        let special = equal(lanes, b'\r') | equal(lanes, 0);
        match self {
            Self::CharacterData => special,
            Self::Text => special | equal(lanes, b'&'),
            Self::Attribute => {
                special | equal(lanes, b'&') | equal(lanes, b'\n') | equal(lanes, b'\t')
            }
        }
    }

    /// The first byte of `raw` that does not stand for itself.
    pub(crate) fn find_special(self, raw: &[u8]) -> Option<usize> {
        lanes::find(raw, |lanes| self.special(lanes))
    }

    /// What the ASCII character at the start of `raw` stands for, maybe with others, and how many bytes
    /// they are.
    #[inline(always)]
    pub(crate) fn character(self, raw: &[u8]) -> (char, usize) {
        let line_end = match self {
            Self::Attribute => ' ',
            Self::Text | Self::CharacterData => '\n',
        };
        match raw {
            [b'&', ..] if self != Self::CharacterData => reference(raw),
            [b'\r', b'\n', ..] => (line_end, 2),
            [b'\r' | b'\n', ..] => (line_end, 1),
            [b'\t', ..] if self == Self::Attribute => (' ', 1),
            [0, ..] => (char::REPLACEMENT_CHARACTER, 1),
            _ => (char::from(raw[0]), 1),
        }
    }
}

/// Appends what `raw` stands for to `out`.
pub(crate) fn decode(raw: &[u8], encoding: Encoding, out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(at) = encoding.find_special(rest) {
        out.extend_from_slice(&rest[..at]);
        let (character, length) = encoding.character(&rest[at..]);
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &rest[at + length..];
    }
    out.extend_from_slice(rest);
}

/// The character that the reference at the start of `text` stands for, and the reference's length;
/// the `&` itself if it starts none.
#[inline(never)]
fn reference(text: &[u8]) -> (char, usize) {
    match text {
        // What many lines end with.
        [b'&', b'#', b'1', b'3', b';', ..] => ('\r', 5),
        [b'&', b'a', b'm', b'p', b';', ..] => ('&', 5),
        [b'&', b'l', b't', b';', ..] => ('<', 4),
        [b'&', b'g', b't', b';', ..] => ('>', 4),
        [b'&', b'a', b'p', b'o', b's', b';', ..] => ('\'', 6),
        [b'&', b'q', b'u', b'o', b't', b';', ..] => ('"', 6),
        _ => character_reference(text).unwrap_or(('&', 1)),
    }
}

/// `&#38;` or `&#x26;` at the start of `text`. What is no character, NUL included, is U+FFFD.
fn character_reference(text: &[u8]) -> Option<(char, usize)> {
    let (prefix, radix) = if text.starts_with(b"&#x") {
        (3, 16)
    } else {
        (2, 10)
    };
    let digits = text.strip_prefix(b"&#").map(|_| &text[prefix..])?;
    let is_digit = |byte: &u8| char::from(*byte).is_digit(radix);
    let length = digits.iter().take_while(|byte| is_digit(byte)).count();
    if length == 0 || digits.get(length) != Some(&b';') {
        return None;
    }
    let digits = str::from_utf8(&digits[..length]).expect("digits are ASCII");
    let code = u32::from_str_radix(digits, radix).ok();
    let character = code
        .and_then(char::from_u32)
        .filter(|&character| character != '\0');
    Some((
        character.unwrap_or(char::REPLACEMENT_CHARACTER),
        prefix + length + 1,
    ))
}
