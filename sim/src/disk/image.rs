//! What is on the disk after a crash, and how crashes are modelled.
//!
//! An image is a value: cheap to clone (contents are shared), comparable, and ordered, so that a
//! search can recover from each distinct image once. A disk is [mounted](crate::disk::Disk::mount)
//! from one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::names::{Entry, Name, NodeId, name_of};
use crate::disk::node::Bytes;

/// What a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Model {
    /// The process dies, the page cache survives: exactly what the program saw.
    Kill,
    /// Power loss on a disk that wrote nothing early: only what was synced survives. Kinder than it
    /// looks: it never shows a rename without the bytes that were not synced before it.
    Strict,
    /// Power loss; of the names an ordered prefix of each directory's journal survives, of each
    /// file's unsynced chunks and truncations any subset. The default.
    Full,
    /// As `Full`, and one of the surviving chunks of a file may be torn: cut in the middle, or with
    /// garbage in its second half.
    Torn,
    /// As `Full`, but the operations on names survive in any combination. File systems without an
    /// ordered journal do this; reported apart.
    Unordered,
}

impl Model {
    /// All models.
    pub const ALL: [Self; 5] = [
        Self::Kill,
        Self::Strict,
        Self::Full,
        Self::Torn,
        Self::Unordered,
    ];
}

/// The content of a disk. Two names of one file are known as such.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Image {
    names: BTreeMap<Name, Item>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Item {
    Directory,
    /// The number is that of the file in the order of first names, so that equal disks are equal.
    File(u32, Bytes),
}

/// The distinct images that a crash can leave.
#[derive(Clone, Debug)]
pub struct Images {
    /// The images, sorted.
    pub images: Vec<Image>,
    /// Whether these are all; `false` if the limit ended the enumeration.
    pub complete: bool,
}

impl Image {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// This and a directory with its parents.
    ///
    /// # Panics
    ///
    /// If the path has `..` in it, is not UTF-8, or lies under a file.
    #[must_use]
    pub fn with_directory(mut self, path: impl AsRef<Path>) -> Self {
        self.add_directory(path.as_ref());
        self
    }

    fn add_directory(&mut self, path: &Path) {
        let ancestors = path.ancestors().filter(|path| path.file_name().is_some());
        for directory in ancestors {
            let old = self.names.insert(name(directory), Item::Directory);
            assert!(
                !matches!(old, Some(Item::File(..))),
                "{directory:?} is a file"
            );
        }
    }

    /// This and a file, in a directory that is made if it is missing. Bytes that are in an `Arc`
    /// are shared, not copied.
    ///
    /// # Panics
    ///
    /// As [`Self::with_directory`].
    #[must_use]
    pub fn with_file(mut self, path: impl AsRef<Path>, bytes: impl Into<Arc<Vec<u8>>>) -> Self {
        let path = path.as_ref();
        self.add_directory(path.parent().unwrap_or(Path::new("")));
        self.names
            .insert(name(path), Item::File(u32::MAX, bytes.into().into()));
        self.renumber()
    }

    /// Gives each file the number of its first name; what [`Self::with_file`] adds (`u32::MAX`) is
    /// a file of its own.
    fn renumber(mut self) -> Self {
        let mut numbers = BTreeMap::new();
        let mut next = 0;
        for item in self.names.values_mut() {
            if let Item::File(number, _) = item {
                let first = *numbers.entry(*number).or_insert(next);
                next += u32::from(first == next);
                *number = first;
            }
        }
        self
    }

    /// The image of these names with these contents.
    pub(super) fn of(
        names: &BTreeMap<Name, Entry>,
        mut content: impl FnMut(NodeId) -> Bytes,
    ) -> Self {
        let mut numbers = BTreeMap::new();
        let mut item = |entry: &Entry| match entry {
            Entry::Directory => Item::Directory,
            Entry::File(node) => {
                let next = u32::try_from(numbers.len()).expect("files are few");
                Item::File(*numbers.entry(*node).or_insert(next), content(*node))
            }
        };
        let names = names
            .iter()
            .map(|(name, entry)| (Arc::clone(name), item(entry)));
        Self {
            names: names.collect(),
        }
    }

    pub(super) const fn items(&self) -> &BTreeMap<Name, Item> {
        &self.names
    }

    /// The content of a file; `None` if there is none at this path.
    pub fn read(&self, path: impl AsRef<Path>) -> Option<&[u8]> {
        match self.names.get(&name_of(path.as_ref()).ok()?) {
            Some(Item::File(_, bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// Every file with its content, sorted by path.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.names.iter().filter_map(|(name, item)| match item {
            Item::File(_, bytes) => Some((Path::new(&**name), &**bytes)),
            Item::Directory => None,
        })
    }

    /// Every path, directories too, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.names.keys().map(|name| Path::new(&**name))
    }

    /// The content by path, for comparisons with a real directory.
    pub fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let copy = |(path, bytes): (&Path, &[u8])| (path.to_owned(), bytes.to_vec());
        self.files().map(copy).collect()
    }
}

fn name(path: &Path) -> Name {
    let checked: io::Result<Name> = name_of(path);
    checked.expect("a path of plain UTF-8 components")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_built_by_hand() {
        let image = Image::new()
            .with_file("data/b", b"second".to_vec())
            .with_file("data/a", b"first".to_vec())
            .with_directory("data/empty/deep");
        assert_eq!(image.read("data/./a"), Some(&b"first"[..]));
        assert_eq!(image.read("data"), None);
        let paths: Vec<_> = image
            .paths()
            .map(|path| path.display().to_string())
            .collect();
        assert_eq!(
            paths,
            ["data", "data/a", "data/b", "data/empty", "data/empty/deep"]
        );
    }

    #[test]
    fn equal_disks_are_equal_however_they_came_about() {
        let image = |names: [&str; 2]| {
            names
                .into_iter()
                .fold(Image::new(), |image, name| image.with_file(name, vec![1]))
        };
        assert_eq!(image(["a", "b"]), image(["b", "a"]));
        assert_ne!(image(["a", "b"]), image(["a", "c"]));
    }

    #[test]
    fn two_names_of_one_file_are_not_two_files() {
        let of = |nodes: [u64; 2]| {
            let names = ["a", "b"].map(Name::from).into_iter().zip(nodes);
            let names = names
                .map(|(name, node)| (name, Entry::File(NodeId(node))))
                .collect();
            Image::of(&names, |_| Bytes::default())
        };
        assert_eq!(of([7, 7]), of([1, 1]));
        assert_eq!(of([2, 1]), of([5, 9]));
        assert_ne!(of([1, 1]), of([1, 2]));
    }
}
