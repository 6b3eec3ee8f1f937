//! What lapin's errors mean to people, and whether another attempt can help.

use std::io;

use lapin::ErrorKind;
use lapin::protocol::AMQPError;

use super::address::AmqpAddress;
use crate::broker::Disconnect;

/// Reply codes of AMQP 0-9-1, section 1.2 of its XML definition.
const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;

/// What happened, what people can do, and whether anything else can help.
pub(super) struct Diagnosis {
    pub(super) cause: String,
    pub(super) hint: &'static str,
    pub(super) permanent: bool,
}

/// The end of a connection, or of an attempt to connect, to `address` by `error`.
pub(super) fn disconnect(address: &AmqpAddress, error: &lapin::Error) -> Disconnect {
    let diagnosis = match error.kind() {
        ErrorKind::ProtocolError(error) => diagnose_protocol(error),
        ErrorKind::IOError(error) => diagnose_io(error),
        ErrorKind::ParsingError(_) => Diagnosis {
            cause: "what answers does not speak AMQP 0-9-1".to_owned(),
            hint: "is this the right port, and is it one for amqp:// or for amqps://?",
            permanent: false,
        },
        _ => Diagnosis {
            cause: error.to_string(),
            hint: "is RabbitMQ reachable and running?",
            permanent: false,
        },
    };
    let Diagnosis {
        cause,
        hint,
        permanent,
    } = diagnosis;
    Disconnect {
        why: format!("RabbitMQ at {address}: {cause}; {hint}"),
        permanent,
    }
}

fn diagnose_protocol(error: &AMQPError) -> Diagnosis {
    let (code, message) = (error.get_id(), error.get_message().as_str());
    let (hint, permanent) = match code {
        ACCESS_REFUSED => (
            "check the user, the password and the permissions in the virtual host",
            true,
        ),
        NOT_ALLOWED if message.contains("limit") => ("close other connections", false),
        NOT_ALLOWED => (
            "create the virtual host and give the user access, or name another one in the address",
            true,
        ),
        PRECONDITION_FAILED if message.contains("inequivalent arg") => (
            "it exists with other properties: delete it, or configure another name",
            true,
        ),
        PRECONDITION_FAILED if parse_size_limit(message).is_some() => (
            "that message will be skipped, and all others published",
            false,
        ),
        NOT_FOUND => ("it was deleted; connecting declares exchanges again", false),
        _ => ("see the log of RabbitMQ", false),
    };
    Diagnosis {
        cause: format!("{code} {}", message.trim_end_matches('.')),
        hint,
        permanent,
    }
}

pub(super) fn diagnose_io(error: &io::Error) -> Diagnosis {
    let cause = error.to_string();
    let is_certificate = cause.contains("certificate");
    let hint = match error.kind() {
        _ if is_certificate => {
            "check the host name, or configure the certificate of the authority that signed the broker's"
        }
        io::ErrorKind::InvalidData => "does this port speak TLS?",
        io::ErrorKind::ConnectionRefused => "is RabbitMQ running, and is this its port?",
        _ => "is RabbitMQ reachable and running?",
    };
    Diagnosis {
        cause,
        hint,
        permanent: is_certificate,
    }
}

/// The largest body in bytes that the broker takes, and why a larger one is refused, if `error` is
/// about one: `PRECONDITION_FAILED - message size 10 is larger than configured max size 9`.
pub(super) fn size_limit(error: &lapin::Error) -> Option<(usize, String)> {
    let ErrorKind::ProtocolError(error) = error.kind() else {
        return None;
    };
    let message = error.get_message().as_str();
    let why = format!("{message}; raise max_message_size in the configuration of RabbitMQ");
    Some((parse_size_limit(message)?, why))
}

fn parse_size_limit(message: &str) -> Option<usize> {
    let (_, limit) = message
        .split_once("is larger than")?
        .1
        .split_once("max size ")?;
    let digits = limit.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol_error(code: u16, message: &str) -> lapin::Error {
        let error = AMQPError::from_id(code, message.into()).unwrap();
        ErrorKind::ProtocolError(error).into()
    }

    fn check(error: &lapin::Error, permanent: bool, words: &[&str]) {
        let address = "amqp://me:secret@broker".parse().unwrap();
        let disconnect = disconnect(&address, error);
        assert_eq!(disconnect.permanent, permanent, "{disconnect:?}");
        assert!(!disconnect.why.contains("secret"), "{disconnect:?}");
        for word in words.iter().chain(&["broker:5672"]) {
            assert!(disconnect.why.contains(word), "{word}: {disconnect:?}");
        }
    }

    #[test]
    fn what_only_people_can_change_is_permanent() {
        let protocol = |code, message, permanent, word| {
            check(&protocol_error(code, message), permanent, &[message, word]);
        };
        protocol(403, "ACCESS_REFUSED - Login was refused", true, "password");
        protocol(530, "NOT_ALLOWED - vhost v not found", true, "create");
        protocol(
            530,
            "NOT_ALLOWED - access to vhost '/' refused for user 'me': connection limit (1) is reached",
            false,
            "close",
        );
        protocol(
            406,
            "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'e'",
            true,
            "another name",
        );
        protocol(
            406,
            "PRECONDITION_FAILED - message size 10 is larger than configured max size 9",
            false,
            "skipped",
        );
        protocol(404, "NOT_FOUND - no exchange 'e'", false, "declares");
        protocol(320, "CONNECTION_FORCED - bye", false, "log");

        let io = |kind, message: &'static str, permanent, word| {
            let error = io::Error::new(kind, message).into();
            check(&error, permanent, &[message, word]);
        };
        io(io::ErrorKind::ConnectionRefused, "refused", false, "port");
        io(
            io::ErrorKind::InvalidData,
            "invalid peer certificate: UnknownIssuer",
            true,
            "authority",
        );
        io(io::ErrorKind::InvalidData, "corrupt", false, "TLS");
        io(io::ErrorKind::ConnectionReset, "reset", false, "reachable");
    }

    #[test]
    fn the_size_limit_is_in_the_message() {
        let check = |message: &str, expected| {
            assert_eq!(
                size_limit(&protocol_error(406, message)).map(|(limit, _)| limit),
                expected,
                "{message}"
            );
        };
        let prefix = "PRECONDITION_FAILED - message size 10 is larger than";
        check(&format!("{prefix} configured max size 9"), Some(9));
        check(&format!("{prefix} max size 9"), Some(9));
        check("PRECONDITION_FAILED - inequivalent arg", None);
    }
}
