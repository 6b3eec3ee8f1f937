//! The RabbitMQ broker and the program, against real RabbitMQs, with real faults and crashes.
//!
//! `ci/rabbitmq` runs these tests alone. Which RabbitMQ they use:
//!
//! - With a Docker daemon they start their own containers: one that most tests share, others for
//!   tests that kill, pause or cluster brokers. The image is the local one that `ci/rabbitmq-image`
//!   makes, else `rabbitmq:4`. Nothing is left behind, however the tests end (`docker.rs`).
//! - `RABBITMQ_TEST_URL`, for example `amqp://guest:guest@localhost:5672`, names one to use in place
//!   of the shared container. Exchanges and queues are created there, and deleted again.
//!   Its plugin `rabbitmq_stream` listens on the same host, on the port `RABBITMQ_TEST_STREAM_PORT`, 5552
//!   if that is not set. `RABBITMQ_TEST_CTL` is the command that runs its `rabbitmqctl`, for tests that set limits and
//!   alarms, which everybody on that RabbitMQ feels.
//! - Tests for which there is neither say so and pass, unless `REQUIRE_DOCKER=1`.
//!
//! A test of the program is a trial: dumps with their truth, the real program behind a network that
//! can fail, a fault, and a verdict on every message that arrived (`trial.rs`, `verdict.rs`). Each
//! prints a line `observed: ..` with the time that it took to recover and the repeats; neither time
//! is asserted.

#![expect(
    clippy::unwrap_used,
    reason = "a step that fails in a test is a failed test"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "works with the processes, files and networks of real programs"
)]

mod adapter;
mod administrator;

#[path = "../commands/browser.rs"]
#[expect(dead_code, reason = "the tests of the page use the rest")]
mod browser;
#[path = "../commands/client.rs"]
#[expect(dead_code, reason = "the tests of the endpoint use the rest")]
mod client;
mod cluster;
mod contract;
mod crashes;
mod docker;
mod faults;
mod follow;
#[path = "../commands/host.rs"]
#[expect(dead_code, reason = "the tests of downloads use the rest")]
mod host;
mod network;
mod node;
#[path = "../commands/prometheus.rs"]
mod prometheus;
mod shared;
mod site;
mod streams;
mod tls;
mod trial;
mod tune;
mod verdict;
mod watch;
