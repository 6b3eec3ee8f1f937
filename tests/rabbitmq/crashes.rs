//! The program is killed again and again, and now and then the RabbitMQ with it.
//!
//! What could go wrong: a checkpoint that is ahead of the broker loses messages, because the next
//! run begins behind them; one that lags too far behind repeats more than is promised; a repeated
//! message is not the same one again. So at the end everything must have been delivered, in order,
//! the same every time; and after each crash, no more than an interval and a window of it again.
//!
//! Moments are chosen from a seed, by how much has arrived at the RabbitMQ. `RABBITMQ_TEST_SEED`
//! repeats the intention, and not the instant; what is asserted holds at every instant.

use discogs_extractor::time::{Clock, SystemClock};
use sim::random::Random;

use crate::node::Node;
use crate::site::{DATASET, WINDOW};
use crate::trial::{REPEATS_PER_CRASH, Trial};
use crate::verdict::{Order, Verdict};
use crate::watch::look_until;

pub(crate) const KILLS: u64 = 25;
/// Every so many kills the RabbitMQ is killed as well.
pub(crate) const BROKER_EVERY: u64 = 6;

pub(crate) fn seed() -> u64 {
    let given = std::env::var("RABBITMQ_TEST_SEED").ok();
    given.map_or_else(
        || SystemClock::new().unix().as_secs(),
        |seed| seed.parse().expect("RABBITMQ_TEST_SEED is a number"),
    )
}

#[test]
fn a_program_that_is_killed_goes_on_where_it_was() {
    let Some(node) = Node::start() else { return };
    let seed = seed();
    println!("repeat with RABBITMQ_TEST_SEED={seed} ci/rabbitmq killed_goes_on");
    let mut random = Random::new(seed);
    let mut trial = Trial::with_queues("program killed", &[node.url()], "trial", &[]);
    // On the average all kills together see two thirds of all messages, and repeats.
    let bytes_max = DATASET.bytes() * 4 / 3 / KILLS;
    let mut largest = 0;
    for kill in 1..=KILLS {
        let with_broker = kill % BROKER_EVERY == 0;
        let bytes = random.below(bytes_max);
        let repeats = repeats_of(&mut trial, |trial| {
            live_and_die(trial, bytes, &node, with_broker);
        });
        largest = largest.max(repeats);
    }
    repeats_of(&mut trial, |trial| trial.start().ends(0));
    println!("observed: program killed {KILLS} times: at most {largest} repeats for each");
    // The kills of the RabbitMQ are why it is not the strict one.
    trial.is(&Verdict::new(Order::WithinWindow));
}

/// How much a life repeats; no more than the crash before it and its own lost connections explain.
fn repeats_of(trial: &mut Trial, life: impl FnOnce(&mut Trial)) -> u64 {
    let before = trial.connections();
    life(trial);
    let lost = (trial.connections() - before).saturating_sub(1);
    let repeats = trial.take();
    let bound = REPEATS_PER_CRASH + lost * WINDOW;
    assert!(
        repeats <= bound,
        "{repeats} repeats, {lost} connections lost"
    );
    repeats
}

/// A run until so many bytes of it have arrived.
fn live_and_die(trial: &mut Trial, bytes: u64, node: &Node, with_broker: bool) {
    let until = trial.network().arrived() + bytes;
    let mut run = trial.start();
    look_until("the moment of a kill", || {
        let ended = run.ended();
        assert!(ended.is_none(), "ended too early: {}", run.log());
        trial.network().arrived() >= until
    });
    if with_broker {
        node.container.kill();
    }
    run.kill();
    // What a dead process has sent is still delivered.
    look_until("the end of its connections", || trial.network().open() == 0);
    if with_broker {
        node.start_again();
        trial.moves_to(0, node.url());
    }
}
