//! The simulated world.

pub mod random;
