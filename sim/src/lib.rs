//! The simulated world.

pub mod trace;

pub mod tape;

pub mod clock;
pub mod faults;

pub mod world;

pub mod broker;
pub mod disk;
