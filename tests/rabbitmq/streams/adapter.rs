//! What is special about streams.

use std::sync::Arc;
use std::time::Duration;

use discogs_extractor::broker::{
    Broker, Command, Disconnect, Event, Message, Session, Subject, Tag,
};
use discogs_extractor::dump::Kind;
use discogs_extractor::rabbitmq::AmqpAddress;
use discogs_extractor::rabbitmq::stream::{Holds, RabbitMqStream, StreamConfig, StreamPublisher};
use discogs_extractor::record::Ordinal;
use discogs_extractor::time::{Clock, SystemClock};
use lapin::types::AMQPValue;

use super::consumer::Streams;
use crate::shared::Shared;

/// No event within this time is a failure. Never waited for by a test that passes.
const PATIENCE: Duration = Duration::from_secs(60);

const ROUTE: Kind = Kind::Labels;

/// The program's side of a broker.
struct Program {
    broker: RabbitMqStream,
    clock: Arc<dyn Clock>,
    sessions: u64,
    tags: u64,
}

impl Program {
    fn new(config: StreamConfig) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Self {
            broker: RabbitMqStream::new(config, Arc::clone(&clock)),
            clock,
            sessions: 0,
            tags: 0,
        }
    }

    fn connected(config: StreamConfig) -> Self {
        let mut program = Self::new(config);
        assert_eq!(program.connect(), None);
        program
    }

    /// Why the connection did not come about, if it did not.
    fn connect(&mut self) -> Option<Disconnect> {
        self.sessions += 1;
        let session = Session(self.sessions);
        self.broker.submit(Command::Connect(session));
        match self.event() {
            Event::Disconnected(of, why) if of == session => Some(why),
            event => {
                assert_eq!(event, Event::Connected(session));
                None
            }
        }
    }

    fn disconnect(&mut self) {
        self.broker.submit(Command::Disconnect);
        self.end();
    }

    fn end(&mut self) -> Disconnect {
        loop {
            if let Event::Disconnected(_, why) = self.event() {
                return why;
            }
        }
    }

    fn publish(&mut self, sequence: u64, bytes: usize) -> Tag {
        self.tags += 1;
        let message = Message {
            version: "20260801".parse().unwrap(),
            route: ROUTE,
            subject: Subject::Record(Ordinal(sequence)),
            sequence,
            sha256: "5eed".to_owned(),
            body: vec![b'x'; bytes].into(),
        };
        let tag = Tag(self.tags);
        self.broker.submit(Command::Publish(tag, Arc::new(message)));
        tag
    }

    fn deliver(&mut self, sequences: std::ops::RangeInclusive<u64>) {
        let tags: Vec<_> = sequences
            .map(|sequence| self.publish(sequence, 10))
            .collect();
        for tag in tags {
            assert_eq!(self.event(), Event::Confirmed(tag));
        }
    }

    fn event(&mut self) -> Event {
        let deadline = self.clock.now() + PATIENCE;
        self.broker.poll(deadline).expect("no event came")
    }
}

fn with_publisher(streams: &Streams, name: &str, holds: Holds) -> StreamConfig {
    let mut config = streams.config();
    config.publishers = vec![StreamPublisher {
        version: "20260801".parse().unwrap(),
        route: ROUTE,
        announces: false,
        name: name.to_owned(),
        holds,
    }];
    config
}

fn ids(streams: &Streams) -> Vec<String> {
    let held = streams.held(ROUTE).into_iter();
    held.map(|delivery| delivery.id).collect()
}

fn check_refusal(config: StreamConfig, words: &[&str]) {
    let refusal = Program::new(config).connect().expect("it is refused");
    assert!(refusal.permanent, "{refusal:?}");
    for word in words {
        assert!(refusal.why.contains(word), "{word} in {refusal:?}");
    }
}

#[test]
fn an_extraction_that_would_be_dropped_in_silence_is_refused() {
    let Some(shared) = Shared::get("streams-swallowed") else {
        return;
    };
    let streams = Streams::of(&shared);
    let config = |name, holds| with_publisher(&streams, name, holds);
    let mut program = Program::connected(config("first", Holds::Nothing));
    program.disconnect();
    assert_eq!(program.connect(), None, "nothing was published");
    program.deliver(1..=5);
    program.disconnect();
    assert_eq!(program.connect(), None, "what the stream holds is ours");
    drop(program);

    let words = ["number 5", "`first`", "in silence", "--reprocess"];
    check_refusal(config("first", Holds::Nothing), &words);
    Program::connected(config("first", Holds::AtLeast(5))).deliver(3..=7);
    assert_eq!(ids(&streams).len(), 7);
    Program::connected(config("second", Holds::Nothing)).deliver(1..=7);
    assert_eq!(ids(&streams).len(), 14);
}

#[test]
fn a_stream_that_lost_what_it_had_confirmed_is_refused() {
    let Some(shared) = Shared::get("streams-lost") else {
        return;
    };
    let streams = Streams::of(&shared);
    let config = |holds| with_publisher(&streams, "name", holds);
    let mut program = Program::connected(config(Holds::Nothing));
    program.deliver(1..=5);
    program.disconnect();
    check_refusal(config(Holds::AtLeast(6)), &["number 6", "up to 5 only"]);

    streams.delete(ROUTE);
    let refusal = program.connect().unwrap();
    assert!(refusal.permanent, "{refusal:?}");
    assert!(refusal.why.contains("up to 0 only"), "{refusal:?}");
}

#[test]
fn a_stream_that_is_deleted_ends_the_session() {
    let Some(shared) = Shared::get("streams-deleted") else {
        return;
    };
    let streams = Streams::of(&shared);
    let mut program = Program::connected(with_publisher(&streams, "name", Holds::Nothing));
    program.deliver(1..=5);
    streams.delete(ROUTE);
    let end = program.end();
    assert!(!end.permanent, "{end:?}");
    assert!(end.why.contains("deleted"), "{end:?}");
}

/// As large as records may be, and more than `stream.frame_max`.
#[test]
fn a_message_may_be_larger_than_a_frame() {
    let Some(shared) = Shared::get("streams-large") else {
        return;
    };
    let streams = Streams::of(&shared);
    let mut program = Program::connected(with_publisher(&streams, "name", Holds::Nothing));
    let tags =
        [(1, 10), (2, 20 << 20), (3, 10)].map(|(sequence, bytes)| program.publish(sequence, bytes));
    for tag in tags {
        assert_eq!(program.event(), Event::Confirmed(tag));
    }
    drop(program);
    let lengths = streams
        .held(ROUTE)
        .into_iter()
        .map(|delivery| delivery.body.len());
    assert_eq!(lengths.collect::<Vec<_>>(), [10, 20 << 20, 10]);
}

#[test]
fn what_needs_an_administrator_is_permanent() {
    let Some(shared) = Shared::get("streams-permanent") else {
        return;
    };
    let streams = Streams::of(&shared);
    let with = |change: &dyn Fn(&mut AmqpAddress)| {
        let mut config = with_publisher(&streams, "name", Holds::Nothing);
        change(&mut config.addresses[0]);
        config
    };
    let wrong_password = with(&|address| address.password = "wrong".to_owned());
    check_refusal(wrong_password, &["AuthenticationFailure", "password"]);
    let wrong_vhost = with(&|address| address.vhost = "nowhere".to_owned());
    check_refusal(wrong_vhost, &["nowhere", "virtual host"]);
    shared.declare(ROUTE, &[]);
    let clash = streams.stream(ROUTE);
    check_refusal(with(&|_| {}), &[&clash]);
}

#[test]
fn consumers_of_amqp_are_told_what_a_message_is() {
    let Some(shared) = Shared::get("streams-properties") else {
        return;
    };
    let streams = Streams::of(&shared);
    Program::connected(with_publisher(&streams, "name", Holds::Nothing)).deliver(1..=1);
    let [delivery] = streams.held(ROUTE).try_into().ok().unwrap();
    let properties = delivery.properties;
    assert_eq!(delivery.id, "20260801-labels-1");
    assert_eq!(delivery.body, b"xxxxxxxxxx");
    assert_eq!(properties.content_type(), &Some("application/json".into()));
    assert_eq!(properties.timestamp(), &Some(1_785_542_400));
    let headers = properties.headers().as_ref().unwrap().inner();
    let text = |text: &str| Some(AMQPValue::LongString(text.into()));
    assert_eq!(headers.get("version").cloned(), text("20260801"));
    assert_eq!(headers.get("kind").cloned(), text("labels"));
    assert_eq!(headers.get("sha256").cloned(), text("5eed"));
    assert_eq!(headers.get("ordinal"), Some(&AMQPValue::LongLongInt(1)));
}
