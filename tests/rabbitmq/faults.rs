//! Faults of the RabbitMQ, of the network and of those who run them, while the program publishes.
//!
//! What could go wrong: a message that was in flight is taken for published, so it is missing; one
//! that is published again overtakes another; more is repeated than was in flight; or the program
//! waits for an answer that nobody will give. So each fault strikes in mid-run, ends, and then the
//! program has to come to its end by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use discogs_extractor::dump::Kind;
use discogs_extractor::time::{Clock, SystemClock};
use lapin::types::AMQPValue;

use crate::node::Node;
use crate::shared::Shared;
use crate::site::{DATASET, VERSION};
use crate::trial::{CONFIRM_TIMEOUT, Trial};
use crate::verdict::{Order, Verdict};
use crate::watch::look_until;

/// The exchanges of a trial that has a RabbitMQ for itself.
const PREFIX: &str = "trial";

#[test]
fn a_broker_that_is_killed_loses_nothing() {
    let Some(node) = Node::start() else { return };
    let mut trial = Trial::with_queues("broker killed", &[node.url()], PREFIX, &[]);
    let mut run = trial.start();
    for percent in [30, 60] {
        trial.reaches(percent, &mut run);
        node.container.kill();
        let recovery = trial.fault_ends();
        node.start_again();
        trial.moves_to(0, node.url());
        trial.recovers(&recovery, &mut run);
    }
    run.ends(0);
    trial.passes(&Verdict::new(Order::WithinWindow));
}

/// A machine that has lost its power, or a link that is gone: nobody says anything any more.
#[test]
fn a_broker_that_freezes_is_found_by_its_heartbeat() {
    let Some(node) = Node::start() else { return };
    let mut trial = Trial::with_queues("broker frozen", &[node.url()], PREFIX, &[]);
    let mut run = trial.start_with("--confirm-timeout 100s");
    trial.reaches(30, &mut run);
    node.container.pause();
    run.says("no connection to the broker");
    let recovery = trial.fault_ends();
    node.container.unpause();
    trial.recovers(&recovery, &mut run);
    run.ends(0);
    trial.passes(&Verdict::new(Order::Strict));
}

/// An alarm may last longer than the time for a confirm, which stands still then.
#[test]
fn an_alarm_is_waited_for() {
    let Some((shared, control)) = Shared::alone("waited") else {
        return;
    };
    let mut trial = Trial::on_shared("memory alarm", &shared);
    let mut run = trial.start();
    trial.reaches(30, &mut run);
    let mut recovery = trial.fault_ends();
    control.restoring(&["set_vm_memory_high_watermark", "0.4"], |control| {
        control.run(&["set_vm_memory_high_watermark", "0"]);
        run.says("the broker asks to wait");
        let clock = SystemClock::new();
        let end = clock.now() + CONFIRM_TIMEOUT + Duration::from_secs(1);
        look_until("the end of the time for a confirm", || clock.now() > end);
        recovery = trial.fault_ends();
    });
    trial.recovers(&recovery, &mut run);
    run.ends(0);
    assert_eq!(trial.connections(), 1);
    trial.passes(&Verdict::new(Order::Strict));
}

#[test]
fn a_full_queue_is_waited_for() {
    let Some(shared) = Shared::get("filled") else {
        return;
    };
    let limits = [
        ("x-max-length", AMQPValue::LongInt(300)),
        ("x-overflow", AMQPValue::LongString("reject-publish".into())),
    ];
    let urls = [shared.url.clone()];
    let mut trial = Trial::with_queues("queue full", &urls, &shared.prefix, &limits);
    let mut run = trial.start();
    run.says("was not taken");
    let recovery = trial.fault_ends();
    trial.take();
    trial.recovers(&recovery, &mut run);
    look_until("the end of the run", || {
        trial.take();
        run.ended().is_some()
    });
    run.ends(0);
    trial.passes(&Verdict::new(Order::WithinWindow));
}

#[test]
fn a_queue_that_nobody_has_bound_is_waited_for() {
    let Some(shared) = Shared::get("unbound") else {
        return;
    };
    let mut trial = Trial::on_shared("no queue bound", &shared);
    let administrator = trial.administrator();
    administrator.unbind(Kind::Artists);
    let mut run = trial.start();
    run.says("was not taken");
    let recovery = trial.fault_ends();
    trial.administrator().bind(Kind::Artists);
    trial.recovers(&recovery, &mut run);
    run.ends(0);
    trial.passes(&Verdict::new(Order::WithinWindow));
}

#[test]
fn an_exchange_that_is_deleted_comes_back() {
    let Some(shared) = Shared::get("exchange") else {
        return;
    };
    let mut trial = Trial::on_shared("exchange deleted", &shared);
    let mut run = trial.start();
    trial.reaches(30, &mut run);
    trial.administrator().delete_exchange(Kind::Labels);
    // The program has declared it, and nobody is bound to the new one.
    run.says("was not taken");
    let recovery = trial.fault_ends();
    trial.administrator().bind(Kind::Labels);
    trial.recovers(&recovery, &mut run);
    run.ends(0);
    trial.passes(&Verdict::new(Order::WithinWindow));
}

#[test]
fn connections_that_are_cut_are_made_anew() {
    let Some(shared) = Shared::get("cut") else {
        return;
    };
    let mut trial = Trial::on_shared("connection cut", &shared);
    let mut run = trial.start();
    for percent in [15, 30, 45, 60, 75] {
        trial.reaches(percent, &mut run);
        trial.network().cut();
        let recovery = trial.fault_ends();
        trial.recovers(&recovery, &mut run);
    }
    run.ends(0);
    trial.passes(&Verdict::new(Order::Strict));
}

#[test]
fn a_slow_network_is_no_reason_to_connect_anew() {
    let Some(shared) = Shared::get("slow") else {
        return;
    };
    let mut trial = Trial::on_shared("network slow", &shared);
    let mut run = trial.start_with("--confirm-timeout 30s");
    trial.reaches(30, &mut run);
    trial.delay(Duration::from_millis(50));
    let recovery = trial.fault_ends();
    trial.recovers(&recovery, &mut run);
    trial.delay(Duration::ZERO);
    run.ends(0);
    assert_eq!(trial.connections(), 1);
    trial.passes(&Verdict::new(Order::Strict));
}

/// Nothing comes back and nothing says why; what was under way arrives in the end, when the
/// program has given it up.
#[test]
fn a_black_hole_is_given_up() {
    let Some(shared) = Shared::get("hole") else {
        return;
    };
    let mut trial = Trial::on_shared("black hole", &shared);
    let mut run = trial.start();
    trial.reaches(30, &mut run);
    trial.network().black_hole(true);
    run.says("the broker does not answer");
    run.says("not ready within");
    let recovery = trial.fault_ends();
    trial.network().black_hole(false);
    trial.recovers(&recovery, &mut run);
    run.ends(0);
    trial.passes(&Verdict::new(Order::Strict));
}

#[test]
fn messages_above_the_limit_are_dead_letters() {
    let Some((shared, control)) = Shared::alone("larger") else {
        return;
    };
    let trial = Trial::on_shared("message too large", &shared);
    let (limit, refused) = three_largest();
    control.limiting_messages(limit, || trial.start().ends(0));
    let letters = Kind::ALL.map(|kind| trial.site.dead_letters(kind));
    assert_eq!(letters.iter().sum::<usize>(), refused.len());
    let order = Order::Strict;
    trial.passes(&Verdict { order, refused });
}

/// The identities of the three largest messages, and the largest size that is none of theirs.
fn three_largest() -> (usize, BTreeSet<String>) {
    let mut sizes: Vec<_> = DATASET
        .truth
        .iter()
        .flat_map(|(kind, truth)| {
            let id = move |ordinal| format!("{VERSION}-{kind}-{ordinal}");
            (1..)
                .zip(truth)
                .map(move |(ordinal, message)| (message.to_string().len(), id(ordinal)))
        })
        .collect();
    sizes.sort();
    let largest = sizes.split_off(sizes.len() - 3);
    let (limit, _) = sizes.pop().unwrap();
    assert!(largest[0].0 > limit, "three sizes of their own");
    (limit, largest.into_iter().map(|(_, id)| id).collect())
}

#[test]
fn wrong_credentials_end_the_run() {
    let Some(shared) = Shared::get("credentials") else {
        return;
    };
    let trial = Trial::on_shared("wrong credentials", &shared);
    let port = trial.network().port;
    let broker = format!("--broker amqp://nobody:wrong@127.0.0.1:{port}");
    let mut run = trial.site.start(&broker);
    run.ends(1);
    for words in ["ACCESS_REFUSED", "check the user, the password"] {
        run.says(words);
    }
    assert_eq!(trial.site.saved(), 0);
    println!("observed: wrong credentials: the run ends, exit code 1");
}
