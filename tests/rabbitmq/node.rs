//! A RabbitMQ: where it is, and what its administrator can do to it.

use std::process::Command;

use testcontainers::{ContainerRequest, GenericImage};

use crate::administrator::Administrator;
use crate::docker::{self, Container};
use crate::watch;

/// The port of AMQP 0-9-1.
pub(crate) const AMQP_PORT: u16 = 5672;
/// The same over TLS, where that is configured.
pub(crate) const AMQPS_PORT: u16 = 5671;
/// The port of the stream protocol.
pub(crate) const STREAM_PORT: u16 = 5552;

/// `rabbitmqctl`, as words separated by spaces.
#[derive(Clone, Debug)]
pub(crate) struct Control(pub(crate) String);

impl Control {
    fn of(container: &Container) -> Self {
        Self(format!("docker exec {} rabbitmqctl", container.id()))
    }

    /// What it says, when asked to be quiet; panics if it fails.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let mut words = self.0.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        watch::succeed(command.args(words).arg("--quiet").args(arguments))
    }

    /// Runs `body` and then restores what it changed, also when it panics.
    pub(crate) fn restoring(&self, restore: &[&str], body: impl FnOnce(&Self)) {
        struct Restore<'a>(&'a Control, &'a [&'a str]);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.run(self.1);
            }
        }
        let _restore = Restore(self, restore);
        body(self);
    }

    /// Runs `body` while messages with larger bodies are refused.
    pub(crate) fn limiting_messages(&self, bytes: usize, body: impl FnOnce()) {
        // RabbitMQ 4 keeps a copy of the setting, and older ones look at the setting itself.
        let set = |bytes: &str| {
            format!(
                "persistent_term:put(max_message_size, {bytes}), \
                 application:set_env(rabbit, max_message_size, {bytes})."
            )
        };
        let get = "{ok, Size} = application:get_env(rabbit, max_message_size), Size.";
        let before = self.run(&["eval", get]);
        self.restoring(&["eval", &set(&before)], |control| {
            control.run(&["eval", &set(&bytes.to_string())]);
            body();
        });
    }
}

/// A RabbitMQ in a container of its own.
pub(crate) struct Node {
    pub(crate) container: Container,
    pub(crate) control: Control,
}

impl Node {
    /// A new one, or `None`, said aloud, if there is no Docker.
    pub(crate) fn start() -> Option<Self> {
        docker::answers().then(|| Self::with(docker::request(&[AMQP_PORT, STREAM_PORT])))
    }

    /// A new one as requested; its AMQP port has to be among the ports.
    pub(crate) fn with(request: ContainerRequest<GenericImage>) -> Self {
        let container = Container::start(request);
        let control = Control::of(&container);
        Self { container, control }
    }

    /// Where it is now; somewhere else after each start.
    pub(crate) fn url(&self) -> String {
        let port = self.container.port(AMQP_PORT);
        format!("amqp://guest:guest@127.0.0.1:{port}")
    }

    /// Where it speaks the stream protocol on this machine; somewhere else after each start.
    pub(crate) fn stream_port(&self) -> u16 {
        self.container.port(STREAM_PORT)
    }

    /// Starts it after a kill, and waits until it takes connections.
    pub(crate) fn start_again(&self) {
        self.container.start_again();
        drop(Administrator::connect(&self.url(), ""));
    }
}
