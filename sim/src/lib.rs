//! The world of discogs-extractor, simulated: dumps with their truth, and a clock, a disk and a
//! broker in which everything fails that can fail.

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

pub mod guarantee;
pub mod sometimes;

pub mod extractor;
pub mod program;
pub mod scenario;

pub mod oracles;
pub mod scene;

pub mod search;

pub mod bugs;
