//! The names of the disk: what the program sees, what is durable, and a journal for each directory
//! of what lies between.
//!
//! Every operation on names is one atomic change in the journal of its directory, and durable once
//! that directory is synced; syncing a *file* does not make its name durable. A rename from one
//! directory to another is two changes, in two journals: nothing promises that they stay together.
//!
//! In a power loss each journal survives as a prefix of its own, independent of the others
//! (or, in the model `Unordered`, as any subset). What lies in a directory that did not survive is
//! gone.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

use crate::disk::image::Model;
use crate::disk::survival::Subsets;
use crate::tape::Tape;

/// A normalised path: components joined by one `/`, no `.`, no `/` at the end.
pub(super) type Name = Arc<str>;

/// Which file a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeId(pub(super) u64);

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Directory,
    File(NodeId),
}

impl Entry {
    /// The file, if it is one.
    pub(super) const fn file(self) -> Option<NodeId> {
        match self {
            Self::File(node) => Some(node),
            Self::Directory => None,
        }
    }
}

/// Names and what they stand for, without the two roots.
pub(super) type Names = BTreeMap<Name, Entry>;

/// The namespace, live and durable.
#[derive(Clone, Debug, Default)]
pub(super) struct Namespace {
    live: Names,
    durable: Names,
    journals: BTreeMap<Name, Vec<Edit>>,
}

/// One atomic change. It touches names of one directory only, so that the order of changes of
/// different directories does not matter.
#[derive(Clone, Debug)]
enum Edit {
    Put(Name, Entry),
    Remove(Name),
    Rename { from: Name, to: Name, node: NodeId },
}

/// The name of a path.
///
/// # Errors
///
/// `InvalidInput` for `..` and for what is not UTF-8: the program has no use for them.
pub(super) fn name_of(path: &Path) -> io::Result<Name> {
    let mut name = String::new();
    for component in path.components() {
        match component {
            Component::RootDir => name.push('/'),
            Component::CurDir => {}
            Component::Normal(part) => {
                if !name.is_empty() && name != "/" {
                    name.push('/');
                }
                name.push_str(part.to_str().ok_or(io::ErrorKind::InvalidInput)?);
            }
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
    }
    Ok(name.into())
}

/// The two directories that always exist: of absolute and of relative paths.
fn is_root(name: &str) -> bool {
    name.is_empty() || name == "/"
}

/// The directory of a name; a root is its own.
fn parent(name: &str) -> &str {
    match name.rfind('/') {
        Some(0) => "/",
        Some(slash) => &name[..slash],
        None => "",
    }
}

/// Whether a name lies somewhere below a directory.
pub(super) fn lies_under(name: &str, directory: &str) -> bool {
    name.strip_prefix(directory)
        .is_some_and(|rest| rest.starts_with('/'))
}

impl Namespace {
    /// A namespace in which these names are durable.
    pub(super) fn durable(names: Names) -> Self {
        Self {
            live: names.clone(),
            durable: names,
            ..Self::default()
        }
    }

    /// What a name stands for; `None` if it could be created.
    pub(super) fn entry(&self, name: &str) -> io::Result<Option<Entry>> {
        if is_root(name) {
            return Ok(Some(Entry::Directory));
        }
        if let Some(entry) = self.live.get(name) {
            return Ok(Some(*entry));
        }
        match self.entry(parent(name))? {
            Some(Entry::Directory) => Ok(None),
            Some(Entry::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The file that has a name.
    pub(super) fn file(&self, name: &str) -> io::Result<NodeId> {
        match self.entry(name)? {
            Some(Entry::File(node)) => Ok(node),
            Some(Entry::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Checks that a name stands for a directory.
    pub(super) fn directory(&self, name: &str) -> io::Result<()> {
        match self.entry(name)? {
            Some(Entry::Directory) => Ok(()),
            Some(Entry::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The names right under a directory, sorted.
    pub(super) fn children(&self, directory: &str) -> Vec<Name> {
        let of = |name: &&Name| parent(name) == directory;
        self.live.keys().filter(of).cloned().collect()
    }

    /// Gives a file a name, new or not.
    pub(super) fn put(&mut self, name: &Name, node: NodeId) {
        self.change(parent(name), Edit::Put(Arc::clone(name), Entry::File(node)));
    }

    /// Takes a name away.
    pub(super) fn remove(&mut self, name: &Name) {
        self.change(parent(name), Edit::Remove(Arc::clone(name)));
    }

    /// Gives the file that is called `from` the name `to` instead.
    pub(super) fn rename(&mut self, from: &Name, to: &Name, node: NodeId) {
        if parent(from) == parent(to) {
            let edit = Edit::Rename {
                from: Arc::clone(from),
                to: Arc::clone(to),
                node,
            };
            self.change(parent(to), edit);
        } else {
            self.put(to, node);
            self.remove(from);
        }
    }

    /// Makes a directory and its missing parents.
    pub(super) fn create_dir(&mut self, name: &Name) -> io::Result<()> {
        match self.entry(name) {
            Ok(Some(Entry::Directory)) => return Ok(()),
            Ok(Some(Entry::File(_))) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create_dir(&parent(name).into())?;
            }
            Err(error) => return Err(error),
            Ok(None) => {}
        }
        self.change(parent(name), Edit::Put(Arc::clone(name), Entry::Directory));
        Ok(())
    }

    fn change(&mut self, directory: &str, edit: Edit) {
        edit.apply(&mut self.live);
        match self.journals.get_mut(directory) {
            Some(journal) => journal.push(edit),
            None => _ = self.journals.insert(directory.into(), vec![edit]),
        }
    }

    /// Makes the names in a directory durable.
    pub(super) fn sync(&mut self, directory: &str) {
        for change in self.journals.remove(directory).unwrap_or_default() {
            change.apply(&mut self.durable);
        }
    }

    /// Every file that has a name now, or may have one after some crash.
    pub(super) fn files(&self) -> BTreeSet<NodeId> {
        let journals = self.journals.values().flatten();
        let entries = self.live.values().chain(self.durable.values()).copied();
        let entries = entries.chain(journals.filter_map(|change| change.entry()));
        entries.filter_map(Entry::file).collect()
    }

    /// Every set of names that a crash can leave.
    pub(super) fn outcomes(&self, model: Model) -> Vec<Names> {
        match model {
            Model::Kill => vec![self.live.clone()],
            Model::Strict => vec![reachable(self.durable.clone())],
            Model::Full | Model::Torn | Model::Unordered => self.journal_outcomes(model),
        }
    }

    fn journal_outcomes(&self, model: Model) -> Vec<Names> {
        let counts: Vec<u32> = self
            .journals
            .values()
            .map(|journal| count(journal, model))
            .collect();
        let total: u64 = counts.iter().map(|&count| u64::from(count)).product();
        let numbers = |index| digits(index, &counts);
        (0..total)
            .map(|index| self.after(model, &numbers(index)))
            .collect()
    }

    /// One set of names that a crash can leave, by the tape; all zeros is what the program sees.
    pub(super) fn draw(&self, model: Model, tape: &Tape) -> Names {
        match model {
            Model::Kill => self.live.clone(),
            Model::Strict => reachable(self.durable.clone()),
            Model::Full | Model::Torn | Model::Unordered => {
                let draw = |journal| tape.choose("image.names", count(journal, model));
                let numbers: Vec<u32> = self
                    .journals
                    .values()
                    .map(|journal| draw(journal))
                    .collect();
                self.after(model, &numbers)
            }
        }
    }

    /// The names if each journal fares as its number says.
    fn after(&self, model: Model, numbers: &[u32]) -> Names {
        let mut names = self.durable.clone();
        for (journal, &number) in self.journals.values().zip(numbers) {
            for change in survivors(journal, model, number) {
                change.apply(&mut names);
            }
        }
        reachable(names)
    }
}

impl Edit {
    /// Applies to any names, those before it or not: in a crash it may survive others.
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Put(name, entry) => _ = names.insert(Arc::clone(name), *entry),
            Self::Remove(name) => _ = names.remove(name),
            Self::Rename { from, to, node } => {
                if names.get(from) == Some(&Entry::File(*node)) {
                    names.remove(from);
                }
                names.insert(Arc::clone(to), Entry::File(*node));
            }
        }
    }

    const fn entry(&self) -> Option<Entry> {
        match self {
            Self::Put(_, entry) => Some(*entry),
            Self::Rename { node, .. } => Some(Entry::File(*node)),
            Self::Remove(_) => None,
        }
    }
}

/// In how many ways a journal can fare.
fn count(journal: &[Edit], model: Model) -> u32 {
    match model {
        Model::Unordered => Subsets::of(journal.len()).count(),
        _ => u32::try_from(journal.len()).expect("the changes fit in memory") + 1,
    }
}

/// What is left of a journal; number 0 is all of it.
fn survivors(journal: &[Edit], model: Model, number: u32) -> Vec<&Edit> {
    match model {
        Model::Unordered => {
            let survives = Subsets::of(journal.len()).subset(number);
            let both = journal.iter().zip(survives);
            both.filter_map(|(change, survives)| survives.then_some(change))
                .collect()
        }
        _ => journal[..journal.len() - number as usize].iter().collect(),
    }
}

/// The number `index` in a system in which each digit has a base of its own, lowest digit first.
pub(super) fn digits(mut index: u64, bases: &[u32]) -> Vec<u32> {
    let digit = |&base: &u32| {
        let digit = index % u64::from(base);
        index /= u64::from(base);
        u32::try_from(digit).expect("a digit is below its base")
    };
    bases.iter().map(digit).collect()
}

/// Without what lies in directories that do not exist.
fn reachable(names: Names) -> Names {
    let mut kept = Names::new();
    // A directory sorts before what it holds.
    for (name, entry) in names {
        let directory = parent(&name);
        if is_root(directory) || kept.get(directory) == Some(&Entry::Directory) {
            kept.insert(name, entry);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        name_of(Path::new(text)).unwrap()
    }

    #[test]
    fn paths_are_normalised() {
        for (path, expected) in [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            ("/a/./b", "/a/b"),
            ("/", "/"),
            (".", ""),
        ] {
            assert_eq!(&*name(path), expected);
        }
        assert!(name_of(Path::new("a/../b")).is_err());
        assert_eq!(["a", "a/b", "/a", "/a/b"].map(parent), ["", "a", "/", "/a"]);
    }

    /// The distinct outcomes, as the sorted lists of names.
    fn outcomes(namespace: &Namespace, model: Model) -> Vec<String> {
        let join = |names: &Names| {
            names
                .keys()
                .map(|name| &**name)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let mut outcomes: Vec<_> = namespace.outcomes(model).iter().map(join).collect();
        outcomes.sort();
        outcomes.dedup();
        outcomes
    }

    #[test]
    fn a_journal_survives_as_a_prefix() {
        let mut names = Namespace::default();
        names.put(&name("t"), NodeId(1));
        names.rename(&name("t"), &name("m"), NodeId(1));
        assert_eq!(outcomes(&names, Model::Kill), ["m"]);
        assert_eq!(outcomes(&names, Model::Strict), [""]);
        assert_eq!(outcomes(&names, Model::Full), ["", "m", "t"]);
        names.put(&name("x"), NodeId(2));
        assert_eq!(outcomes(&names, Model::Full), ["", "m", "m x", "t"]);
        assert_eq!(
            outcomes(&names, Model::Unordered),
            ["", "m", "m x", "t", "t x", "x"]
        );
        names.sync("");
        assert_eq!(outcomes(&names, Model::Unordered), ["m x"]);
    }

    #[test]
    fn a_rename_that_survives_alone_takes_no_other_file_s_name() {
        let stale = Names::from([(name("t"), Entry::File(NodeId(0)))]);
        let mut names = Namespace::durable(stale);
        names.put(&name("t"), NodeId(1));
        names.rename(&name("t"), &name("m"), NodeId(1));
        assert_eq!(outcomes(&names, Model::Full), ["m", "t"]);
        assert_eq!(outcomes(&names, Model::Unordered), ["m", "m t", "t"]);
    }

    #[test]
    fn directories_have_journals_of_their_own() {
        let mut names = Namespace::default();
        names.create_dir(&name("d")).unwrap();
        names.put(&name("d/a"), NodeId(1));
        // The file is durable in a directory that is not.
        names.sync("d");
        assert_eq!(outcomes(&names, Model::Strict), [""]);
        assert_eq!(outcomes(&names, Model::Full), ["", "d d/a"]);
        names.sync("");
        names.rename(&name("d/a"), &name("b"), NodeId(1));
        assert_eq!(
            outcomes(&names, Model::Full),
            ["b d", "b d d/a", "d", "d d/a"]
        );
    }
}
