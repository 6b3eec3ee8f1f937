//! Containers, and that none of them outlives this process.
//!
//! A container or network carries the label [`LABEL`] with the number of this process. Before the
//! first one is made, a child process is started that does nothing but wait for the end of its
//! standard input, which is a pipe that only this process holds: it comes when this process ends, in
//! whatever way, SIGKILL included. Then the child runs `ci/rabbitmq-sweep`, which removes what
//! carries the label.

use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use testcontainers::core::{ContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt};
use tokio::runtime::Runtime;

use crate::watch;

/// The label of everything that these tests leave to the daemon.
const LABEL: &str = "discogs-extractor-test";
/// What is pulled if there is no local image.
const PUBLIC_IMAGE: (&str, &str) = ("rabbitmq", "4");
/// What it starts beside AMQP.
const PLUGINS: &[u8] = b"[rabbitmq_stream].\n";
/// A pull included.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// Sweeps twice, because the daemon may still have been asked for something.
const REAPER_SCRIPT: &str = r#"trap '' INT TERM HUP; cat; "$0" "$1"; sleep 10; exec "$0" "$1""#;

/// The runtime of the client of Docker.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
});

/// The process that cleans up behind this one.
static REAPER: OnceLock<Child> = OnceLock::new();

/// Runs the command line of Docker; panics if it fails.
pub(crate) fn docker(arguments: &[&str]) -> String {
    watch::succeed(Command::new("docker").args(arguments))
}

/// Whether a daemon answers. Says so if not, and panics if one is required.
pub(crate) fn answers() -> bool {
    static ANSWERS: OnceLock<bool> = OnceLock::new();
    let answers = *ANSWERS.get_or_init(|| {
        let ask = ["version", "--format", "{{.Server.Version}}"];
        let asked = Command::new("docker").args(ask).output();
        asked.is_ok_and(|output| output.status.success())
    });
    let is_required = std::env::var("REQUIRE_DOCKER").is_ok_and(|value| value == "1");
    assert!(
        answers || !is_required,
        "REQUIRE_DOCKER=1, and no Docker daemon answers"
    );
    if !answers {
        println!("skipped, because no Docker daemon answers");
    }
    answers
}

/// A RabbitMQ to be started, with the default user and these ports.
pub(crate) fn request(ports: &[u16]) -> ContainerRequest<GenericImage> {
    let (name, tag) = image();
    let ready = WaitFor::message_on_stdout("Server startup complete");
    let image = ports
        .iter()
        .fold(GenericImage::new(name, tag), |image, port| {
            image.with_exposed_port(ContainerPort::Tcp(*port))
        });
    image
        .with_wait_for(ready)
        .with_startup_timeout(START_TIMEOUT)
        .with_copy_to("/etc/rabbitmq/enabled_plugins", PLUGINS.to_vec())
        .with_label(LABEL, process())
}

/// The local image if there is one, else the public one.
fn image() -> (String, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/ci/rabbitmq-image");
    let local = watch::succeed(Command::new(script).arg("--name"));
    let inspected = watch::output(Command::new("docker").args(["image", "inspect", &local]));
    let (name, tag) = match inspected.status.success() {
        true => local.split_once(':').unwrap(),
        false => PUBLIC_IMAGE,
    };
    (name.to_owned(), tag.to_owned())
}

/// A container; removed when dropped.
pub(crate) struct Container(Option<ContainerAsync<GenericImage>>);

impl Container {
    /// Starts a container, and waits until it is ready.
    pub(crate) fn start(request: ContainerRequest<GenericImage>) -> Self {
        reap();
        let started = RUNTIME.block_on(request.start());
        Self(Some(started.unwrap_or_else(|error| {
            panic!("{error}; if images can't be pulled here, make one with ci/rabbitmq-image")
        })))
    }

    fn container(&self) -> &ContainerAsync<GenericImage> {
        self.0.as_ref().expect("set until dropped")
    }

    pub(crate) fn id(&self) -> &str {
        self.container().id()
    }

    /// Where the host finds a port of it; another one after each start.
    pub(crate) fn port(&self, port: u16) -> u16 {
        let found = self
            .container()
            .get_host_port_ipv4(ContainerPort::Tcp(port));
        RUNTIME.block_on(found).unwrap()
    }

    /// Kills all of it at once, as a loss of power does but for the disk.
    pub(crate) fn kill(&self) {
        docker(&["kill", self.id()]);
    }

    /// Starts it after a kill, and does not wait until it is ready.
    pub(crate) fn start_again(&self) {
        RUNTIME.block_on(self.container().start()).unwrap();
    }

    /// Freezes it: the machine still answers, and nothing on it runs.
    pub(crate) fn pause(&self) {
        RUNTIME.block_on(self.container().pause()).unwrap();
    }

    pub(crate) fn unpause(&self) {
        RUNTIME.block_on(self.container().unpause()).unwrap();
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let container = self.0.take().expect("set until dropped");
        // What can't be removed now is left to the reaper.
        let _ = RUNTIME.block_on(container.rm());
    }
}

/// A private network; removed when dropped.
pub(crate) struct Network(String);

impl Network {
    pub(crate) fn new() -> Self {
        reap();
        let label = format!("{LABEL}={}", process());
        let name = format!("{LABEL}-{}", process());
        Self(docker(&["network", "create", "--label", &label, &name]))
    }

    /// Lets the others on this network find `container` as `alias`.
    pub(crate) fn join(&self, container: &Container, alias: &str) {
        docker(&[
            "network",
            "connect",
            "--alias",
            alias,
            &self.0,
            container.id(),
        ]);
    }

    /// Takes the container off this network; how the host reaches it stays.
    pub(crate) fn leave(&self, container: &Container) {
        docker(&["network", "disconnect", &self.0, container.id()]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What can't be removed now is left to the reaper.
        watch::output(Command::new("docker").args(["network", "rm", &self.0]));
    }
}

fn process() -> String {
    std::process::id().to_string()
}

/// Sees to it that there is a process that cleans up behind this one.
fn reap() {
    let sweep = concat!(env!("CARGO_MANIFEST_DIR"), "/ci/rabbitmq-sweep");
    REAPER.get_or_init(|| {
        Command::new("sh")
            .args(["-c", REAPER_SCRIPT])
            .args([sweep, &process()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    });
}

#[test]
fn containers_do_not_outlive_a_process_that_is_killed() {
    if !answers() {
        return;
    }
    let tests = std::env::current_exe().unwrap();
    let mut child = Command::new(tests)
        .arg("cluster")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let label = format!("label={LABEL}={}", child.id());
    let left = || {
        let containers = docker(&["ps", "--all", "--quiet", "--filter", &label]);
        let networks = docker(&["network", "ls", "--quiet", "--filter", &label]);
        [containers, networks]
    };
    watch::look_until("a container", || left().iter().all(|ids| !ids.is_empty()));
    child.kill().unwrap();
    child.wait().unwrap();
    watch::look_until("their end", || left().iter().all(String::is_empty));
}
