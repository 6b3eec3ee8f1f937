//! A message as streams hold it: in the format of AMQP 1.0.

use chrono::DateTime;
use rabbitmq_stream_protocol::message::Message as StreamMessage;

use crate::broker::{Message, Subject};

/// What the stream holds of `message`; the same on every attempt, like what goes to an exchange.
pub(super) fn encode(message: &Message) -> StreamMessage {
    let created = i64::try_from(message.version.unix_seconds())
        .ok()
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
        .expect("a version is a date of four digits");
    let mut properties = StreamMessage::builder()
        .properties()
        .message_id(message.id())
        .subject(message.type_name())
        .content_type("application/json")
        .creation_time(created)
        .message_builder()
        .application_properties()
        .insert("version", message.version.as_str())
        .insert("kind", message.route.name());
    if let Subject::Record(ordinal) = message.subject {
        let ordinal = i64::try_from(ordinal.0).expect("a dump has fewer than 2^63 records");
        properties = properties
            .insert("ordinal", ordinal)
            .insert("sha256", message.sha256.as_str());
    }
    properties
        .message_builder()
        .body(message.body.clone())
        .build()
}
