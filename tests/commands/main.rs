//! The commands beside `run`, as users meet them: the real program with files and a host of its own.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail like tests")]
#![expect(
    clippy::disallowed_methods,
    reason = "works with the files and processes of the real program"
)]

mod browser;
mod check;
mod client;
mod download;
mod host;
mod letters;
mod page;
mod prometheus;
mod site;
mod supervisor;
mod tune;
mod watched;
mod watching;
