//! The subcommands, one a file.

pub(crate) mod bugs;
pub(crate) mod exhaustive;
pub(crate) mod explore;
pub(crate) mod fixtures;
pub(crate) mod replay;
