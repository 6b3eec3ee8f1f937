//! What the program tells whoever supervises it: the protocol of systemd's `Type=notify`.
//!
//! `NOTIFY_SOCKET` names a datagram socket, and each datagram holds lines: `READY=1` once the work has
//! begun, `STATUS=` for people, `STOPPING=1` at the end, and `WATCHDOG=1` as the sign of life that is
//! wanted every `WATCHDOG_USEC`. Without the variable nobody is told anything.
//!
//! A sign of life is only given where the program's own loop comes by: at the steps of a run, at the
//! pieces of a download, and between them in the pauses, which are cut short for it. A timer on a
//! thread of its own would go on telling of a program that hangs. What may last longest between two
//! signs, beside a disk that hangs, is a host that says nothing: a minute. So a watchdog of less than
//! two minutes is too strict.

use std::cell::Cell;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::download::{self, Pause, Watcher};
use crate::driver::Observer;
use crate::dump::Kind;
use crate::extraction::{Extraction, Notice};
use crate::human::size;
use crate::settings::Environment;
use crate::telemetry;
use crate::time::{Clock, Instant};

/// Between two statuses.
const STATUS_EVERY: Duration = Duration::from_secs(15);
/// So often is a sign given in the time in which one is wanted: a pause may end just before a sign
/// is due, and then two fall together.
const SIGNS: u32 = 4;

/// Who is told, if anybody is.
#[derive(Debug)]
pub struct Supervisor {
    socket: Option<UnixDatagram>,
    /// How often signs of life are given.
    sign_every: Option<Duration>,
    is_ready: Cell<bool>,
    is_stopping: Cell<bool>,
}

impl Supervisor {
    /// The one that `environment` names.
    pub fn new(environment: &Environment) -> Self {
        let named = environment.get("NOTIFY_SOCKET");
        let socket = named.and_then(|name| match connect(name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!("cannot notify {name}: {error}");
                None
            }
        });
        Self {
            sign_every: socket.as_ref().and_then(|_| sign_every(environment)),
            socket,
            is_ready: Cell::new(false),
            is_stopping: Cell::new(false),
        }
    }

    /// The work has begun. Told once.
    pub fn ready(&self) {
        if !self.is_ready.replace(true) {
            self.send("READY=1");
        }
    }

    /// The program is about to end. Told once.
    pub fn stopping(&self) {
        if !self.is_stopping.replace(true) {
            self.send("STOPPING=1");
        }
    }

    /// What the program does, for people.
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", text.replace('\n', " ")));
    }

    /// Gives signs of life when something is watched.
    pub const fn watching<'a, T: ?Sized>(&'a self, inner: &'a mut T) -> Watching<'a, T> {
        Watching {
            inner,
            signs: Signs::new(self),
            status_at: Instant::ORIGIN,
        }
    }

    /// Gives signs of life in pauses.
    pub const fn pausing<'a>(
        &'a self,
        inner: &'a mut dyn Pause,
        clock: &'a dyn Clock,
    ) -> Pausing<'a> {
        Pausing {
            inner,
            clock,
            signs: Signs::new(self),
        }
    }

    /// A datagram that nobody takes is lost: there is nobody else to tell.
    fn send(&self, line: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(line.as_bytes());
        }
    }
}

/// A socket that never blocks, to the file or, behind an `@`, the abstract name of another.
fn connect(name: &str) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match name.strip_prefix('@') {
        Some(name) => connect_abstract(&socket, name)?,
        None => socket.connect(name)?,
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn connect_abstract(socket: &UnixDatagram, name: &str) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::SocketAddr;

    socket.connect_addr(&SocketAddr::from_abstract_name(name)?)
}

#[cfg(not(target_os = "linux"))]
fn connect_abstract(_: &UnixDatagram, _: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// How often signs of life are given, if they are wanted of this process.
fn sign_every(environment: &Environment) -> Option<Duration> {
    let microseconds = environment.get("WATCHDOG_USEC")?.parse().ok()?;
    let is_other = environment
        .get("WATCHDOG_PID")
        .is_some_and(|process| *process != std::process::id().to_string());
    (microseconds > 0 && !is_other).then(|| Duration::from_micros(microseconds) / SIGNS)
}

/// Signs of life, each when it is due.
#[derive(Debug)]
struct Signs<'a> {
    supervisor: &'a Supervisor,
    due: Instant,
}

impl<'a> Signs<'a> {
    const fn new(supervisor: &'a Supervisor) -> Self {
        let due = Instant::ORIGIN;
        Self { supervisor, due }
    }

    fn lives(&mut self, now: Instant) {
        if let Some(every) = self.supervisor.sign_every
            && now >= self.due
        {
            self.due = now + every;
            self.supervisor.send("WATCHDOG=1");
        }
    }
}

/// Watches, and tells the supervisor of it.
#[derive(Debug)]
pub struct Watching<'a, T: ?Sized> {
    inner: &'a mut T,
    signs: Signs<'a>,
    status_at: Instant,
}

impl<T: ?Sized> Watching<'_, T> {
    fn lives(&mut self, now: Instant, status: impl FnOnce() -> Option<String>) {
        self.signs.lives(now);
        if now >= self.status_at
            && let Some(status) = status()
        {
            self.status_at = now + STATUS_EVERY;
            self.signs.supervisor.status(&status);
        }
    }
}

impl<T: Observer + ?Sized> Observer for Watching<'_, T> {
    fn notice(&mut self, now: Instant, notice: &Notice, extraction: &Extraction) {
        if matches!(notice, Notice::Stopping { .. }) {
            self.signs.supervisor.stopping();
        }
        self.inner.notice(now, notice, extraction);
    }

    fn step(&mut self, now: Instant, extraction: &Extraction) {
        self.lives(now, || telemetry::summary(&extraction.progress()));
        self.inner.step(now, extraction);
    }
}

impl<T: Watcher + ?Sized> Watcher for Watching<'_, T> {
    fn progress(&mut self, now: Instant, kind: Kind, done: u64, total: Option<u64>) {
        self.lives(now, || {
            let total = total.map(|total| format!(" of {}", size(total)));
            let total = total.unwrap_or_default();
            Some(format!("downloading {kind}: {}{total}", size(done)))
        });
        self.inner.progress(now, kind, done, total);
    }

    fn notice(&mut self, now: Instant, notice: &download::Notice) {
        self.inner.notice(now, notice);
    }
}

/// Pauses, and gives signs of life meanwhile.
pub struct Pausing<'a> {
    inner: &'a mut dyn Pause,
    clock: &'a dyn Clock,
    signs: Signs<'a>,
}

impl Pause for Pausing<'_> {
    /// May end early for a sign: whoever pauses looks at the time.
    fn pause(&mut self, deadline: Instant) {
        let now = self.clock.now();
        self.signs.lives(now);
        let every = self.signs.supervisor.sign_every;
        let end = every.map_or(deadline, |every| deadline.min(now + every));
        self.inner.pause(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn signs_are_given_to_whom_they_are_wanted_from() {
        let own = std::process::id().to_string();
        let check = |pairs: &[(&str, &str)], milliseconds: Option<u64>| {
            let expected = milliseconds.map(Duration::from_millis);
            assert_eq!(sign_every(&environment(pairs)), expected, "{pairs:?}");
        };
        let usec = ("WATCHDOG_USEC", "2000000");
        check(&[], None);
        check(&[("WATCHDOG_USEC", "0")], None);
        check(&[("WATCHDOG_USEC", "soon")], None);
        check(&[usec], Some(500));
        check(&[usec, ("WATCHDOG_PID", &own)], Some(500));
        check(&[usec, ("WATCHDOG_PID", "1")], None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_socket_is_reached() {
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::net::SocketAddr;

        let name = format!("discogs-extractor-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let named = format!("@{name}");
        let supervisor = Supervisor::new(&environment(&[("NOTIFY_SOCKET", &named)]));
        supervisor.ready();
        supervisor.ready();
        supervisor.status("one\ntwo");
        let heard = || {
            let mut bytes = [0; 64];
            let length = socket.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        assert_eq!(heard(), "READY=1");
        assert_eq!(heard(), "STATUS=one two");
    }

    #[test]
    fn a_socket_that_is_not_there_is_no_error() {
        let supervisor = Supervisor::new(&environment(&[("NOTIFY_SOCKET", "/nowhere/at/all")]));
        supervisor.ready();
        assert!(supervisor.socket.is_none());
    }
}
