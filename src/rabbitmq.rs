//! RabbitMQ, over AMQP 0-9-1: at least once, in order, with stable identities.
//!
//! # A session
//!
//! A thread waits for [`Command::Connect`]. It then tries the configured addresses, beginning
//! after the one that it used last, until one of them takes it: connection, channel in confirm
//! mode, exchanges. From then on it publishes what it is told to, every message `mandatory` and
//! persistent, and reports what becomes of each, until the broker, the network or the program
//! ends the session. Nothing recovers by itself: the program connects again, and publishes again
//! what has no answer.
//!
//! # One loop that never waits for the broker alone
//!
//! Everything is one task: commands, confirms and the connection's notices are waited for
//! together, so an alarm, during which lapin writes nothing and even `close` hangs, delays only
//! confirms. Frames queue up in lapin without bound; the program's window bounds them.
//! Each attempt to connect has a tokio runtime of its own. When the session ends, the runtime is
//! dropped, and that ends lapin's threads and sockets in whatever state they are.
//!
//! # What a confirm proves
//!
//! Less than it seems to: an unroutable message is acknowledged as well, and lapin may hand over
//! its return with the confirm of another. `unanswered.rs` tells how it is found out.

mod address;
mod failure;
mod link;
mod properties;
pub mod stream;
mod unanswered;
mod worker;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::ErrorKind;
use tokio::time::timeout;

pub use self::address::{AddressError, AmqpAddress, Scheme};
use self::link::Link;
use self::unanswered::Unanswered;
use self::worker::{Client, Commands, Protocol, Reach, refuse};
use crate::broker::{Broker, Command, Disconnect, Event, Waker};
use crate::dump::Kind;
use crate::queue::EventSender;
use crate::time::{Clock, Instant};

/// The most bytes that the protocol allows in the name of an exchange or a queue.
const NAME_BYTES_MAX: usize = 255;

/// How to reach and use a RabbitMQ.
#[derive(Clone, Debug)]
pub struct RabbitMqConfig {
    /// The nodes of one cluster, tried in turn; at least one.
    pub addresses: Vec<AmqpAddress>,
    /// The exchanges.
    pub topology: Topology,
    /// Queues to declare and bind, for users whose consumers don't do that; usually none.
    pub queues: Vec<DeclaredQueue>,
    /// Certificates in PEM form, of authorities to trust besides those of the system.
    pub ca_certificates: Option<String>,
    /// How long one attempt to connect to one address may take, exchanges and queues included.
    pub connect_timeout: Duration,
    /// How long to wait for the broker's goodbye before the connection is cut.
    pub close_timeout: Duration,
}

impl RabbitMqConfig {
    /// The default exchanges on `addresses`, no queues, 5 seconds to connect, 2 to close.
    pub fn new(addresses: Vec<AmqpAddress>) -> Self {
        Self {
            addresses,
            topology: Topology::default(),
            queues: Vec::new(),
            ca_certificates: None,
            connect_timeout: Duration::from_secs(5),
            close_timeout: Duration::from_secs(2),
        }
    }

    /// Whether the addresses are of this protocol, and every name is short enough for it.
    fn check(&self) -> Result<(), String> {
        if self
            .addresses
            .iter()
            .any(|address| address.scheme.is_stream())
        {
            return Err(
                "an address of the stream protocol was given to AMQP; write amqp://".to_owned(),
            );
        }
        let queues = self
            .queues
            .iter()
            .map(|queue| queue.name_for(Kind::Releases));
        let name = match &self.topology {
            Topology::Fanout { prefix } => format!("{prefix}-{}", Kind::Releases),
            Topology::Topic { exchange } => exchange.clone(),
        };
        match queues
            .chain([name])
            .find(|name| name.len() > NAME_BYTES_MAX)
        {
            Some(name) => Err(format!(
                "`{name}` is too long for the name of an exchange or queue; configure one of at most {NAME_BYTES_MAX} bytes"
            )),
            None => Ok(()),
        }
    }
}

/// The exchanges that messages are published to. Durable; declared on connecting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One fanout exchange for each kind, `PREFIX-KIND`; the routing key is empty.
    Fanout {
        /// What the names of the exchanges begin with.
        prefix: String,
    },
    /// One topic exchange; the routing key is the kind.
    Topic {
        /// The name of the exchange.
        exchange: String,
    },
}

impl Topology {
    /// One topic exchange with the name that older consumers expect.
    pub fn topic() -> Self {
        Self::Topic {
            exchange: "discogsography-exchange".to_owned(),
        }
    }
}

impl Default for Topology {
    /// The exchanges that present consumers expect.
    fn default() -> Self {
        Self::Fanout {
            prefix: "discogsography-discogs".to_owned(),
        }
    }
}

/// A durable queue that is declared, and bound, on connecting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredQueue {
    /// The name; `{kind}` in it stands for the kind, so that each has a queue. A name without it
    /// is one queue for all kinds.
    pub name: String,
    /// Which type of queue.
    pub queue_type: QueueType,
}

impl DeclaredQueue {
    fn name_for(&self, kind: Kind) -> String {
        self.name.replace("{kind}", kind.name())
    }
}

/// RabbitMQ's types of queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueType {
    /// Replicated, and safe against the loss of a node.
    #[default]
    Quorum,
    /// On one node.
    Classic,
}

impl QueueType {
    const fn name(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
        }
    }
}

/// A RabbitMQ. Dropping it closes the connection and waits for the thread to end, at most for
/// the close time-out.
pub struct RabbitMq(Client);

impl RabbitMq {
    /// Starts the thread, which connects only when told to. Deadlines are those of `clock`.
    pub fn new(config: RabbitMqConfig, clock: Arc<dyn Clock>) -> Self {
        let reach = Reach {
            addresses: config.addresses.clone(),
            connect_timeout: config.connect_timeout,
            close_timeout: config.close_timeout,
        };
        Self(Client::new(reach, Amqp(config), clock))
    }
}

/// Deletes the exchanges and queues that `config` declares, and what is in them.
///
/// # Errors
/// What RabbitMQ, or the network, said.
pub fn remove(config: &RabbitMqConfig) -> Result<(), String> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let mut why = "no address of a RabbitMQ is configured".to_owned();
    for address in &config.addresses {
        let removed =
            async { timeout(config.connect_timeout, link::remove(config, address)).await };
        match runtime.block_on(removed) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => why = failure::disconnect(address, &error).why,
            Err(_) => why = format!("RabbitMQ at {address} did not answer"),
        }
    }
    // A look-up of the host name may still be running, and nobody can interrupt it.
    runtime.shutdown_background();
    Err(why)
}

impl Broker for RabbitMq {
    fn submit(&mut self, command: Command) {
        self.0.submit(command);
    }

    fn poll(&mut self, deadline: Instant) -> Option<Event> {
        self.0.poll(deadline)
    }

    fn waker(&self) -> Waker {
        self.0.waker()
    }
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RabbitMq")
    }
}

/// AMQP 0-9-1.
struct Amqp(RabbitMqConfig);

impl Protocol for Amqp {
    type Link = (Link, AmqpAddress);

    fn check(&self) -> Result<(), String> {
        self.0.check()
    }

    async fn open(&mut self, address: &AmqpAddress) -> Result<Self::Link, Disconnect> {
        match Link::open(&self.0, address).await {
            Ok(link) => Ok((link, address.clone())),
            Err(error) => Err(failure::disconnect(address, &error)),
        }
    }

    async fn serve(
        &mut self,
        (link, address): &mut Self::Link,
        commands: &mut Commands,
        events: &EventSender,
    ) -> Result<(), Disconnect> {
        let mut unanswered = Unanswered::new();
        let ended = exchange(link, &mut unanswered, commands, events).await;
        let Err(error) = ended else {
            return Ok(());
        };
        let error = root_cause(error, link, self.0.close_timeout).await;
        if let Some((limit, why)) = failure::size_limit(&error) {
            unanswered.refuse_larger(limit, &why, &mut |event| events.send(event));
        }
        Err(failure::disconnect(address, &error))
    }

    async fn close(&mut self, (link, _): Self::Link, _: &EventSender) {
        let _ = link.close().await;
    }
}

async fn exchange(
    link: &mut Link,
    unanswered: &mut Unanswered<lapin::Error>,
    commands: &mut Commands,
    events: &EventSender,
) -> lapin::Result<()> {
    loop {
        // Confirms first, so that nothing else, least of all bad news, overtakes one.
        tokio::select! {
            biased;
            () = unanswered.woken() => unanswered.sweep(&mut |event| events.send(event))?,
            notice = link.notices.next() => match notice {
                Some(notice) => take_notice(notice, events)?,
                None => return Err(ErrorKind::InvalidConnectionState(
                    lapin::ConnectionState::Closed,
                ).into()),
            },
            command = commands.recv() => match command {
                Some(Command::Publish(tag, message)) => {
                    let id = message.id();
                    let publication = link.publish(Arc::clone(&message), &id);
                    unanswered.add(tag, id, message, publication);
                }
                Some(Command::Connect(second)) => refuse(second, events),
                Some(Command::Disconnect) | None => return Ok(()),
            },
        }
    }
}

/// What lapin says about the connection, if `error` is only a consequence: publishing on a
/// channel that is already closed.
async fn root_cause(error: lapin::Error, link: &mut Link, limit: Duration) -> lapin::Error {
    let is_consequence = matches!(
        error.kind(),
        ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidConnectionState(_)
    );
    if !is_consequence {
        return error;
    }
    let cause = async {
        while let Some(notice) = link.notices.next().await {
            if let lapin::Event::Error(cause) = notice {
                return Some(cause);
            }
        }
        None
    };
    let cause = timeout(limit, cause).await;
    cause.ok().flatten().unwrap_or(error)
}

fn take_notice(notice: lapin::Event, events: &EventSender) -> lapin::Result<()> {
    match notice {
        lapin::Event::ConnectionBlocked(why) => events.send(Event::Blocked(why)),
        lapin::Event::ConnectionUnblocked => events.send(Event::Unblocked),
        lapin::Event::Error(error) => return Err(error),
        _ => {}
    }
    Ok(())
}
