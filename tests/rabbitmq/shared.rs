//! The RabbitMQ that most tests share: the user's, or one container for this process.

use std::ops::Deref;
use std::process;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::administrator::Administrator;
use crate::node::{Control, Node, STREAM_PORT};

/// The shared RabbitMQ.
struct Server {
    url: String,
    stream_port: u16,
    control: Option<Control>,
    /// Kept for its container; the reaper removes it when the process ends.
    _node: Option<Node>,
}

impl Server {
    fn find() -> Option<Self> {
        let variable = |name| std::env::var(name).ok();
        let Some(url) = variable("RABBITMQ_TEST_URL") else {
            return Node::start().map(|node| Self {
                url: node.url(),
                stream_port: node.stream_port(),
                control: Some(node.control.clone()),
                _node: Some(node),
            });
        };
        let control = variable("RABBITMQ_TEST_CTL").map(Control);
        let stream_port = variable("RABBITMQ_TEST_STREAM_PORT");
        Some(Self {
            url,
            stream_port: stream_port.map_or(STREAM_PORT, |port| port.parse().unwrap()),
            control,
            _node: None,
        })
    }

    fn get() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<Server>> = OnceLock::new();
        let server = SERVER.get_or_init(Self::find).as_ref();
        if server.is_none() {
            println!("skipped, because there is neither RABBITMQ_TEST_URL nor a Docker daemon");
        }
        server
    }
}

/// Limits and alarms concern every connection, so tests that set some run alone.
static USE: RwLock<()> = RwLock::new(());

enum Lease {
    Shared(#[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

/// The shared RabbitMQ, as a test uses it; the test's exchanges and queues are deleted at its end.
pub(crate) struct Shared {
    administrator: Administrator,
    /// Where it speaks the stream protocol.
    pub(crate) stream_port: u16,
    _lease: Lease,
}

impl Shared {
    /// For the test `name`, or `None`, said aloud, if there is no RabbitMQ.
    pub(crate) fn get(name: &str) -> Option<Self> {
        let server = Server::get()?;
        let lease = Lease::Shared(USE.read().unwrap_or_else(PoisonError::into_inner));
        Some(Self::open(server, name, lease))
    }

    /// Likewise, with its `rabbitmqctl`, while no other test uses it.
    pub(crate) fn alone(name: &str) -> Option<(Self, Control)> {
        let server = Server::get()?;
        let Some(control) = server.control.clone() else {
            println!("skipped, because RABBITMQ_TEST_CTL is not set");
            return None;
        };
        let lease = Lease::Alone(USE.write().unwrap_or_else(PoisonError::into_inner));
        Some((Self::open(server, name, lease), control))
    }

    fn open(server: &Server, name: &str, lease: Lease) -> Self {
        let prefix = format!("discogs-extractor-test-{}-{name}", process::id());
        let administrator = Administrator::connect(&server.url, &prefix);
        administrator.clean();
        Self {
            administrator,
            stream_port: server.stream_port,
            _lease: lease,
        }
    }
}

impl Deref for Shared {
    type Target = Administrator;

    fn deref(&self) -> &Administrator {
        &self.administrator
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Made anew, because the one before may have been idle for too long.
        let Administrator { url, prefix, .. } = &self.administrator;
        Administrator::connect(url, prefix).clean();
    }
}
