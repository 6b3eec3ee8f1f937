//! The contract of all brokers, which `tests/contract` runs the others through.

use std::collections::BTreeMap;
use std::sync::Arc;

use discogs_extractor::broker::Broker;
use discogs_extractor::dump::Kind;
use discogs_extractor::rabbitmq::RabbitMq;
use discogs_extractor::time::{Clock, Instant, SystemClock};
use sim::contract::{Held, Identity, Subject, broken};

use crate::network::Network;
use crate::shared::Shared;

#[test]
fn rabbitmq_keeps_the_contract() {
    if Shared::get("contract").is_none() {
        return;
    }
    let broken = broken(|name| Box::new(Real::new(name)));
    assert!(
        broken.is_empty(),
        "broken, for the reasons above: {broken:?}"
    );
}

/// Each route has an exchange and a queue of its own, which are there from the start.
struct Real {
    shared: Shared,
    network: Network,
    clock: Arc<SystemClock>,
    /// What was taken out of the queues so far.
    taken: BTreeMap<Kind, Vec<Held>>,
}

impl Real {
    fn new(name: &str) -> Self {
        let shared = Shared::get(name).expect("it was there before");
        for kind in Kind::ALL {
            shared.declare_bound(kind, &[]);
        }
        let network = Network::new();
        network.lead_to(shared.socket());
        Self {
            shared,
            network,
            clock: Arc::new(SystemClock::new()),
            taken: BTreeMap::new(),
        }
    }
}

impl Subject for Real {
    fn open(&mut self) -> Box<dyn Broker> {
        let mut config = self.shared.config();
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
        let new = std::iter::from_fn(|| self.shared.take(route));
        let new = new.map(|delivery| Held {
            identity: Identity::Id(delivery.id),
            body: delivery.body,
        });
        let taken = self.taken.entry(route).or_default();
        taken.extend(new);
        taken.clone()
    }

    fn break_link(&mut self) -> bool {
        self.network.cut();
        true
    }

    fn set_bound(&mut self, route: Kind, is_bound: bool) -> bool {
        match is_bound {
            true => self.shared.bind(route),
            false => self.shared.unbind(route),
        }
        true
    }
}
