//! A message's properties on the wire.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

use crate::broker::{Message, Subject};

/// Survives a restart of the broker, in a durable queue.
const PERSISTENT: u8 = 2;

/// The properties of `message`, whose identity is `id`.
///
/// The same on every attempt: the timestamp is the dump's date, never now. Headers are flat
/// scalars, because a stream drops nested tables.
pub(super) fn properties(message: &Message, id: &str) -> BasicProperties {
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT)
        .with_message_id(id.into())
        .with_type(message.type_name().into())
        .with_app_id("discogs-extractor".into())
        .with_timestamp(message.version.unix_seconds())
        .with_headers(headers(message))
}

fn headers(message: &Message) -> FieldTable {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut headers = FieldTable::default();
    headers.insert("version".into(), text(message.version.as_str()));
    headers.insert("kind".into(), text(message.route.name()));
    if let Subject::Record(ordinal) = message.subject {
        let ordinal = i64::try_from(ordinal.0).expect("a dump has fewer than 2^63 records");
        headers.insert("ordinal".into(), AMQPValue::LongLongInt(ordinal));
        headers.insert("sha256".into(), text(&message.sha256));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::Kind;
    use crate::record::Ordinal;

    fn message(subject: Subject) -> Message {
        Message {
            version: "20260801".parse().unwrap(),
            route: Kind::Labels,
            subject,
            sequence: 7,
            sha256: "5eed".to_owned(),
            body: b"{}".as_slice().into(),
        }
    }

    fn check(subject: Subject, id: &str, type_name: &str, header_names: &[&str]) {
        let message = message(subject);
        let properties = properties(&message, &message.id());
        let headers = properties.headers().as_ref().unwrap();
        assert_eq!(properties.message_id(), &Some(id.into()));
        assert_eq!(properties.kind(), &Some(type_name.into()));
        assert_eq!(properties.content_type(), &Some("application/json".into()));
        assert_eq!(properties.app_id(), &Some("discogs-extractor".into()));
        assert_eq!(properties.delivery_mode(), &Some(2));
        assert_eq!(properties.timestamp(), &Some(1_785_542_400));
        let names: Vec<_> = headers.inner().keys().map(|key| key.as_str()).collect();
        assert_eq!(names, header_names);
        assert!(
            headers
                .inner()
                .values()
                .all(|value| matches!(value, AMQPValue::LongString(_) | AMQPValue::LongLongInt(7)))
        );
    }

    #[test]
    fn properties_say_what_a_message_is() {
        check(
            Subject::Record(Ordinal(7)),
            "20260801-labels-7",
            "data",
            &["kind", "ordinal", "sha256", "version"],
        );
        check(
            Subject::FileComplete,
            "20260801-labels-file_complete",
            "file_complete",
            &["kind", "version"],
        );
    }
}
