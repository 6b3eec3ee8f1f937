//! A gzip file as a stream of inflated bytes, verified.
//!
//! A file is a sequence of members; a member is a header, raw deflate data and a trailer (RFC
//! 1952). The reader goes through them in the order
//!
//! ```text
//! header ─→ body ─→ trailer ─→ between ─→ end
//!   ↑                             │
//!   └─────────── 1f 8b ───────────┘
//! ```
//!
//! and checks the length and the CRC-32 of every member. Zeros after the last member are padding,
//! as `gzip` takes them; anything else there is an error, for it may be a member that lost its
//! first bytes. A file that was cut at the boundary of two members is a valid file: that something
//! is missing only shows in its content.
//!
//! The framing is ours and only raw inflate is the library's, for three reasons: errors name the
//! compressed byte, the checksum of the file is there when its end is reached without reading it
//! twice, and a run that begins in the middle goes on with the same code as one that begins at the
//! start.
//!
//! Every megabyte or so the reader leaves a [`SeekPoint`], where another reader can
//! [enter](GzipReader::enter) the body of a member. Points lie at the start of a body or between two
//! blocks; to ask inflate for the next boundary costs speed, so it is asked only when a point is due.

use std::io::{self, SeekFrom};

use sha2::{Digest, Sha256};
use zlib_rs::crc32::crc32;

use crate::fs::FileRead;
use crate::inflate::{Inflate, Place};
use crate::record::ByteOffset;
use crate::seek_point::{SeekPoint, hash_state};

const MAGIC: [u8; 2] = [0x1f, 0x8b];
const METHOD_DEFLATE: u8 = 8;

const FLAG_HEADER_CRC: u8 = 1 << 1;
const FLAG_EXTRA: u8 = 1 << 2;
const FLAG_NAME: u8 = 1 << 3;
const FLAG_COMMENT: u8 = 1 << 4;
const FLAGS_RESERVED: u8 = 0b1110_0000;

/// Why a file can't be read to its verified end. Offsets are of compressed bytes.
#[derive(Debug, thiserror::Error)]
pub enum GzipError {
    /// The file does not begin like gzip.
    #[error("not a gzip file: it {looks_like}")]
    NotGzip {
        /// What it begins like, and what can be done.
        looks_like: &'static str,
    },
    /// The file ends inside a member.
    #[error(
        "truncated: the file ends at byte {offset}, inside its gzip data; download it again and compare its size"
    )]
    Truncated {
        /// The length of the file.
        offset: ByteOffset,
    },
    /// A member's header is damaged.
    #[error("corrupt gzip header at byte {offset}: {what}; download the file again")]
    Header {
        /// Where the header begins.
        offset: ByteOffset,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The deflate data is damaged.
    #[error("corrupt deflate data at byte {offset}; download the file again")]
    Deflate {
        /// Up to where the data could be read.
        offset: ByteOffset,
    },
    /// The content of a member is not what was compressed.
    #[error(
        "wrong CRC at byte {offset}: the content before it is damaged; download the file again"
    )]
    Crc {
        /// Where the member's trailer begins.
        offset: ByteOffset,
    },
    /// The content of a member is not as long as what was compressed.
    #[error(
        "wrong length at byte {offset}: the content before it is damaged; download the file again"
    )]
    Length {
        /// Where the member's trailer begins.
        offset: ByteOffset,
    },
    /// Something that is neither a member nor padding follows a member.
    #[error("trailing garbage at byte {offset}, after the gzip data; download the file again")]
    Garbage {
        /// Where it begins.
        offset: ByteOffset,
    },
    /// The content ends before the place where reading was to begin.
    #[error(
        "the content ends at byte {end}, before byte {wanted} where reading was to go on; the file is not the one that was read before, process it from its start"
    )]
    Short {
        /// The length of the content.
        end: ByteOffset,
        /// Where reading was to begin, in inflated bytes.
        wanted: ByteOffset,
    },
    /// The file can't be read.
    #[error("cannot read at byte {offset}: {error}")]
    Io {
        /// How much was read before.
        offset: ByteOffset,
        /// What the file system said.
        error: io::Error,
    },
}

/// What the reader expects next.
#[derive(Clone, Copy)]
enum Stage {
    Header,
    Body,
    Trailer,
    Between,
    End,
}

/// Reads a gzip file.
///
/// Holds one piece of the file, the 32 KiB window of deflate and perhaps a seek point with
/// another, whatever the size of the file.
pub struct GzipReader {
    file: Box<dyn FileRead>,
    piece: Vec<u8>,
    /// The part of `piece` that is read but not yet used.
    next: usize,
    filled: usize,
    /// Up to where `hasher` has seen `piece`, not behind `next`.
    hashed: usize,
    /// Where `piece[next]` is in the file.
    compressed: u64,
    inflated: u64,
    hasher: Sha256,
    inflate: Inflate,
    /// Of the present header while reading one, else of the present member's content.
    crc: u32,
    /// Of the present member's content.
    length: u64,
    stage: Stage,
    seek_spacing: u64,
    /// From which compressed byte on the next seek point is to be made.
    seek_point_due: u64,
    seek_point: Option<SeekPoint>,
}

impl GzipReader {
    /// Reads `file` from its start in pieces of `piece_bytes`, at least 1; below 64 KiB the rate
    /// drops. Seek points are at least `seek_spacing` compressed bytes apart.
    pub fn new(file: Box<dyn FileRead>, piece_bytes: usize, seek_spacing: u64) -> Self {
        Self {
            file,
            piece: vec![0; piece_bytes.max(1)],
            next: 0,
            filled: 0,
            hashed: 0,
            compressed: 0,
            inflated: 0,
            hasher: Sha256::new(),
            inflate: Inflate::new(),
            crc: 0,
            length: 0,
            stage: Stage::Header,
            seek_spacing,
            seek_point_due: seek_spacing,
            seek_point: None,
        }
    }

    /// Goes to a seek point that a reader of the same file has left, instead of reading up to it.
    ///
    /// # Panics
    ///
    /// If the point holds what no reader leaves; one that was loaded from its file does not.
    pub fn enter(&mut self, point: &SeekPoint) -> Result<(), GzipError> {
        let hasher = point.hasher().expect("a point holds the state of its hash");
        (self.next, self.filled, self.hashed) = (0, 0, 0);
        self.compressed = point.compressed - u64::from(point.unused_bits > 0);
        let sought = self.file.seek(SeekFrom::Start(self.compressed));
        sought.map_err(|error| self.io_error(error))?;
        let [byte] = match point.unused_bits {
            0 => [0],
            _ => self.bytes()?,
        };
        self.hashed = self.next;
        self.hasher = hasher;
        self.inflate
            .reset_to(point.unused_bits, byte, &point.window);
        self.inflated = point.inflated;
        (self.crc, self.length) = (point.member_crc, point.member_length);
        self.stage = Stage::Body;
        self.seek_point_due = self.compressed.saturating_add(self.seek_spacing);
        self.seek_point = None;
        Ok(())
    }

    /// Goes back to the start of the file.
    pub fn rewind(&mut self) -> Result<(), GzipError> {
        let sought = self.file.rewind();
        sought.map_err(|error| self.io_error(error))?;
        (self.next, self.filled, self.hashed) = (0, 0, 0);
        (self.compressed, self.inflated) = (0, 0);
        self.hasher = Sha256::new();
        self.stage = Stage::Header;
        self.seek_point_due = self.seek_spacing;
        self.seek_point = None;
        Ok(())
    }

    /// Takes the seek point that was left, if it is not behind the inflated byte `offset`. While
    /// one waits to be taken no other is made.
    pub fn seek_point_before(&mut self, offset: ByteOffset) -> Option<SeekPoint> {
        self.seek_point.take_if(|point| point.inflated <= offset.0)
    }

    /// Fills the start of `buffer` with the next inflated bytes and says how many; 0 is the end of
    /// the file, verified.
    ///
    /// Every byte that could be inflated is delivered before an error is reported. After an error
    /// nothing more can be read.
    ///
    /// # Panics
    ///
    /// If `buffer` is empty, because then 0 would not be the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, GzipError> {
        assert!(!buffer.is_empty(), "reading into an empty buffer");
        loop {
            match self.stage {
                Stage::Header => self.header()?,
                Stage::Body => match self.body(buffer)? {
                    0 => {}
                    count => return Ok(count),
                },
                Stage::Trailer => self.trailer()?,
                Stage::Between => self.between()?,
                Stage::End => return Ok(0),
            }
        }
    }

    /// Goes towards the inflated byte `offset`, which is not before the present one, and says
    /// whether it is reached, so that it is the next to be read. Pauses after so many compressed bytes
    /// as lie between seek points.
    ///
    /// Inflates and discards what lies before; everything is verified and hashed as if it was
    /// read.
    pub fn skip_towards(&mut self, offset: ByteOffset) -> Result<bool, GzipError> {
        let pause = self.compressed.saturating_add(self.seek_spacing);
        let mut discarded = vec![0; 64 * 1024];
        while self.inflated < offset.0 {
            if self.compressed >= pause {
                // Later points are nearer to what will be read.
                self.seek_point = None;
                return Ok(false);
            }
            let missing = usize::try_from(offset.0 - self.inflated).unwrap_or(usize::MAX);
            let most = missing.min(discarded.len());
            if self.read(&mut discarded[..most])? == 0 {
                return Err(GzipError::Short {
                    end: ByteOffset(self.inflated),
                    wanted: offset,
                });
            }
        }
        Ok(true)
    }

    /// How many bytes of the file were used so far.
    pub const fn compressed(&self) -> ByteOffset {
        ByteOffset(self.compressed)
    }

    /// SHA-256 of the bytes used so far, 64 lowercase hexadecimal digits; after the end, that is
    /// of the whole file. What lies before a seek point was hashed by the reader that left it.
    pub fn checksum(&self) -> String {
        let unhashed = &self.piece[self.hashed..self.next];
        hex(&self.hasher.clone().chain_update(unhashed).finalize())
    }

    fn header(&mut self) -> Result<(), GzipError> {
        let offset = self.compressed();
        let corrupt = |what| GzipError::Header { offset, what };
        self.crc = 0;
        self.magic()?;
        let [method, flags, _time @ .., _extra_flags, _system] = self.header_bytes::<8>()?;
        if method != METHOD_DEFLATE {
            return Err(corrupt("its compression method is not deflate"));
        }
        if flags & FLAGS_RESERVED != 0 {
            return Err(corrupt("it has flags that gzip does not define"));
        }
        if flags & FLAG_EXTRA != 0 {
            let length = u16::from_le_bytes(self.header_bytes()?);
            for _ in 0..length {
                self.header_bytes::<1>()?;
            }
        }
        for flag in [FLAG_NAME, FLAG_COMMENT] {
            if flags & flag != 0 {
                while self.header_bytes()? != [0] {}
            }
        }
        if flags & FLAG_HEADER_CRC != 0 {
            let [low, high, ..] = self.crc.to_le_bytes();
            if self.bytes()? != [low, high] {
                return Err(corrupt("its CRC is wrong"));
            }
        }
        (self.crc, self.length) = (0, 0);
        self.inflate.reset();
        self.stage = Stage::Body;
        if self.is_seek_point_due() {
            self.leave_seek_point(0);
        }
        Ok(())
    }

    /// Passes over the magic number, which decides whether this is a member at all.
    fn magic(&mut self) -> Result<(), GzipError> {
        let offset = self.compressed();
        let is_first = offset.0 == 0;
        if is_first && !self.fill()? {
            return Err(GzipError::NotGzip {
                looks_like: "is empty; download it again",
            });
        }
        for expected in MAGIC {
            if self.header_bytes()? != [expected] {
                return Err(if is_first {
                    GzipError::NotGzip {
                        looks_like: looks_like(&self.piece[..self.filled]),
                    }
                } else {
                    GzipError::Garbage { offset }
                });
            }
        }
        Ok(())
    }

    fn body(&mut self, buffer: &mut [u8]) -> Result<usize, GzipError> {
        let input = &self.piece[self.next..self.filled];
        // Called without input too: inflate may still hold bytes that found no room before.
        let to_boundary = self.is_seek_point_due();
        let inflated = self.inflate.inflate(input, buffer, to_boundary);
        let (used, written) = (inflated.used, inflated.written);
        self.next += used;
        self.compressed += used as u64;
        self.crc = crc32(self.crc, &buffer[..written]);
        self.length += written as u64;
        self.inflated += written as u64;
        match inflated.place {
            Place::End => self.stage = Stage::Trailer,
            Place::Boundary { unused_bits } => self.leave_seek_point(unused_bits),
            Place::Inside if written > 0 || used > 0 => {}
            Place::Inside if self.next == self.filled => self.more()?,
            // What was inflated before the damage goes first; the error comes again.
            Place::Damage if written > 0 => {}
            Place::Inside | Place::Damage => {
                return Err(GzipError::Deflate {
                    offset: self.compressed(),
                });
            }
        }
        Ok(written)
    }

    const fn is_seek_point_due(&self) -> bool {
        self.seek_point.is_none() && self.compressed >= self.seek_point_due
    }

    /// Leaves a seek point here, at a block boundary.
    fn leave_seek_point(&mut self, unused_bits: u8) {
        self.hash();
        self.seek_point_due = self.compressed.saturating_add(self.seek_spacing);
        self.seek_point = Some(SeekPoint {
            compressed: self.compressed,
            unused_bits,
            inflated: self.inflated,
            member_crc: self.crc,
            member_length: self.length,
            sha256: hash_state(&self.hasher),
            window: self.inflate.window(),
        });
    }

    fn trailer(&mut self) -> Result<(), GzipError> {
        let offset = self.compressed();
        let crc = u32::from_le_bytes(self.bytes()?);
        let length = u32::from_le_bytes(self.bytes()?);
        if crc != self.crc {
            return Err(GzipError::Crc { offset });
        }
        // The trailer has the length modulo 2^32.
        if u64::from(length) != self.length % (1 << 32) {
            return Err(GzipError::Length { offset });
        }
        self.stage = Stage::Between;
        Ok(())
    }

    fn between(&mut self) -> Result<(), GzipError> {
        if self.fill()? && self.piece[self.next] == MAGIC[0] {
            self.stage = Stage::Header;
            return Ok(());
        }
        while self.fill()? {
            let rest = &self.piece[self.next..self.filled];
            let zeros = rest.iter().take_while(|byte| **byte == 0).count();
            let is_garbage = zeros < rest.len();
            self.next += zeros;
            self.compressed += zeros as u64;
            if is_garbage {
                return Err(GzipError::Garbage {
                    offset: self.compressed(),
                });
            }
        }
        self.stage = Stage::End;
        Ok(())
    }

    /// The next bytes, counted into the header's CRC.
    fn header_bytes<const N: usize>(&mut self) -> Result<[u8; N], GzipError> {
        let bytes = self.bytes()?;
        self.crc = crc32(self.crc, &bytes);
        Ok(bytes)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], GzipError> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            self.more()?;
            *byte = self.piece[self.next];
            self.next += 1;
            self.compressed += 1;
        }
        Ok(bytes)
    }

    /// Makes sure that there is a byte to use; the end of the file is an error.
    fn more(&mut self) -> Result<(), GzipError> {
        if self.fill()? {
            return Ok(());
        }
        Err(GzipError::Truncated {
            offset: self.compressed(),
        })
    }

    /// Makes sure that there is a byte to use, unless the file is at its end: then false.
    fn fill(&mut self) -> Result<bool, GzipError> {
        while self.next == self.filled {
            self.hash();
            match self.file.read(&mut self.piece) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.hashed = 0;
                    self.next = 0;
                    self.filled = count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.io_error(error)),
            }
        }
        Ok(true)
    }

    /// Hashes what was used.
    fn hash(&mut self) {
        self.hasher.update(&self.piece[self.hashed..self.next]);
        self.hashed = self.next;
    }

    const fn io_error(&self, error: io::Error) -> GzipError {
        GzipError::Io {
            offset: self.compressed(),
            error,
        }
    }
}

/// Names a format by the first bytes of a file.
fn looks_like(bytes: &[u8]) -> &'static str {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = text.trim_ascii_start();
    let is_html = |tag: &[u8]| {
        text.get(..tag.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(tag))
    };
    if is_html(b"<html") || is_html(b"<!doctype html") {
        "is a web page, perhaps an error of the download server; download it again"
    } else if text.starts_with(b"<") {
        "starts with `<` like plain XML; compress it with gzip"
    } else if bytes.get(257..262) == Some(b"ustar") {
        "is a tar archive; unpack it and compress the dump with gzip"
    } else if bytes.starts_with(b"PK") {
        "is a zip archive; unpack it and compress the dump with gzip"
    } else if bytes.starts_with(b"BZh") {
        "is compressed by bzip2; compress it with gzip"
    } else if bytes.starts_with(b"\xfd7zXZ") {
        "is compressed by xz; compress it with gzip"
    } else if bytes.starts_with(b"\x28\xb5\x2f\xfd") {
        "is compressed by zstd; compress it with gzip"
    } else if bytes.iter().all(|byte| *byte == 0) {
        "starts with zeros; download it again"
    } else {
        "starts with neither 1f 8b nor anything known; download it again"
    }
}

/// Lowercase hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read, Seek, SeekFrom, Write};

    use flate2::Compression;
    use flate2::GzBuilder;
    use flate2::write::GzEncoder;

    use super::*;

    /// The smallest pieces and buffers that there are, and those of production.
    const SIZES: [usize; 4] = [1, 2, 7, 64 * 1024];

    /// Between seek points: at every boundary there is one.
    const SPACING: u64 = 1;

    const TEXT: &[u8] =
        b"<artists><artist><id>1</id></artist><artist><id>2</id></artist></artists>\n";

    fn member(content: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// A member of stored blocks, so that every content byte is one byte of the file.
    fn stored(content: &[u8]) -> Vec<u8> {
        member(content, 0)
    }

    fn decorated(content: &[u8]) -> Vec<u8> {
        let builder = GzBuilder::new().extra(*b"ab\x02\x00xy").filename("a.xml");
        let mut encoder = builder.comment("c").write(Vec::new(), Compression::new(6));
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn with_header_crc(content: &[u8]) -> Vec<u8> {
        let plain = member(content, 6);
        let mut header = plain[..10].to_vec();
        header[3] |= FLAG_HEADER_CRC;
        let crc = crc32(0, &header).to_le_bytes();
        [&header, &crc[..2], &plain[10..]].concat()
    }

    fn reader(file: &[u8], piece_bytes: usize) -> GzipReader {
        GzipReader::new(Box::new(Cursor::new(file.to_vec())), piece_bytes, SPACING)
    }

    /// Everything that is delivered, and how it ends.
    fn drain(reader: &mut GzipReader, buffer_bytes: usize) -> (Vec<u8>, Result<(), GzipError>) {
        let mut content = Vec::new();
        let mut buffer = vec![0; buffer_bytes];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return (content, Ok(())),
                Ok(count) => content.extend_from_slice(&buffer[..count]),
                Err(error) => return (content, Err(error)),
            }
        }
    }

    fn read(file: &[u8]) -> (Vec<u8>, Result<(), GzipError>) {
        drain(&mut reader(file, 64 * 1024), 64 * 1024)
    }

    /// The file is good and holds `expected`, whatever the sizes of pieces and buffers.
    fn check(name: &str, file: &[u8], expected: &[u8]) {
        for piece_bytes in SIZES {
            for buffer_bytes in SIZES {
                let mut reader = reader(file, piece_bytes);
                let (content, end) = drain(&mut reader, buffer_bytes);
                let case = format!("{name}, pieces {piece_bytes}, buffer {buffer_bytes}");
                end.unwrap_or_else(|error| panic!("{case}: {error}"));
                assert_eq!(content, expected, "{case}");
                assert_eq!(reader.compressed(), ByteOffset(file.len() as u64), "{case}");
                assert_eq!(reader.checksum(), hex(&Sha256::digest(file)), "{case}");
            }
        }
    }

    /// The file delivers `expected` and then fails with a message that begins with `message`.
    fn check_error(file: &[u8], expected: &[u8], message: &str) {
        for piece_bytes in SIZES {
            let (content, end) = drain(&mut reader(file, piece_bytes), 7);
            let error = end.expect_err(message).to_string();
            assert!(error.starts_with(message), "{error} is not {message}");
            assert_eq!(content, expected, "{message}, pieces {piece_bytes}");
        }
    }

    #[test]
    fn every_form_of_gzip_is_read() {
        let long = TEXT.repeat(50);
        for level in [0, 1, 6, 9] {
            check("level", &member(&long, level), &long);
        }
        check("nothing", &member(b"", 6), b"");
        check("all header fields", &decorated(TEXT), TEXT);
        check("header CRC", &with_header_crc(TEXT), TEXT);
        let (first, second) = TEXT.split_at(20);
        let members = [
            member(first, 6),
            member(b"", 6),
            decorated(second),
            stored(b""),
        ]
        .concat();
        check("members", &members, TEXT);
        check("padding", &[&members[..], &[0; 600]].concat(), TEXT);
    }

    #[test]
    fn errors_say_what_is_wrong_and_where() {
        let good = stored(b"content");
        let length = good.len();
        let changed = |index: usize, bits: u8| {
            let mut file = good.clone();
            file[index] ^= bits;
            file
        };
        let second_lost = [&good[..], &good[1..]].concat();
        let after_padding = [&good[..], &[0; 3], &good[..]].concat();
        let mut wrong_header_crc = with_header_crc(b"x");
        wrong_header_crc[10] ^= 1;
        let mut bad_block = good[..10].to_vec();
        bad_block.push(0b111);
        let bad_second_block = [&good[..10], b"\0\x07\0\xf8\xffcontent", &[0b111]].concat();

        check_error(b"", b"", "not a gzip file: it is empty");
        check_error(b"<artists>", b"", "not a gzip file: it starts with `<`");
        check_error(b"\x1f", b"", "truncated: the file ends at byte 1,");
        check_error(b"\x1f\x8c", b"", "not a gzip file");
        check_error(
            &changed(2, 1),
            b"",
            "corrupt gzip header at byte 0: its compression",
        );
        check_error(
            &changed(3, 0x80),
            b"",
            "corrupt gzip header at byte 0: it has flags",
        );
        check_error(
            &wrong_header_crc,
            b"",
            "corrupt gzip header at byte 0: its CRC",
        );
        check_error(&bad_block, b"", "corrupt deflate data at byte 11;");
        check_error(
            &bad_second_block,
            b"content",
            "corrupt deflate data at byte 23;",
        );
        let trailer = length - 8;
        check_error(
            &changed(length - 5, 1),
            b"content",
            &format!("wrong CRC at byte {trailer}"),
        );
        check_error(
            &changed(length - 1, 1),
            b"content",
            &format!("wrong length at byte {trailer}"),
        );
        check_error(
            &second_lost,
            b"content",
            &format!("trailing garbage at byte {length}"),
        );
        check_error(
            &after_padding,
            b"content",
            &format!("trailing garbage at byte {}", length + 3),
        );
        check_error(
            &[&good[..], b"\x1fx"].concat(),
            b"content",
            &format!("trailing garbage at byte {length}"),
        );
    }

    #[test]
    fn other_formats_are_named() {
        let mut tar = vec![b'd'; 512];
        tar[257..262].copy_from_slice(b"ustar");
        let cases: [(&[u8], &str); 10] = [
            (b"\xef\xbb\xbf <artists>", "plain XML"),
            (b"\n<HTML><body>", "web page"),
            (b"<!DOCTYPE html>", "web page"),
            (&tar, "tar archive"),
            (b"PK\x03\x04", "zip"),
            (b"BZh9", "bzip2"),
            (b"\xfd7zXZ\0", "xz"),
            (b"\x28\xb5\x2f\xfd", "zstd"),
            (&[0; 20], "zeros"),
            (b"hello", "neither"),
        ];
        for (file, expected) in cases {
            let error = read(file).1.unwrap_err().to_string();
            assert!(error.contains(expected), "{error} is not about {expected}");
        }
    }

    #[test]
    fn truncation_at_any_byte_is_an_error_at_that_byte() {
        let members = [with_header_crc(TEXT), decorated(TEXT)];
        let boundary = members[0].len();
        let file = members.concat();
        let whole = [TEXT, TEXT].concat();
        for cut in 1..file.len() {
            let (content, end) = read(&file[..cut]);
            assert!(whole.starts_with(&content), "cut at {cut}");
            if cut == boundary {
                assert!(end.is_ok(), "a cut at a boundary can't be seen here");
                continue;
            }
            let error = end.expect_err("a cut is an error");
            assert!(
                matches!(error, GzipError::Truncated { offset } if offset.0 == cut as u64),
                "cut at {cut}: {error}"
            );
        }
    }

    #[test]
    fn what_lies_before_a_cut_is_delivered_to_the_last_byte() {
        let file = stored(TEXT);
        let begin = file.len() - TEXT.len() - 8;
        for length in 0..TEXT.len() {
            check_error(&file[..begin + length], &TEXT[..length], "truncated");
        }
    }

    #[test]
    fn a_flipped_bit_is_an_error_or_changes_nothing() {
        for file in [stored(TEXT), member(TEXT, 9), with_header_crc(TEXT)] {
            for bit in 0..file.len() * 8 {
                let mut flipped = file.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                if let (content, Ok(())) = read(&flipped) {
                    assert_eq!(content, TEXT, "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn reading_begins_at_any_offset() {
        let file = [member(TEXT, 6), stored(TEXT)].concat();
        let whole = [TEXT, TEXT].concat();
        for offset in 0..=whole.len() {
            let mut reader = reader(&file, 7);
            while !reader.skip_towards(ByteOffset(offset as u64)).unwrap() {}
            let (content, end) = drain(&mut reader, 7);
            end.unwrap();
            assert_eq!(content, whole[offset..], "from {offset}");
            assert_eq!(reader.checksum(), hex(&Sha256::digest(&file)));
        }
    }

    #[test]
    fn an_offset_behind_the_end_is_an_error() {
        let mut reader = reader(&stored(b"content"), 64);
        let error = loop {
            match reader.skip_towards(ByteOffset(8)) {
                Ok(is_reached) => assert!(!is_reached),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.starts_with("the content ends at byte 7, before byte 8"));
    }

    /// A file whose reads fail from some byte on, and are interrupted before every success.
    struct Failing {
        file: Cursor<Vec<u8>>,
        is_interrupted: bool,
    }

    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.is_interrupted = !self.is_interrupted;
            if self.is_interrupted {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match self.file.read(buffer)? {
                0 => Err(io::Error::other("the disk is gone")),
                count => Ok(count),
            }
        }
    }

    impl Seek for Failing {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.file.seek(to)
        }
    }

    #[test]
    fn a_failing_read_is_an_error_behind_what_was_read() {
        let whole = stored(TEXT);
        let cut = whole.len() - 8 - 10;
        let file = Failing {
            file: Cursor::new(whole[..cut].to_vec()),
            is_interrupted: false,
        };
        let mut reader = GzipReader::new(Box::new(file), 7, SPACING);
        let (content, end) = drain(&mut reader, 5);
        assert_eq!(content, TEXT[..TEXT.len() - 10]);
        let error = end.unwrap_err().to_string();
        assert_eq!(
            error,
            format!("cannot read at byte {cut}: the disk is gone")
        );
    }
}
