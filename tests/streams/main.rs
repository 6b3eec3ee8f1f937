//! Streams of a real RabbitMQ, through the door that the program uses and by the program itself.
//!
//! `RABBITMQ_TEST_URL` names the RabbitMQ, for example `amqp://guest:guest@localhost:5672`, and
//! `RABBITMQ_TEST_STREAM_PORT` the port of the plugin `rabbitmq_stream` on the same host, 5552 if it is
//! not set. The tests create streams there and delete them again. Without the first they say so and pass. `RABBITMQ_TEST_RESTART` is a command
//! that kills the RabbitMQ and starts it again, for the test of crashes; without it, only the program is
//! killed there.

#![expect(
    clippy::unwrap_used,
    reason = "a step that fails in a test is a failed test"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "works with the processes, files and networks of real programs"
)]

mod adapter;
mod consumer;
mod contract;
mod crashes;
mod network;
