//! Three RabbitMQs in a network of their own, and quorum queues on all of them.
//!
//! What could go wrong: the leader of a queue confirms what the others do not have, and dies; or,
//! when it no longer reaches the others, the program keeps to a node that takes messages and can't
//! confirm any. The program knows the addresses of all nodes.

use std::time::Duration;

use discogs_extractor::dump::Kind;
use lapin::types::AMQPValue;
use serde_json::Value;
use testcontainers::ImageExt;

use crate::docker::{self, Network};
use crate::node::{AMQP_PORT, Node};
use crate::trial::Trial;
use crate::verdict::{Order, Verdict};
use crate::watch::look_for;

const PREFIX: &str = "trial";
const NODES: usize = 3;
/// So that the program is not through before the second fault.
const SLOW: Duration = Duration::from_millis(10);

/// Three nodes that know each other.
struct Cluster {
    nodes: Vec<Node>,
    // Removed after the containers that are in it.
    network: Network,
}

impl Cluster {
    fn start() -> Self {
        let network = Network::new();
        let nodes = (0..NODES).map(|index| start(&network, &host(index)));
        let cluster = Self {
            nodes: nodes.collect(),
            network,
        };
        for node in &cluster.nodes[1..] {
            for command in [
                &["stop_app"][..],
                &["join_cluster", "rabbit@node0"],
                &["start_app"],
            ] {
                node.control.run(command);
            }
        }
        cluster
    }

    fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Node::url).collect()
    }

    /// All queues with this column, as the node `asked` knows them.
    fn queues(&self, asked: usize, column: &str) -> Vec<Value> {
        let list = ["list_queues", "--formatter", "json", "name", column];
        let queues: Value = self.nodes[asked].control.run(&list).parse().unwrap();
        queues.as_array().unwrap().clone()
    }

    /// The node that leads the queue of `kind`, as the node `asked` knows it.
    fn leader(&self, asked: usize, kind: Kind) -> usize {
        look_for("a leader", || {
            let name = format!("{PREFIX}-{kind}");
            let mut queues = self.queues(asked, "leader").into_iter();
            let leader = queues.find(|queue| queue["name"] == *name)?["leader"].clone();
            (0..NODES).find(|index| leader == format!("rabbit@{}", host(*index)))
        })
    }

    /// Waits until every queue is on all nodes again. A node is online before its queues are, and
    /// what a queue survives is the loss of one.
    fn is_whole(&self, asked: usize) {
        self.nodes[asked].control.run(&["await_online_nodes", "3"]);
        look_for("all members of all queues", || {
            let queues = self.queues(asked, "online");
            let online = |queue: &Value| queue["online"].as_array().map(Vec::len);
            let is_whole = queues.iter().all(|queue| online(queue) == Some(NODES));
            is_whole.then_some(())
        });
    }
}

fn host(index: usize) -> String {
    format!("node{index}")
}

fn start(network: &Network, host: &str) -> Node {
    let request = docker::request(&[AMQP_PORT])
        .with_hostname(host)
        .with_env_var("RABBITMQ_NODENAME", format!("rabbit@{host}"))
        .with_env_var("RABBITMQ_ERLANG_COOKIE", "of the tests");
    let node = Node::with(request);
    network.join(&node.container, host);
    node
}

#[test]
fn a_cluster_loses_its_leaders_one_after_the_other() {
    if !docker::answers() {
        return;
    }
    let cluster = Cluster::start();
    let quorum = [("x-queue-type", AMQPValue::LongString("quorum".into()))];
    let mut trial = Trial::with_queues("cluster", &cluster.urls(), PREFIX, &quorum);
    let killed = cluster.leader(0, Kind::Labels);
    let mut run = trial.start();

    trial.reaches(30, &mut run);
    let node = &cluster.nodes[killed];
    node.container.kill();
    let recovery = trial.fault_ends();
    trial.recovers(&recovery, &mut run);
    trial.delay(SLOW);
    node.start_again();
    trial.moves_to(killed, node.url());
    cluster.is_whole(killed);

    trial.reaches(80, &mut run);
    let parted = cluster.leader(killed, Kind::Releases);
    cluster.network.leave(&cluster.nodes[parted].container);
    let recovery = trial.fault_ends();
    trial.recovers(&recovery, &mut run);
    trial.delay(Duration::ZERO);
    run.ends(0);

    trial.consumes_from(cluster.nodes[(parted + 1) % NODES].url());
    trial.passes(&Verdict::new(Order::Strict));
}
