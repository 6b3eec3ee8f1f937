//! The real program in a directory of its own, with copies of the committed dumps.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::Value;
use tempfile::TempDir;

/// A directory that the program works in, gone when dropped.
pub(crate) struct Site(TempDir);

impl Site {
    /// With the files of `folder` in `fixtures/`.
    pub(crate) fn with_fixtures(folder: &str) -> Self {
        Self::with_copies(&fixture(folder))
    }

    /// With the files of `folder`.
    pub(crate) fn with_copies(folder: &Path) -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        site.add_copies(folder);
        site
    }

    /// Adds the files of `folder`, in the place of those with the same name.
    pub(crate) fn add_copies(&self, folder: &Path) {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        for path in entries
            .map(|entry| entry.path())
            .filter(|path| path.is_file())
        {
            fs::copy(
                &path,
                self.path(path.file_name().unwrap().to_str().unwrap()),
            )
            .unwrap();
        }
    }

    /// A file in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The program with arguments that are separated by spaces and an empty environment.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_discogs-extractor"));
        command
            .args(line.split_whitespace())
            .env_clear()
            .current_dir(self.0.path());
        command
    }

    /// The same, to its end with `code`: what it wrote to stdout and stderr.
    pub(crate) fn ends(&self, line: &str, code: i32) -> (String, String) {
        let output = self.command(line).output().unwrap();
        let (out, err) = (text(output.stdout), text(output.stderr));
        assert_eq!(output.status.code(), Some(code), "{line}\n{out}{err}");
        (out, err)
    }

    /// The same, with JSON on stdout.
    pub(crate) fn json(&self, line: &str, code: i32) -> Value {
        serde_json::from_str(&self.ends(line, code).0).unwrap()
    }
}

/// A file or folder of `fixtures/`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
}

/// The committed dumps by name.
pub(crate) fn dumps() -> BTreeMap<String, Vec<u8>> {
    let dump = |kind| {
        let name = format!("discogs_20260801_{kind}.xml.gz");
        let bytes = fs::read(fixture("20260801").join(&name)).unwrap();
        (name, bytes)
    };
    ["artists", "labels", "masters", "releases"]
        .map(dump)
        .into()
}

/// Sends a signal to a process.
pub(crate) fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
}

/// The lines of a file.
pub(crate) fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}
