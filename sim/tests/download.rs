//! Downloads, crashed at every operation.
//!
//! What could go wrong: a part that is taken for the whole after a crash, because its name came to the
//! disk before its bytes; a note of a length that the part does not have, so that the rest is put
//! behind a gap; a part of one upload continued with another; bytes fetched again for nothing. So at
//! every disk that a crash can leave, a dump's own name must have published bytes, and the part what
//! is noted of it; and in the end everything must be there, and must have been fetched hardly more
//! than once.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use discogs_extractor::download::{self, DownloadError, Notice, Options, Outside, Pause, Watcher};
use discogs_extractor::dump::{Kind, Version, checksums_name, file_name};
use discogs_extractor::marker::{Marker, Paths, Status};
use discogs_extractor::plan;
use discogs_extractor::time::{Clock, Instant};
use sim::clock::VirtualClock;
use sim::disk::{Disk, Image, Model};
use sim::faults::{Fault, Faults};
use sim::host::{Host, ROOT};
use sim::tape::Tape;
use sim::world::{Moment, World};

/// Where the dumps and the state are.
const DATA: &str = "data";
/// How much the host sends at a time.
const PIECE_BYTES: usize = 8;
/// How much is fetched between two notes.
const NOTE_BYTES: u64 = 16;

fn version(text: &str) -> Version {
    text.parse().expect("a date")
}

/// Something that begins like gzip.
fn dump(kind: Kind, salt: u8) -> Vec<u8> {
    let length = 20 + 9 * kind as usize;
    let bytes = (0..).map(|number: usize| (number * 7) as u8 ^ salt ^ kind as u8);
    [0x1f, 0x8b].into_iter().chain(bytes.take(length)).collect()
}

fn host() -> Host {
    let host = Host::default();
    host.upload(&version("20260701"), |kind| dump(kind, 1));
    host.upload(&version("20260801"), |kind| dump(kind, 2));
    host
}

/// Waits by moving the clock.
struct Sleep(VirtualClock);

impl Pause for Sleep {
    fn pause(&mut self, deadline: Instant) {
        self.0.advance_to(deadline);
    }
}

/// Keeps what was told.
#[derive(Default)]
struct Notices(Vec<Notice>);

impl Watcher for Notices {
    fn progress(&mut self, _: Instant, _: Kind, _: u64, _: Option<u64>) {}

    fn notice(&mut self, _: Instant, notice: &Notice) {
        self.0.push(notice.clone());
    }
}

/// A life of the process: fetches the newest version.
struct Life {
    world: World,
    disk: Disk,
    host: Host,
    habits: u32,
    notices: Vec<Notice>,
}

impl Life {
    fn new(world: World, image: &Image, host: &Host, habits: u32) -> Self {
        Self {
            disk: Disk::mount(&world, image),
            world,
            host: host.clone(),
            habits,
            notices: Vec::new(),
        }
    }

    fn live(&mut self) -> Result<Version, DownloadError> {
        let options = Options {
            note_every_bytes: NOTE_BYTES,
            ..Options::new(ROOT)
        };
        let clock = self.world.clock();
        let mut notices = Notices::default();
        let mut outside = Outside {
            fs: &self.disk,
            clock: &clock,
            http: &mut self.host.client(&self.world, PIECE_BYTES, self.habits),
            pause: &mut Sleep(clock.clone()),
            watcher: &mut notices,
            stop: &AtomicBool::new(false),
        };
        let mut fetch = || {
            let published = download::find(&mut outside, &options, None)?;
            let paths = Paths::new(DATA.as_ref(), &published.version);
            let lock = plan::lock(outside.fs, &paths, "a test");
            let _lock = lock.map_err(|error| DownloadError::Io {
                operation: "lock",
                path: DATA.into(),
                error: std::io::Error::other(error),
            })?;
            download::fetch(&mut outside, &options, &published, DATA.as_ref(), &paths)?;
            Ok(published.version)
        };
        let fetched = fetch();
        self.notices = notices.0;
        fetched
    }
}

fn empty() -> Image {
    Image::new().with_directory(DATA)
}

fn path(name: &str) -> String {
    format!("{DATA}/{name}")
}

/// The marker of the newest version, if there is one.
fn marker(image: &Image) -> Option<Marker> {
    let bytes = image.read(path(".extraction_status_20260801.json"))?;
    Some(serde_json::from_slice(bytes).expect("the marker's own name has a whole marker"))
}

/// What must hold of every disk that a crash can leave.
fn judge(image: &Image, host: &Host) {
    let marker = marker(image);
    for kind in Kind::ALL {
        let name = file_name(&version("20260801"), kind);
        let published = host.published(&name).expect("it is published");
        let entry = marker.as_ref().and_then(|marker| {
            let entries = &marker.download_phase.downloads_by_file;
            entries.get(&name)
        });
        match image.read(path(&name)) {
            Some(bytes) => assert_eq!(bytes, &**published, "{name} has other bytes"),
            None => assert!(
                entry.is_none_or(|entry| entry.status != Status::Completed),
                "{name} is said to be there"
            ),
        }
        if let Some(entry) = entry.filter(|entry| entry.status == Status::InProgress) {
            let noted = usize::try_from(entry.bytes_downloaded).expect("it is small");
            let part = image.read(path(&(name.clone() + ".part")));
            let part = part.or_else(|| image.read(path(&name)));
            let part = part.unwrap_or_default();
            assert!(
                part.len() >= noted,
                "{name}: {noted} bytes are noted of {}",
                part.len()
            );
            assert_eq!(
                part[..noted],
                published[..noted],
                "{name}: what is noted is wrong"
            );
        }
    }
}

/// What must hold in the end.
fn judge_end(image: &Image, host: &Host) {
    judge(image, host);
    let marker = marker(image).expect("there is a marker");
    assert_eq!(marker.download_phase.status, Status::Completed);
    assert_eq!(marker.download_phase.files_downloaded, 4);
    for kind in Kind::ALL {
        let name = file_name(&version("20260801"), kind);
        assert!(image.read(path(&name)).is_some(), "{name} is there");
        assert_eq!(image.read(path(&(name + ".part"))), None);
    }
}

/// How many bytes were sent beyond the dumps' own.
fn sent_again(host: &Host) -> u64 {
    let again = Kind::ALL.map(|kind| {
        let name = file_name(&version("20260801"), kind);
        let length = host.published(&name).expect("it is published").len() as u64;
        host.sent(&name) - length
    });
    again.into_iter().sum()
}

#[test]
fn everything_is_fetched_once_and_only_once() {
    let host = host();
    let mut life = Life::new(
        World::new(Tape::benign(), Faults::none()),
        &empty(),
        &host,
        0,
    );
    assert_eq!(life.live().expect("nothing fails"), version("20260801"));
    let disk = life.disk.durable();
    judge_end(&disk, &host);
    assert_eq!(sent_again(&host), 0);

    let requests = host.requests();
    let mut again = Life::new(life.world.next_life(Faults::none()), &disk, &host, 0);
    again.live().expect("nothing fails");
    assert_eq!(sent_again(&host), 0);
    assert_eq!(
        host.requests(),
        requests + 2,
        "the listing and the checksums"
    );
    assert_eq!(again.disk.durable(), disk, "and nothing was written");
}

#[test]
fn a_crash_at_any_operation_loses_nothing_and_fetches_little_again() {
    let mut images = 0;
    for model in [Model::Kill, Model::Strict, Model::Full, Model::Torn] {
        for moment in [Moment::Before, Moment::After] {
            for number in 1.. {
                let host = host();
                let world = World::new(Tape::benign(), Faults::none());
                world.crash_at(number, moment);
                let mut first = Life::new(world, &empty(), &host, 0);
                let ended = first.live();
                if !first.world.frozen() {
                    ended.expect("nothing fails");
                    break;
                }
                for image in first.disk.images(model, 64).images {
                    images += 1;
                    judge(&image, &host);
                    let host = host.branch();
                    let world = first.world.branch(Tape::benign(), Faults::none());
                    let mut second = Life::new(world, &image, &host, 0);
                    second.live().expect("nothing fails any more");
                    judge_end(&second.disk.durable(), &host);
                    let again = sent_again(&host);
                    assert!(
                        again <= NOTE_BYTES + PIECE_BYTES as u64,
                        "operation {number}, {moment:?}, {model:?}: {again} bytes came again"
                    );
                }
            }
        }
    }
    assert!(images > 1_000, "only {images} images were judged");
}

/// One long story: lives that are crashed, with a host that has every habit and a disk that fails,
/// until the faults stop.
fn story(seed: u64) -> Vec<Notice> {
    let tape = Tape::seeded(seed);
    let fate = tape.fork("fate");
    let faults = Faults::only(&[
        Fault::ShortRead,
        Fault::ShortWrite,
        Fault::ReadError,
        Fault::WriteError,
        Fault::NoSpace,
        Fault::SyncError,
    ]);
    let host = host();
    let mut image = empty();
    let mut notices = Vec::new();
    let mut world = World::new(tape, faults);
    for _ in 0..6 {
        if fate.choose("fate.crash", 2) == 1 {
            world.crash_at(u64::from(fate.choose("fate.at", 150)) + 1, Moment::After);
        }
        let mut life = Life::new(world, &image, &host, 3);
        let _ = life.live();
        notices.append(&mut life.notices);
        image = life.disk.image(Model::Torn, &fate);
        judge(&image, &host);
        world = life.world.next_life(faults);
    }
    let mut last = Life::new(world.next_life(Faults::none()), &image, &host, 0);
    last.live()
        .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    judge_end(&last.disk.durable(), &host);
    notices.append(&mut last.notices);
    notices
}

#[test]
fn no_habit_of_the_host_and_no_failure_of_the_disk_makes_a_wrong_dump() {
    let mut notices = Vec::new();
    for seed in 0..300 {
        notices.extend(story(seed));
    }
    let failed = |what: &str| {
        let is_it =
            |notice: &&Notice| matches!(notice, Notice::Failed { why, .. } if why.contains(what));
        assert!(notices.iter().any(|notice| is_it(&notice)), "never: {what}");
    };
    failed("connection refused");
    failed("connection reset");
    failed("the connection ended early");
    failed("nothing comes any more");
    failed("asks for a pause (429)");
    failed("status 503");
    failed("forbids it (403)");
    failed("sends a page");
    assert!(
        notices
            .iter()
            .any(|notice| matches!(notice, Notice::StartedOver(_)))
    );
}

#[test]
fn a_version_without_its_checksums_is_not_complete() {
    let host = host();
    host.withdraw(&version("20260801"), &checksums_name(&version("20260801")));
    let mut life = Life::new(
        World::new(Tape::benign(), Faults::none()),
        &empty(),
        &host,
        0,
    );
    assert_eq!(life.live().expect("nothing fails"), version("20260701"));
}

#[test]
fn another_upload_is_never_joined_to_the_first() {
    for number in 1..200 {
        let host = host();
        let world = World::new(Tape::benign(), Faults::none());
        world.crash_at(number, Moment::After);
        let mut first = Life::new(world, &empty(), &host, 0);
        let _ = first.live();
        host.upload(&version("20260801"), |kind| dump(kind, 3));
        let world = first.world.next_life(Faults::none());
        let mut second = Life::new(world, &first.disk.live(), &host, 0);
        second.live().expect("nothing fails any more");
        judge_end(&second.disk.durable(), &host);
    }
}

/// Taken for an empty listing it would hide the newest version, and an older one would be fetched.
#[test]
fn a_page_in_the_place_of_the_listing_is_not_believed() {
    let host = host();
    let world = World::new(Tape::recorded(vec![8]), Faults::none());
    let mut life = Life::new(world, &empty(), &host, 1_000_000);
    assert_eq!(life.live().expect("it is tried again"), version("20260801"));
    let first = &life.notices[0];
    assert!(
        matches!(first, Notice::Failed { why, .. } if why.contains("no listing")),
        "{first:?}"
    );
}

#[test]
fn a_host_that_asks_for_an_hour_gets_it() {
    let host = host();
    let world = World::new(Tape::recorded(vec![5]), Faults::none());
    let began = world.clock().now();
    let mut life = Life::new(world, &empty(), &host, 1_000_000);
    life.live().expect("it is tried again");
    let waited = life.world.clock().now().since(began);
    assert!(waited >= Duration::from_secs(3_600) && waited < Duration::from_secs(3_700));
    let hour = Duration::from_secs(3_600);
    assert!(matches!(&life.notices[0], Notice::Failed { retry, .. } if *retry == hour));
}
