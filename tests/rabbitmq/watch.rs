//! Waiting for what other processes do: looking until it is there, and no longer than [`PATIENCE`].

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use discogs_extractor::time::{Clock, SystemClock};

/// What has not come about by then is a failure. Never waited for by a test that passes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Looks until there is something; panics if there never is.
pub(crate) fn look_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    look_within(PATIENCE, look).unwrap_or_else(|| panic!("{what} did not come about"))
}

fn look_within<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let clock = SystemClock::new();
    let deadline = clock.now() + patience;
    loop {
        let found = look();
        if found.is_some() || clock.now() > deadline {
            return found;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Looks until `is_there` says so; panics if it never does.
pub(crate) fn look_until(what: &str, mut is_there: impl FnMut() -> bool) {
    look_for(what, || is_there().then_some(()));
}

/// Runs a command that says little to its end.
pub(crate) fn output(command: &mut Command) -> Output {
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let ended = look_within(PATIENCE, || child.try_wait().unwrap());
    if ended.is_none() {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert!(ended.is_some(), "{command:?} does not end: {output:?}");
    output
}

/// Likewise, for a command that succeeds: what it says on its standard output.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
