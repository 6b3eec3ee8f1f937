//! From the XML of a dump to the frames of its records.
//!
//! ```text
//! prolog ─→ <artists> ─→ between ─→ </artists> ─→ epilogue ─→ end
//!                         ↑   ↓
//!                         frame
//! ```
//!
//! A *frame* is the bytes of one record, from the `<` of its start tag to the `>` of its end tag.
//! Inside a record nothing is looked at except what can hide or move its end: comments, CDATA
//! sections, processing instructions, and tags with the record's own name, whose depth is counted
//! because `<label>` occurs inside `<label>`. Whether a record is well-formed is not decided here.
//!
//! Between records stand white space, comments and processing instructions. Anything else there,
//! up to the next record or the end of the root, is a *stray* frame of its own, so that every
//! byte of a dump is either without meaning or in a frame: nothing is lost silently.
//!
//! The boundary behind a frame is a place without state: a framer that begins there yields exactly
//! the frames that one which comes from the start yields after it. Frames depend on the bytes
//! only, never on the portions in which they arrive.
//!
//! # A missing end tag
//!
//! It makes a record swallow those after it. The framer then looks for the first place inside the
//! frame where the next record seems to begin ([`Framer::resync`]), cuts the frame there and goes
//! on at that place. That is done in three cases: the frame turns out to be malformed because its
//! tags don't match; it is larger than the bound for records; the root's end tag is the last
//! thing in the dump and the record is still open. A dump that just ends inside a record is
//! truncated, which is an error and not a malformed record.
//!
//! A wrong guess does no harm beyond a malformed record: in the dumps only `<label>` occurs inside
//! an element of the same name, and there it has no child `<id>`, without which nothing is a
//! record.

use memchr::{memchr, memmem};

use crate::dump::Kind;
use crate::lanes::{self, Lanes, WIDTH, equal};
use crate::record::{ByteOffset, Position};

/// How much of a record over the size bound is kept, in bytes.
pub const OVERSIZED_BYTES_KEPT: usize = 64 * 1024;

/// The least room that is offered for new bytes.
const ROOM: usize = 64 * 1024;
const CAPACITY: usize = 4 * ROOM;

/// Longer names are cut here; none of them is a record's.
const NAME_BYTES_MAX: usize = 64;
const DOCTYPE_BYTES_MAX: usize = 64 * 1024;
/// What is looked at to say what something that is not XML is.
const LOOK_BYTES: usize = 512;
/// Deeper nesting is not followed when the next record's start is searched.
const NESTING_MAX: usize = 64;

/// Why the XML of a dump can't be divided into records. Offsets are of XML bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The content does not begin like XML.
    #[error("not XML: the content {looks_like}")]
    NotXml {
        /// What it begins like, and what can be done.
        looks_like: &'static str,
    },
    /// The root is another dump's.
    #[error(
        "this is a dump of {found}, not of {expected}; give the file the name that belongs to its content"
    )]
    OtherKind {
        /// What the name of the file says.
        expected: Kind,
        /// What the content says.
        found: Kind,
    },
    /// There is no root: the content begins with a record.
    #[error(
        "the content begins with the record `<{}>` instead of the root `<{expected}>`; it is a part of a dump, put `<{expected}>` before it and `</{expected}>` after it",
        expected.record_name()
    )]
    NoRoot {
        /// What the name of the file says.
        expected: Kind,
    },
    /// The root is no dump's.
    #[error("the root is `<{found}>` instead of `<{expected}>`; this is not a dump")]
    OtherRoot {
        /// What the name of the file says.
        expected: Kind,
        /// The name of the root.
        found: String,
    },
    /// The document type declaration is too long for one.
    #[error(
        "the document type declaration at byte {offset} of the XML is longer than {DOCTYPE_BYTES_MAX} bytes"
    )]
    LongDoctype {
        /// Where it begins.
        offset: ByteOffset,
    },
    /// The content ends too early.
    #[error(
        "truncated at byte {offset} of the XML, {place}; download the file again and compare its checksum"
    )]
    Truncated {
        /// The length of the content.
        offset: ByteOffset,
        /// What was being read.
        place: Place,
    },
    /// Something follows the root.
    #[error(
        "there is more content after the end of the root, at byte {offset} of the XML; cut it off or download the file again"
    )]
    AfterRoot {
        /// Where it begins.
        offset: ByteOffset,
    },
}

/// Where in its structure a dump ends too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before the root's start tag.
    BeforeRoot,
    /// Behind the last whole record.
    Between(Position),
    /// In a record.
    Inside {
        /// The boundary before it.
        after: Position,
        /// Where it begins.
        start: ByteOffset,
    },
    /// In a comment or processing instruction behind the root.
    AfterRoot,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BeforeRoot => f.write_str("before the root"),
            Self::Between(after) => write!(f, "after record {}, between records", after.ordinal),
            Self::Inside { after, start } => {
                let ordinal = after.ordinal.next();
                write!(f, "inside record {ordinal} which begins at byte {start}")
            }
            Self::AfterRoot => f.write_str("after the root, inside a comment or instruction"),
        }
    }
}

/// One record of a dump; its bytes are [`Framer::bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it begins in the XML.
    pub start: ByteOffset,
    /// The boundary behind it.
    pub position: Position,
    /// What it is.
    pub shape: Shape,
}

/// What a frame is. As wide as what frames are copied with: a processor waits for smaller parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Shape {
    /// Begins with a record's start tag; well-formed or not.
    Record,
    /// Something between records that does not belong there.
    Stray,
    /// Over the size bound: only the first [`OVERSIZED_BYTES_KEPT`] bytes are there.
    Oversized,
}

/// What [`Framer::step`] comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes are needed: fill [`Framer::room`], then tell with [`Framer::filled`].
    Starved,
    /// The next frame.
    Frame(Frame),
    /// The end of the dump: the root is closed, and the input has ended.
    End,
}

/// Where in the structure of a dump the framer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Prolog,
    Between,
    /// In a record, inside so many elements of its name.
    Record {
        depth: u64,
    },
    Stray,
    Epilogue,
    End,
}

/// The construct that is open at the place up to which the bytes are scanned.
#[derive(Clone, Copy, Debug)]
enum Open {
    Nothing,
    /// A comment, CDATA section or processing instruction, up to this terminator.
    Until(&'static [u8]),
    Tag(TagScan),
}

/// What became of an attempt to go on.
enum Progress {
    Going,
    Starved,
    Frame(Frame),
}

/// What was found outside of records.
enum Outside {
    Starved,
    /// Nothing of meaning.
    Skipped,
    /// The end of the root's start or end tag.
    Tag(TagEnd),
    /// The live bytes begin with something of meaning, and [`markup`] knows what.
    Content,
}

/// Divides the XML of a dump into the frames of its records.
///
/// Does no input itself: ask [`Framer::step`], and give it bytes when it is starved. Memory is
/// bounded by twice the size bound for records, and is about 256 KiB while records are of usual size.
#[derive(Debug)]
pub struct Framer {
    kind: Kind,
    record_bytes_max: usize,
    buffer: Buffer,
    /// How far the live bytes are scanned.
    at: usize,
    state: State,
    open: Open,
    /// Where the present or the last frame begins.
    start: ByteOffset,
    /// The boundary behind the last frame.
    position: Position,
    /// The length of a frame that was yielded and is still at the start of the live bytes.
    yielded: Option<usize>,
    /// The first bytes of a frame over the size bound, whose other bytes are not kept.
    head: Option<Vec<u8>>,
    has_ended: bool,
    marks: Marks,
}

impl Framer {
    /// Begins at the start of a dump of `kind`, or at the boundary of two of its frames, where
    /// the first byte it is given is the one at `from`.
    ///
    /// A record longer than `record_bytes_max` bytes is not kept.
    pub fn new(kind: Kind, from: Position, record_bytes_max: usize) -> Self {
        Self {
            kind,
            record_bytes_max,
            buffer: Buffer::new(from.xml),
            at: 0,
            state: if from == Position::START {
                State::Prolog
            } else {
                State::Between
            },
            open: Open::Nothing,
            start: from.xml,
            position: from,
            yielded: None,
            head: None,
            has_ended: false,
            marks: Marks::new(kind),
        }
    }

    /// Goes on to the next frame, to the end, or as far as the bytes go that are there.
    ///
    /// After an error nothing more can be asked.
    pub fn step(&mut self) -> Result<Step, FrameError> {
        self.release();
        loop {
            let progress = match self.state {
                State::Prolog => self.prolog()?,
                State::Between => match self.usual_record() {
                    Some(end) => self.finish(end, Shape::Record),
                    None => self.between(),
                },
                State::Record { .. } | State::Stray => self.inside(),
                State::Epilogue => self.epilogue()?,
                State::End => return Ok(Step::End),
            };
            match progress {
                Progress::Going => {}
                Progress::Frame(frame) => return Ok(Step::Frame(frame)),
                Progress::Starved => {
                    if let Some(step) = self.starved()? {
                        return Ok(step);
                    }
                }
            }
        }
    }

    /// Where the next bytes go; never empty.
    pub fn room(&mut self) -> &mut [u8] {
        self.release();
        self.buffer.room()
    }

    /// Tells that the first `count` bytes of [`Framer::room`] were filled; 0 is the end of the
    /// input.
    pub fn filled(&mut self, count: usize) {
        self.has_ended |= count == 0;
        self.buffer.filled += count;
    }

    /// The bytes of the frame that the last step yielded.
    pub fn bytes(&self) -> &[u8] {
        match &self.head {
            Some(head) => head,
            None => &self.buffer.live()[..self.yielded.unwrap_or(0)],
        }
    }

    /// The boundary behind the last frame, or where it began.
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Cuts the frame that the last step yielded at the first place inside it where the next
    /// record seems to begin, and goes on there. `None` if there is no such place, or no frame.
    ///
    /// To be asked when the frame is malformed because its tags don't match. The place is a start
    /// tag of the record's name that is (a) a child of the record, or (b) the first thing on a
    /// line.
    pub fn resync(&mut self) -> Option<Frame> {
        if self.head.is_some() {
            return None;
        }
        let place = restart(self.bytes(), self.kind.record_name().as_bytes())?;
        self.yielded = Some(place);
        self.position.xml = ByteOffset(self.start.0 + place as u64);
        Some(self.frame(Shape::Record))
    }

    fn frame(&self, shape: Shape) -> Frame {
        Frame {
            start: self.start,
            position: self.position,
            shape,
        }
    }

    /// Lets go of the frame that the last step yielded.
    fn release(&mut self) {
        if let Some(length) = self.yielded.take() {
            self.buffer.consume(length);
            self.head = None;
            self.at = 0;
        }
    }

    /// Whether the live bytes begin with a frame that is being collected.
    fn is_collecting(&self) -> bool {
        matches!(self.state, State::Record { .. } | State::Stray) && self.head.is_none()
    }

    /// Whether nothing is open and nothing is left.
    fn is_idle(&self) -> bool {
        matches!(self.open, Open::Nothing) && self.buffer.live().is_empty()
    }

    /// The bytes that may be scanned: never more of a frame than the size bound, so that what is
    /// found does not depend on how much happens to be there.
    fn visible(&self) -> &[u8] {
        let live = self.buffer.live();
        if self.is_collecting() {
            &live[..live.len().min(self.record_bytes_max)]
        } else {
            live
        }
    }

    /// Marks the live bytes before `to` as scanned, and drops them if they are in no frame.
    fn advance(&mut self, to: usize) {
        if self.is_collecting() {
            self.at = to;
        } else {
            self.buffer.consume(to);
            self.at = 0;
        }
    }

    fn prolog(&mut self) -> Result<Progress, FrameError> {
        const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
        // A part of the mark is not XML, and of that more is waited for to say what it is.
        if self.buffer.offset == 0 && self.buffer.live().starts_with(BYTE_ORDER_MARK) {
            self.advance(BYTE_ORDER_MARK.len());
        }
        match self.outside() {
            Outside::Starved => return Ok(Progress::Starved),
            Outside::Skipped => {}
            Outside::Tag(TagEnd::Empty) => self.state = State::Epilogue,
            Outside::Tag(_) => self.state = State::Between,
            Outside::Content => match markup(self.buffer.live()) {
                Some(Markup::Declaration) => return self.doctype(),
                Some(Markup::Start(name)) if !name.is_empty() => {
                    check_root(self.kind, name)?;
                    self.open_tag(1 + name.len(), false);
                }
                _ => return self.not_xml(),
            },
        }
        Ok(Progress::Going)
    }

    fn doctype(&mut self) -> Result<Progress, FrameError> {
        match doctype_end(self.visible()) {
            Some(end) => self.advance(end),
            None if self.visible().len() > DOCTYPE_BYTES_MAX => {
                let offset = ByteOffset(self.buffer.offset);
                return Err(FrameError::LongDoctype { offset });
            }
            None => return Ok(Progress::Starved),
        }
        Ok(Progress::Going)
    }

    fn not_xml(&self) -> Result<Progress, FrameError> {
        let live = self.buffer.live();
        if live.len() < LOOK_BYTES && !self.has_ended {
            return Ok(Progress::Starved);
        }
        let looks_like = looks_like(live);
        Err(FrameError::NotXml { looks_like })
    }

    /// The end of the record here, if it is all there and holds nothing that hides or moves its
    /// end. Nearly all records are, and need no state between their parts.
    fn usual_record(&mut self) -> Option<usize> {
        if !matches!(self.open, Open::Nothing) {
            return None;
        }
        let (live, name) = (self.buffer.live(), self.kind.record_name().as_bytes());
        let blank = live.iter().position(|byte| !byte.is_ascii_whitespace())?;
        let record = &live[blank..];
        let is_name = |bytes: &&[u8]| self.marks.is_name_at(bytes);
        let tag = &record.strip_prefix(b"<").filter(is_name)?[name.len()..];
        if !matches!(tag, [b'>' | b' ', ..]) {
            return None;
        }
        let (length, TagEnd::Start) = TagScan::new(false).scan(tag)? else {
            return None;
        };
        let mut at = 1 + name.len() + length;
        let end = loop {
            at = self.marks.find(record, at)?;
            let end_tag = record[at..].strip_prefix(b"</").filter(is_name);
            if end_tag.is_some_and(|tag| tag.get(name.len()) == Some(&b'>')) {
                break at + 2 + name.len();
            }
            match markup(&record[at..])? {
                Markup::End(found) | Markup::Start(found) if found == name => return None,
                Markup::Skip { .. } => return None,
                _ => at += 1,
            }
        };
        (end < self.record_bytes_max).then(|| {
            self.advance(blank);
            self.start = ByteOffset(self.buffer.offset);
            end + 1
        })
    }

    fn between(&mut self) -> Progress {
        let (root, record) = (self.kind.name(), self.kind.record_name());
        match self.outside() {
            Outside::Starved => return Progress::Starved,
            Outside::Skipped => {}
            Outside::Tag(_) => self.state = State::Epilogue,
            Outside::Content => match markup(self.buffer.live()) {
                Some(Markup::End(name)) if name == root.as_bytes() => {
                    self.open_tag(2 + root.len(), true);
                }
                Some(Markup::Start(name)) if name == record.as_bytes() => {
                    self.begin(State::Record { depth: 0 });
                }
                _ => self.begin(State::Stray),
            },
        }
        Progress::Going
    }

    fn begin(&mut self, state: State) {
        self.start = ByteOffset(self.buffer.offset);
        self.state = state;
    }

    fn epilogue(&mut self) -> Result<Progress, FrameError> {
        match self.outside() {
            Outside::Starved => Ok(Progress::Starved),
            Outside::Skipped => Ok(Progress::Going),
            Outside::Tag(_) | Outside::Content => Err(FrameError::AfterRoot {
                offset: ByteOffset(self.buffer.offset),
            }),
        }
    }

    /// Passes over what has no meaning outside of records, and says what comes then.
    fn outside(&mut self) -> Outside {
        match self.close() {
            Closed::Nothing => {}
            Closed::Starved => return Outside::Starved,
            Closed::Construct => return Outside::Skipped,
            Closed::Tag(end) => return Outside::Tag(end),
        }
        let live = self.buffer.live();
        let blank = live.len() - live.trim_ascii_start().len();
        self.advance(blank);
        match markup(self.buffer.live()) {
            None => Outside::Starved,
            Some(Markup::Skip { opener, terminator }) if terminator != CDATA_END => {
                self.advance(opener);
                self.open = Open::Until(terminator);
                Outside::Skipped
            }
            Some(_) => Outside::Content,
        }
    }

    /// Scans a record or what is stray, up to the next thing that matters.
    fn inside(&mut self) -> Progress {
        match self.close() {
            Closed::Nothing => self.inside_content(),
            Closed::Starved => Progress::Starved,
            Closed::Construct => Progress::Going,
            Closed::Tag(end) => self.count(end),
        }
    }

    fn inside_content(&mut self) -> Progress {
        let is_stray = self.state == State::Stray;
        let visible = self.visible();
        let Some(place) = self.marks.find(visible, self.at) else {
            // The last bytes may be the first ones of a mark.
            let to = (visible.len() + 1).saturating_sub(Marks::LENGTH);
            self.advance(to.max(self.at));
            return Progress::Starved;
        };
        let (root, record) = (
            self.kind.name().as_bytes(),
            self.kind.record_name().as_bytes(),
        );
        match markup(&visible[place..]) {
            None => {
                self.advance(place);
                return Progress::Starved;
            }
            Some(Markup::Skip { opener, terminator }) => {
                self.advance(place + opener);
                self.open = Open::Until(terminator);
            }
            Some(Markup::End(name)) if is_stray && name == root => {
                return self.finish(place, Shape::Stray);
            }
            Some(Markup::Start(name)) if is_stray && name == record => {
                return self.finish(place, Shape::Stray);
            }
            Some(Markup::Start(name)) if name == record => {
                self.open_tag(place + 1 + record.len(), false);
            }
            Some(Markup::End(name)) if !is_stray && name == record => {
                self.open_tag(place + 2 + record.len(), true);
            }
            Some(_) => self.advance(place + 1),
        }
        Progress::Going
    }

    /// Counts a tag of the record's name; the one that closes the record ends the frame.
    fn count(&mut self, end: TagEnd) -> Progress {
        let State::Record { depth } = self.state else {
            unreachable!("only in records tags are scanned to their end");
        };
        let depth = match end {
            TagEnd::Start => depth + 1,
            TagEnd::Empty => depth,
            TagEnd::End => depth - 1,
        };
        if depth == 0 {
            return self.finish(self.at, Shape::Record);
        }
        self.state = State::Record { depth };
        Progress::Going
    }

    /// Yields the live bytes before `end` as a frame.
    fn finish(&mut self, end: usize, shape: Shape) -> Progress {
        self.state = State::Between;
        self.open = Open::Nothing;
        self.yielded = Some(end);
        self.position = Position {
            ordinal: self.position.ordinal.next(),
            xml: ByteOffset(self.buffer.offset + end as u64),
        };
        let is_oversized = self.head.is_some();
        Progress::Frame(self.frame(if is_oversized {
            Shape::Oversized
        } else {
            shape
        }))
    }

    fn open_tag(&mut self, at: usize, is_end: bool) {
        self.advance(at);
        self.open = Open::Tag(TagScan::new(is_end));
    }

    /// Goes to the end of the construct that is open.
    fn close(&mut self) -> Closed {
        let at = self.at;
        let rest = &self.visible()[at..];
        let length = rest.len();
        match self.open {
            Open::Nothing => Closed::Nothing,
            Open::Until(terminator) => match memmem::find(rest, terminator) {
                Some(found) => {
                    self.advance(at + found + terminator.len());
                    self.open = Open::Nothing;
                    Closed::Construct
                }
                None => {
                    self.advance(at + (length + 1).saturating_sub(terminator.len()));
                    Closed::Starved
                }
            },
            Open::Tag(mut tag) => match tag.scan(rest) {
                Some((used, end)) => {
                    self.advance(at + used);
                    self.open = Open::Nothing;
                    Closed::Tag(end)
                }
                None => {
                    self.advance(at + length);
                    self.open = Open::Tag(tag);
                    Closed::Starved
                }
            },
        }
    }

    /// What to do when the visible bytes are used up; `None` is to go on.
    fn starved(&mut self) -> Result<Option<Step>, FrameError> {
        if self.is_collecting() && self.buffer.live().len() >= self.record_bytes_max {
            return Ok(self.exceed());
        }
        if !self.has_ended {
            return Ok(Some(Step::Starved));
        }
        let place = match self.state {
            State::Epilogue if self.is_idle() => {
                self.state = State::End;
                return Ok(Some(Step::End));
            }
            State::Record { .. } if self.is_collecting() && self.root_end().is_some() => {
                return Ok(self.close_root());
            }
            State::Prolog => Place::BeforeRoot,
            State::Between | State::Stray => Place::Between(self.position),
            State::Record { .. } => Place::Inside {
                after: self.position,
                start: self.start,
            },
            State::Epilogue | State::End => Place::AfterRoot,
        };
        Err(FrameError::Truncated {
            offset: ByteOffset(self.buffer.offset + self.buffer.live().len() as u64),
            place,
        })
    }

    /// The frame has reached the size bound: cuts it if another record seems to begin inside it,
    /// else goes on without keeping it.
    fn exceed(&mut self) -> Option<Step> {
        let visible = self.visible();
        let place = match self.state {
            State::Record { .. } => restart(visible, self.kind.record_name().as_bytes()),
            _ => None,
        };
        if place.is_some() {
            return self.cut(place);
        }
        let head = visible[..visible.len().min(OVERSIZED_BYTES_KEPT)].to_vec();
        self.head = Some(head);
        self.advance(self.at);
        None
    }

    /// The dump ends with the root's end tag, but a record is open: cuts it where another record
    /// seems to begin, else before that tag.
    fn close_root(&mut self) -> Option<Step> {
        let live = self.buffer.live();
        let place = restart(live, self.kind.record_name().as_bytes()).or(self.root_end());
        self.cut(place)
    }

    fn cut(&mut self, place: Option<usize>) -> Option<Step> {
        match self.finish(place?, Shape::Record) {
            Progress::Frame(frame) => Some(Step::Frame(frame)),
            Progress::Going | Progress::Starved => None,
        }
    }

    /// Where the root's end tag begins, if the live bytes end with it.
    fn root_end(&self) -> Option<usize> {
        let live = self.buffer.live().trim_ascii_end();
        let before = live
            .strip_suffix(b">")?
            .strip_suffix(self.kind.name().as_bytes())?;
        Some(before.strip_suffix(b"</")?.len())
    }
}

/// What became of the construct that is open.
enum Closed {
    Nothing,
    Starved,
    Construct,
    Tag(TagEnd),
}

/// What a tag turns out to be at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TagEnd {
    Start,
    Empty,
    End,
}

/// Finds the end of a tag, over as many portions of bytes as it takes.
#[derive(Clone, Copy, Debug)]
struct TagScan {
    is_end: bool,
    quote: Option<u8>,
    /// Whether the last byte is a slash, which before `>` makes the element empty.
    has_slash: bool,
}

impl TagScan {
    const fn new(is_end: bool) -> Self {
        Self {
            is_end,
            quote: None,
            has_slash: false,
        }
    }

    /// Scans on; the number of bytes up to the end of the tag, and what it is.
    ///
    /// A `>` in quotes does not end a tag. A `<` does, in quotes or not: no attribute may hold
    /// one, so a quote is missing, and the tag must not swallow what follows.
    fn scan(&mut self, bytes: &[u8]) -> Option<(usize, TagEnd)> {
        for (index, byte) in bytes.iter().enumerate() {
            match (self.quote, byte) {
                (_, b'<') => return Some((index, self.kind(false))),
                (None, b'>') => return Some((index + 1, self.kind(self.has_slash))),
                (None, b'"' | b'\'') => self.quote = Some(*byte),
                (Some(quote), _) if quote == *byte => self.quote = None,
                _ => {}
            }
            self.has_slash = *byte == b'/';
        }
        None
    }

    const fn kind(self, is_empty: bool) -> TagEnd {
        match (self.is_end, is_empty) {
            (true, _) => TagEnd::End,
            (false, true) => TagEnd::Empty,
            (false, false) => TagEnd::Start,
        }
    }
}

const CDATA_END: &[u8] = b"]]>";

/// What stands at some place.
enum Markup<'a> {
    Text,
    Start(&'a [u8]),
    End(&'a [u8]),
    /// Something whose content is not markup: `opener` bytes, then anything up to `terminator`.
    Skip {
        opener: usize,
        terminator: &'static [u8],
    },
    /// `<!` and neither a comment nor CDATA.
    Declaration,
}

/// Says what stands at the start of `bytes`; `None` if more bytes are needed.
fn markup(bytes: &[u8]) -> Option<Markup<'_>> {
    match bytes {
        [] | [b'<'] => None,
        [b'<', b'!' | b'?', ..] => skip_or_declaration(bytes),
        [b'<', b'/', rest @ ..] => Some(Markup::End(name(rest)?)),
        [b'<', rest @ ..] => Some(Markup::Start(name(rest)?)),
        _ => Some(Markup::Text),
    }
}

fn skip_or_declaration(bytes: &[u8]) -> Option<Markup<'_>> {
    const SKIPS: [(&[u8], &[u8]); 3] =
        [(b"<!--", b"-->"), (b"<![CDATA[", CDATA_END), (b"<?", b"?>")];
    for (opener, terminator) in SKIPS {
        if bytes.starts_with(opener) {
            let opener = opener.len();
            return Some(Markup::Skip { opener, terminator });
        }
        if opener.starts_with(bytes) {
            return None;
        }
    }
    Some(Markup::Declaration)
}

/// The name at the start of `bytes`; `None` if it may be longer than what is there.
fn name(bytes: &[u8]) -> Option<&[u8]> {
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>' | b'<');
    match bytes.iter().take(NAME_BYTES_MAX).position(is_end) {
        Some(length) => Some(&bytes[..length]),
        None => bytes.get(..NAME_BYTES_MAX),
    }
}

/// Where something may begin that can hide or move the end of a record: `<!`, `<?`, and tags whose
/// names begin like that of a record, which that of a root does too.
#[derive(Clone, Copy, Debug)]
struct Marks {
    /// The first two letters of the name.
    letters: [u8; 2],
    /// The whole name in one number, as it lies in memory, and which bits of it are the name's.
    name: (u64, u64),
}

impl Marks {
    /// The longest beginning that is looked at, `</ar`.
    const LENGTH: usize = 4;
    /// How many places are looked at together.
    const BLOCK: usize = 64;
    const REACH: usize = Self::BLOCK + Self::LENGTH - 1;

    fn new(kind: Kind) -> Self {
        let name = kind.record_name().as_bytes();
        let (mut whole, mut mask) = ([0; 8], [0; 8]);
        whole[..name.len()].copy_from_slice(name);
        mask[..name.len()].fill(0xFF);
        Self {
            letters: [name[0], name[1]],
            name: (u64::from_ne_bytes(whole), u64::from_ne_bytes(mask)),
        }
    }

    /// Whether `bytes` begin with the whole name, if as much is there as it is compared with.
    fn is_name_at(self, bytes: &[u8]) -> bool {
        let (name, mask) = self.name;
        let first = bytes.first_chunk().copied();
        first.is_some_and(|first| u64::from_ne_bytes(first) & mask == name)
    }

    /// The first of them in `bytes` from `from` on, if as much of it is there as is looked at.
    fn find(self, bytes: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        while let Some(block) = bytes.get(at..)?.first_chunk() {
            let mut likely = self.likely(block);
            while likely != 0 {
                let place = at + likely.trailing_zeros() as usize;
                // A slash was seen, and what it belongs to is the bracket before it.
                let start = place.saturating_sub(usize::from(bytes[place] == b'/'));
                if start >= from && self.is_at(&bytes[start..]) {
                    return Some(start);
                }
                likely &= likely - 1;
            }
            at += Self::BLOCK;
        }
        // One that ends an element may begin in the last block, and be seen here.
        let rest = at.saturating_sub(1).max(from);
        (rest..bytes.len()).find(|&start| self.is_at(&bytes[start..]))
    }

    /// Where there may be one in a block, a bit for each byte: what says so is its bracket, or if it ends
    /// an element the slash behind that.
    ///
    /// They are rare, so this has no branches: it is what splitting spends its time with.
    fn likely(self, block: &[u8; Self::REACH]) -> u64 {
        let [first, second] = self.letters;
        let mut likely = 0;
        for at in (0..Self::BLOCK).step_by(WIDTH) {
            let shifted = |by| Lanes::new(lanes::first(&block[at + by..]));
            let (a, b, c) = (shifted(0), shifted(1), shifted(2));
            let opens = equal(a, b'<');
            let hides = equal(b, b'!') | equal(b, b'?');
            let names = equal(b, first) & equal(c, second);
            let found = (opens & hides) | (names & (opens | equal(a, b'/')));
            likely |= u64::from(found.to_bitmask()) << at;
        }
        likely
    }

    fn is_at(self, bytes: &[u8]) -> bool {
        match bytes {
            [b'<', b'!' | b'?', _, _, ..] => true,
            [b'<', b'/', a, b, ..] | [b'<', a, b, _, ..] => [*a, *b] == self.letters,
            _ => false,
        }
    }
}

/// The first place inside the record `bytes` where another record seems to begin.
///
/// A function of the bytes alone, so that a run which goes on at that place sees the same records.
fn restart(bytes: &[u8], record: &[u8]) -> Option<usize> {
    let mut open = Vec::<&[u8]>::new();
    let mut at = 0;
    let mut can_hide = true;
    while let Some(skipped) = memchr(b'<', &bytes[at..]) {
        at += skipped;
        match markup(&bytes[at..])? {
            Markup::Skip { opener, terminator } => {
                at += opener;
                // Where one is not closed, none hides anything: markup that comes to its end is
                // searched only once.
                let end = can_hide.then(|| memmem::find(&bytes[at..], terminator));
                match end.flatten() {
                    Some(end) => at += end + terminator.len(),
                    None => can_hide = false,
                }
            }
            Markup::Declaration | Markup::Text => at += 1,
            Markup::Start(name) => {
                let is_child = open == [record];
                if name == record && at > 0 && (is_child || is_first_on_line(bytes, at)) {
                    return Some(at);
                }
                let (length, end) = TagScan::new(false).scan(&bytes[at + 1..])?;
                if end == TagEnd::Start && open.len() < NESTING_MAX {
                    open.push(name);
                }
                at += 1 + length;
            }
            Markup::End(name) => {
                // An end tag closes what is open inside its element too; never the record.
                if let Some(index) = open.iter().skip(1).rposition(|open| *open == name) {
                    open.truncate(1 + index);
                }
                at += 1;
            }
        }
    }
    None
}

fn is_first_on_line(bytes: &[u8], at: usize) -> bool {
    let before = bytes[..at].iter().rev();
    let mut before = before.skip_while(|byte| matches!(byte, b' ' | b'\t'));
    matches!(before.next(), Some(b'\n' | b'\r'))
}

/// The length of the document type declaration that `bytes` begin with.
fn doctype_end(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut quote, mut brackets) = (0, None, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match (quote, byte) {
            (Some(open), _) if open == *byte => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(*byte),
            (None, b'<') if bytes[at..].starts_with(b"<!--") => {
                at += 4 + memmem::find(&bytes[at + 4..], b"-->")?;
            }
            (None, b'[') => brackets += 1,
            (None, b']') => brackets = brackets.saturating_sub(1),
            (None, b'>') if brackets == 0 => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    None
}

fn check_root(expected: Kind, name: &[u8]) -> Result<(), FrameError> {
    let found = String::from_utf8_lossy(name).into_owned();
    if found == expected.name() {
        return Ok(());
    }
    if found == expected.record_name() {
        return Err(FrameError::NoRoot { expected });
    }
    Err(match found.parse() {
        Ok(found) => FrameError::OtherKind { expected, found },
        Err(_) => FrameError::OtherRoot { expected, found },
    })
}

/// Names something that is not XML by its first bytes.
fn looks_like(bytes: &[u8]) -> &'static str {
    if bytes.get(257..262) == Some(b"ustar") {
        "is a tar archive; unpack it, and compress the dump in it with gzip"
    } else if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        "is UTF-16; dumps are UTF-8, download it again"
    } else if bytes.starts_with(b"\x1f\x8b") {
        "is compressed by gzip a second time; unpack it once"
    } else if bytes.starts_with(b"{") || bytes.starts_with(b"[") {
        "looks like JSON; download the XML dump"
    } else {
        "does not begin with `<`; download it again"
    }
}

/// Bytes that are not yet used, in one piece.
#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    filled: usize,
    /// Where `bytes[start]` is in the XML.
    offset: u64,
}

impl Buffer {
    fn new(offset: ByteOffset) -> Self {
        Self {
            bytes: vec![0; CAPACITY],
            start: 0,
            filled: 0,
            offset: offset.0,
        }
    }

    fn live(&self) -> &[u8] {
        &self.bytes[self.start..self.filled]
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        self.offset += count as u64;
        assert!(self.start <= self.filled, "only live bytes are consumed");
    }

    fn room(&mut self) -> &mut [u8] {
        let is_too_large = self.bytes.len() > CAPACITY && self.live().len() < ROOM;
        if is_too_large || self.bytes.len() - self.filled < ROOM {
            self.make_room();
        }
        &mut self.bytes[self.filled..]
    }

    /// Moves the live bytes to the front. Doubles the capacity if they are many, so that each byte
    /// of a huge record is moved a constant number of times, and goes back if they are few.
    fn make_room(&mut self) {
        self.bytes.copy_within(self.start..self.filled, 0);
        self.filled -= self.start;
        self.start = 0;
        let capacity = self.bytes.len();
        if capacity - self.filled < ROOM {
            self.bytes.resize(2 * capacity, 0);
        } else if self.filled < ROOM {
            self.bytes.truncate(CAPACITY);
            self.bytes.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The smallest portions that there are, and those of production.
    const PORTIONS: [usize; 4] = [1, 2, 7, 64 * 1024];

    const BOUND: usize = 64 * 1024 * 1024;

    /// How one dump is framed: its kind, the size bound, and which records a transcoder would
    /// find to be unbalanced.
    #[derive(Clone, Copy)]
    struct Setting {
        kind: Kind,
        record_bytes_max: usize,
        is_unbalanced: fn(&[u8]) -> bool,
    }

    const ARTISTS: Setting = Setting {
        kind: Kind::Artists,
        record_bytes_max: BOUND,
        is_unbalanced: |_| false,
    };

    const LABELS: Setting = Setting {
        kind: Kind::Labels,
        ..ARTISTS
    };

    type Frames = Vec<(Frame, Vec<u8>)>;

    /// Frames `portions`, the first of which begins at `from`, to the end or an error.
    fn drive<'a>(
        setting: Setting,
        from: Position,
        portions: impl Iterator<Item = &'a [u8]>,
    ) -> (Frames, Result<(), FrameError>) {
        let mut framer = Framer::new(setting.kind, from, setting.record_bytes_max);
        let mut portions = portions.filter(|portion| !portion.is_empty());
        let mut frames = Frames::new();
        loop {
            match framer.step() {
                Ok(Step::Starved) => {
                    let portion = portions.next().unwrap_or_default();
                    framer.room()[..portion.len()].copy_from_slice(portion);
                    framer.filled(portion.len());
                }
                Ok(Step::Frame(mut frame)) => {
                    if frame.shape == Record && (setting.is_unbalanced)(framer.bytes()) {
                        frame = framer.resync().unwrap_or(frame);
                    }
                    frames.push((frame, framer.bytes().to_vec()));
                }
                Ok(Step::End) => return (frames, Ok(())),
                Err(error) => return (frames, Err(error)),
            }
        }
    }

    /// Frames a dump in every way that must not matter: portions of any size, two portions split
    /// anywhere if it is short, and again from every boundary.
    fn frames(setting: Setting, xml: &[u8]) -> (Frames, Result<(), FrameError>) {
        let expected = drive(setting, Position::START, xml.chunks(64 * 1024));
        for size in PORTIONS {
            let actual = drive(setting, Position::START, xml.chunks(size));
            assert_eq!(actual, expected, "portions of {size} bytes");
        }
        if xml.len() < 400 {
            for split in 0..xml.len() {
                let (first, second) = xml.split_at(split);
                let actual = drive(setting, Position::START, [first, second].into_iter());
                assert_eq!(actual, expected, "split at {split}");
            }
        }
        let (frames, end) = &expected;
        for (index, (frame, _)) in frames.iter().enumerate() {
            let at = usize::try_from(frame.position.xml.0).unwrap();
            let actual = drive(setting, frame.position, xml[at..].chunks(64 * 1024));
            let suffix = (frames[index + 1..].to_vec(), end.clone());
            assert_eq!(actual, suffix, "from boundary {}", frame.position.ordinal);
        }
        expected
    }

    use Shape::{Oversized, Record, Stray};

    /// The dump has these frames, with the right ordinals and offsets, and ends as said: `""`, or
    /// the start of an error.
    #[track_caller]
    fn check_with(setting: Setting, xml: &str, expected: &[(Shape, &str)], message: &str) {
        let (frames, end) = frames(setting, xml.as_bytes());
        let actual = frames
            .iter()
            .map(|(frame, bytes)| (frame.shape, std::str::from_utf8(bytes).unwrap()))
            .collect::<Vec<_>>();
        assert_eq!(actual, expected);
        for (index, (frame, bytes)) in frames.iter().enumerate() {
            assert_eq!(frame.position.ordinal.0, index as u64 + 1);
            let start = usize::try_from(frame.start.0).unwrap();
            let end = usize::try_from(frame.position.xml.0).unwrap();
            let whole = &xml.as_bytes()[start..end];
            assert_eq!(&whole[..bytes.len()], bytes);
            assert!(frame.shape == Oversized || whole.len() == bytes.len());
        }
        let end = end.map_or_else(|error| error.to_string(), |()| String::new());
        assert!(end.starts_with(message), "{end}");
        assert_eq!(end.is_empty(), message.is_empty(), "{end}");
    }

    #[track_caller]
    fn check(xml: &str, expected: &[(Shape, &str)], message: &str) {
        check_with(ARTISTS, xml, expected, message);
    }

    #[test]
    fn records_are_framed() {
        let (one, two) = (
            "<artist><id>1</id></artist>",
            "<artist id='2'>\r\n</artist >",
        );
        check(
            &format!("<artists>{one}{two}</artists>"),
            &[(Record, one), (Record, two)],
            "",
        );
        check(
            &format!(
                "\u{feff}<?xml version=\"1.0\"?>\r\n<artists count=\">\">\n {one}\t\n{two}</artists >\n"
            ),
            &[(Record, one), (Record, two)],
            "",
        );
        check("<artists/>", &[], "");
        check("<artists></artists>", &[], "");
        check("<artists><artist/></artists>", &[(Record, "<artist/>")], "");
    }

    #[test]
    fn whole_names_are_compared() {
        let release = Setting {
            kind: Kind::Releases,
            ..ARTISTS
        };
        let record = "<release><released>x</released><release_id/><re>release</re></release>";
        check_with(
            release,
            &format!("<releases>{record}</releases>"),
            &[(Record, record)],
            "",
        );
    }

    #[test]
    fn elements_of_the_records_name_nest() {
        let record = "<label><sublabels><label id='1'>a</label><label/><label\nid='>'/><label / a=/b></label></sublabels></label>";
        let xml = format!("<labels>{record}{record}</labels>");
        check_with(LABELS, &xml, &[(Record, record), (Record, record)], "");
    }

    #[test]
    fn what_hides_markup_ends_no_record() {
        for hidden in [
            "<!-- </artist> -- <artist> -->",
            "<!---->",
            "<![CDATA[</artist>]] ]]>",
            "<?note </artist> ? > ?>",
            "<name a='/>'>>]]>--></name>",
            "a < b <",
            "<artists></artists>",
            "<!x>",
        ] {
            let record = format!("<artist a=\"/>\" b='>'>{hidden}</artist>");
            let expected = [(Record, &*record), (Record, "<artist/>")];
            check(
                &format!("<artists>{record}<artist/></artists>"),
                &expected,
                "",
            );
        }
    }

    #[test]
    fn comments_and_instructions_may_stand_anywhere() {
        let between = "<!-- <artist> </artists> --> <?x </artists>?>";
        let xml = format!("{between}<artists>{between}<artist/>{between}</artists>{between}");
        check(&xml, &[(Record, "<artist/>")], "");
    }

    #[test]
    fn document_type_declarations_are_skipped() {
        for doctype in [
            "<!DOCTYPE artists>",
            "<!DOCTYPE artists SYSTEM \">[\">",
            "<!DOCTYPE artists [<!ELEMENT artist (#PCDATA)><!ENTITY a ']>'><!-- don't ]> -->]>",
        ] {
            let xml = format!("{doctype}<artists><artist/></artists>");
            check(&xml, &[(Record, "<artist/>")], "");
        }
    }

    #[test]
    fn a_document_type_declaration_without_end_is_an_error() {
        let xml = format!("<!DOCTYPE {}", " ".repeat(DOCTYPE_BYTES_MAX));
        let end = drive(ARTISTS, Position::START, xml.as_bytes().chunks(ROOM)).1;
        let offset = ByteOffset(0);
        assert_eq!(end, Err(FrameError::LongDoctype { offset }));
    }

    #[test]
    fn what_is_stray_is_a_frame() {
        let one = "<artist><id>1</id></artist>";
        for stray in [
            "text\n",
            "<other a='>'><x/></other>",
            "</artist>",
            "</other>",
            "<![CDATA[ <artist> ]]>",
            "<!DOCTYPE x>",
            "<artistes/> <!-- <artist> --> &amp;",
            "<",
            "< artist>",
        ] {
            let xml = format!("<artists>{one} {stray}{one}{stray}</artists>");
            let expected = [(Record, one), (Stray, stray), (Record, one), (Stray, stray)];
            check(&xml, &expected, "");
        }
    }

    #[test]
    fn another_root_is_an_error() {
        for (xml, message) in [
            ("<labels>", "this is a dump of labels, not of artists"),
            ("<artist>", "the content begins with the record `<artist>`"),
            ("<html>", "the root is `<html>` instead of `<artists>`"),
            ("text", "not XML: the content does not begin with `<`"),
            ("{}", "not XML: the content looks like JSON"),
            ("</artists>", "not XML"),
            ("<![CDATA[", "not XML"),
            ("\u{1f}", "not XML"),
        ] {
            check(xml, &[], message);
        }
        for (bytes, message) in [
            (&b"\xff\xfe<\0"[..], "UTF-16"),
            (b"\x1f\x8b\x08", "a second time"),
        ] {
            let error = frames(ARTISTS, bytes).1.unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        let mut tar = [b'd'; 600];
        tar[257..262].copy_from_slice(b"ustar");
        let error = frames(ARTISTS, &tar).1.unwrap_err().to_string();
        assert!(error.contains("tar archive"), "{error}");
    }

    #[test]
    fn nothing_may_follow_the_root() {
        check("<artists/><!-- --> ", &[], "");
        for (rest, at) in [
            ("x", 10),
            (" <artist/>", 11),
            ("<![CDATA[]]>", 10),
            ("\n</artists>", 11),
        ] {
            let message =
                format!("there is more content after the end of the root, at byte {at} of");
            check(&format!("<artists/>{rest}"), &[], &message);
        }
        for rest in ["<", "<!", "<!-- "] {
            check(&format!("<artists/>{rest}"), &[], "truncated at byte");
        }
    }

    #[test]
    fn a_cut_dump_is_truncated_at_its_last_byte() {
        let xml = "<?x?><!DOCTYPE artists><artists> <artist a='1'>\n<id>1</id></artist>\n<artist/><!-- --></artists>";
        let (whole, _) = frames(ARTISTS, xml.as_bytes());
        for cut in 0..xml.len() {
            let (frames, end) = drive(ARTISTS, Position::START, xml.as_bytes()[..cut].chunks(7));
            assert!(whole.starts_with(&frames), "cut at {cut}");
            let error = end.expect_err("a cut dump has no end").to_string();
            let message = format!("truncated at byte {cut} of the XML, ");
            assert!(error.starts_with(&message), "cut at {cut}: {error}");
        }
    }

    #[test]
    fn truncation_says_in_what() {
        for (xml, place) in [
            ("", "0 of the XML, before the root;"),
            ("<artists", "8 of the XML, before the root;"),
            (
                "<artists> ",
                "10 of the XML, after record 0, between records;",
            ),
            (
                "<artists><art",
                "13 of the XML, after record 0, between records;",
            ),
            (
                "<artists> <artist>",
                "18 of the XML, inside record 1 which begins at byte 10;",
            ),
            (
                "<artists/><!--",
                "14 of the XML, after the root, inside a comment or",
            ),
        ] {
            check(xml, &[], &format!("truncated at byte {place}"));
        }
    }

    #[test]
    fn a_tag_without_its_quote_swallows_nothing() {
        let broken = "<artist a=\"1><id>1</id></artist>";
        let xml = format!("<artists>{broken}<artist/></artists>");
        check(&xml, &[(Record, broken), (Record, "<artist/>")], "");
    }

    #[test]
    fn the_end_of_the_root_shows_a_missing_end_tag() {
        let good = "<artist><id>2</id></artist>";
        for broken in [
            "<artist>",
            "<artist><id>1</id>",
            "<artist><id>1\n \t",
            "<artist><!-- \n",
        ] {
            let xml = format!("<artists>{broken}{good}{good}</artists>");
            check(
                &xml,
                &[(Record, broken), (Record, good), (Record, good)],
                "",
            );
            let xml = format!("<artists>{good}{broken}</artists>\n");
            check(&xml, &[(Record, good), (Record, broken)], "");
        }
        // Without a place where the next record seems to begin, all is one malformed record.
        let swallowed = format!("<artist><id>1{good}");
        let xml = format!("<artists>{swallowed}</artists>");
        check(&xml, &[(Record, &swallowed)], "");
    }

    #[test]
    fn the_transcoder_shows_a_missing_end_tag() {
        let unbalanced = Setting {
            is_unbalanced: |record| record.starts_with(b"<artist><x>"),
            ..ARTISTS
        };
        let good = "<artist><id>2</id></artist>";
        let (child, deeper) = ("<artist><x></x>", "<artist><x>");
        let xml = format!("<artists>{child}{good}</artist>{good}</artists>");
        let whole = format!("{child}{good}</artist>");
        check(&xml, &[(Record, &whole), (Record, good)], "");
        let stray = (Stray, "</artist>");
        let expected = [(Record, child), (Record, good), stray, (Record, good)];
        check_with(unbalanced, &xml, &expected, "");

        let whole = format!("{deeper}{good}</artist>");
        let xml = format!("<artists>{whole}{good}</artists>");
        check_with(unbalanced, &xml, &[(Record, &whole), (Record, good)], "");
    }

    #[test]
    fn nested_elements_are_taken_for_records_only_on_a_line_of_their_own() {
        let unbalanced = Setting {
            is_unbalanced: |record| record.starts_with(b"<label><x>"),
            ..LABELS
        };
        let broken = "<label><x><sublabels><label>1</label></sublabels></label>";
        let xml = format!("<labels>{broken}<label/></labels>");
        check_with(
            unbalanced,
            &xml,
            &[(Record, broken), (Record, "<label/>")],
            "",
        );

        let xml =
            "<labels><label><x><sublabels>\n <label>1</label></sublabels></label><label/></labels>";
        let expected = [
            (Record, "<label><x><sublabels>\n "),
            (Record, "<label>1</label>"),
            (Stray, "</sublabels></label>"),
            (Record, "<label/>"),
        ];
        check_with(unbalanced, xml, &expected, "");
    }

    #[test]
    fn restarts_are_children_or_on_a_line_of_their_own() {
        for (record, expected) in [
            ("<a></a>", None),
            ("<a><a>", Some(3)),
            ("<a><b><a>", None),
            ("<a><b>\n<a>", Some(7)),
            ("<a><b>\r \t<a>", Some(9)),
            ("<a><b>\nx<a>", None),
            ("<a><b></b><a>", Some(10)),
            ("<a><b/><a>", Some(7)),
            ("<a><b><c></b><a>", Some(13)),
            ("<a></b></a></a><a>", Some(15)),
            ("<a><!-- \n<a> --><![CDATA[<a>]]><?<a>?><ab><a>", None),
            ("<a><!-- <b>\n<a>", Some(12)),
            ("<a><!-- <![CDATA[\n<a>]]>", Some(18)),
            ("<a><b x='1>\n<a>", Some(12)),
            ("<a>text < \n<", None),
            ("<a><!x><a", None),
        ] {
            assert_eq!(restart(record.as_bytes(), b"a"), expected, "{record}");
        }
    }

    #[test]
    fn a_record_over_the_bound_is_passed_over() {
        let bounded = Setting {
            record_bytes_max: 40,
            ..ARTISTS
        };
        let fitting = format!("<artist>{}</artist>", "x".repeat(40 - 17));
        let larger = format!("<artist>{}</artist>", "x".repeat(41 - 17));
        let huge = format!("<artist><![CDATA[{}</artist>]]></artist>", "x".repeat(1000));
        let stray = "s".repeat(50);
        let xml = format!("<artists>{fitting}{larger}{huge}{stray}<artist/></artists>");
        let expected = [
            (Record, &*fitting),
            (Oversized, &larger[..40]),
            (Oversized, &huge[..40]),
            (Oversized, &stray[..40]),
            (Record, "<artist/>"),
        ];
        check_with(bounded, &xml, &expected, "");
        let cut = format!("<artists>{larger}{}", &huge[..500]);
        let message = "truncated at byte 550 of the XML, inside record 2 which begins at byte 50";
        check_with(bounded, &cut, &expected[1..2], message);
    }

    #[test]
    fn any_bound_is_safe() {
        for record_bytes_max in 0..30 {
            let setting = Setting {
                record_bytes_max,
                ..ARTISTS
            };
            let xml = b"<artists><artist a='1'><!-- </artist> --></artist><artist/>s</artists>";
            let (frames, end) = frames(setting, xml);
            assert_eq!(end, Ok(()));
            assert_eq!(frames.len(), 3, "bound {record_bytes_max}");
        }
    }

    #[test]
    fn a_missing_end_tag_shows_at_the_bound() {
        let bounded = Setting {
            record_bytes_max: 60,
            ..ARTISTS
        };
        let (broken, good) = ("<artist><id>1</id>", "<artist><id>2</id></artist>");
        let xml = format!("<artists>{broken}{}</artists>", good.repeat(9));
        let mut expected = vec![(Record, broken)];
        expected.extend([(Record, good); 9]);
        check_with(bounded, &xml, &expected, "");
    }

    #[test]
    fn of_an_oversized_record_the_start_is_kept() {
        let bounded = Setting {
            record_bytes_max: 3 * OVERSIZED_BYTES_KEPT,
            ..ARTISTS
        };
        let xml = format!(
            "<artists><artist>{}</artist></artists>",
            "x".repeat(1 << 20)
        );
        let (frames, end) = drive(bounded, Position::START, xml.as_bytes().chunks(60_000));
        assert_eq!(end, Ok(()));
        let (frame, bytes) = &frames[0];
        assert_eq!(frame.shape, Oversized);
        assert_eq!(bytes, &xml.as_bytes()[9..9 + OVERSIZED_BYTES_KEPT]);
        assert_eq!(frame.position.xml.0, xml.len() as u64 - 10);
    }

    #[test]
    fn memory_grows_for_a_huge_record_only() {
        let small = "<artist><id>1</id></artist>\n".repeat(40_000);
        let huge = format!("<artist>{}</artist>", "x".repeat(5 << 20));
        let xml = format!("<artists>{small}{huge}{small}</artists>");
        let mut framer = Framer::new(Kind::Artists, Position::START, BOUND);
        let mut portions = xml.as_bytes().chunks(ROOM);
        loop {
            match framer.step().unwrap() {
                Step::Starved => {
                    let portion = portions.next().unwrap_or_default();
                    framer.room()[..portion.len()].copy_from_slice(portion);
                    framer.filled(portion.len());
                }
                Step::Frame(frame) => match (frame.position.ordinal.0, framer.buffer.bytes.len()) {
                    (..=40_000 | 50_000.., capacity) => assert_eq!(capacity, CAPACITY),
                    (_, capacity) => assert!(capacity < 3 * huge.len()),
                },
                Step::End => break,
            }
        }
        assert_eq!(framer.buffer.bytes.capacity(), CAPACITY);
    }

    #[test]
    fn marks_are_found_wherever_they_stand() {
        let marks = Marks::new(Kind::Artists);
        for before in 0..3 * Marks::BLOCK {
            for (filler, mark) in [("x", "</ar"), ("<", "<art"), ("</", "<!--"), ("<a", "<?p?")] {
                let start = filler.len() * before;
                let text = format!("{}{mark}", filler.repeat(before));
                let bytes = text.as_bytes();
                for from in 0..=start {
                    assert_eq!(marks.find(bytes, from), Some(start));
                }
                assert_eq!(marks.find(bytes, start + 1), None);
                // The end of what is there may be the start of a mark.
                assert_eq!(marks.find(&bytes[..bytes.len() - 1], 0), None);
            }
        }
    }

    /// A piece of content between the root's tags, and the frame that it is, if any.
    fn piece() -> impl Strategy<Value = (String, Option<Shape>)> {
        let hidden = || {
            prop::sample::select(vec![
                "",
                "text",
                "<label>x</label>",
                "<label/>",
                "<label a='/>'/>",
                "<a>&amp;</a>",
                "<!-- </label> -->",
                "<![CDATA[<label>]]>",
                "<?p </label>?>",
                "<labels/>",
                "a < b",
                "<labelled>",
                "\n",
                "\u{fffd}é",
                "]]>",
                "-->",
            ])
        };
        let record = prop::collection::vec(hidden(), 0..6)
            .prop_map(|inner| (format!("<label>{}</label>", inner.concat()), Some(Record)));
        let nothing = prop::sample::select(vec![" ", "\r\n", "<!-- <label> -->", "<?p ?>"])
            .prop_map(|text| (text.to_owned(), None));
        let stray = prop::sample::select(vec!["text", "</label>", "<a/>", "<![CDATA[<label>]]>"])
            .prop_map(|text| (text.to_owned(), Some(Stray)));
        prop_oneof![4 => record, 2 => nothing, 1 => stray]
    }

    /// What the pieces must come to, by the rules and not by scanning: everything after a stray
    /// piece that is no record belongs to the stray frame.
    fn model(pieces: &[(String, Option<Shape>)]) -> Vec<(Shape, String)> {
        let mut frames = Vec::<(Shape, String)>::new();
        let mut is_in_stray = false;
        for (text, shape) in pieces {
            match (shape, frames.last_mut()) {
                (Some(Record), _) => frames.push((Record, text.clone())),
                (_, Some((_, stray))) if is_in_stray => stray.push_str(text),
                (Some(_), _) => frames.push((Stray, text.clone())),
                (None, _) => {}
            }
            is_in_stray = *shape == Some(Stray) || is_in_stray && *shape != Some(Record);
        }
        frames
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn frames_are_those_of_the_model(pieces in prop::collection::vec(piece(), 0..8)) {
            let content = pieces.iter().map(|(text, _)| &**text).collect::<String>();
            let xml = format!("<labels>{content}</labels>");
            let expected = model(&pieces);
            let expected = expected.iter().map(|(shape, text)| (*shape, &**text));
            check_with(LABELS, &xml, &expected.collect::<Vec<_>>(), "");
        }

        /// Whatever the bytes are: portions and boundaries change nothing, and what is in no
        /// frame has no meaning.
        #[test]
        fn nothing_is_lost_and_portions_do_not_matter(
            tokens in prop::collection::vec(prop::sample::select(vec![
                "<artist>", "</artist>", "<artist", "</artists>", "<!--", "-->", "<![CDATA[", "]]>",
                "<?", "?>", "<", ">", "/>", "\"", "'", "!", "x", " ", "\n", "<a>", "</a>",
            ]), 0..24),
            record_bytes_max in prop_oneof![Just(BOUND), 0_usize..80],
        ) {
            let is_unbalanced: fn(&[u8]) -> bool = |record| record.len().is_multiple_of(2);
            let setting = Setting { record_bytes_max, is_unbalanced, ..ARTISTS };
            let xml = format!("<artists>{}</artists>", tokens.concat());
            let (frames, end) = frames(setting, xml.as_bytes());
            let mut before = 9;
            for (frame, _) in &frames {
                let start = usize::try_from(frame.start.0).unwrap();
                prop_assert_eq!(meaning(&xml[before..start]), "");
                before = usize::try_from(frame.position.xml.0).unwrap();
            }
            if end.is_ok() {
                let after = meaning(&xml[before..]).strip_prefix("</artists>").unwrap();
                prop_assert_eq!(meaning(after), "");
            }
        }
    }

    /// The text from its first byte on that is not space, a comment or an instruction.
    fn meaning(text: &str) -> &str {
        let text = text.trim_start();
        let rest = |opener: &str, terminator: &str| {
            let (_, rest) = text.strip_prefix(opener)?.split_once(terminator)?;
            Some(meaning(rest))
        };
        rest("<!--", "-->")
            .or_else(|| rest("<?", "?>"))
            .unwrap_or(text)
    }
}
