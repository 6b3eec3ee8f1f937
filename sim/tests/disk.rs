//! What the simulated disk does that a real one does only on a bad day.

use std::io::{self, Read, Write};
use std::path::Path;

use discogs_extractor::fs::{self, FileSystem};
use sim::disk::{Disk, Failure, Image, Model, Operation, Planned};
use sim::faults::{Fault, Faults};
use sim::tape::Tape;
use sim::world::{Moment, World};

fn disk_of(faults: &[Fault], choices: &[u32]) -> (World, Disk) {
    let world = World::logged(Tape::recorded(choices.to_vec()), Faults::only(faults));
    let image = Image::new().with_file("data/old", b"old".to_vec());
    let disk = Disk::mount(&world, &image);
    (world, disk)
}

fn write(disk: &Disk, path: &str, text: &str) -> io::Result<()> {
    let mut file = disk.create(Path::new(path))?;
    file.write_all(text.as_bytes())?;
    file.sync()
}

fn planned(operation: Operation, path: &str, nth: u32, failure: Failure) -> Planned {
    Planned {
        operation,
        path: path.to_owned(),
        nth,
        failure,
    }
}

/// Does everything once; the words of the first error.
fn everything(disk: &Disk) -> String {
    let [old, new, linked] = ["data/old", "data/new", "data/linked"].map(Path::new);
    let run = || {
        disk.create_dir(Path::new("data/deep"))?;
        let _lock = disk.lock(Path::new("data/lock"), "owner")?;
        disk.metadata(old)?;
        fs::read(disk, old)?;
        write(disk, "data/new", "new")?;
        let mut log = disk.append(new)?;
        log.truncate(1)?;
        disk.link(old, linked)?;
        disk.rename(new, old)?;
        disk.remove(linked)?;
        disk.sync_dir(Path::new("data"))?;
        disk.list(Path::new("data"))
    };
    run()
        .err()
        .map_or(String::new(), |error: io::Error| error.to_string())
}

#[test]
fn any_operation_fails_where_a_test_says_so() {
    use Operation::*;
    let (_, disk) = disk_of(&[], &[]);
    assert_eq!(everything(&disk), "", "nothing is planned");
    let operations = [
        Open, Read, Create, Append, Write, Truncate, Sync, Rename, Link, Remove, CreateDir,
        SyncDir, List, Metadata, Lock,
    ];
    for operation in operations {
        for (failure, code) in [(Failure::Io, 5), (Failure::NoSpace, 28)] {
            let (_, disk) = disk_of(&[], &[]);
            disk.fail_at(planned(operation, "data", 1, failure));
            assert!(
                everything(&disk).ends_with(&format!("(os error {code})")),
                "{operation:?}"
            );
            assert_eq!(disk.unfired(), []);
        }
    }
}

#[test]
fn a_planned_failure_waits_for_its_path_and_its_turn() {
    let (_, disk) = disk_of(&[], &[]);
    let plan = planned(Operation::Write, "second", 2, Failure::NoSpace);
    disk.fail_at(plan.clone());
    write(&disk, "data/first", "1").unwrap();
    write(&disk, "data/second", "2").unwrap();
    assert_eq!(disk.unfired().len(), 1);
    assert!(write(&disk, "data/second", "2").is_err());
    assert_eq!(disk.unfired(), []);
    write(&disk, "data/second", "2").unwrap();
}

#[test]
fn errors_are_drawn_from_the_tape_and_counted() {
    // The benign choices before it are those of `create` and `write`.
    let (world, disk) = disk_of(&[Fault::WriteError, Fault::NoSpace], &[0, 2]);
    let error = write(&disk, "data/new", "new").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(
        [Fault::WriteError, Fault::NoSpace].map(|fault| world.fired(fault)),
        [0, 1]
    );
    assert_eq!(
        disk.live().read("data/new"),
        Some(&b""[..]),
        "nothing was written"
    );
}

#[test]
fn reads_and_writes_may_be_short() {
    let (_, disk) = disk_of(&[Fault::ShortWrite, Fault::ShortRead], &[1, 1, 1, 0]);
    let mut file = disk.create(Path::new("data/new")).unwrap();
    assert_eq!(file.write(b"12345678").unwrap(), 1);
    assert_eq!(file.write(b"2345678").unwrap(), 3);
    let (_, disk) = disk_of(&[Fault::ShortRead], &[1, 2]);
    let mut buffer = [0; 8];
    let mut file = disk.open(Path::new("data/old")).unwrap();
    assert_eq!(file.read(&mut buffer).unwrap(), 2);
    assert_eq!(file.read(&mut buffer).unwrap(), 1);
}

#[test]
fn a_failed_sync_reads_well_and_is_gone_after_power_loss() {
    let (_, disk) = disk_of(&[], &[]);
    disk.fail_at(planned(Operation::Sync, "old", 1, Failure::Io));
    let mut file = disk.append(Path::new("data/old")).unwrap();
    file.write_all(b"+lost").unwrap();
    assert!(file.sync().is_err());
    file.sync().unwrap();
    assert_eq!(disk.live().read("data/old"), Some(&b"old+lost"[..]));
    assert_eq!(disk.durable().read("data/old"), Some(&b"old"[..]));
}

#[test]
fn names_of_one_file_share_its_bytes_through_a_crash() {
    let (world, disk) = disk_of(&[], &[]);
    disk.link(Path::new("data/old"), Path::new("data/previous"))
        .unwrap();
    disk.sync_dir(Path::new("data")).unwrap();
    let image = disk.durable();
    let next = world.next_life(Faults::none());
    let disk = Disk::mount(&next, &image);
    disk.append(Path::new("data/old"))
        .unwrap()
        .write_all(b"er")
        .unwrap();
    assert_eq!(disk.live().read("data/previous"), Some(&b"older"[..]));
    // POSIX: renaming one name of a file to another of it does nothing.
    disk.rename(Path::new("data/previous"), Path::new("data/old"))
        .unwrap();
    assert!(disk.live().read("data/previous").is_some());
}

#[test]
fn a_removed_file_lives_on_in_its_handle_and_in_images() {
    let (_, disk) = disk_of(&[], &[]);
    let mut reader = disk.open(Path::new("data/old")).unwrap();
    disk.remove(Path::new("data/old")).unwrap();
    assert_eq!(disk.images(Model::Full, 10).images.len(), 2);
    disk.sync_dir(Path::new("data")).unwrap();
    assert_eq!(disk.images(Model::Full, 10).images.len(), 1);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old");
}

#[test]
fn a_limit_is_told() {
    let (_, disk) = disk_of(&[], &[]);
    let mut file = disk.append(Path::new("data/old")).unwrap();
    for _ in 0..5 {
        file.write_all(b"x").unwrap();
    }
    let all = disk.images(Model::Full, 100);
    assert!(all.complete);
    assert_eq!(all.images.len(), 1 << 5);
    let some = disk.images(Model::Full, 20);
    assert!(!some.complete);
    assert_eq!(some.images.len(), 20);
}

#[test]
fn a_file_at_rest_rots() {
    let (world, disk) = disk_of(&[], &[]);
    disk.rot("data/old", 1, 0x01);
    assert_eq!(disk.live().read("data/old"), Some(&b"omd"[..]));
    assert_eq!(disk.durable(), disk.live());
    assert!(world.timeline().contains("data/old at 1"));
}

/// An operation that the crash falls behind has its effect, and the program never knows.
#[test]
fn a_crash_falls_before_or_after_a_change() {
    for (moment, expected) in [(Moment::Before, Some(&b"old"[..])), (Moment::After, None)] {
        let (world, disk) = disk_of(&[], &[]);
        world.crash_at(1, moment);
        assert!(disk.remove(Path::new("data/old")).is_err());
        assert_eq!(disk.live().read("data/old"), expected, "{moment:?}");
    }
}

#[test]
fn the_timeline_says_what_was_done() {
    let (world, disk) = disk_of(&[], &[]);
    write(&disk, "data/new", "new").unwrap();
    disk.rename(Path::new("data/new"), Path::new("data/old"))
        .unwrap();
    assert!(disk.remove(Path::new("data/new")).is_err());
    let lines: Vec<String> = world
        .log()
        .iter()
        .map(|entry| format!("{} {}", entry.what, entry.text))
        .collect();
    assert_eq!(
        lines,
        [
            "disk.create data/new",
            "disk.write data/new 3 bytes at 0",
            "disk.sync data/new",
            "disk.rename data/old from data/new",
            "disk.remove data/new: entity not found",
        ]
    );
}
