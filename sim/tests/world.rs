//! The world as a whole: a little program that publishes and saves, killed and brought back.
//!
//! It is no copy of the real pipeline, only something that uses every part of the world, to show
//! that the same tape gives the same run and that the dead stay dead.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use discogs_extractor::broker::{Broker, Command, Event, Message, Session, Subject, Tag};
use discogs_extractor::dump::Kind;
use discogs_extractor::fs::FileSystem;
use discogs_extractor::record::Ordinal;
use sim::broker::{Client, Server};
use sim::disk::{Disk, Image, Model};
use sim::faults::{Fault, Faults};
use sim::tape::{Odometer, Tape};
use sim::world::{Moment, World};

const RECORDS: u64 = 12;
const LIVES_MAX: u32 = 4;
const STATE: &str = "data/state";

/// Publishes one record after the other, each once the one before is confirmed, and saves how far
/// it is. Gives up at the first trouble: the next life goes on.
fn program(world: &World, disk: &Disk, client: &mut Client) -> io::Result<()> {
    let mut done = saved(disk);
    client.submit(Command::Connect(Session(1)));
    while !world.frozen() {
        match client.poll(world.now() + Duration::from_secs(60)) {
            Some(Event::Connected(_)) => {}
            Some(Event::Confirmed(Tag(tag))) => {
                done = tag;
                save(disk, done)?;
            }
            Some(Event::Blocked(_) | Event::Unblocked) => continue,
            _ => return Err(io::ErrorKind::TimedOut.into()),
        }
        if done == RECORDS {
            break;
        }
        client.submit(Command::Publish(Tag(done + 1), message(done + 1)));
    }
    Ok(())
}

fn message(number: u64) -> Arc<Message> {
    Arc::new(Message {
        version: "20260801".parse().expect("a date"),
        route: Kind::Labels,
        subject: Subject::Record(Ordinal(number)),
        sequence: number,
        sha256: String::new(),
        body: number.to_string().into(),
    })
}

fn saved(disk: &Disk) -> u64 {
    let image = disk.live();
    let text = str::from_utf8(image.read(STATE).unwrap_or_default());
    text.expect("a state is digits").parse().unwrap_or(0)
}

fn save(disk: &Disk, done: u64) -> io::Result<()> {
    let temporary = Path::new("data/state.new");
    let mut file = disk.create(temporary)?;
    file.write_all(done.to_string().as_bytes())?;
    file.sync()?;
    disk.rename(temporary, Path::new(STATE))?;
    disk.sync_dir(Path::new("data"))
}

/// What a run came to.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    trace: u64,
    stored: Vec<u64>,
    image: Image,
    lives: u32,
}

/// A whole run: lives that crash at operations of the tape's choice, until one comes to its end.
fn run(tape: &Tape, faults: Faults) -> Outcome {
    let server = Server::new();
    let mut world = World::new(tape.clone(), faults);
    let mut image = Image::new().with_directory("data");
    loop {
        let disk = Disk::mount(&world, &image);
        let mut client = server.client(&world);
        let crash = tape.choose("crash", 40);
        if crash > 0 && world.life() < LIVES_MAX {
            world.crash_at(u64::from(crash), Moment::Before);
        }
        let ended = program(&world, &disk, &mut client).is_ok() && !world.frozen();
        world.freeze();
        image = disk.image(Model::Torn, tape);
        if ended || world.life() == LIVES_MAX {
            return outcome(&world, &server, image);
        }
        world = world.next_life(faults);
    }
}

fn outcome(world: &World, server: &Server, image: Image) -> Outcome {
    server.settle(world);
    Outcome {
        trace: world.trace_hash(),
        stored: server.stored().iter().map(|stored| stored.tag.0).collect(),
        image,
        lives: world.life(),
    }
}

fn swarm(seed: u64) -> (Tape, Faults) {
    let tape = Tape::seeded(seed);
    let faults = Faults::swarm(&tape);
    (tape, faults)
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_does_not() {
    let mut traces = Vec::new();
    for seed in 0..200 {
        let [one, again] = [swarm(seed), swarm(seed)].map(|(tape, faults)| run(&tape, faults));
        assert_eq!(one, again, "seed {seed}");
        traces.push(one.trace);
    }
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), 200);
}

/// The trace of a seed is the same in every build, on every machine. The number changes with what
/// the world draws; that is the only reason to change it here.
#[test]
fn a_trace_is_the_same_for_ever() {
    let (tape, faults) = swarm(20_260_801);
    let outcome = run(&tape, faults);
    assert_eq!(outcome.trace, TRACE, "{outcome:?}");
}

const TRACE: u64 = 5_121_376_793_640_571_675;

#[test]
fn a_recording_repeats_a_seeded_run() {
    for seed in 0..200 {
        let (tape, faults) = swarm(seed);
        let seeded = run(&tape, faults);
        let replayed = Tape::recorded(tape.recording());
        let faults = Faults::swarm(&replayed);
        assert_eq!(run(&replayed, faults), seeded, "seed {seed}");
        assert_eq!(replayed.choices(), tape.choices(), "seed {seed}");
    }
}

/// The little program is right: in each run, of any length, what is stored has no gap. With it,
/// lives and crashes of all lengths are known to have happened.
#[test]
fn nothing_is_lost_over_several_lives() {
    let mut lives = [0; LIVES_MAX as usize];
    for seed in 0..200 {
        let kinds = [
            Fault::InFlight,
            Fault::LateFrames,
            Fault::SyncError,
            Fault::LinkLoss,
        ];
        let outcome = run(&Tape::seeded(seed), Faults::only(&kinds));
        let mut seen = 0;
        for number in &outcome.stored {
            assert!(*number <= seen + 1, "seed {seed}: {:?}", outcome.stored);
            seen = seen.max(*number);
        }
        lives[outcome.lives as usize - 1] += 1;
    }
    assert!(lives.iter().all(|&count| count > 0), "{lives:?}");
}

/// One crash before and after each operation, then a life without: exactly one pass over the
/// odometer, and the end is always reached.
#[test]
fn every_crash_is_followed_by_every_image() {
    let mut images_judged = 0;
    let operations = {
        let (world, _, _) = life(&Image::new().with_directory("data"), None, &Server::new());
        world.operations()
    };
    for number in 1..=operations {
        for moment in [Moment::Before, Moment::After] {
            let server = Server::new();
            let start = Image::new().with_directory("data");
            let (world, disk, _) = life(&start, Some((number, moment)), &server);
            assert!(world.frozen());
            for image in disk.images(Model::Full, 1000).images {
                let (server, next) = (
                    server.branch(),
                    world.branch(Tape::benign(), Faults::none()),
                );
                let disk = Disk::mount(&next, &image);
                program(&next, &disk, &mut server.client(&next)).unwrap();
                assert_eq!(saved(&disk), RECORDS);
                images_judged += 1;
            }
        }
    }
    assert!(images_judged > 300, "{images_judged}");
}

fn life(image: &Image, crash: Option<(u64, Moment)>, server: &Server) -> (World, Disk, bool) {
    let world = World::new(Tape::benign(), Faults::none());
    let disk = Disk::mount(&world, image);
    if let Some((number, moment)) = crash {
        world.crash_at(number, moment);
    }
    let ended = program(&world, &disk, &mut server.client(&world)).is_ok();
    (world, disk, ended)
}

#[test]
fn the_tape_draws_every_image_and_no_other() {
    let draw = |tape: &Tape| {
        let world = World::new(tape.clone(), Faults::none());
        let disk = Disk::mount(&world, &Image::new().with_file("data/old", b"old".to_vec()));
        let mut file = disk.create(Path::new("data/new")).unwrap();
        file.write_all(b"1").unwrap();
        file.write_all(b"2").unwrap();
        disk.rename(Path::new("data/new"), Path::new("data/old"))
            .unwrap();
        disk
    };
    for model in Model::ALL {
        let mut drawn: Vec<_> = Odometer::new()
            .map(|tape| draw(&tape).image(model, &tape))
            .collect();
        let disk = draw(&Tape::benign());
        if model != Model::Strict {
            assert_eq!(
                drawn.first(),
                Some(&disk.live()),
                "all zeros: everything survives"
            );
        }
        drawn.sort();
        drawn.dedup();
        assert_eq!(drawn, disk.images(model, 1000).images, "{model:?}");
    }
}

/// A buffered writer that flushes when it is dropped, a lock that is given back: no destructor
/// reaches a dead world.
#[test]
fn dropping_a_dead_program_has_no_effect() {
    let world = World::new(Tape::benign(), Faults::none());
    let disk = Disk::mount(&world, &Image::new().with_directory("data"));
    let lock = disk.lock(Path::new("data/lock"), "first").unwrap();
    let mut file = io::BufWriter::new(disk.create(Path::new(STATE)).unwrap());
    file.write_all(b"still in the program").unwrap();
    world.freeze();
    let (live, durable) = (disk.live(), disk.durable());
    drop(file);
    drop(lock);
    assert!(disk.create(Path::new("data/after")).is_err());
    assert!(disk.open(Path::new(STATE)).is_err());
    assert!(disk.list(Path::new("data")).is_err());
    assert_eq!((disk.live(), disk.durable()), (live.clone(), durable));
    // The lock died with the process.
    let next = world.next_life(Faults::none());
    let disk = Disk::mount(&next, &live);
    disk.lock(Path::new("data/lock"), "second").unwrap();
}
