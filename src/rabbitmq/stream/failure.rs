//! What can go wrong with a stream, what it means to people, and whether another attempt can help.

use std::io;

use rabbitmq_stream_protocol::ResponseCode;

use super::wire::Closing;
use crate::broker::Disconnect;
use crate::rabbitmq::address::AmqpAddress;
use crate::rabbitmq::failure::{Diagnosis, diagnose_io};

/// The code of the protocol for a frame that the broker does not take.
const FRAME_TOO_LARGE: u16 = 14;

/// Why a session ends, or does not come about.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection.
    Io(io::Error),
    /// What was sent or received makes no sense.
    Protocol(String),
    /// Nothing was heard for too long.
    Silent,
    /// The broker closes the connection.
    Closed(Closing),
    /// The broker says no to what was asked.
    Refused(String, ResponseCode),
    /// A stream has lost its leader, or was deleted.
    Unavailable,
    /// The stream holds messages of a publisher that is new to us.
    Swallowed {
        stream: String,
        publisher: String,
        last: u64,
    },
    /// The stream does not hold what it had confirmed.
    Lost {
        stream: String,
        publisher: String,
        last: u64,
        confirmed: u64,
    },
    /// Nobody has said under which name to publish a message.
    Unassigned(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The end of a connection, or of an attempt to connect, to `address` by `failure`.
pub(super) fn disconnect(address: &AmqpAddress, failure: &Failure) -> Disconnect {
    let Diagnosis {
        cause,
        hint,
        permanent,
    } = diagnose(failure);
    Disconnect {
        why: format!("RabbitMQ at {address}: {cause}; {hint}"),
        permanent,
    }
}

fn diagnose(failure: &Failure) -> Diagnosis {
    let (cause, hint, permanent) = match failure {
        Failure::Io(error) => return diagnose_io(error),
        Failure::Protocol(what) => (
            format!("what answers does not speak the stream protocol ({what})"),
            "is this the right port, and is the plugin rabbitmq_stream enabled?",
            false,
        ),
        Failure::Silent => (
            "no heartbeat".to_owned(),
            "is RabbitMQ reachable and running?",
            false,
        ),
        Failure::Closed(closing) if closing.code == FRAME_TOO_LARGE => (
            "a message is larger than it takes".to_owned(),
            "raise stream.frame_max in the configuration of RabbitMQ, and run again to go on",
            true,
        ),
        Failure::Closed(closing) => (
            format!("it closed the connection: {}", closing.reason),
            "see the log of RabbitMQ",
            false,
        ),
        Failure::Refused(asked, code) => return diagnose_code(asked, code),
        Failure::Unavailable => (
            "a stream lost its leader, or was deleted".to_owned(),
            "see the log of RabbitMQ",
            false,
        ),
        Failure::Swallowed {
            stream,
            publisher,
            last,
        } => (
            format!(
                "stream `{stream}` holds messages up to number {last} of this dump (publisher \
                 `{publisher}`), and the state marker knows nothing of them, so RabbitMQ would drop \
                 them all in silence"
            ),
            "put the state marker back that belongs to the stream, or use --reprocess to publish \
             every message once more",
            true,
        ),
        Failure::Lost {
            stream,
            publisher,
            last,
            confirmed,
        } => (
            format!(
                "stream `{stream}` had confirmed messages up to number {confirmed} of this dump \
                 (publisher `{publisher}`), and holds them up to {last} only"
            ),
            "was it deleted? use --reprocess to publish every message once more",
            true,
        ),
        Failure::Unassigned(id) => (
            format!("message {id} has no publisher"),
            "dead letters can't be published to streams; name another broker for them",
            true,
        ),
    };
    Diagnosis {
        cause,
        hint,
        permanent,
    }
}

fn diagnose_code(asked: &str, code: &ResponseCode) -> Diagnosis {
    use ResponseCode as Code;
    let (hint, permanent) = match code {
        Code::AuthenticationFailure | Code::SaslError | Code::SaslMechanismNotSupported => {
            ("check the user and the password", true)
        }
        Code::AuthenticationFailureLoopback => (
            "this user may only connect from RabbitMQ's own machine; configure another",
            true,
        ),
        Code::VirtualHostAccessFailure => (
            "create the virtual host and give the user access, or name another one in the address",
            true,
        ),
        Code::AccessRefused => (
            "give the user the permissions to write to the stream, and to configure it if it is to be \
             created",
            true,
        ),
        Code::PreconditionFailed => (
            "is there a queue of this name that is no stream, or one with other properties? delete it, \
             or configure another prefix",
            true,
        ),
        _ => ("see the log of RabbitMQ", false),
    };
    Diagnosis {
        cause: format!("it refused to {asked} ({code:?})"),
        hint,
        permanent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_where_and_what_to_do() {
        let address: AmqpAddress = "rabbitmq-stream://u:secret@host:5552".parse().unwrap();
        let check = |failure: Failure, permanent, words: &[&str]| {
            let disconnect = disconnect(&address, &failure);
            assert_eq!(disconnect.permanent, permanent, "{disconnect:?}");
            for word in ["host:5552", "; "].iter().chain(words) {
                assert!(disconnect.why.contains(word), "{word} in {disconnect:?}");
            }
            assert!(!disconnect.why.contains("secret"));
        };
        let name = |text: &str| text.to_owned();
        let refused = |code| Failure::Refused(name("open /"), code);
        check(
            refused(ResponseCode::AuthenticationFailure),
            true,
            &["open /", "password"],
        );
        check(
            refused(ResponseCode::VirtualHostAccessFailure),
            true,
            &["virtual host"],
        );
        check(refused(ResponseCode::AccessRefused), true, &["permissions"]);
        check(
            refused(ResponseCode::PreconditionFailed),
            true,
            &["no stream"],
        );
        check(refused(ResponseCode::StreamNotAvailable), false, &["log"]);
        check(Failure::Silent, false, &["heartbeat"]);
        check(Failure::Unavailable, false, &["leader"]);
        let closed = |code| {
            let reason = name("bye");
            Failure::Closed(Closing { code, reason })
        };
        check(closed(15), false, &["bye"]);
        check(closed(14), true, &["stream.frame_max"]);
        check(Failure::Protocol(name("x")), false, &["rabbitmq_stream"]);
        let (stream, publisher) = (name("s"), name("p"));
        check(
            Failure::Swallowed {
                stream: stream.clone(),
                publisher: publisher.clone(),
                last: 9,
            },
            true,
            &["`s`", "`p`", "9", "--reprocess"],
        );
        check(
            Failure::Lost {
                stream,
                publisher,
                last: 3,
                confirmed: 9,
            },
            true,
            &["`s`", "`p`", "up to 3", "number 9", "--reprocess"],
        );
    }
}
