//! The program is killed again and again, and now and then the RabbitMQ with it: every message is in its
//! stream once, in order. So the stream has dropped what it had already, and nothing that it had not.
//!
//! Nothing would be in the stream either if the state were lost and the same extraction began again; that
//! has to be refused, however often it is tried and wherever it is killed.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use discogs_extractor::dump::Kind;
use sim::random::Random;

use super::consumer::Streams;
use crate::administrator::Delivery;
use crate::crashes::{BROKER_EVERY, KILLS, seed};
use crate::network::Network;
use crate::node::Node;
use crate::shared::Shared;
use crate::site::{DATASET, RECORDS, Run, Site, VERSION};
use crate::verdict::{Order, Verdict};
use crate::watch::look_until;

/// How long a packet takes on its way, one after the other: some seconds for all.
const DELAY: Duration = Duration::from_millis(2);

/// The program, a slow network, and streams.
struct Trial {
    site: Site,
    network: Network,
    streams: Streams,
}

impl Trial {
    fn new(streams: Streams) -> Self {
        let network = Network::new();
        network.lead_to(streams.socket());
        network.delay(DELAY);
        Self {
            site: Site::new(),
            network,
            streams,
        }
    }

    fn start(&self, arguments: &str) -> Run {
        let streams = self.streams.arguments(self.network.port);
        self.site
            .start(&format!("{streams} --confirm-timeout 5s{arguments}"))
    }

    /// Panics unless the streams hold all that came of the dumps once, or `times` times one after the
    /// other.
    fn passes(&self, times: usize) {
        let held = Kind::ALL.map(|kind| (kind, self.streams.held(kind)));
        let held: BTreeMap<Kind, Vec<Delivery>> = held.into();
        for (kind, held) in &held {
            let records = (1..=RECORDS).map(|ordinal| ordinal.to_string());
            let names = records.chain(["file_complete", "extraction_complete"].map(str::to_owned));
            let once: Vec<_> = names
                .map(|name| format!("{VERSION}-{kind}-{name}"))
                .collect();
            let expected = std::iter::repeat_n(&once, times).flatten();
            assert!(held.iter().map(|it| &it.id).eq(expected), "{kind}");
        }
        if times == 1 {
            Verdict::new(Order::Strict).pass(&held);
        }
    }
}

#[test]
fn a_program_that_is_killed_repeats_nothing() {
    let Some(node) = Node::start() else { return };
    let seed = seed();
    println!("repeat with RABBITMQ_TEST_SEED={seed} ci/rabbitmq repeats_nothing");
    let mut random = Random::new(seed);
    let streams = || Streams::new(&node.url(), node.stream_port(), "trial");
    let mut trial = Trial::new(streams());
    // On the average all kills together see two thirds of all messages, and repeats.
    let bytes_max = DATASET.bytes() * 4 / 3 / KILLS;
    for kill in 1..=KILLS {
        let until = trial.network.arrived() + random.below(bytes_max);
        let mut run = trial.start("");
        look_until("the moment of a kill", || {
            let ended = run.ended();
            assert!(ended.is_none(), "ended too early: {}", run.log());
            trial.network.arrived() >= until
        });
        if kill % BROKER_EVERY == 0 {
            node.container.kill();
        }
        run.kill();
        if kill % BROKER_EVERY == 0 {
            node.start_again();
            trial.streams = streams();
            trial.network.lead_to(trial.streams.socket());
        }
    }
    trial.start("").ends(0);
    trial.passes(1);
    println!("observed: program killed {KILLS} times, with streams: 0 repeats");
}

#[test]
fn an_extraction_without_its_state_is_refused_until_it_is_asked_for() {
    let Some(shared) = Shared::get("streams-refused") else {
        return;
    };
    let trial = Trial::new(Streams::of(&shared));
    trial.start("").ends(0);
    let marker = trial
        .site
        .path(&format!(".extraction_status_{VERSION}.json"));
    fs::remove_file(&marker).unwrap();
    fs::remove_file(marker.with_extension("json.previous")).unwrap();

    // Killed after its first save, mostly before it is refused.
    let mut killed = trial.start("");
    look_until("a marker", || marker.exists());
    killed.kill();
    for _ in 0..2 {
        let mut refused = trial.start("");
        refused.ends(1);
        for word in ["in silence", "--reprocess", "artists"] {
            assert!(refused.log().contains(word), "{}", refused.log());
        }
    }
    trial.passes(1);
    trial.start(" --reprocess").ends(0);
    trial.passes(2);
}
