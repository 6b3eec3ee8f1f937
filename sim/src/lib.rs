//! The world of discogs-extractor, simulated: dumps with their truth, and a clock, a disk and a
//! broker in which everything fails that can fail; and the searches that crash a program in it.
//!
//! The product is crashed by the tests and by `cargo run --release -p sim -- explore` and
//! `exhaustive`. What is broken is told with the operations that led to it, with what the disk and
//! the broker held, and with the command that repeats it.
//!
//! # With an own program
//!
//! - An own **protocol** of progress, or a whole pipeline, implements [`program::Program`]: how it
//!   lives one life in the simulated world, and what it would go on from on a given disk. It gets
//!   both searches and all oracles that know nothing of the product's own files.
//! - An own **source** of records implements [`Open`](discogs_extractor::driver::Open), and takes the
//!   place of the product's in [`extractor::Seams`]; so does a wrapper of the saver or the broker.
//! - An own **broker** implements [`place::Place`]: how a life opens it, and what it holds. The spool and
//!   the simulated RabbitMQ are two such places, `sim/tests/place.rs` is a third. It gets both
//!   searches and all oracles with the production pipeline in front of it; [`contract`] tests its
//!   every answer besides.
//!
//! Here is a marker protocol as there are many: progress is saved every so many records, when they
//! were handed to the broker and not when it confirmed them. The search finds the crash that loses
//! records, and shows it; saved after the confirms, the same progress survives every two crashes.
//!
//! ```
#![doc = include_str!("../examples/early_marker.rs")]
//! ```

pub mod random;

pub mod dumps;

pub mod trace;

pub mod tape;

pub mod clock;
pub mod faults;

pub mod world;

pub mod broker;
pub mod contract;
pub mod disk;
pub mod host;

pub mod guarantee;
pub mod sometimes;

pub mod extractor;
pub mod place;
pub mod program;
pub mod scenario;

pub mod oracles;
pub mod scene;

pub mod search;

pub mod bugs;
