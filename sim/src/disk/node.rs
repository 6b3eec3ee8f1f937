//! The bytes of one file: what the program reads, what a power loss cannot take away, and the
//! changes between the two.
//!
//! A write goes to the page cache. It is cut at page borders into chunks, because pages reach the
//! disk one by one and in any order; a truncation is one change. A sync makes all of them durable.
//!
//! A **failed** sync does what Linux does ("Can applications recover from fsync failures?",
//! USENIX ATC 2020): the pages are marked clean although they did not reach the disk. Reading still
//! shows them, the next sync succeeds, and they are still not durable. Such changes are *forsaken*
//! here: no later sync saves them, but a crash may find them on the disk, as some did get there.

use std::cmp::Ordering;
use std::ops::Deref;
use std::sync::Arc;

use crate::disk::image::Model;
use crate::disk::survival::Subsets;
use crate::tape::Tape;

/// Bytes in a page: what the disk writes as one.
pub const PAGE_SIZE: usize = 4096;

/// What a torn page holds where the new bytes did not arrive.
const GARBAGE: u8 = 0xa5;

/// The content of a file, shared until somebody writes.
///
/// Comparing two that are one costs nothing: most files are the same in most images, and some of
/// them are whole dumps.
#[derive(Clone, Debug, Default)]
pub(super) struct Bytes(Arc<Vec<u8>>);

impl Bytes {
    fn make_mut(&mut self) -> &mut Vec<u8> {
        Arc::make_mut(&mut self.0)
    }
}

impl From<Arc<Vec<u8>>> for Bytes {
    fn from(bytes: Arc<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Ord for Bytes {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) {
            return Ordering::Equal;
        }
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Bytes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Bytes {}

/// A file without its names.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// What a reader sees.
    content: Bytes,
    /// What was durable before the first of the changes.
    base: Bytes,
    /// In the order in which they were made; the first is not durable.
    changes: Vec<Change>,
    /// How many open handles there are.
    pub(super) handles: u32,
    /// Whether somebody has the lock.
    pub(super) locked: bool,
}

#[derive(Clone, Debug)]
struct Change {
    edit: Edit,
    fate: Fate,
}

#[derive(Clone, Debug)]
enum Edit {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The next sync makes it durable.
    Pending,
    /// A sync failed: no later one makes it durable.
    Forsaken,
    /// Durable, kept behind a forsaken change so that the order stays known.
    Durable,
}

/// What becomes of a change in a power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Lost,
    Whole,
    /// The first half, and the file ends there if it was to grow.
    Short,
    /// The first half, then garbage.
    Garbage,
}

impl Node {
    /// A file whose content is durable.
    pub(super) fn durable(content: &Bytes) -> Self {
        Self {
            content: content.clone(),
            base: content.clone(),
            ..Self::default()
        }
    }

    pub(super) const fn content(&self) -> &Bytes {
        &self.content
    }

    pub(super) fn len(&self) -> usize {
        self.content.len()
    }

    /// Writes at `offset`; a gap before it reads as zeros.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (page, others) = rest.split_at(rest.len().min(PAGE_SIZE - at % PAGE_SIZE));
            self.change(Edit::Write {
                offset: at,
                bytes: page.to_vec(),
            });
            at += page.len();
            rest = others;
        }
    }

    /// Cuts or extends the file to `length` bytes.
    pub(super) fn truncate(&mut self, length: usize) {
        if length != self.len() {
            self.change(Edit::Truncate(length));
        }
    }

    fn change(&mut self, edit: Edit) {
        edit.apply(Part::Whole, self.content.make_mut());
        self.changes.push(Change {
            edit,
            fate: Fate::Pending,
        });
    }

    /// Makes every change durable that no failed sync has forsaken.
    pub(super) fn sync(&mut self) {
        self.settle(Fate::Durable);
        let durable = self
            .changes
            .iter()
            .take_while(|change| change.fate == Fate::Durable)
            .count();
        for change in self.changes.drain(..durable) {
            change.edit.apply(Part::Whole, self.base.make_mut());
        }
    }

    /// What a failed sync does: everything pending is clean from now on and not durable.
    pub(super) fn forsake(&mut self) {
        self.settle(Fate::Forsaken);
    }

    fn settle(&mut self, fate: Fate) {
        for change in &mut self.changes {
            if change.fate == Fate::Pending {
                change.fate = fate;
            }
        }
    }

    /// Flips the bits of `mask` in a byte, in the page cache and on the disk.
    pub(super) fn rot(&mut self, offset: usize, mask: u8) {
        assert!(self.changes.is_empty(), "only a file at rest rots");
        self.content.make_mut()[offset] ^= mask;
        self.base = self.content.clone();
    }

    /// Every content, each once, that a crash can leave.
    pub(super) fn outcomes(&self, model: Model) -> Vec<Bytes> {
        let mut outcomes = Vec::new();
        match model {
            Model::Kill => outcomes.push(self.content.clone()),
            Model::Strict => outcomes.push(self.after(&vec![Part::Lost; self.optional()])),
            Model::Full | Model::Unordered => self.whole_outcomes(&mut outcomes),
            Model::Torn => {
                self.whole_outcomes(&mut outcomes);
                self.torn_outcomes(&mut outcomes);
            }
        }
        outcomes.sort();
        outcomes.dedup();
        outcomes
    }

    fn whole_outcomes(&self, outcomes: &mut Vec<Bytes>) {
        let subsets = Subsets::of(self.optional());
        for number in 0..subsets.count() {
            outcomes.push(self.after(&parts(&subsets.subset(number))));
        }
    }

    fn torn_outcomes(&self, outcomes: &mut Vec<Bytes>) {
        let subsets = Subsets::of(self.optional());
        for number in 0..subsets.count() {
            let whole = parts(&subsets.subset(number));
            for torn in (0..whole.len()).filter(|&change| whole[change] == Part::Whole) {
                for part in [Part::Short, Part::Garbage] {
                    outcomes.push(self.after(&with(&whole, torn, part)));
                }
            }
        }
    }

    /// One content that a crash can leave, by the tape; all zeros is what a reader sees now.
    pub(super) fn draw(&self, model: Model, tape: &Tape) -> Bytes {
        match model {
            Model::Kill => self.content.clone(),
            Model::Strict => self.after(&vec![Part::Lost; self.optional()]),
            Model::Full | Model::Unordered => self.after(&self.draw_whole(tape)),
            Model::Torn => self.after(&draw_torn(self.draw_whole(tape), tape)),
        }
    }

    fn draw_whole(&self, tape: &Tape) -> Vec<Part> {
        parts(&Subsets::of(self.optional()).draw(tape, "image.chunks"))
    }

    /// How many changes a crash may take away.
    fn optional(&self) -> usize {
        self.changes
            .iter()
            .filter(|change| change.fate != Fate::Durable)
            .count()
    }

    /// The content if the changes that are not durable fare as `parts` says, one for each.
    fn after(&self, parts: &[Part]) -> Bytes {
        let mut bytes = self.base.clone();
        let mut parts = parts.iter();
        for change in &self.changes {
            let part = match change.fate {
                Fate::Durable => Part::Whole,
                _ => *parts.next().expect("one for each optional change"),
            };
            if part != Part::Lost {
                change.edit.apply(part, bytes.make_mut());
            }
        }
        bytes
    }
}

impl Edit {
    fn apply(&self, part: Part, content: &mut Vec<u8>) {
        match self {
            Self::Truncate(length) => content.resize(*length, 0),
            Self::Write { offset, bytes } => {
                let half = bytes.len() / 2;
                match part {
                    Part::Lost => {}
                    Part::Whole => put(content, *offset, bytes),
                    Part::Short => put(content, *offset, &bytes[..half]),
                    Part::Garbage => {
                        put(content, *offset, &bytes[..half]);
                        put(content, offset + half, &vec![GARBAGE; bytes.len() - half]);
                    }
                }
            }
        }
    }
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

fn parts(survives: &[bool]) -> Vec<Part> {
    let part = |&survives| if survives { Part::Whole } else { Part::Lost };
    survives.iter().map(part).collect()
}

fn with(parts: &[Part], index: usize, part: Part) -> Vec<Part> {
    let mut parts = parts.to_vec();
    parts[index] = part;
    parts
}

/// Tears one of the changes, or none.
fn draw_torn(parts: Vec<Part>, tape: &Tape) -> Vec<Part> {
    let n = u32::try_from(parts.len()).expect("the changes fit in memory");
    let torn = tape.choose("image.torn", n + 1);
    let Some(index) = torn.checked_sub(1).map(|index| index as usize) else {
        return parts;
    };
    let part = [Part::Short, Part::Garbage][tape.choose("image.torn.how", 2) as usize];
    with(&parts, index, part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Arc::new(text.as_bytes().to_vec()).into()
    }

    /// A node with `old` durable, to which `change` is done; its outcomes as text.
    fn check(model: Model, old: &str, change: impl FnOnce(&mut Node), expected: &[&str]) {
        let mut node = Node::durable(&bytes(old));
        change(&mut node);
        let outcomes = node.outcomes(model);
        let outcomes: Vec<_> = outcomes
            .iter()
            .map(|bytes| bytes.escape_ascii().to_string())
            .collect();
        assert_eq!(outcomes, expected, "{model:?}");
    }

    fn two_writes(node: &mut Node) {
        node.write(3, b"XY");
        node.write(5, b"Z");
    }

    #[test]
    fn each_model_has_its_outcomes() {
        check(Model::Kill, "old", two_writes, &["oldXYZ"]);
        check(Model::Strict, "old", two_writes, &["old"]);
        let full = ["old", "old\\x00\\x00Z", "oldXY", "oldXYZ"];
        check(Model::Full, "old", two_writes, &full);
        check(Model::Unordered, "old", two_writes, &full);
        check(
            Model::Torn,
            "old",
            |node| node.write(3, b"XY"),
            &["old", "oldX", "oldXY", "oldX\\xa5"],
        );
    }

    #[test]
    fn a_truncation_may_be_lost_while_the_write_after_it_survives() {
        let rewrite = |node: &mut Node| {
            node.truncate(0);
            node.write(0, b"new");
        };
        check(
            Model::Full,
            "older",
            rewrite,
            &["", "new", "newer", "older"],
        );
    }

    #[test]
    fn a_sync_leaves_one_outcome() {
        let change = |node: &mut Node| {
            two_writes(node);
            node.sync();
        };
        check(Model::Torn, "old", change, &["oldXYZ"]);
    }

    #[test]
    fn a_failed_sync_is_never_made_good_by_a_later_one() {
        let change = |node: &mut Node| {
            node.write(3, b"lost");
            node.forsake();
            node.write(7, b"+kept");
            node.sync();
        };
        check(Model::Kill, "old", change, &["oldlost+kept"]);
        check(
            Model::Strict,
            "old",
            change,
            &["old\\x00\\x00\\x00\\x00+kept"],
        );
        check(
            Model::Full,
            "old",
            change,
            &["old\\x00\\x00\\x00\\x00+kept", "oldlost+kept"],
        );
    }

    #[test]
    fn writes_are_cut_at_page_borders() {
        let mut node = Node::default();
        node.write(PAGE_SIZE - 1, &[1; PAGE_SIZE + 2]);
        let length = |change: &Change| match &change.edit {
            Edit::Write { bytes, .. } => bytes.len(),
            Edit::Truncate(_) => unreachable!("nothing was cut"),
        };
        let lengths: Vec<_> = node.changes.iter().map(length).collect();
        assert_eq!(lengths, [1, PAGE_SIZE, 1]);
    }

    #[test]
    fn what_the_tape_can_draw_is_what_is_enumerated() {
        use crate::tape::Odometer;
        for model in Model::ALL {
            let mut node = Node::durable(&bytes("old"));
            two_writes(&mut node);
            let mut drawn: Vec<_> = Odometer::new()
                .map(|tape| node.draw(model, &tape))
                .collect();
            assert_eq!(
                drawn.first().is_some_and(|bytes| **bytes == *b"oldXYZ"),
                model != Model::Strict
            );
            drawn.sort();
            drawn.dedup();
            assert_eq!(drawn, node.outcomes(model), "{model:?}");
        }
    }
}
