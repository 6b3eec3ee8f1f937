//! Publishes the monthly Discogs dumps record by record to a message broker, with checkpoints
//! that survive any crash.
//!
//! The real pipeline sits behind three traits, [`time::Clock`], [`fs::FileSystem`] and
//! [`broker::Broker`], so that what a simulator crashes at every operation is the code that ships.
//! `ARCHITECTURE.md` has the bird's-eye view and the layers, in the order of the modules below.

pub mod time;

pub mod fs;
pub mod http;

pub mod dump;
pub mod listing;
pub mod record;

pub mod broker;

mod encoded;
mod lanes;

pub mod frame;
pub mod gzip;
pub mod inflate;
pub mod json;
pub mod seek_point;
pub mod xml;

pub mod message;

pub mod source;

pub mod pool;

pub mod dead_letter;
pub mod marker;

pub mod download;
pub mod follow;
pub mod plan;

pub mod claims;
pub mod link;
pub mod saves;
pub mod window;

pub mod extraction;

pub mod driver;

pub mod null;
pub mod queue;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
pub mod spool;

#[cfg(feature = "program")]
pub mod drift;
#[cfg(feature = "program")]
pub mod http_client;
#[cfg(feature = "program")]
pub mod human;
#[cfg(feature = "program")]
pub mod saver;
#[cfg(feature = "program")]
pub mod settings;
#[cfg(feature = "program")]
pub mod signals;

#[cfg(feature = "program")]
pub mod config;

#[cfg(feature = "program")]
pub mod board;
#[cfg(feature = "program")]
pub mod cli;
#[cfg(feature = "program")]
pub mod endpoint;
#[cfg(feature = "program")]
pub mod status;
#[cfg(feature = "program")]
pub mod telemetry;

#[cfg(feature = "program")]
pub mod supervisor;

#[cfg(feature = "program")]
pub mod run;

#[cfg(feature = "program")]
pub mod check;
#[cfg(feature = "program")]
pub mod fetch;
#[cfg(feature = "program")]
pub mod letters;
#[cfg(feature = "program")]
pub mod tune;
