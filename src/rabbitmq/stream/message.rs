//! A message as streams hold it: in the format of AMQP 1.0.
//!
//! Our own encoder, for the codec of the official client writes properties that RabbitMQ can't parse
//! when it hands such a message to a consumer of AMQP 0-9-1. Section and type codes are those of the
//! specification of OASIS, parts 1 and 3. Every length has four bytes: RabbitMQ takes them all.

use crate::broker::{Message, Subject};

/// Sections.
const PROPERTIES: u8 = 0x73;
const APPLICATION_PROPERTIES: u8 = 0x74;
const DATA: u8 = 0x75;

/// Types.
const NULL: u8 = 0x40;
const LONG: u8 = 0x81;
const TIMESTAMP: u8 = 0x83;
const BINARY: u8 = 0xb0;
const STRING: u8 = 0xb1;
const SYMBOL: u8 = 0xb3;
const LIST: u8 = 0xd0;
const MAP: u8 = 0xd1;

/// What the stream holds of `message`; the same on every attempt, like what goes to an exchange.
pub(super) fn encode(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.body.len() + 512);
    section(&mut bytes, PROPERTIES);
    compound(&mut bytes, LIST, &properties(message));
    section(&mut bytes, APPLICATION_PROPERTIES);
    compound(&mut bytes, MAP, &application_properties(message));
    section(&mut bytes, DATA);
    bytes.extend(variable(BINARY, &message.body));
    bytes
}

/// In the order of the specification, up to the last that is set.
fn properties(message: &Message) -> Vec<Vec<u8>> {
    let null = || vec![NULL];
    let milliseconds = message.version.unix_seconds() * 1_000;
    vec![
        variable(STRING, message.id().as_bytes()),
        null(),                                           // user-id
        null(),                                           // to
        variable(STRING, message.type_name().as_bytes()), // subject
        null(),                                           // reply-to
        null(),                                           // correlation-id
        variable(SYMBOL, b"application/json"),
        null(),                         // content-encoding
        null(),                         // absolute-expiry-time
        fixed(TIMESTAMP, milliseconds), // creation-time
    ]
}

/// Keys and values in turn.
fn application_properties(message: &Message) -> Vec<Vec<u8>> {
    let text = |text: &str| variable(STRING, text.as_bytes());
    let mut pairs = vec![
        text("version"),
        text(message.version.as_str()),
        text("kind"),
        text(message.route.name()),
    ];
    if let Subject::Record(ordinal) = message.subject {
        pairs.extend([
            text("ordinal"),
            fixed(LONG, ordinal.0),
            text("sha256"),
            text(&message.sha256),
        ]);
    }
    pairs
}

fn section(bytes: &mut Vec<u8>, code: u8) {
    const DESCRIBED: u8 = 0x00;
    const SMALL_ULONG: u8 = 0x53;
    bytes.extend([DESCRIBED, SMALL_ULONG, code]);
}

fn fixed(code: u8, value: u64) -> Vec<u8> {
    [&[code], value.to_be_bytes().as_slice()].concat()
}

fn variable(code: u8, value: &[u8]) -> Vec<u8> {
    [&[code], length(value.len()).as_slice(), value].concat()
}

fn compound(bytes: &mut Vec<u8>, code: u8, items: &[Vec<u8>]) {
    let count = length(items.len());
    let content = items.concat();
    bytes.push(code);
    bytes.extend(length(count.len() + content.len()));
    bytes.extend(count);
    bytes.extend(content);
}

fn length(length: usize) -> [u8; 4] {
    let length = u32::try_from(length).expect("a message is smaller than 4 GiB");
    length.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::Kind;
    use crate::record::Ordinal;
    use rabbitmq_stream_protocol::codec::Decoder;
    use rabbitmq_stream_protocol::message::Message as Decoded;

    /// What the official codec reads.
    fn decoded(subject: Subject, body: &[u8]) -> Decoded {
        let message = Message {
            version: "20260801".parse().unwrap(),
            route: Kind::Labels,
            subject,
            sequence: 7,
            sha256: "5eed".to_owned(),
            body: body.to_vec().into(),
        };
        let bytes = encode(&message);
        let (rest, decoded) = Decoded::decode(&bytes).unwrap();
        assert_eq!(rest, b"");
        decoded
    }

    #[test]
    fn the_official_codec_reads_what_was_written() {
        let large = vec![b'x'; 100_000];
        for (subject, body, type_name, names) in [
            (Subject::Record(Ordinal(7)), large.as_slice(), "data", 4),
            (Subject::FileComplete, b"{}", "file_complete", 2),
        ] {
            let decoded = decoded(subject, body);
            assert_eq!(decoded.data(), Some(body));
            let properties = decoded.properties().unwrap();
            assert_eq!(properties.subject.as_deref(), Some(type_name));
            assert!(properties.message_id.is_some() && properties.creation_time.is_some());
            let application = decoded.application_properties().unwrap();
            assert_eq!(application.len(), names);
            assert_eq!(application.get("version"), Some(&"20260801".into()));
            assert_eq!(application.get("kind"), Some(&"labels".into()));
            let ordinal = application.get("ordinal");
            assert_eq!(ordinal.cloned(), (names == 4).then(|| 7_i64.into()));
        }
    }
}
