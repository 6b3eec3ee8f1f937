//! Holds the table of layers in `ARCHITECTURE.md` against the `use` lines of `src/`.
#![expect(clippy::disallowed_methods, reason = "reads the sources")]
#![expect(
    clippy::unwrap_used,
    reason = "a source that is missing fails the test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The files of the table, each with its place: row by row, from left to right.
fn places(architecture: &str) -> BTreeMap<String, usize> {
    let table = architecture
        .split("| layer | files |")
        .nth(1)
        .expect("the table is there");
    let lines = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let cells = lines.map(|line| line.split('|').nth(2).expect("a row has files"));
    let files = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    files
        .enumerate()
        .map(|(place, file)| (file.to_owned(), place))
        .collect()
}

/// The modules that a source names behind `crate::`.
fn uses(source: &str) -> Vec<String> {
    let name = |rest: &str| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        rest[..end.unwrap_or(rest.len())].to_owned()
    };
    let code = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1).map(name).collect::<Vec<_>>())
        .collect()
}

/// A file up to its unit tests, which stand last.
fn without_tests(source: &str) -> String {
    source
        .split("#[cfg(test)]\nmod ")
        .next()
        .expect("a split has a first part")
        .to_owned()
}

/// The sources of each module: its file, and those in the folder of its name.
fn sources(directory: &Path) -> BTreeMap<String, String> {
    let mut sources = BTreeMap::<String, String>::new();
    for path in fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = match path.is_dir() {
            true => self::sources(&path).into_values().collect(),
            false => without_tests(&fs::read_to_string(&path).unwrap()),
        };
        sources.entry(module).or_default().push_str(&text);
    }
    sources
}

#[test]
fn files_use_only_what_stands_above_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = places(&fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap());
    let mut sources = sources(&root.join("src"));
    sources.retain(|module, _| module != "lib" && module != "main");
    assert!(
        sources.keys().eq(places.keys()),
        "the table names the files that exist, and no other"
    );
    for (module, source) in sources {
        for used in uses(&source) {
            let is_above = places[&used] <= places[&module];
            assert!(
                is_above,
                "src/{module}.rs uses {used}, which stands below it"
            );
        }
    }
}
