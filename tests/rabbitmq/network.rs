//! A network between the program and a RabbitMQ that can be slow, be cut, and swallow everything.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::watch::{PATIENCE, look_until};

/// The most bytes that travel at once.
const PACKET_BYTES: usize = 4 << 10;
/// After that nobody listens.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the network does, and what it did.
#[derive(Default)]
struct State {
    /// Where connections lead to; nowhere if not known.
    target: Option<SocketAddr>,
    /// How long a packet takes on its way to the RabbitMQ.
    delay: Duration,
    /// Packets stay where they are, and nobody is told.
    is_black_hole: bool,
    is_over: bool,
    /// Bytes that arrived at the RabbitMQ.
    arrived: u64,
    /// Connections so far.
    connections: u64,
    /// Both ends of each connection that has not ended.
    open: BTreeMap<u64, [TcpStream; 2]>,
}

impl State {
    fn close(&mut self, connection: u64) {
        for stream in self.open.remove(&connection).into_iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

#[derive(Default)]
struct Wires {
    state: Mutex<State>,
    changed: Condvar,
}

impl Wires {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits while the network swallows everything; says how long a packet takes, or `None` if
    /// the connection has ended.
    fn permit(&self, connection: u64) -> Option<Duration> {
        let is_held =
            |state: &mut State| state.is_black_hole && state.open.contains_key(&connection);
        let state = self
            .changed
            .wait_while(self.lock(), is_held)
            .unwrap_or_else(PoisonError::into_inner);
        let is_open = state.open.contains_key(&connection);
        is_open.then_some(state.delay)
    }

    /// Leads a new connection to the target.
    fn accept(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let target = self.lock().target.ok_or(io::ErrorKind::NotFound)?;
        let server = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?;
        let mut state = self.lock();
        state.connections += 1;
        let connection = state.connections;
        let ends = [client.try_clone()?, server.try_clone()?];
        state.open.insert(connection, ends);
        drop(state);
        let (up, down) = ([client.try_clone()?, server.try_clone()?], [server, client]);
        for (is_up, [from, to]) in [(true, up), (false, down)] {
            let wires = Arc::clone(self);
            std::thread::spawn(move || {
                let _ = wires.carry(connection, is_up, from, to);
                wires.change(|state| state.close(connection));
            });
        }
        Ok(())
    }

    /// Carries packets until either end closes, or the connection is cut.
    fn carry(
        &self,
        connection: u64,
        is_up: bool,
        mut from: TcpStream,
        mut to: TcpStream,
    ) -> io::Result<()> {
        let mut packet = [0; PACKET_BYTES];
        loop {
            let length = from.read(&mut packet)?;
            let Some(delay) = self.permit(connection).filter(|_| length > 0) else {
                return Ok(());
            };
            if is_up {
                std::thread::sleep(delay);
            }
            to.write_all(&packet[..length])?;
            if is_up {
                self.lock().arrived += length as u64;
            }
        }
    }
}

/// The network; it ends when dropped.
pub(crate) struct Network {
    /// Where the program finds the RabbitMQ.
    pub(crate) port: u16,
    wires: Arc<Wires>,
}

impl Network {
    /// A network that leads nowhere.
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let wires = Arc::<Wires>::default();
        let of_listener = Arc::clone(&wires);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if of_listener.lock().is_over {
                    return;
                }
                // Who can't be led anywhere is hung up on.
                let _ = of_listener.accept(client);
            }
        });
        Self { port, wires }
    }

    /// New connections lead to this address.
    pub(crate) fn lead_to(&self, address: SocketAddr) {
        self.wires.change(|state| state.target = Some(address));
    }

    /// Every packet to the RabbitMQ takes so long, one after the other.
    pub(crate) fn delay(&self, delay: Duration) {
        self.wires.change(|state| state.delay = delay);
    }

    /// Swallows everything, until it does no more. What was under way arrives then.
    pub(crate) fn black_hole(&self, is_black_hole: bool) {
        self.wires
            .change(|state| state.is_black_hole = is_black_hole);
    }

    /// Cuts every connection; new ones are possible.
    pub(crate) fn cut(&self) {
        self.wires.change(|state| {
            for connection in state.open.keys().copied().collect::<Vec<_>>() {
                state.close(connection);
            }
        });
    }

    /// How many bytes have arrived at the RabbitMQ so far.
    pub(crate) fn arrived(&self) -> u64 {
        self.wires.lock().arrived
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> u64 {
        self.wires.lock().connections
    }

    /// How many there are.
    pub(crate) fn open(&self) -> usize {
        self.wires.lock().open.len()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.wires.change(|state| state.is_over = true);
        self.cut();
        // The listener looks up when somebody comes.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Network(port {})", self.port)
    }
}

/// An ended connection that is kept would hold what it connects open for ever.
#[test]
fn ended_connections_are_let_go() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let network = Network::new();
    network.lead_to(server.local_addr().unwrap());
    let connect = || {
        let client = TcpStream::connect(("127.0.0.1", network.port)).unwrap();
        let (accepted, _) = server.accept().unwrap();
        accepted.set_read_timeout(Some(PATIENCE)).unwrap();
        look_until("a connection", || network.open() == 1);
        (client, accepted)
    };
    let hears_the_end = |mut stream: TcpStream| {
        let end = stream.read(&mut [0; 2]);
        let is_timeout = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        assert!(end.map_or_else(|error| !is_timeout(error), |length| length < 2));
    };

    let (client, accepted) = connect();
    drop(client);
    hears_the_end(accepted);
    look_until("the end of a connection", || network.open() == 0);

    let (mut client, accepted) = connect();
    network.black_hole(true);
    client.write_all(b"x").unwrap();
    network.cut();
    hears_the_end(accepted);
    assert_eq!(network.open(), 0);
}
