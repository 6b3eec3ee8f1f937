//! The simulated world.

pub mod dumps;
pub mod random;
