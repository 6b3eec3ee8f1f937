//! Holds the table of layers in `ARCHITECTURE.md` against the `use` lines of `src/`.
#![expect(clippy::disallowed_methods, reason = "reads the sources")]

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

/// The modules that a source names behind `crate::`, outside of its tests.
fn uses(source: &str) -> Vec<String> {
    let code = source
        .split("#[cfg(test)]")
        .next()
        .expect("a split has a first part");
    let code = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let module = |rest: &str| {
        rest.split(|c: char| !c.is_alphanumeric() && c != '_')
            .next()
            .map(str::to_owned)
    };
    code.flat_map(|line| {
        line.split("crate::")
            .skip(1)
            .filter_map(module)
            .collect::<Vec<_>>()
    })
    .collect()
}

#[test]
fn files_use_only_what_stands_above_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = places(&fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap());
    let mut seen = 0;
    for path in fs::read_dir(root.join("src"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name == "lib" || name == "main" || path.is_dir() {
            continue;
        }
        let place = places
            .get(&name)
            .unwrap_or_else(|| panic!("{name} is not in the table of ARCHITECTURE.md"));
        for used in uses(&fs::read_to_string(&path).unwrap()) {
            assert!(
                places[&used] <= *place,
                "src/{name}.rs uses {used}, which stands below it"
            );
        }
        seen += 1;
    }
    assert_eq!(seen, places.len(), "the table names only files that exist");
}
