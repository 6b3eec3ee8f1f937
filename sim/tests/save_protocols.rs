//! Which disk model finds which mistake in saving a file.
//!
//! A state file is saved again and again; the process or the power dies before and after every
//! operation. In every image the file must hold a whole version, never one older than the last save
//! that was reported as done. The two correct protocols pass under every model; each classic mistake
//! is found by `Full`, and most of them by nothing weaker: that is why `Full` is the default.

use std::io::{self, Write};
use std::path::Path;

use discogs_extractor::fs::{FileSystem, FileWrite};
use sim::disk::{Disk, Failure, Image, Model, Operation, Planned};
use sim::faults::Faults;
use sim::tape::Tape;
use sim::world::{Moment, World};

const DIRECTORY: &str = "data";
const STATE: &str = "data/state";
const TEMPORARY: &str = "data/state.new";

type Save = fn(&dyn FileSystem, u32) -> io::Result<()>;

/// How often a version is written, so that none is a prefix of another and holes show.
const COPIES: usize = 4;

fn halves(version: u32) -> [String; 2] {
    let half = version.to_string().repeat(COPIES / 2 + version as usize);
    [format!("<{half}"), format!("{half}>\n")]
}

fn write(fs: &dyn FileSystem, path: &str, version: u32) -> io::Result<Box<dyn FileWrite>> {
    let mut file = fs.create(Path::new(path))?;
    for half in halves(version) {
        file.write_all(half.as_bytes())?;
    }
    Ok(file)
}

fn rename(fs: &dyn FileSystem) -> io::Result<()> {
    fs.rename(Path::new(TEMPORARY), Path::new(STATE))
}

fn sync_dir(fs: &dyn FileSystem) -> io::Result<()> {
    fs.sync_dir(Path::new(DIRECTORY))
}

fn correct(fs: &dyn FileSystem, version: u32) -> io::Result<()> {
    write(fs, TEMPORARY, version)?.sync()?;
    rename(fs)?;
    sync_dir(fs)
}

fn correct_append(fs: &dyn FileSystem, version: u32) -> io::Result<()> {
    let mut file = fs.append(Path::new(STATE))?;
    file.write_all(halves(version).concat().as_bytes())?;
    file.sync()
}

fn no_fsync(fs: &dyn FileSystem, version: u32) -> io::Result<()> {
    write(fs, TEMPORARY, version)?;
    rename(fs)?;
    sync_dir(fs)
}

fn no_directory_fsync(fs: &dyn FileSystem, version: u32) -> io::Result<()> {
    write(fs, TEMPORARY, version)?.sync()?;
    rename(fs)
}

fn fsync_after_rename(fs: &dyn FileSystem, version: u32) -> io::Result<()> {
    let mut file = write(fs, TEMPORARY, version)?;
    rename(fs)?;
    file.sync()?;
    sync_dir(fs)
}

fn write_in_place(fs: &dyn FileSystem, version: u32) -> io::Result<()> {
    write(fs, STATE, version)?.sync()
}

fn truncate_in_place(fs: &dyn FileSystem, version: u32) -> io::Result<()> {
    let mut file = fs.append(Path::new(STATE))?;
    file.truncate(0)?;
    file.write_all(halves(version).concat().as_bytes())?;
    file.sync()
}

fn unlink_then_rename(fs: &dyn FileSystem, version: u32) -> io::Result<()> {
    write(fs, TEMPORARY, version)?.sync()?;
    fs.remove(Path::new(STATE))?;
    rename(fs)?;
    sync_dir(fs)
}

fn failed_fsync_believed(fs: &dyn FileSystem, version: u32) -> io::Result<()> {
    let mut file = write(fs, TEMPORARY, version)?;
    if file.sync().is_err() {
        file.sync()?;
    }
    rename(fs)?;
    sync_dir(fs)
}

fn append_without_fsync(fs: &dyn FileSystem, version: u32) -> io::Result<()> {
    let mut file = fs.append(Path::new(STATE))?;
    file.write_all(halves(version).concat().as_bytes())
}

/// The last version in the file; a torn line at its end does not count. `None` if the file is
/// missing or damaged.
fn recover(image: &Image) -> Option<u32> {
    let text = String::from_utf8_lossy(image.read(STATE)?).into_owned();
    let (whole, _torn) = text.rsplit_once('\n')?;
    let versions: Option<Vec<u32>> = whole.split('\n').map(version_of).collect();
    versions?.last().copied()
}

fn version_of(line: &str) -> Option<u32> {
    (1..10).find(|&version| halves(version).concat().trim_end() == line)
}

/// Saves versions 2 and 3 over 1, dying at `crash`. Returns the disk, the version reported as saved
/// last and the one tried last; a save that fails is tried once more.
fn run(save: Save, fail: bool, crash: Option<(u64, Moment)>) -> (Disk, World, [u32; 2]) {
    let world = World::new(Tape::benign(), Faults::none());
    let image = Image::new().with_file(STATE, halves(1).concat().into_bytes());
    let disk = Disk::mount(&world, &image);
    if fail {
        disk.fail_at(a_failed_sync());
    }
    if let Some((operation, moment)) = crash {
        world.crash_at(operation, moment);
    }
    let mut versions = [1, 1];
    for version in [2, 3] {
        versions[1] = version;
        if save(&disk, version).is_ok() || save(&disk, version).is_ok() {
            versions[0] = version;
        } else {
            break;
        }
    }
    (disk, world, versions)
}

fn a_failed_sync() -> Planned {
    Planned {
        operation: Operation::Sync,
        path: String::new(),
        nth: 2,
        failure: Failure::Io,
    }
}

/// How many images break the promise, of how many, over all crash points.
fn broken(save: Save, fail: bool, model: Model) -> (usize, usize) {
    let (disk, world, versions) = run(save, fail, None);
    assert_eq!(versions, [3, 3], "without a crash both saves succeed");
    let crash_points = (1..=world.operations())
        .flat_map(|operation| [Moment::Before, Moment::After].map(|moment| (operation, moment)));
    let mut runs = vec![(disk, versions)];
    for crash in crash_points {
        let (disk, world, versions) = run(save, fail, Some(crash));
        assert!(world.frozen(), "every operation is reached");
        runs.push((disk, versions));
    }
    let mut counts = (0, 0);
    for (disk, [saved, tried]) in runs {
        let images = disk.images(model, 10_000);
        assert!(images.complete);
        let is_broken =
            |image: &&Image| !recover(image).is_some_and(|it| (saved..=tried).contains(&it));
        counts.0 += images.images.iter().filter(is_broken).count();
        counts.1 += images.images.len();
    }
    counts
}

/// The models that find a protocol wrong.
fn found_by(save: Save, fail: bool) -> Vec<Model> {
    let finds = |model: &Model| broken(save, fail, *model).0 > 0;
    Model::ALL.into_iter().filter(finds).collect()
}

#[test]
fn the_correct_protocols_survive_every_model() {
    for fail in [false, true] {
        assert_eq!(found_by(correct, fail), []);
    }
    // A torn line has lost its line end with its second half, so it is known as torn.
    assert_eq!(found_by(correct_append, false), []);
}

/// `strict`, which only drops what is unsynced, misses what it takes a reordering to see.
#[test]
fn each_classic_mistake_is_found() {
    use Model::{Full, Kill, Strict, Torn, Unordered};
    let check = |name: &str, save: Save, fail: bool, expected: &[Model]| {
        assert_eq!(found_by(save, fail), expected, "{name}");
    };
    let power_loss = [Strict, Full, Torn, Unordered];
    let reordering = [Full, Torn, Unordered];
    check("no fsync", no_fsync, false, &power_loss);
    check("no directory fsync", no_directory_fsync, false, &power_loss);
    check("fsync after rename", fsync_after_rename, false, &reordering);
    let killed_too = [Kill, Full, Torn, Unordered];
    check("write in place", write_in_place, false, &killed_too);
    check("truncate in place", truncate_in_place, false, &killed_too);
    check("unlink then rename", unlink_then_rename, false, &killed_too);
    check(
        "failed fsync believed",
        failed_fsync_believed,
        true,
        &power_loss,
    );
    check(
        "append without fsync",
        append_without_fsync,
        false,
        &power_loss,
    );
}

/// Exhaustive is affordable: the figure that the search budgets rest on.
#[test]
fn the_images_of_a_save_are_few() {
    for save in [correct, no_fsync, write_in_place, append_without_fsync] {
        let (_, images) = broken(save, false, Model::Full);
        assert!(images < 1_000, "{images}");
    }
}
