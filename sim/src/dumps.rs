//! Dumps that nobody published, with the truth about them.
//!
//! A generated dump has the shape of a real one (`discogs_YYYYMMDD_KIND.xml.gz`), any size, and
//! comes with the messages that an extractor must make of it. The truth is made from the same tree
//! as the XML and never from the XML, by a model that shares no code with the product.
//!
//! Everything follows from a seed: record N of a kind is the same whether or not the records
//! before it are made, on every machine, for every amount. There are no floating-point numbers, no
//! hash maps and no clock in here.

pub mod broken;
pub mod committed;
pub mod element;
pub mod markers;
mod records;
mod spelling;
mod text;
pub mod truth;

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use discogs_extractor::dump::Kind;
use flate2::{Compression, GzBuilder, write::GzEncoder};
use serde_json::Value;

use crate::random::Random;
use element::Element;
use spelling::Speller;

/// The form of the records: Discogs changed it over the years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// With `<images>`, empty elements where nothing is known, members with two ids.
    Y2020,
    /// Without images and empty elements, with `<series>`, no id for unknown artists.
    Y2025,
}

impl FromStr for Form {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "2020" => Ok(Self::Y2020),
            "2025" => Ok(Self::Y2025),
            _ => Err(format!("`{text}` is not a form of dumps: 2020 or 2025")),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Y2020 => "2020",
            Self::Y2025 => "2025",
        })
    }
}

/// How much to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many records.
    Records(u64),
    /// Records until the XML has at least so many bytes.
    XmlBytes(u64),
}

/// What was generated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Records in the dump.
    pub records: u64,
    /// Bytes of XML before compression.
    pub xml_bytes: u64,
}

/// All dumps of one seed.
#[derive(Clone, Copy, Debug)]
pub struct Dumps {
    seed: u64,
    form: Form,
}

impl Dumps {
    /// The dumps of a seed, in one form.
    pub const fn new(seed: u64, form: Form) -> Self {
        Self { seed, form }
    }

    /// The records of a kind from the first on, without end.
    pub fn records(self, kind: Kind) -> impl Iterator<Item = Record> {
        (1..).map(move |ordinal| self.record(kind, ordinal))
    }

    /// The record at a 1-based position. Ids increase strictly, with gaps.
    pub fn record(self, kind: Kind, ordinal: u64) -> Record {
        let mut random = Random::stream(self.seed, &[stream_number(kind), ordinal]);
        let spelling = Random::new(random.bits());
        let id = ordinal * 3 - random.below(3);
        let element = records::record(kind, self.form, id, random);
        Record::new(kind, element, spelling)
    }

    /// Writes a dump as `.xml.gz` to `dump` and its messages as JSON Lines to `truth`, in memory
    /// for one record.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub fn write(
        self,
        kind: Kind,
        amount: Amount,
        dump: impl Write,
        mut truth: Option<&mut dyn Write>,
    ) -> io::Result<Written> {
        let mut xml = XmlWriter::new(dump);
        xml.line(&format!("<{kind}>"))?;
        for record in self.records(kind) {
            if amount.is_reached(xml.written) {
                break;
            }
            xml.line(&record.xml)?;
            xml.written.records += 1;
            if let Some(truth) = truth.as_mut()
                && let Some(message) = record.message()
            {
                writeln!(truth, "{message}")?;
            }
        }
        xml.line(&format!("</{kind}>"))?;
        xml.gzip.finish()?.flush()?;
        Ok(xml.written)
    }
}

/// The place of a kind in the path of a random stream.
const fn stream_number(kind: Kind) -> u64 {
    match kind {
        Kind::Artists => 1,
        Kind::Labels => 2,
        Kind::Masters => 3,
        Kind::Releases => 4,
    }
}

impl Amount {
    const fn is_reached(self, written: Written) -> bool {
        match self {
            Self::Records(records) => written.records >= records,
            Self::XmlBytes(bytes) => written.xml_bytes >= bytes,
        }
    }
}

/// One generated record.
#[derive(Clone, Debug)]
pub struct Record {
    /// What it is one of.
    pub kind: Kind,
    /// What it holds.
    pub element: Element,
    /// How it stands in the dump, without a line end behind it.
    pub xml: String,
}

impl Record {
    /// A record with its spelling.
    fn new(kind: Kind, element: Element, spelling: Random) -> Self {
        let xml = Speller::spell(&element, spelling);
        Self { kind, element, xml }
    }

    /// The message that must come out; `None` for a record without an id.
    pub fn message(&self) -> Option<Value> {
        truth::message(self.kind, &self.element)
    }
}

struct XmlWriter<W: Write> {
    gzip: GzEncoder<W>,
    written: Written,
}

impl<W: Write> XmlWriter<W> {
    fn new(out: W) -> Self {
        Self {
            gzip: gzip_encoder(out),
            written: Written::default(),
        }
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        self.gzip.write_all(line.as_bytes())?;
        self.gzip.write_all(b"\n")?;
        self.written.xml_bytes += u64::try_from(line.len() + 1).expect("a length fits in 64 bits");
        Ok(())
    }
}

/// gzip with nothing in the header that depends on when or where it was written.
fn gzip_encoder<W: Write>(out: W) -> GzEncoder<W> {
    let header = GzBuilder::new().mtime(0).operating_system(255);
    header.write(out, Compression::new(6))
}

/// Bytes as one gzip member.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    gzip_blocks([bytes])
}

/// Pieces as one gzip member, with a block boundary behind each, as a large dump has many.
pub(crate) fn gzip_blocks<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut encoder = gzip_encoder(Vec::new());
    for (index, piece) in pieces.into_iter().enumerate() {
        if index > 0 {
            encoder.flush().expect("memory takes all bytes");
        }
        encoder.write_all(piece).expect("memory takes all bytes");
    }
    encoder.finish().expect("memory takes all bytes")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    const FORMS: [Form; 2] = [Form::Y2020, Form::Y2025];

    fn written(form: Form, kind: Kind, amount: Amount) -> (Vec<u8>, Vec<u8>, Written) {
        let (mut dump, mut truth) = (Vec::new(), Vec::new());
        let written = Dumps::new(1, form).write(kind, amount, &mut dump, Some(&mut truth));
        (dump, truth, written.unwrap())
    }

    fn unzipped(dump: &[u8]) -> Vec<u8> {
        let mut xml = Vec::new();
        GzDecoder::new(dump).read_to_end(&mut xml).unwrap();
        xml
    }

    /// If this fails, every seed in every bug report and every recorded benchmark has lost its
    /// meaning: change it only together with them, and regenerate `fixtures/`.
    #[test]
    fn a_seed_means_the_same_bytes_for_ever() {
        let hash = |form| {
            let mut all = Vec::new();
            for kind in Kind::ALL {
                let (dump, truth, _) = written(form, kind, Amount::Records(40));
                all.extend(unzipped(&dump));
                all.extend(truth);
            }
            truth::sha256(&all)
        };
        let expected = [
            "3aac3a8cf367f3f196fd5e39f3d145b343e99cc744934e681b9faa4b8d414703",
            "ebe7f583fcf695b83e11f6238d73e1013237efc72b749af4fdb895f2e7df3260",
        ];
        assert_eq!(FORMS.map(hash), expected);
    }

    #[test]
    fn a_record_does_not_depend_on_the_others() {
        let dumps = Dumps::new(3, Form::Y2025);
        let ninth = dumps.records(Kind::Masters).nth(8).unwrap();
        assert_eq!(ninth.xml, dumps.record(Kind::Masters, 9).xml);
    }

    #[test]
    fn ids_increase_with_gaps() {
        let id = |record: Record| {
            record.message().unwrap()["id"]
                .as_str()
                .unwrap()
                .parse::<u64>()
        };
        for kind in Kind::ALL {
            let records = Dumps::new(5, Form::Y2025).records(kind).take(50);
            let ids = records
                .map(|record| id(record).unwrap())
                .collect::<Vec<_>>();
            assert!(ids.is_sorted_by(|one, next| one < next), "{ids:?}");
            assert!(ids.windows(2).any(|pair| pair[1] - pair[0] > 1), "{ids:?}");
        }
    }

    #[test]
    fn every_hash_is_that_of_its_message_and_every_record_has_one() {
        for (form, kind) in FORMS
            .into_iter()
            .flat_map(|form| Kind::ALL.map(|kind| (form, kind)))
        {
            let (_, truth, written) = written(form, kind, Amount::Records(60));
            let lines = str::from_utf8(&truth).unwrap().lines().collect::<Vec<_>>();
            assert_eq!(u64::try_from(lines.len()).unwrap(), written.records);
            for line in lines {
                let mut message = line.parse::<Value>().unwrap();
                assert_eq!(message.to_string(), line, "compact, with sorted keys");
                let fields = message.as_object_mut().unwrap();
                assert_eq!(fields.remove("type").unwrap(), "data");
                let hash = fields.remove("sha256").unwrap();
                assert_eq!(hash, truth::sha256(message.to_string().as_bytes()));
            }
        }
    }

    /// Not with the product's parser: a walk over tags, strict about nesting, is enough.
    #[test]
    fn a_dump_is_well_formed() {
        for (form, kind) in FORMS
            .into_iter()
            .flat_map(|form| Kind::ALL.map(|kind| (form, kind)))
        {
            let (dump, _, written) = written(form, kind, Amount::Records(120));
            let xml = unzipped(&dump);
            assert_eq!(u64::try_from(xml.len()).unwrap(), written.xml_bytes);
            let mut reader = quick_xml::Reader::from_reader(xml.as_slice());
            let mut open = Vec::new();
            let mut records = 0;
            loop {
                match reader.read_event().unwrap() {
                    quick_xml::events::Event::Start(tag) => {
                        assert!(tag.attributes().all(|attribute| attribute.is_ok()));
                        open.push(tag.name().as_ref().to_owned());
                        records += u64::from(open.len() == 2);
                    }
                    quick_xml::events::Event::End(_) => drop(open.pop()),
                    quick_xml::events::Event::Eof => break,
                    _ => {}
                }
            }
            assert_eq!((open.len(), records), (0, written.records), "{form} {kind}");
        }
    }

    /// What a parser has to get right is of no use if it never occurs.
    #[test]
    fn what_real_dumps_have_occurs() {
        let all = |form| {
            let records = |kind| Dumps::new(1, form).records(kind).take(800);
            let xml = Kind::ALL.into_iter().flat_map(records);
            xml.map(|record| record.xml).collect::<String>()
        };
        let expected = [
            "<sub_tracks>",
            "<![CDATA[",
            "<!-- ",
            "></",
            " />",
            "&#x",
            "&#13;\n",
            "&amp;",
            "&lt;",
            "&gt;",
            "&quot;",
            "&#10;",
            "='",
            " > ",
            "> </",
            "\n  <",
            "[a=",
            "<sublabels><label id=",
            "\u{200e}",
            "\u{200b}",
            "\u{feff}",
            "\u{92}",
            "\u{85}",
            "\u{2028}",
            "\u{a0}",
            "Песня",
            "夜",
            "밤",
            "ש",
            "ท",
            "🎧🏽",
        ];
        let [old, new] = FORMS.map(all);
        for text in expected {
            assert!(new.contains(text), "{text:?}");
        }
        for text in [
            "<images><image ",
            "<anv/>",
            "<members><id>",
            "<companies/>",
            "<id>0</id>",
        ] {
            assert!(old.contains(text) && !new.contains(text), "{text:?}");
        }
        assert!(new.contains("<series><series ") && !old.contains("<series"));
    }

    #[test]
    fn an_amount_in_bytes_is_reached_and_hardly_passed() {
        let (_, _, written) = written(Form::Y2025, Kind::Labels, Amount::XmlBytes(100_000));
        assert!(
            (100_000..130_000).contains(&written.xml_bytes),
            "{written:?}"
        );
    }
}
