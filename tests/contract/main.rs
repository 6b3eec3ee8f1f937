//! One contract for every broker: the simulated one, the spool and a real RabbitMQ pass the same
//! checks, and brokers with a planted bug don't.

#![expect(
    clippy::unwrap_used,
    reason = "a step that fails in a test is a failed test"
)]

mod broken;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
mod simulated;
mod spool;
#[cfg(feature = "rabbitmq")]
#[path = "../support/rabbitmq.rs"]
mod support;

use sim::contract::{Subject, broken};

/// Runs a broker through every check; `make` gives each a subject that holds nothing.
fn check_all<S: Subject + 'static>(mut make: impl FnMut(&'static str) -> S) {
    let broken = broken(|name| Box::new(make(name)));
    assert!(
        broken.is_empty(),
        "broken, for the reasons above: {broken:?}"
    );
}

#[test]
fn the_simulated_broker_keeps_the_contract() {
    check_all(|_| simulated::Simulated::new());
}

#[test]
fn the_spool_on_a_simulated_disk_keeps_the_contract() {
    check_all(|_| spool::OnSimulatedDisk::new());
}

#[test]
fn the_spool_on_a_thread_keeps_the_contract() {
    check_all(|_| spool::OnThread::new());
}

#[cfg(feature = "rabbitmq")]
#[test]
fn rabbitmq_keeps_the_contract() {
    if let Some(url) = support::url() {
        check_all(|name| rabbitmq::Real::new(&url, name));
    }
}
