//! The simulated broker, without faults but those that a check asks for.

use discogs_extractor::broker::Broker;
use discogs_extractor::dump::Kind;
use discogs_extractor::time::Instant;
use sim::broker::{Client, Server, Stored};
use sim::contract::{Held, Identity, Subject};
use sim::faults::Faults;
use sim::tape::Tape;
use sim::world::World;

pub(crate) struct Simulated {
    pub(crate) world: World,
    pub(crate) server: Server,
}

impl Simulated {
    pub(crate) fn new() -> Self {
        Self {
            world: World::new(Tape::benign(), Faults::none()),
            server: Server::new(),
        }
    }

    pub(crate) fn client(&mut self) -> Client {
        self.world = self.world.next_life(Faults::none());
        self.server.client(&self.world)
    }
}

pub(crate) fn held(stored: &Stored) -> Held {
    Held {
        identity: Identity::Id(stored.message.id()),
        body: stored.message.body.to_vec(),
    }
}

impl Subject for Simulated {
    fn open(&mut self) -> Box<dyn Broker> {
        Box::new(self.client())
    }

    /// Asked before each wait, which is when misuse by a check would be noticed.
    fn now(&self) -> Instant {
        assert_eq!(self.server.violations(), [""; 0], "misuse by a check");
        self.world.now()
    }

    fn held(&mut self, route: Kind) -> Vec<Held> {
        let stored = self.server.stored();
        let of_route = stored.iter().filter(|it| it.message.route == route);
        of_route.map(held).collect()
    }

    fn break_link(&mut self) -> bool {
        self.server.cut(&self.world);
        true
    }

    fn set_bound(&mut self, route: Kind, is_bound: bool) -> bool {
        self.server.set_bound(route, is_bound);
        true
    }
}
