//! What is special about the RabbitMQ broker, against a real RabbitMQ, through the door that the
//! program uses: commands in, events out. `contract.rs` has what holds of every broker.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use discogs_extractor::broker::{
    Broker, Command, Disconnect, Event, Message, Session, Subject, Tag,
};
use discogs_extractor::dump::Kind;
use discogs_extractor::rabbitmq::{
    AmqpAddress, DeclaredQueue, QueueType, RabbitMq, RabbitMqConfig, Topology,
};
use discogs_extractor::record::Ordinal;
use discogs_extractor::time::{Clock, SystemClock};
use lapin::ExchangeKind;
use lapin::types::AMQPValue;

use crate::shared::Shared;

/// No event within this time is a failure. Never waited for by a test that passes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program's side of a broker.
struct Program {
    broker: RabbitMq,
    clock: Arc<dyn Clock>,
    sessions: u64,
    tags: u64,
}

impl Program {
    fn new(config: RabbitMqConfig) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Self {
            broker: RabbitMq::new(config, Arc::clone(&clock)),
            clock,
            sessions: 0,
            tags: 0,
        }
    }

    fn connected(config: RabbitMqConfig) -> Self {
        let mut program = Self::new(config);
        program.connect();
        program
    }

    fn connect(&mut self) {
        let session = self.start_connecting();
        assert_eq!(self.event(), Event::Connected(session));
    }

    fn start_connecting(&mut self) -> Session {
        self.sessions += 1;
        let session = Session(self.sessions);
        self.broker.submit(Command::Connect(session));
        session
    }

    fn publish(&mut self, kind: Kind, bytes: usize) -> Tag {
        self.tags += 1;
        let message = Arc::new(message(kind, self.tags, bytes));
        self.broker
            .submit(Command::Publish(Tag(self.tags), message));
        Tag(self.tags)
    }

    fn event(&mut self) -> Event {
        let deadline = self.clock.now() + PATIENCE;
        self.broker.poll(deadline).expect("no event came")
    }

    /// The end of the present session, after any number of answers.
    fn end(&mut self) -> Disconnect {
        loop {
            if let Event::Disconnected(session, disconnect) = self.event() {
                assert_eq!(session, Session(self.sessions));
                return disconnect;
            }
        }
    }
}

fn message(kind: Kind, number: u64, bytes: usize) -> Message {
    Message {
        version: "20260801".parse().unwrap(),
        route: kind,
        subject: Subject::Record(Ordinal(number)),
        sequence: number,
        sha256: "0".repeat(64),
        body: vec![b'x'; bytes].into(),
    }
}

fn check_refusal(config: RabbitMqConfig, permanent: bool, words: &[&str]) {
    let mut program = Program::new(config);
    program.start_connecting();
    let Event::Disconnected(_, disconnect) = program.event() else {
        panic!("not refused");
    };
    assert_eq!(disconnect.permanent, permanent, "{disconnect:?}");
    for word in words {
        assert!(disconnect.why.contains(word), "{word}: {disconnect:?}");
    }
}

/// An address at which nobody listens.
fn refused_address() -> AmqpAddress {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    address("127.0.0.1", port)
}

fn address(host: &str, port: u16) -> AmqpAddress {
    format!("amqp://me:secret@{host}:{port}").parse().unwrap()
}

#[test]
fn nobody_listening_is_not_permanent() {
    let config = RabbitMqConfig::new(vec![refused_address(), refused_address()]);
    let ports = config.addresses.iter().map(|address| address.port);
    let ports: Vec<_> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
    check_refusal(config, false, &[&ports[0], &ports[1], "refused"]);
}

#[test]
fn a_listener_that_says_nothing_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut config = RabbitMqConfig::new(vec![address("127.0.0.1", port)]);
    config.connect_timeout = Duration::from_millis(50);
    check_refusal(config, false, &["not ready within 50ms"]);
}

#[test]
fn connecting_can_be_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut config = RabbitMqConfig::new(vec![address("127.0.0.1", port)]);
    config.connect_timeout = Duration::MAX;
    let mut program = Program::new(config);
    program.start_connecting();
    program.broker.submit(Command::Disconnect);
    assert!(!program.end().permanent);

    // Dropping gives up as well; the test would never end otherwise.
    program.start_connecting();
}

#[test]
fn a_second_session_is_refused_while_there_is_one() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut config = RabbitMqConfig::new(vec![address("127.0.0.1", port)]);
    config.connect_timeout = Duration::MAX;
    let mut program = Program::new(config);
    program.start_connecting();
    let second = program.start_connecting();
    let event = program.event();
    assert!(matches!(event, Event::Disconnected(session, _) if session == second));
}

#[test]
fn a_configuration_that_cannot_work_is_permanent() {
    check_refusal(RabbitMqConfig::new(Vec::new()), true, &["no address"]);
    let mut config = RabbitMqConfig::new(vec![refused_address()]);
    config.topology = Topology::Topic {
        exchange: "e".repeat(256),
    };
    check_refusal(config, true, &["too long"]);
}

/// Mixed, because lapin hands the return of one message over with the confirm of another.
#[test]
fn an_unroutable_message_is_returned_and_never_confirmed() {
    let Some(real) = Shared::get("returned") else {
        return;
    };
    real.declare_bound(Kind::Labels, &[]);
    let mut program = Program::connected(real.config());
    for round in 1..=40_u64 {
        let mut unanswered = BTreeMap::new();
        for number in 0..500_u64 {
            let unroutable = (number * number + round) % (1 + round % 7) == 0;
            let kind = if unroutable {
                Kind::Artists
            } else {
                Kind::Labels
            };
            unanswered.insert(program.publish(kind, 100), unroutable);
        }
        while !unanswered.is_empty() {
            let event = program.event();
            let (tag, returned) = match &event {
                Event::Confirmed(tag) => (tag, false),
                Event::Returned(tag, why) => {
                    assert!(why.starts_with("312 NO_ROUTE"), "{why}");
                    (tag, true)
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(unanswered.remove(tag), Some(returned), "{event:?}");
        }
    }
}

#[test]
fn a_full_queue_rejects() {
    let Some(real) = Shared::get("full") else {
        return;
    };
    let limits = [
        ("x-max-length", AMQPValue::LongInt(1)),
        ("x-overflow", AMQPValue::LongString("reject-publish".into())),
    ];
    real.declare_bound(Kind::Labels, &limits);
    let mut program = Program::connected(real.config());
    let first = program.publish(Kind::Labels, 1);
    assert_eq!(program.event(), Event::Confirmed(first));
    let second = program.publish(Kind::Labels, 1);
    assert!(matches!(program.event(), Event::Rejected(tag, _) if tag == second));
}

#[test]
fn declared_queues_are_bound() {
    let Some(real) = Shared::get("declared") else {
        return;
    };
    for queue_type in [QueueType::Classic, QueueType::Quorum] {
        let mut config = real.config();
        config.queues = vec![DeclaredQueue {
            name: format!("{}-{{kind}}", real.prefix),
            queue_type,
        }];
        let mut program = Program::connected(config);
        for kind in Kind::ALL {
            let tag = program.publish(kind, 1);
            assert_eq!(program.event(), Event::Confirmed(tag), "{kind}");
        }
        real.clean();
    }
}

#[test]
fn the_topic_profile_routes_by_kind() {
    let Some(real) = Shared::get("topic") else {
        return;
    };
    let mut config = real.config();
    config.topology = Topology::Topic {
        exchange: real.exchange(Kind::Masters),
    };
    config.queues = vec![DeclaredQueue {
        name: format!("{}-{{kind}}", real.prefix),
        queue_type: QueueType::Classic,
    }];
    let mut program = Program::connected(config);
    let tag = program.publish(Kind::Labels, 3);
    assert_eq!(program.event(), Event::Confirmed(tag));
    let received = real.take(Kind::Labels).unwrap();
    assert_eq!(received.id, "20260801-labels-1");
    assert_eq!(received.body, b"xxx");
}

#[test]
fn what_needs_an_administrator_is_permanent() {
    let Some(real) = Shared::get("permanent") else {
        return;
    };
    let with = |change: &dyn Fn(&mut AmqpAddress)| {
        let mut config = real.config();
        change(&mut config.addresses[0]);
        config
    };
    let wrong_password = with(&|address| address.password = "wrong".to_owned());
    check_refusal(wrong_password, true, &["ACCESS_REFUSED", "password"]);
    let wrong_vhost = with(&|address| address.vhost = "nowhere".to_owned());
    check_refusal(wrong_vhost, true, &["nowhere", "virtual host"]);

    real.declare_exchange(Kind::Masters, ExchangeKind::Direct);
    let clash = real.exchange(Kind::Masters);
    check_refusal(real.config(), true, &[&clash, "another name"]);
}

#[test]
fn the_next_address_is_tried() {
    let Some(real) = Shared::get("addresses") else {
        return;
    };
    let mut config = real.config();
    config.addresses.insert(0, refused_address());
    let mut program = Program::connected(config);
    program.broker.submit(Command::Disconnect);
    program.end();
    program.connect();
}

#[test]
fn a_deleted_exchange_ends_the_session_and_comes_back() {
    let Some(real) = Shared::get("deleted") else {
        return;
    };
    real.declare_bound(Kind::Labels, &[]);
    let mut program = Program::connected(real.config());
    for _ in 0..100 {
        program.publish(Kind::Labels, 100);
    }
    real.delete_exchange(Kind::Labels);
    for _ in 0..100 {
        program.publish(Kind::Labels, 100);
    }
    let disconnect = program.end();
    assert!(!disconnect.permanent, "{disconnect:?}");
    assert!(disconnect.why.contains("NOT_FOUND"), "{disconnect:?}");

    program.connect();
    let tag = program.publish(Kind::Labels, 100);
    assert!(matches!(program.event(), Event::Returned(returned, _) if returned == tag));
}

#[test]
fn a_message_above_the_limit_is_refused() {
    let Some((real, control)) = Shared::alone("large") else {
        return;
    };
    const LIMIT: usize = 1_000_000;
    real.declare_bound(Kind::Labels, &[]);
    control.limiting_messages(LIMIT, || {
        let mut program = Program::connected(real.config());
        let taken = program.publish(Kind::Labels, LIMIT);
        assert_eq!(program.event(), Event::Confirmed(taken));
        let large = program.publish(Kind::Labels, LIMIT + 1);
        program.publish(Kind::Labels, 1);
        let Event::Refused(tag, why) = program.event() else {
            panic!("not refused");
        };
        assert_eq!(tag, large);
        assert!(why.contains("max_message_size"), "{why}");
        let disconnect = program.end();
        assert!(!disconnect.permanent, "{disconnect:?}");
        program.connect();
    });
}

#[test]
fn a_blocked_connection_can_be_closed() {
    let Some((real, control)) = Shared::alone("blocked") else {
        return;
    };
    real.declare_bound(Kind::Labels, &[]);
    let mut program = Program::connected(real.config());
    let mut dropped = Program::connected(real.config());
    let restore = ["set_vm_memory_high_watermark", "0.4"];
    control.restoring(&restore, |control| {
        control.run(&["set_vm_memory_high_watermark", "0"]);
        for program in [&mut program, &mut dropped] {
            program.publish(Kind::Labels, 1);
            assert!(matches!(program.event(), Event::Blocked(_)));
            program.publish(Kind::Labels, 1);
        }
        program.broker.submit(Command::Disconnect);
        assert_eq!(program.end().why, "closed on request");
        drop(dropped);
    });

    // The alarm is over, and so is the next one after an answer.
    program.connect();
    let tag = program.publish(Kind::Labels, 1);
    assert_eq!(program.event(), Event::Confirmed(tag));
}

#[test]
fn publishing_goes_on_after_an_alarm() {
    let Some((real, control)) = Shared::alone("alarm") else {
        return;
    };
    real.declare_bound(Kind::Labels, &[]);
    let mut program = Program::connected(real.config());
    let restore = ["set_vm_memory_high_watermark", "0.4"];
    let mut tag = Tag(0);
    control.restoring(&restore, |control| {
        control.run(&["set_vm_memory_high_watermark", "0"]);
        tag = program.publish(Kind::Labels, 1);
        assert!(matches!(program.event(), Event::Blocked(_)));
    });
    let mut events = [program.event(), program.event()];
    events.sort_by_key(|event| *event == Event::Unblocked);
    assert_eq!(events, [Event::Confirmed(tag), Event::Unblocked]);
}
