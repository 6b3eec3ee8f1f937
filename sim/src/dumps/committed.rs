//! The committed fixtures: the whole tree below `fixtures/`, made from nothing but this code.

use std::collections::BTreeMap;
use std::fmt::Write;

use discogs_extractor::dump::{Kind, Version, file_name};
use serde_json::Value;

use super::broken::{self, Case};
use super::markers::{self, Facts, Marker};
use super::truth::sha256;
use super::{Amount, Dumps, Form};

/// The files of a tree: their paths, with `/` between parts, and their bytes.
pub type Tree = BTreeMap<String, Vec<u8>>;

/// A version among the fixtures.
struct Set {
    version: &'static str,
    form: Form,
    seed: u64,
    records: [u64; 4],
}

const SETS: [Set; 2] = [
    Set {
        version: "20200801",
        form: Form::Y2020,
        seed: 2020,
        records: [40, 30, 20, 30],
    },
    Set {
        version: "20260801",
        form: Form::Y2025,
        seed: 2026,
        records: [120, 80, 60, 150],
    },
];

/// All files of `fixtures/`.
pub fn tree() -> Tree {
    let mut tree = Tree::new();
    // No checkout may touch a line end: every byte here counts.
    tree.insert(".gitattributes".to_owned(), b"* -text\n".to_vec());
    for set in &SETS {
        add_version(&mut tree, set);
    }
    let cases = broken::cases();
    cases.iter().for_each(|case| add_case(&mut tree, case));
    let markers = newest_markers(&tree);
    add_markers(&mut tree, &markers);
    tree.insert(
        "README.md".to_owned(),
        readme(&cases, &markers).into_bytes(),
    );
    tree
}

fn version(set: &Set) -> Version {
    set.version.parse().expect("a set is named by a date")
}

fn add_version(tree: &mut Tree, set: &Set) {
    let version = version(set);
    for (kind, records) in Kind::ALL.into_iter().zip(set.records) {
        let (mut dump, mut truth) = (Vec::new(), Vec::new());
        let dumps = Dumps::new(set.seed, set.form);
        dumps
            .write(kind, Amount::Records(records), &mut dump, Some(&mut truth))
            .expect("memory takes all bytes");
        tree.insert(format!("{version}/{}", file_name(&version, kind)), dump);
        tree.insert(format!("{version}/{}", truth_name(&version, kind)), truth);
    }
}

/// Where the truth about a dump stands, seen from the dump's directory.
pub fn truth_name(version: &Version, kind: Kind) -> String {
    format!("expected/discogs_{version}_{kind}.jsonl")
}

fn add_case(tree: &mut Tree, case: &Case) {
    let folder = format!("broken/{}", case.name);
    let dump = file_name(&version(&SETS[1]), case.kind);
    tree.insert(format!("{folder}/{dump}"), case.dump.clone());
    let lines = case.messages.iter().map(|message| format!("{message}\n"));
    tree.insert(
        format!("{folder}/expected.jsonl"),
        lines.collect::<String>().into_bytes(),
    );
    tree.insert(
        format!("{folder}/expected.json"),
        json_line(&case.expected.to_json()),
    );
}

fn newest_markers(tree: &Tree) -> Vec<Marker> {
    let version = version(&SETS[1]);
    let facts = |(kind, records)| {
        let dump = &tree[&format!("{version}/{}", file_name(&version, kind))];
        let facts = Facts {
            records,
            bytes: u64::try_from(dump.len()).expect("a length fits in 64 bits"),
            checksum: sha256(dump),
        };
        (kind, facts)
    };
    let records = Kind::ALL.into_iter().zip(SETS[1].records);
    markers::markers(&version, &records.map(facts).collect())
}

fn add_markers(tree: &mut Tree, markers: &[Marker]) {
    let mut expected = serde_json::Map::new();
    for marker in markers {
        tree.insert(format!("markers/{}", marker.name), marker.bytes.clone());
        expected.insert(marker.name.to_owned(), marker.expected());
    }
    let expected = format!("{:#}\n", Value::Object(expected));
    tree.insert("markers/expected.json".to_owned(), expected.into_bytes());
}

fn json_line(value: &Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

fn readme(cases: &[Case], markers: &[Marker]) -> String {
    let mut text = include_str!("readme.md").to_owned();
    let mut add = |line: String| writeln!(text, "{line}").expect("a string takes all text");
    add("\n## `broken/`\n".to_owned());
    add(include_str!("readme_broken.md").to_owned());
    add("| folder | what is wrong | ends |\n|---|---|---|".to_owned());
    for case in cases {
        add(format!(
            "| `{}` | {} | {} |",
            case.name,
            case.what,
            case.expected.error.word()
        ));
    }
    add("\n## `markers/`\n".to_owned());
    add(include_str!("readme_markers.md").to_owned());
    add("| file | what it is |\n|---|---|".to_owned());
    for marker in markers {
        add(format!("| `{}` | {} |", marker.name, marker.what));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use discogs_extractor::fs::{self, FileSystem, OsFileSystem};

    use super::*;

    const REGENERATE: &str = "run `cargo run -p sim -- fixtures --committed fixtures`";

    fn files(directory: &Path) -> Vec<PathBuf> {
        let entries = OsFileSystem.list(directory).unwrap().into_iter();
        let below = |path: PathBuf| {
            if OsFileSystem.metadata(&path).unwrap().is_dir {
                files(&path)
            } else {
                vec![path]
            }
        };
        entries.flat_map(below).collect()
    }

    #[test]
    fn what_is_committed_is_what_is_generated() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
        let tree = tree();
        let bytes = tree.values().map(Vec::len).sum::<usize>();
        assert!(
            bytes < 1_500_000,
            "{bytes} bytes are too many for a repository"
        );
        let name = |path: &PathBuf| {
            let parts = path.strip_prefix(&root).unwrap().iter();
            parts
                .map(|part| part.to_str().unwrap())
                .collect::<Vec<_>>()
                .join("/")
        };
        let mut present = files(&root).iter().map(name).collect::<Vec<_>>();
        present.sort();
        assert_eq!(
            present,
            tree.keys().cloned().collect::<Vec<_>>(),
            "{REGENERATE}"
        );
        for (path, bytes) in tree {
            let committed = fs::read(&OsFileSystem, &root.join(&path)).unwrap();
            assert!(committed == bytes, "{path} differs; {REGENERATE}");
        }
    }
}
