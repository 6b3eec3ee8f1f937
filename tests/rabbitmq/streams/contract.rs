//! Streams keep the contract of every broker, behind a network that can be cut.

use std::sync::Arc;

use discogs_extractor::broker::Broker;
use discogs_extractor::dump::Kind;
use discogs_extractor::rabbitmq::stream::{Holds, RabbitMqStream, StreamPublisher};
use discogs_extractor::time::{Clock, Instant, SystemClock};
use sim::contract::{Held, Identity, Subject, broken};

use super::consumer::Streams;
use crate::network::Network;
use crate::shared::Shared;

#[test]
fn streams_keep_the_contract() {
    if Shared::get("streams-contract").is_none() {
        return;
    }
    let broken = broken(|name| Box::new(Real::new(name)));
    assert!(
        broken.is_empty(),
        "broken, for the reasons above: {broken:?}"
    );
}

struct Real {
    /// Kept for the streams, which it deletes.
    _shared: Shared,
    streams: Streams,
    network: Network,
    clock: Arc<SystemClock>,
    /// Whether a process has published before.
    is_known: bool,
}

impl Real {
    fn new(name: &str) -> Self {
        let shared = Shared::get(&format!("streams-{name}")).expect("it was there before");
        let streams = Streams::of(&shared);
        let network = Network::new();
        network.lead_to(streams.socket());
        Self {
            _shared: shared,
            streams,
            network,
            clock: Arc::new(SystemClock::new()),
            is_known: false,
        }
    }
}

/// The publishers of the versions that the contract knows.
fn publishers(holds: Holds) -> Vec<StreamPublisher> {
    let mut publishers = Vec::new();
    for version in ["20260801", "20260901"] {
        for (route, announces) in Kind::ALL
            .iter()
            .flat_map(|kind| [(*kind, false), (*kind, true)])
        {
            publishers.push(StreamPublisher {
                version: version.parse().unwrap(),
                route,
                announces,
                name: format!("{version}-{route}-{announces}"),
                holds,
            });
        }
    }
    publishers
}

impl Subject for Real {
    fn open(&mut self) -> Box<dyn Broker> {
        let mut config = self.streams.config();
        config.addresses[0].host = "127.0.0.1".to_owned();
        config.addresses[0].port = self.network.port;
        config.publishers = publishers(match self.is_known {
            true => Holds::AtLeast(0),
            false => Holds::Nothing,
        });
        self.is_known = true;
        let clock = Arc::<SystemClock>::clone(&self.clock);
        Box::new(RabbitMqStream::new(config, clock))
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn held(&mut self, route: Kind) -> Vec<Held> {
        let held = self.streams.held(route).into_iter().map(|delivery| Held {
            identity: Identity::Id(delivery.id),
            body: delivery.body,
        });
        held.collect()
    }

    fn is_exactly_once(&self) -> bool {
        true
    }

    fn break_link(&mut self) -> bool {
        self.network.cut();
        true
    }
}
