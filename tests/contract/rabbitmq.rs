//! A real RabbitMQ, behind a network that can be cut.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use discogs_extractor::broker::Broker;
use discogs_extractor::dump::Kind;
use discogs_extractor::rabbitmq::{AmqpAddress, RabbitMq};
use discogs_extractor::time::{Clock, Instant, SystemClock};
use lapin::options::{BasicGetOptions, QueueBindOptions};
use lapin::types::FieldTable;
use sim::contract::{Held, Identity, Subject};

use crate::support::RealBroker;

/// Each route has an exchange and a queue of its own, which are there from the start.
pub(crate) struct Real {
    broker: RealBroker,
    network: Proxy,
    clock: Arc<SystemClock>,
    /// What was taken out of the queues so far.
    taken: BTreeMap<Kind, Vec<Held>>,
}

impl Real {
    pub(crate) fn new(url: &str, name: &str) -> Self {
        let broker = RealBroker::open(url, name);
        for kind in Kind::ALL {
            broker.bind(kind, &[]);
        }
        Self {
            network: Proxy::new(&broker.address()),
            broker,
            clock: Arc::new(SystemClock::new()),
            taken: BTreeMap::new(),
        }
    }

    /// The next message of a queue.
    fn take(&self, route: Kind) -> Option<Held> {
        let queue = self.broker.exchange(route).as_str().into();
        let taken = self
            .broker
            .channel
            .basic_get(queue, BasicGetOptions { no_ack: true });
        let message = self.broker.runtime.block_on(taken).unwrap()?;
        let id = message.properties.message_id().clone().unwrap();
        Some(Held {
            identity: Identity::Id(id.to_string()),
            body: message.delivery.data,
        })
    }
}

impl Subject for Real {
    fn open(&mut self) -> Box<dyn Broker> {
        let mut config = self.broker.config();
        config.addresses[0].host = "127.0.0.1".to_owned();
        config.addresses[0].port = self.network.port;
        Box::new(RabbitMq::new(
            config,
            Arc::<SystemClock>::clone(&self.clock),
        ))
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn held(&mut self, route: Kind) -> Vec<Held> {
        let new: Vec<_> = std::iter::from_fn(|| self.take(route)).collect();
        let taken = self.taken.entry(route).or_default();
        taken.extend(new);
        taken.clone()
    }

    fn break_link(&mut self) -> bool {
        self.network.cut();
        true
    }

    fn set_bound(&mut self, route: Kind, is_bound: bool) -> bool {
        let (channel, name) = (&self.broker.channel, self.broker.exchange(route));
        let (queue, exchange) = (name.as_str().into(), name.as_str().into());
        let (key, arguments) = ("".into(), FieldTable::default());
        self.broker
            .runtime
            .block_on(async {
                if is_bound {
                    let options = QueueBindOptions::default();
                    channel
                        .queue_bind(queue, exchange, key, options, arguments)
                        .await
                } else {
                    channel.queue_unbind(queue, exchange, key, arguments).await
                }
            })
            .unwrap();
        true
    }
}

/// A network between the program and the broker that can be cut.
struct Proxy {
    port: u16,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    fn new(target: &AmqpAddress) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let streams = Arc::<Mutex<Vec<TcpStream>>>::default();
        let (accepted, target) = (Arc::clone(&streams), (target.host.clone(), target.port));
        spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(target.clone()).unwrap();
                for (from, to) in [(&client, &server), (&server, &client)] {
                    accepted.lock().unwrap().push(from.try_clone().unwrap());
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Self { port, streams }
    }

    /// Cuts every connection; new ones are possible.
    fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy(port {})", self.port)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the network between the program and the broker is on threads of its own"
)]
fn spawn(body: impl FnOnce() + Send + 'static) {
    std::thread::spawn(body);
}
