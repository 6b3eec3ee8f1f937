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
mod unanswered;

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::ErrorKind;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

pub use self::address::{AddressError, AmqpAddress, Scheme};
use self::link::Link;
use self::unanswered::Unanswered;
use crate::broker::{Broker, Command, Disconnect, Event, Session, Waker};
use crate::dump::Kind;
use crate::queue::{EventQueue, EventSender, queue};
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

    /// Whether there is an address, and every name is short enough for the protocol.
    fn check(&self) -> Result<(), String> {
        if self.addresses.is_empty() {
            return Err("no address of a RabbitMQ is configured".to_owned());
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
pub struct RabbitMq {
    /// `None` only while dropping, which tells the thread to end.
    commands: Option<UnboundedSender<Command>>,
    events: EventQueue,
    sender: EventSender,
    thread: Option<JoinHandle<()>>,
}

impl RabbitMq {
    /// Starts the thread, which connects only when told to. Deadlines are those of `clock`.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the adapter of `Broker` to lapin, which is asynchronous"
    )]
    pub fn new(config: RabbitMqConfig, clock: Arc<dyn Clock>) -> Self {
        let (commands, received) = unbounded_channel();
        let (sender, events) = queue(clock);
        let worker = Worker {
            config,
            commands: received,
            events: sender.clone(),
            next_address: 0,
        };
        let thread = std::thread::Builder::new()
            .name("rabbitmq".to_owned())
            .spawn(move || worker.run())
            .expect("the system has room for one more thread");
        Self {
            commands: Some(commands),
            events,
            sender,
            thread: Some(thread),
        }
    }
}

impl Broker for RabbitMq {
    fn submit(&mut self, command: Command) {
        let commands = self.commands.as_ref().expect("set until dropped");
        let sent = commands.send(command);
        // Otherwise the program would wait for an answer that nobody gives.
        assert!(sent.is_ok(), "the RabbitMQ thread has panicked");
    }

    fn poll(&mut self, deadline: Instant) -> Option<Event> {
        self.events.poll(deadline)
    }

    fn waker(&self) -> Waker {
        self.sender.waker()
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been reported where it happened.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RabbitMq")
    }
}

/// How an attempt to connect ended.
enum End {
    /// No connection came about; another address may do.
    Unconnected(Disconnect),
    /// The session is over, by the broker, the network or the program.
    Over(Disconnect),
}

/// What runs on the thread.
struct Worker {
    config: RabbitMqConfig,
    commands: UnboundedReceiver<Command>,
    events: EventSender,
    /// The address to try next; an index that wraps around.
    next_address: usize,
}

impl Worker {
    /// Serves one session after another until the program has no more commands. What arrives
    /// between sessions, other than `Connect`, belongs to a session that is over.
    fn run(mut self) {
        while let Some(command) = self.commands.blocking_recv() {
            if let Command::Connect(session) = command {
                let disconnect = self.serve(session);
                self.events.send(Event::Disconnected(session, disconnect));
            }
        }
    }

    fn serve(&mut self, session: Session) -> Disconnect {
        if let Err(why) = self.config.check() {
            let permanent = true;
            return Disconnect { why, permanent };
        }
        let mut failures = Vec::new();
        for _ in 0..self.config.addresses.len() {
            let address = self.rotate();
            match self.attempt(session, &address) {
                End::Unconnected(failure) => failures.push(failure),
                End::Over(disconnect) => return disconnect,
            }
        }
        combine(&failures)
    }

    fn rotate(&mut self) -> AmqpAddress {
        let addresses = &self.config.addresses;
        let address = addresses[self.next_address % addresses.len()].clone();
        self.next_address = (self.next_address + 1) % addresses.len();
        address
    }

    /// Connects to `address`, and serves the session if that succeeds.
    fn attempt(&mut self, session: Session, address: &AmqpAddress) -> End {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return End::Unconnected(failure::disconnect(address, &error.into())),
        };
        let end = runtime.block_on(self.session(session, address));
        // A look-up of the host name may still be running, and nobody can interrupt it.
        runtime.shutdown_background();
        end
    }

    async fn session(&mut self, session: Session, address: &AmqpAddress) -> End {
        let opened = {
            let open = timeout(
                self.config.connect_timeout,
                Link::open(&self.config, address),
            );
            tokio::select! {
                opened = open => opened,
                () = until_asked_to_end(&mut self.commands, &self.events) => {
                    return End::Over(on_request());
                }
            }
        };
        let mut link = match opened {
            Ok(Ok(link)) => link,
            Ok(Err(error)) => return End::Unconnected(failure::disconnect(address, &error)),
            Err(_) => return End::Unconnected(self.timed_out(address)),
        };
        self.events.send(Event::Connected(session));
        let end = match self.publish(&mut link).await {
            Ok(()) => on_request(),
            Err(error) => failure::disconnect(address, &error),
        };
        let _ = timeout(self.config.close_timeout, link.close()).await;
        End::Over(end)
    }

    fn timed_out(&self, address: &AmqpAddress) -> Disconnect {
        let limit = self.config.connect_timeout;
        Disconnect {
            why: format!(
                "RabbitMQ at {address}: not ready within {limit:?}; is it reachable and running?"
            ),
            permanent: false,
        }
    }

    /// Publishes and reports until the program ends the session (`Ok`) or something else does.
    async fn publish(&mut self, link: &mut Link) -> lapin::Result<()> {
        let mut unanswered = Unanswered::new();
        let ended = self.exchange(link, &mut unanswered).await;
        let Err(error) = ended else {
            return Ok(());
        };
        let error = self.root_cause(error, link).await;
        if let Some((limit, why)) = failure::size_limit(&error) {
            let events = &self.events;
            unanswered.refuse_larger(limit, &why, &mut |event| events.send(event));
        }
        Err(error)
    }

    async fn exchange(
        &mut self,
        link: &mut Link,
        unanswered: &mut Unanswered<lapin::Error>,
    ) -> lapin::Result<()> {
        let Self {
            commands, events, ..
        } = self;
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
    async fn root_cause(&self, error: lapin::Error, link: &mut Link) -> lapin::Error {
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
        let cause = timeout(self.config.close_timeout, cause).await;
        cause.ok().flatten().unwrap_or(error)
    }
}

/// Waits, while there is no connection, for the wish that there be none.
async fn until_asked_to_end(commands: &mut UnboundedReceiver<Command>, events: &EventSender) {
    while let Some(command) = commands.recv().await {
        match command {
            Command::Disconnect => return,
            Command::Connect(second) => refuse(second, events),
            Command::Publish(..) => {}
        }
    }
}

fn refuse(second: Session, events: &EventSender) {
    let disconnect = Disconnect {
        why: "RabbitMQ is connected already; disconnect first".to_owned(),
        permanent: true,
    };
    events.send(Event::Disconnected(second, disconnect));
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

fn on_request() -> Disconnect {
    Disconnect {
        why: "closed on request".to_owned(),
        permanent: false,
    }
}

/// The failure of all addresses: permanent only if each of them is.
fn combine(failures: &[Disconnect]) -> Disconnect {
    let whys: Vec<_> = failures.iter().map(|failure| &*failure.why).collect();
    Disconnect {
        why: whys.join("; "),
        permanent: failures.iter().all(|failure| failure.permanent),
    }
}
