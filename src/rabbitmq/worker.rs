//! What RabbitMQ's protocols have in common: a thread, one session after another, and the addresses
//! of a cluster in turn.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use super::address::AmqpAddress;
use crate::broker::{Command, Disconnect, Event, Session, Waker};
use crate::queue::{EventQueue, EventSender, queue};
use crate::time::{Clock, Instant};

/// What the program asks for, as it arrives.
pub(super) type Commands = UnboundedReceiver<Command>;

/// A way to speak to RabbitMQ.
pub(super) trait Protocol: Send + 'static {
    /// A connection that is ready to publish.
    type Link;

    /// Whether the configuration makes sense; asked before each session.
    fn check(&self) -> Result<(), String>;

    /// Connects to `address` and makes ready to publish.
    async fn open(&mut self, address: &AmqpAddress) -> Result<Self::Link, Disconnect>;

    /// Publishes and reports until the program ends the session (`Ok`) or something else does.
    async fn serve(
        &mut self,
        link: &mut Self::Link,
        commands: &mut Commands,
        events: &EventSender,
    ) -> Result<(), Disconnect>;

    /// Says goodbye to the broker. May wait without bound.
    async fn close(&mut self, link: Self::Link, events: &EventSender);
}

/// Where a RabbitMQ is, and how long to wait for it.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    /// The nodes of one cluster, tried in turn.
    pub(super) addresses: Vec<AmqpAddress>,
    /// How long one attempt to connect to one address may take.
    pub(super) connect_timeout: Duration,
    /// How long to wait for the broker's goodbye before the connection is cut.
    pub(super) close_timeout: Duration,
}

/// The program's end of the thread. Dropping it closes the connection and waits for the thread to
/// end, at most for the close time-out.
pub(super) struct Client {
    /// `None` only while dropping, which tells the thread to end.
    commands: Option<UnboundedSender<Command>>,
    events: EventQueue,
    sender: EventSender,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Starts the thread, which connects only when told to. Deadlines are those of `clock`.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the adapter of `Broker` to protocols that are asynchronous"
    )]
    pub(super) fn new(reach: Reach, protocol: impl Protocol, clock: Arc<dyn Clock>) -> Self {
        let (commands, received) = unbounded_channel();
        let (sender, events) = queue(clock);
        let worker = Worker {
            reach,
            protocol,
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

    pub(super) fn submit(&mut self, command: Command) {
        let commands = self.commands.as_ref().expect("set until dropped");
        let sent = commands.send(command);
        // Otherwise the program would wait for an answer that nobody gives.
        assert!(sent.is_ok(), "the RabbitMQ thread has panicked");
    }

    pub(super) fn poll(&mut self, deadline: Instant) -> Option<Event> {
        self.events.poll(deadline)
    }

    pub(super) fn waker(&self) -> Waker {
        self.sender.waker()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been reported where it happened.
            let _ = thread.join();
        }
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
struct Worker<P> {
    reach: Reach,
    protocol: P,
    commands: Commands,
    events: EventSender,
    /// The address to try next; an index that wraps around.
    next_address: usize,
}

impl<P: Protocol> Worker<P> {
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
        if let Err(why) = self.check() {
            let permanent = true;
            return Disconnect { why, permanent };
        }
        let mut failures = Vec::new();
        for _ in 0..self.reach.addresses.len() {
            let address = self.rotate();
            match self.attempt(session, &address) {
                End::Unconnected(failure) => failures.push(failure),
                End::Over(disconnect) => return disconnect,
            }
        }
        combine(&failures)
    }

    fn check(&self) -> Result<(), String> {
        if self.reach.addresses.is_empty() {
            return Err("no address of a RabbitMQ is configured".to_owned());
        }
        self.protocol.check()
    }

    fn rotate(&mut self) -> AmqpAddress {
        let addresses = &self.reach.addresses;
        let address = addresses[self.next_address % addresses.len()].clone();
        self.next_address = (self.next_address + 1) % addresses.len();
        address
    }

    /// Connects to `address`, and serves the session if that succeeds.
    fn attempt(&mut self, session: Session, address: &AmqpAddress) -> End {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                return End::Unconnected(Disconnect {
                    why: format!("RabbitMQ at {address}: {error}"),
                    permanent: false,
                });
            }
        };
        let end = runtime.block_on(self.session(session, address));
        // A look-up of the host name may still be running, and nobody can interrupt it.
        runtime.shutdown_background();
        end
    }

    async fn session(&mut self, session: Session, address: &AmqpAddress) -> End {
        let Self {
            reach,
            protocol,
            commands,
            events,
            ..
        } = self;
        let opened = {
            let open = timeout(reach.connect_timeout, protocol.open(address));
            tokio::select! {
                opened = open => opened,
                () = until_asked_to_end(commands, events) => return End::Over(on_request()),
            }
        };
        let mut link = match opened {
            Ok(Ok(link)) => link,
            Ok(Err(failure)) => return End::Unconnected(failure),
            Err(_) => return End::Unconnected(timed_out(address, reach.connect_timeout)),
        };
        events.send(Event::Connected(session));
        let served = protocol.serve(&mut link, commands, events).await;
        let _ = timeout(reach.close_timeout, protocol.close(link, events)).await;
        End::Over(served.err().unwrap_or_else(on_request))
    }
}

fn timed_out(address: &AmqpAddress, limit: Duration) -> Disconnect {
    Disconnect {
        why: format!(
            "RabbitMQ at {address}: not ready within {limit:?}; is it reachable and running?"
        ),
        permanent: false,
    }
}

/// Waits, while there is no connection, for the wish that there be none.
async fn until_asked_to_end(commands: &mut Commands, events: &EventSender) {
    while let Some(command) = commands.recv().await {
        match command {
            Command::Disconnect => return,
            Command::Connect(second) => refuse(second, events),
            Command::Publish(..) => {}
        }
    }
}

/// Answers a `Connect` of a program that is connected.
pub(super) fn refuse(second: Session, events: &EventSender) {
    let disconnect = Disconnect {
        why: "RabbitMQ is connected already; disconnect first".to_owned(),
        permanent: true,
    };
    events.send(Event::Disconnected(second, disconnect));
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
