//! The layers that decide: state marker, plan, extraction and driver, each through its own door,
//! with a file system, a broker, a source and a clock that do as they are told.

#![cfg(test)]

mod extraction;
mod harness;
mod marker;
mod memory;
mod plan;
mod random;
mod samples_markers;
