//! The program against a RabbitMQ, with consumers that forget nothing.
//!
//! ```text
//! program ── network ── RabbitMQ ── queues of the four kinds ── consumers ── verdict
//! ```
//!
//! The network is slow, so that there is a middle for a fault to strike in. The queues keep what
//! arrives until the trial takes it out, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::slice;
use std::time::Duration;

use discogs_extractor::dump::Kind;
use discogs_extractor::time::{Clock, Instant, SystemClock};
use lapin::types::AMQPValue;

use crate::administrator::{Administrator, Delivery};
use crate::network::Network;
use crate::shared::Shared;
use crate::site::{INTERVAL, RECORDS, Run, Site, WINDOW};
use crate::verdict::Verdict;
use crate::watch::look_until;

/// How long a packet takes on its way, one after the other: some seconds for all.
const DELAY: Duration = Duration::from_millis(2);

/// How long the program waits for a confirm, if a trial does not say otherwise.
pub(crate) const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// One trial.
pub(crate) struct Trial {
    name: &'static str,
    /// Where consumers find the RabbitMQ, without a network between.
    url: String,
    prefix: String,
    /// One for each address that the program knows, mostly one.
    networks: Vec<Network>,
    pub(crate) site: Site,
    deliveries: BTreeMap<Kind, Vec<Delivery>>,
    /// The identities that were delivered.
    seen: BTreeSet<String>,
    /// Deliveries that were not the first.
    repeats: u64,
    /// How long it took to go on, after each fault.
    recoveries: Vec<Duration>,
}

impl Trial {
    /// A trial against the nodes of a RabbitMQ at these addresses; no queues are there yet.
    pub(crate) fn new(name: &'static str, urls: &[String], prefix: &str) -> Self {
        let trial = Self {
            name,
            url: urls[0].clone(),
            prefix: prefix.to_owned(),
            networks: urls.iter().map(|_| Network::new()).collect(),
            site: Site::new(),
            deliveries: Kind::ALL.map(|kind| (kind, Vec::new())).into(),
            seen: BTreeSet::new(),
            repeats: 0,
            recoveries: Vec::new(),
        };
        for (network, url) in trial.networks.iter().zip(urls) {
            network.lead_to(Administrator::connect(url, prefix).socket());
        }
        trial.delay(DELAY);
        trial
    }

    /// A trial with a queue for each kind, classic if `arguments` don't say otherwise.
    pub(crate) fn with_queues(
        name: &'static str,
        urls: &[String],
        prefix: &str,
        arguments: &[(&str, AMQPValue)],
    ) -> Self {
        let trial = Self::new(name, urls, prefix);
        let administrator = trial.administrator();
        for kind in Kind::ALL {
            administrator.declare_bound(kind, arguments);
        }
        trial
    }

    /// A trial on the shared RabbitMQ, with classic queues.
    pub(crate) fn on_shared(name: &'static str, shared: &Shared) -> Self {
        Self::with_queues(name, slice::from_ref(&shared.url), &shared.prefix, &[])
    }

    /// The network before the first address.
    pub(crate) fn network(&self) -> &Network {
        &self.networks[0]
    }

    /// Every packet to the RabbitMQ takes so long, one after the other.
    pub(crate) fn delay(&self, delay: Duration) {
        for network in &self.networks {
            network.delay(delay);
        }
    }

    /// How many connections the program has made.
    pub(crate) fn connections(&self) -> u64 {
        self.networks.iter().map(Network::connections).sum()
    }

    pub(crate) fn administrator(&self) -> Administrator {
        Administrator::connect(&self.url, &self.prefix)
    }

    /// The node at an address is somewhere else now, and consumers go there.
    pub(crate) fn moves_to(&mut self, address: usize, url: String) {
        self.url = url;
        self.networks[address].lead_to(self.administrator().socket());
    }

    /// Consumers go to the node at this address.
    pub(crate) fn consumes_from(&mut self, url: String) {
        self.url = url;
    }

    /// Starts the program.
    pub(crate) fn start(&self) -> Run {
        self.start_with(&format!("--confirm-timeout {}s", CONFIRM_TIMEOUT.as_secs()))
    }

    /// Starts the program with more arguments, separated by spaces.
    pub(crate) fn start_with(&self, arguments: &str) -> Run {
        self.start_task("run .", arguments)
    }

    /// The same for a task like `run .`.
    pub(crate) fn start_task(&self, task: &str, arguments: &str) -> Run {
        let networks = self.networks.iter();
        let brokers: Vec<_> = networks.map(|it| through(&self.url, it.port)).collect();
        let (brokers, prefix) = (brokers.join(","), &self.prefix);
        let fixed = format!("--broker {brokers} --exchange-prefix {prefix}");
        self.site.start_task(task, &format!("{fixed} {arguments}"))
    }

    /// Waits until so many parts of a hundred of all records are saved, which must not be the end.
    pub(crate) fn reaches(&self, percent: u64, run: &mut Run) {
        let records = RECORDS * Kind::ALL.len() as u64 * percent / 100;
        look_until("so much of the run", || {
            let ended = run.ended();
            assert!(ended.is_none(), "ended too early: {}", run.log());
            self.site.saved() >= records
        });
    }

    /// Begins to take down how long it takes to recover.
    pub(crate) fn fault_ends(&self) -> Recovery {
        let clock = SystemClock::new();
        Recovery {
            since: clock.now(),
            clock,
            saved: self.site.saved(),
        }
    }

    /// Waits until the program goes on behind what was saved when the fault ended.
    pub(crate) fn recovers(&mut self, recovery: &Recovery, run: &mut Run) {
        look_until("progress", || {
            self.site.saved() > recovery.saved || run.ended().is_some()
        });
        let Recovery { clock, since, .. } = recovery;
        self.recoveries.push(clock.now().since(*since));
    }

    /// Takes what is in the queues, and says how many were no first deliveries.
    pub(crate) fn take(&mut self) -> u64 {
        let administrator = self.administrator();
        let mut repeats = 0;
        for kind in Kind::ALL {
            for delivery in std::iter::from_fn(|| administrator.take(kind)) {
                repeats += u64::from(!self.seen.insert(delivery.id.clone()));
                self.deliveries.entry(kind).or_default().push(delivery);
            }
        }
        self.repeats += repeats;
        repeats
    }

    /// How many deliveries were taken so far, repeats among them.
    pub(crate) fn delivered(&self) -> u64 {
        self.deliveries.values().map(|all| all.len() as u64).sum()
    }

    /// The verdict on a trial whose runs have ended by themselves. Repeats come of lost connections
    /// only, at most a window of each.
    pub(crate) fn passes(mut self, verdict: &Verdict) {
        self.take();
        let lost = self.connections() - 1;
        let (repeats, bound) = (self.repeats, lost * WINDOW);
        assert!(
            repeats <= bound,
            "{repeats} repeats of {lost} lost connections"
        );
        self.is(verdict);
    }

    /// The verdict on what was taken.
    pub(crate) fn is(self, verdict: &Verdict) {
        verdict.pass(&self.deliveries);
        let seconds = |recovery: &Duration| format!("{:.1} s", recovery.as_secs_f64());
        let recoveries: Vec<_> = self.recoveries.iter().map(seconds).collect();
        let went_on = match recoveries.is_empty() {
            true => String::new(),
            false => format!(", went on after {}", recoveries.join(", ")),
        };
        println!("observed: {}: {} repeats{went_on}", self.name, self.repeats);
    }
}

/// When a fault ended, and what was saved then.
pub(crate) struct Recovery {
    clock: SystemClock,
    since: Instant,
    saved: u64,
}

/// The most repeats that one crash of the program may cause.
pub(crate) const REPEATS_PER_CRASH: u64 = INTERVAL + WINDOW;

/// The address of the RabbitMQ at `url`, by way of a port of this machine.
fn through(url: &str, port: u16) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (user, location) = rest
        .rsplit_once('@')
        .map_or(("", rest), |(user, location)| (user, location));
    let vhost = location.split_once('/').map_or("", |(_, vhost)| vhost);
    let at = if user.is_empty() { "" } else { "@" };
    let path = if vhost.is_empty() { "" } else { "/" };
    format!("{scheme}://{user}{at}127.0.0.1:{port}{path}{vhost}")
}

#[test]
fn only_host_and_port_of_an_address_are_replaced() {
    let check = |url, expected| assert_eq!(through(url, 7), expected);
    check("amqp://host", "amqp://127.0.0.1:7");
    check("amqp://host:5672/v", "amqp://127.0.0.1:7/v");
    check("amqp://u:p%40@host:5672", "amqp://u:p%40@127.0.0.1:7");
}
