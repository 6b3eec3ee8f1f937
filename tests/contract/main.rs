//! One contract for every broker: the simulated one and the spool pass the same checks, and brokers
//! with a planted bug don't. `tests/rabbitmq` runs a real RabbitMQ through them.

#![expect(
    clippy::unwrap_used,
    reason = "a step that fails in a test is a failed test"
)]

mod broken;
mod simulated;
mod spool;

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
