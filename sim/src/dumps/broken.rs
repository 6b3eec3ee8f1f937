//! Small dumps with one thing wrong each, and what must come of them.
//!
//! Where a file is cut or damaged inside the compressed data, the compressor is flushed before, so
//! that which records are whole does not depend on how far an inflater gets into a broken block.

use std::io::Write;

use discogs_extractor::dump::Kind;
use serde_json::{Value, json};

use super::element::Element;
use super::spelling::Speller;
use super::{Dumps, Form, Record, gzip, gzip_encoder, truth};
use crate::random::Random;

/// One broken dump.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is wrong, as a name for a folder.
    pub name: &'static str,
    /// What is wrong and what must come of it, in a sentence.
    pub what: &'static str,
    /// What the dump holds, by its file name.
    pub kind: Kind,
    /// The bytes of the file.
    pub dump: Vec<u8>,
    /// The messages that must come out, in order.
    pub messages: Vec<Value>,
    /// What else must be told.
    pub expected: Expected,
}

/// What a reader must tell about a broken dump besides its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// How many records are found, malformed ones among them.
    pub records: u64,
    /// The ordinals of the malformed records.
    pub malformed: Vec<u64>,
    /// The ordinals of the records in which bytes had to be replaced.
    pub repaired: Vec<u64>,
    /// How reading ends.
    pub error: Failure,
    /// The bound on a record's size, in bytes of XML, that this case is about.
    pub record_bytes_max: Option<u64>,
}

/// How reading a dump ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The end was reached and verified.
    None,
    /// The file does not begin as gzip does.
    NotGzip,
    /// The gzip stream ends early.
    Truncated,
    /// The gzip stream is damaged, or followed by what is neither gzip nor zero bytes.
    Corrupt,
    /// The gzip trailer disagrees with what was read.
    Crc,
    /// The XML has another root than the kind's, or none.
    Root,
    /// The gzip stream is whole but the XML ends before its root does.
    Unclosed,
}

impl Failure {
    /// The word in `expected.json`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::NotGzip => "not_gzip",
            Self::Truncated => "truncated",
            Self::Corrupt => "corrupt",
            Self::Crc => "crc",
            Self::Root => "root",
            Self::Unclosed => "unclosed",
        }
    }
}

impl Expected {
    /// As it stands in `expected.json`; a bound is named only where there is one.
    pub fn to_json(&self) -> Value {
        let mut json = json!({
            "records": self.records,
            "malformed": self.malformed,
            "repaired": self.repaired,
            "error": self.error.word(),
        });
        if let Some(bytes) = self.record_bytes_max {
            json["record_bytes_max"] = json!(bytes);
        }
        json
    }
}

/// All cases, in the order of what goes wrong: file, document, record.
pub fn cases() -> Vec<Case> {
    let cases: &[fn() -> Case] = &[
        empty_file,
        garbage,
        plain_xml,
        tar_inside,
        truncated_gzip,
        corrupt_deflate,
        wrong_crc,
        wrong_length,
        trailing_garbage,
        zero_padding,
        two_members,
        empty_member,
        cut_at_member_boundary,
        cut_xml,
        wrong_root,
        dressed,
        bare_ampersand,
        bad_utf8,
        control_characters,
        nested_names,
        huge_record,
        missing_end_tag,
        missing_inner_end_tag,
        no_id,
    ];
    cases.iter().map(|case| case()).collect()
}

/// A record in the making: its bytes and what must come of them.
struct Piece {
    xml: Vec<u8>,
    message: Option<Value>,
}

impl From<&Record> for Piece {
    fn from(record: &Record) -> Self {
        Self {
            xml: record.xml.clone().into_bytes(),
            message: record.message(),
        }
    }
}

impl Case {
    /// A case in which all `pieces` are found, and nothing else goes wrong.
    fn new(
        name: &'static str,
        what: &'static str,
        kind: Kind,
        pieces: &[Piece],
        dump: Vec<u8>,
    ) -> Self {
        let malformed = (1..)
            .zip(pieces)
            .filter(|(_, piece)| piece.message.is_none());
        let expected = Expected {
            records: (1..).zip(pieces).last().map_or(0, |(ordinal, _)| ordinal),
            malformed: malformed.map(|(ordinal, _)| ordinal).collect(),
            repaired: Vec::new(),
            error: Failure::None,
            record_bytes_max: None,
        };
        let messages = pieces.iter().filter_map(|piece| piece.message.clone());
        Self {
            name,
            what,
            kind,
            dump,
            messages: messages.collect(),
            expected,
        }
    }

    fn fails(mut self, error: Failure) -> Self {
        self.expected.error = error;
        self
    }
}

/// The first six records of a kind, as they are.
fn pieces(kind: Kind) -> Vec<Piece> {
    let records = Dumps::new(2, Form::Y2025).records(kind).take(6);
    records.map(|record| Piece::from(&record)).collect()
}

fn document(kind: Kind, pieces: &[Piece]) -> Vec<u8> {
    let mut xml = format!("<{kind}>\n").into_bytes();
    for piece in pieces {
        xml.extend_from_slice(&piece.xml);
        xml.push(b'\n');
    }
    xml.extend_from_slice(format!("</{kind}>\n").as_bytes());
    xml
}

/// One gzip member whose third record ends where a compressed block ends, and the offset there.
fn flushed_after_three(kind: Kind, pieces: &[Piece]) -> (Vec<u8>, usize) {
    let xml = document(kind, pieces);
    let split = document(kind, &pieces[..3]).len() - format!("</{kind}>\n").len();
    let mut encoder = gzip_encoder(Vec::new());
    let flushed = encoder
        .write_all(&xml[..split])
        .and_then(|()| encoder.flush());
    flushed.expect("memory takes all bytes");
    let offset = encoder.get_ref().len();
    let written = encoder
        .write_all(&xml[split..])
        .and_then(|()| encoder.finish());
    (written.expect("memory takes all bytes"), offset)
}

fn empty_file() -> Case {
    let what = "No bytes at all, as a download leaves it that never began.";
    Case::new("empty_file", what, Kind::Labels, &[], Vec::new()).fails(Failure::NotGzip)
}

fn garbage() -> Case {
    let mut random = Random::new(4);
    let bytes = (0..512).flat_map(|_| random.bits().to_le_bytes()).collect();
    let what = "Random bytes.";
    Case::new("garbage", what, Kind::Labels, &[], bytes).fails(Failure::NotGzip)
}

fn plain_xml() -> Case {
    let kind = Kind::Labels;
    let xml = document(kind, &pieces(kind));
    let what = "A good document that somebody unpacked but did not rename.";
    Case::new("plain_xml", what, kind, &[], xml).fails(Failure::NotGzip)
}

fn tar_inside() -> Case {
    let kind = Kind::Labels;
    let archive = tar(
        "discogs_20260801_labels.xml",
        &document(kind, &pieces(kind)),
    );
    let what = "A tar archive with the dump in it, under a dump's name.";
    Case::new("tar_inside", what, kind, &[], gzip(&archive)).fails(Failure::Root)
}

/// An archive of one file in the ustar format of POSIX.1-1988.
fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0; 512];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum = header.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

fn truncated_gzip() -> Case {
    let kind = Kind::Masters;
    let pieces = pieces(kind);
    let (mut dump, offset) = flushed_after_three(kind, &pieces);
    dump.truncate(offset + 20);
    let what = "The gzip stream ends inside the fourth record: the three before it come out.";
    Case::new("truncated_gzip", what, kind, &pieces[..3], dump).fails(Failure::Truncated)
}

fn corrupt_deflate() -> Case {
    let kind = Kind::Masters;
    let pieces = pieces(kind);
    let (mut dump, offset) = flushed_after_three(kind, &pieces);
    // Three set bits begin a last block of the type that deflate reserves.
    dump[offset] = 0xff;
    let what = "A block that no inflater accepts follows the third record.";
    Case::new("corrupt_deflate", what, kind, &pieces[..3], dump).fails(Failure::Corrupt)
}

fn wrong_crc() -> Case {
    let kind = Kind::Labels;
    let pieces = pieces(kind);
    let mut dump = gzip(&document(kind, &pieces));
    let crc = dump.len() - 8;
    dump[crc] ^= 0x10;
    let what = "All records are whole, but the CRC says that they are not what was compressed.";
    Case::new("wrong_crc", what, kind, &pieces, dump).fails(Failure::Crc)
}

fn wrong_length() -> Case {
    let kind = Kind::Labels;
    let pieces = pieces(kind);
    let mut dump = gzip(&document(kind, &pieces));
    let length = dump.len() - 4;
    dump[length] ^= 0x10;
    let what = "The CRC is right and the length in the gzip trailer is wrong.";
    Case::new("wrong_length", what, kind, &pieces, dump).fails(Failure::Crc)
}

fn trailing_garbage() -> Case {
    let kind = Kind::Labels;
    let pieces = pieces(kind);
    let mut dump = gzip(&document(kind, &pieces));
    dump.extend_from_slice(b"<html>503 Service Unavailable</html>");
    let what = "Bytes that are not gzip follow the last member: this is not the published file.";
    Case::new("trailing_garbage", what, kind, &pieces, dump).fails(Failure::Corrupt)
}

fn zero_padding() -> Case {
    let kind = Kind::Labels;
    let pieces = pieces(kind);
    let mut dump = gzip(&document(kind, &pieces));
    dump.resize(dump.len().next_multiple_of(512), 0);
    let what = "Zero bytes after the last member, as tapes and block devices add; gzip allows it.";
    Case::new("zero_padding", what, kind, &pieces, dump)
}

/// The document as one gzip member for each of the parts between `cuts`.
fn members(xml: &[u8], cuts: &[usize]) -> Vec<u8> {
    let ends = cuts.iter().copied().chain([xml.len()]);
    let starts = [0].into_iter().chain(cuts.iter().copied());
    starts
        .zip(ends)
        .flat_map(|(start, end)| gzip(&xml[start..end]))
        .collect()
}

fn two_members() -> Case {
    let kind = Kind::Masters;
    let pieces = pieces(kind);
    let xml = document(kind, &pieces);
    let what = "Two gzip members, the boundary inside a record.";
    Case::new(
        "two_members",
        what,
        kind,
        &pieces,
        members(&xml, &[xml.len() / 2]),
    )
}

fn empty_member() -> Case {
    let kind = Kind::Masters;
    let pieces = pieces(kind);
    let xml = document(kind, &pieces);
    let half = xml.len() / 2;
    let what = "Three gzip members, the second one empty, and an empty one at the end.";
    let dump = members(&xml, &[half, half, xml.len()]);
    Case::new("empty_member", what, kind, &pieces, dump)
}

fn cut_at_member_boundary() -> Case {
    let kind = Kind::Masters;
    let pieces = pieces(kind);
    let split = document(kind, &pieces[..3]).len() - format!("</{kind}>\n").len();
    let dump = gzip(&document(kind, &pieces)[..split]);
    let what = "The members after the first are missing: clean for gzip, but the root is open.";
    Case::new("cut_at_member_boundary", what, kind, &pieces[..3], dump).fails(Failure::Unclosed)
}

fn cut_xml() -> Case {
    let kind = Kind::Releases;
    let pieces = pieces(kind);
    let split = document(kind, &pieces[..4]).len() - 100;
    let dump = gzip(&document(kind, &pieces)[..split]);
    let what = "A valid gzip stream whose XML ends inside the fourth record.";
    Case::new("cut_xml", what, kind, &pieces[..3], dump).fails(Failure::Unclosed)
}

fn wrong_root() -> Case {
    let dump = gzip(&document(Kind::Labels, &pieces(Kind::Labels)));
    let what = "A dump of labels under the name of artists.";
    Case::new("wrong_root", what, Kind::Artists, &[], dump).fails(Failure::Root)
}

fn dressed() -> Case {
    let kind = Kind::Labels;
    let pieces = pieces(kind);
    let mut xml = b"\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n".to_vec();
    xml.extend_from_slice(b"<!-- <labels><label><id>0</id></label></labels> -->\r\n<labels>\r\n");
    for piece in &pieces {
        xml.extend_from_slice(b"<!-- </labels> --><?page break=\"<label>\"?>\r\n  ");
        xml.extend_from_slice(&piece.xml);
        xml.extend_from_slice(b"\r\n");
    }
    xml.extend_from_slice(b"</labels>\r\n<!-- end -->\r\n");
    let what =
        "Byte order mark, XML declaration, comments, processing instructions, CRLF: all fine.";
    Case::new("dressed", what, kind, &pieces, gzip(&xml))
}

/// Stands in a tree for bytes that no tree can hold.
const STAND_IN: char = '\u{e000}';

/// A label with the raw bytes `raw` in a name and in an attribute, where `read` must come out.
fn label_with(id: &str, raw: &[u8], read: &str) -> Piece {
    let mut label = Element::parent(
        "label",
        vec![
            Element::leaf("id", id),
            Element::leaf("name", format!("Before {STAND_IN} after")),
            Element::leaf("profile", format!("{STAND_IN}")),
            Element::parent(
                "sublabels",
                vec![
                    Element::leaf("label", format!("{STAND_IN} First")).with("id", "77"),
                    Element::leaf("label", "Second").with("id", format!("7 {STAND_IN} 8")),
                ],
            ),
        ],
    );
    let xml = Speller::spell(&label, Random::new(0));
    assert_eq!(
        xml.matches(STAND_IN).count(),
        4,
        "no stand-in is spelled as a reference"
    );
    let parts = xml.split(STAND_IN).map(str::as_bytes).collect::<Vec<_>>();
    label.replace(STAND_IN, read);
    Piece {
        xml: parts.join(raw),
        message: truth::message(Kind::Labels, &label),
    }
}

fn bare_ampersand() -> Case {
    let kind = Kind::Labels;
    let mut pieces = pieces(kind);
    pieces[1] = label_with("6", b"&", "&");
    pieces[3] = label_with("12", b"?a=1&b=2&", "?a=1&b=2&");
    let what = "Ampersands that begin no reference stand for themselves.";
    let dump = gzip(&document(kind, &pieces));
    Case::new("bare_ampersand", what, kind, &pieces, dump)
}

fn bad_utf8() -> Case {
    let kind = Kind::Labels;
    let mut pieces = pieces(kind);
    pieces[1] = label_with("6", b"\xe9", "\u{fffd}");
    pieces[3] = label_with("12", b"\xe2\x82", "\u{fffd}");
    pieces[4] = label_with("15", b"\xff", "\u{fffd}");
    let what = "Latin-1, a cut sequence and a byte that never occurs: each becomes one U+FFFD.";
    let dump = gzip(&document(kind, &pieces));
    let mut case = Case::new("bad_utf8", what, kind, &pieces, dump);
    case.expected.repaired = vec![2, 4, 5];
    case
}

fn control_characters() -> Case {
    let kind = Kind::Labels;
    let mut pieces = pieces(kind);
    pieces[1] = label_with("6", b"\x01\x08\x1b\x7f", "\u{1}\u{8}\u{1b}\u{7f}");
    pieces[3] = label_with("12", b"\0", "\u{fffd}");
    let what = "Characters that XML forbids are kept; NUL becomes U+FFFD, as databases refuse it.";
    let dump = gzip(&document(kind, &pieces));
    Case::new("control_characters", what, kind, &pieces, dump)
}

fn nested_names() -> Case {
    let kind = Kind::Labels;
    let mut pieces = pieces(kind);
    let inner = Element::parent(
        "label",
        vec![Element::leaf("label", ""), Element::leaf("id", "8")],
    );
    let outer = vec![
        Element::leaf("id", "9"),
        Element::parent("label", vec![inner, Element::leaf("labels", "deep")]),
        Element::parent("labels", vec![Element::leaf("label_id", "1")]),
        Element::parent(
            "sublabels",
            vec![Element::leaf("label", "L").with("id", "3")],
        ),
    ];
    let label = Element::parent("label", outer);
    pieces[2] = Piece::from(&Record::new(kind, label, Random::new(0)));
    let what = "Elements named like the record and like the root inside a record.";
    let dump = gzip(&document(kind, &pieces));
    Case::new("nested_names", what, kind, &pieces, dump)
}

fn huge_record() -> Case {
    let kind = Kind::Labels;
    let mut pieces = pieces(kind);
    let profile = "All rights reserved. ".repeat(15_000);
    let parts = vec![Element::leaf("id", "9"), Element::leaf("profile", profile)];
    let mut huge = Piece::from(&Record::new(
        kind,
        Element::parent("label", parts),
        Random::new(0),
    ));
    huge.message = None;
    pieces[2] = huge;
    let what = "A record of 315 kB, where the bound on a record's size is set to 64 KiB.";
    let dump = gzip(&document(kind, &pieces));
    let mut case = Case::new("huge_record", what, kind, &pieces, dump);
    case.expected.record_bytes_max = Some(65_536);
    case
}

fn missing_end_tag() -> Case {
    let kind = Kind::Artists;
    let mut pieces = pieces(kind);
    lose(&mut pieces[1], "</artist>");
    let what = "The second record has no end tag: it is malformed, the third is found again.";
    let dump = gzip(&document(kind, &pieces));
    Case::new("missing_end_tag", what, kind, &pieces, dump)
}

fn missing_inner_end_tag() -> Case {
    let kind = Kind::Labels;
    let mut pieces = pieces(kind);
    lose(&mut pieces[1], "</name>");
    let what = "An element inside the second record has no end tag.";
    let dump = gzip(&document(kind, &pieces));
    Case::new("missing_inner_end_tag", what, kind, &pieces, dump)
}

/// Takes the last of these tags out of a record, which makes it malformed.
fn lose(piece: &mut Piece, tag: &str) {
    let found = piece
        .xml
        .windows(tag.len())
        .rposition(|bytes| bytes == tag.as_bytes());
    let at = found.expect("the record has this tag");
    piece.xml.drain(at..at + tag.len());
    piece.message = None;
}

fn no_id() -> Case {
    let kind = Kind::Labels;
    let mut pieces = pieces(kind);
    for (at, id) in [(1, vec![]), (3, vec![Element::leaf("id", "")])] {
        let mut parts = id;
        parts.push(Element::leaf("name", "Nobody"));
        let record = Record::new(kind, Element::parent("label", parts), Random::new(0));
        pieces[at] = Piece::from(&record);
    }
    pieces[4] = Piece {
        xml: b"<label/>".to_vec(),
        message: None,
    };
    let what = "A record without an id, one with an empty id, one without anything.";
    let dump = gzip(&document(kind, &pieces));
    Case::new("no_id", what, kind, &pieces, dump)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_breaks_what_its_name_says() {
        for case in cases() {
            let (name, expected) = (case.name, &case.expected);
            let malformed = u64::try_from(expected.malformed.len()).unwrap();
            let messages = u64::try_from(case.messages.len()).unwrap();
            assert_eq!(messages + malformed, expected.records, "{name}");
            assert!(case.dump.len() < 20_000, "{name}");
            let opens = flate2::read::GzDecoder::new(case.dump.as_slice())
                .header()
                .is_some();
            let closed = [Failure::NotGzip, Failure::Truncated].contains(&expected.error);
            assert!(opens || closed, "{name}");
            assert!(!opens || expected.error != Failure::NotGzip, "{name}");
        }
    }

    #[test]
    fn what_comes_of_damage_is_known_by_hand() {
        let told = |name: &str| {
            let case = cases().into_iter().find(|case| case.name == name).unwrap();
            (
                case.expected.records,
                case.expected.malformed,
                case.expected.error.word(),
            )
        };
        assert_eq!(told("truncated_gzip"), (3, vec![], "truncated"));
        assert_eq!(told("missing_end_tag"), (6, vec![2], "none"));
        assert_eq!(told("no_id"), (6, vec![2, 4, 5], "none"));
        assert_eq!(told("huge_record"), (6, vec![3], "none"));
        assert_eq!(told("wrong_root"), (0, vec![], "root"));
    }

    /// What makes the expectation of `truncated_gzip` and `corrupt_deflate` certain.
    #[test]
    fn a_flush_makes_three_records_whole_and_the_fourth_not() {
        for (damage, is_error) in [
            (truncated_gzip as fn() -> Case, false),
            (corrupt_deflate, true),
        ] {
            let case = damage();
            let mut xml = Vec::with_capacity(1 << 20);
            let header = 10;
            let end = flate2::Decompress::new(false).decompress_vec(
                &case.dump[header..],
                &mut xml,
                flate2::FlushDecompress::None,
            );
            assert_eq!(end.is_err(), is_error, "{}", case.name);
            let xml = String::from_utf8_lossy(&xml);
            assert_eq!(xml.matches("</master>").count(), 3, "{}", case.name);
        }
    }
}
