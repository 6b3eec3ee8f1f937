//! What a supervisor is told, as systemd would hear it: the real program with a socket of the test's.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::host::Host;
use crate::site::{Site, dumps, fixture, signal};

/// A supervisor that listens.
struct Supervisor(UnixDatagram);

impl Supervisor {
    fn new(site: &Site) -> Self {
        let socket = UnixDatagram::bind(site.path("notify")).unwrap();
        let patience = Duration::from_secs(120);
        socket.set_read_timeout(Some(patience)).unwrap();
        Self(socket)
    }

    /// The program under this supervisor, with a watchdog of a fifth of a second.
    fn start(&self, site: &Site, line: &str, process: Option<u32>) -> Child {
        let mut command = site.command(line);
        command
            .env("NOTIFY_SOCKET", site.path("notify"))
            .env("WATCHDOG_USEC", "200000");
        if let Some(process) = process {
            command.env("WATCHDOG_PID", process.to_string());
        }
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn hear(&self) -> io::Result<String> {
        let mut bytes = [0; 1024];
        let length = self.0.recv(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    /// What is told up to something that begins so.
    fn hear_until(&self, prefix: &str) -> Vec<String> {
        let mut heard = Vec::new();
        loop {
            let text = self
                .hear()
                .unwrap_or_else(|error| panic!("no {prefix} after {heard:?}: {error}"));
            let is_it = text.starts_with(prefix);
            heard.push(text);
            if is_it {
                return heard;
            }
        }
    }

    /// What was told and not heard yet, of a process that has ended.
    fn rest(&self) -> Vec<String> {
        self.0.set_nonblocking(true).unwrap();
        std::iter::from_fn(|| self.hear().ok()).collect()
    }
}

fn is_sign(text: &&String) -> bool {
    *text == "WATCHDOG=1"
}

#[test]
fn follow_tells_how_it_is_and_gives_signs_of_life_while_it_waits_for_days() {
    let site = Site::with_copies(tempfile::tempdir().unwrap().path());
    let host = Host::new(dumps());
    let supervisor = Supervisor::new(&site);
    let line = format!(
        "follow data --download-url {} --broker null: --listen off",
        host.address()
    );
    let mut child = supervisor.start(&site, &line, None);
    let heard = supervisor.hear_until("STATUS=version 20260801 is complete");
    assert_eq!(heard[0], "READY=1");
    assert_eq!(heard.iter().filter(|text| *text == "READY=1").count(), 1);
    let tells = |what: &str| heard.iter().any(|text| text.starts_with(what));
    assert!(tells("STATUS=downloading artists: "), "{heard:?}");
    assert!(tells("STATUS=artists "), "{heard:?}");
    assert!(tells("WATCHDOG=1"), "{heard:?}");

    for _ in 0..10 {
        assert_eq!(supervisor.hear().unwrap(), "WATCHDOG=1");
    }
    signal(&child, "TERM");
    supervisor.hear_until("STOPPING=1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(supervisor.rest(), [""; 0]);
}

#[test]
fn a_run_is_ready_once_it_has_the_state() {
    let site = Site::with_copies(&fixture("20260801"));
    let supervisor = Supervisor::new(&site);
    let mut child = supervisor.start(&site, "run . --broker null:", None);
    let heard = supervisor.hear_until("STOPPING=1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(heard.first().unwrap(), "READY=1");
    assert_eq!(supervisor.rest(), [""; 0]);
    assert!(heard.iter().any(|text| is_sign(&text)), "{heard:?}");

    let empty = Site::with_copies(tempfile::tempdir().unwrap().path());
    let supervisor = Supervisor::new(&empty);
    let mut child = supervisor.start(&empty, "run . --broker null:", None);
    assert_eq!(child.wait().unwrap().code(), Some(2));
    assert_eq!(supervisor.rest(), [""; 0], "it was never ready");
}

#[test]
fn a_run_that_waits_for_its_broker_gives_signs_and_tells_that_it_stops() {
    let site = Site::with_copies(&fixture("20260801"));
    let supervisor = Supervisor::new(&site);
    // Nobody listens there, so it tries to connect until it is stopped.
    let line = "run . --broker amqp://127.0.0.1:1";
    let mut child = supervisor.start(&site, line, None);
    supervisor.hear_until("STATUS=artists ");
    supervisor.hear_until("WATCHDOG=1");
    signal(&child, "TERM");
    supervisor.hear_until("STOPPING=1");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn no_signs_are_given_in_the_place_of_another_process() {
    let site = Site::with_copies(&fixture("20260801"));
    let supervisor = Supervisor::new(&site);
    let line = "run . --broker null:";
    let mut child = supervisor.start(&site, line, Some(std::process::id()));
    let heard = supervisor.hear_until("STOPPING=1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!heard.iter().any(|text| is_sign(&text)), "{heard:?}");
}
