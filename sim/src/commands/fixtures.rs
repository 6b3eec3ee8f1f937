//! `sim fixtures`: writes generated dumps to a directory, or the committed fixtures.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, value_parser};
use discogs_extractor::dump::{Kind, Version, file_name};
use discogs_extractor::fs::{FileSystem, OsFileSystem};
use sim::dumps::{Amount, Dumps, Form, Written, committed};

/// What to generate.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Write dumps of any size there, and their messages below `expected/`
    #[arg(long, value_name = "DIR", required_unless_present = "committed")]
    directory: Option<PathBuf>,

    /// Write the committed fixtures there instead: `--committed fixtures`
    #[arg(long, value_name = "DIR", exclusive = true)]
    committed: Option<PathBuf>,

    /// The version that the dumps are named by
    #[arg(long, default_value = "20260801")]
    version: Version,

    /// How many records to make, over all kinds
    #[arg(
        long,
        value_name = "N",
        default_value_t = 2_000,
        value_parser = value_parser!(u64).range(1..=1_000_000_000),
        conflicts_with = "xml_megabytes"
    )]
    records: u64,

    /// How much XML to make, over all kinds, in MB of 1,000,000 bytes
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..=1_000_000))]
    xml_megabytes: Option<u64>,

    /// The kinds to make, in the proportions of a real version
    #[arg(long, value_delimiter = ',', default_values_t = Kind::ALL)]
    kinds: Vec<Kind>,

    /// The same seed gives the same dumps
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// The form of the records, 2020 or 2025
    #[arg(long, default_value_t = Form::Y2025)]
    form: Form,

    /// Leave out the expected messages, which double the time and the space
    #[arg(long)]
    no_truth: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(directory) = &arguments.committed {
        return write_committed(directory);
    }
    let directory = arguments.directory.as_deref().unwrap_or(Path::new("."));
    OsFileSystem.create_dir(&directory.join("expected"))?;
    for kind in &arguments.kinds {
        let amount = share(arguments, *kind);
        let written = write_dump(arguments, directory, *kind, amount)?;
        let file = file_name(&arguments.version, *kind);
        println!(
            "{file}: {} records, {} bytes of XML",
            written.records, written.xml_bytes
        );
    }
    Ok(())
}

fn write_committed(directory: &Path) -> anyhow::Result<()> {
    for (name, bytes) in committed::tree() {
        let path = directory.join(name);
        OsFileSystem.create_dir(path.parent().unwrap_or(directory))?;
        create(&path)?.write_all(&bytes)?;
    }
    Ok(())
}

fn write_dump(
    arguments: &Arguments,
    directory: &Path,
    kind: Kind,
    amount: Amount,
) -> anyhow::Result<Written> {
    let version = &arguments.version;
    let dumps = Dumps::new(arguments.seed, arguments.form);
    let dump = create(&directory.join(file_name(version, kind)))?;
    if arguments.no_truth {
        return Ok(dumps.write(kind, amount, dump, None)?);
    }
    let mut truth = create(&directory.join(committed::truth_name(version, kind)))?;
    let written = dumps.write(kind, amount, dump, Some(&mut truth))?;
    truth.flush()?;
    Ok(written)
}

fn create(path: &Path) -> anyhow::Result<impl Write + use<>> {
    let file = OsFileSystem.create(path);
    let file = file.with_context(|| format!("cannot create {}", path.display()))?;
    Ok(BufWriter::with_capacity(1 << 18, file))
}

/// A kind's part of the whole amount, in the proportions of August 2026.
fn share(arguments: &Arguments, kind: Kind) -> Amount {
    let part = |whole: u64, weight: fn(Kind) -> u64| {
        let weights = arguments
            .kinds
            .iter()
            .map(|kind| weight(*kind))
            .sum::<u64>();
        (whole * weight(kind) / weights).max(1)
    };
    match arguments.xml_megabytes {
        Some(megabytes) => Amount::XmlBytes(part(megabytes * 1_000_000, megabytes_compressed)),
        None => Amount::Records(part(arguments.records, thousands_of_records)),
    }
}

const fn thousands_of_records(kind: Kind) -> u64 {
    match kind {
        Kind::Artists => 10_163,
        Kind::Labels => 2_405,
        Kind::Masters => 2_580,
        Kind::Releases => 19_341,
    }
}

const fn megabytes_compressed(kind: Kind) -> u64 {
    match kind {
        Kind::Artists => 476,
        Kind::Labels => 87,
        Kind::Masters => 601,
        Kind::Releases => 10_500,
    }
}
