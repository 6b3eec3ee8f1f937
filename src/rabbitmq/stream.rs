//! RabbitMQ's streams, over their own protocol: exactly once, in order.
//!
//! # Exactly once
//!
//! A stream remembers the last number, the *publishing id*, of each publisher by its name, and drops
//! what has a number that is not higher. Our publishers are named after the version, the kind, the bytes
//! of the dump and a generation ([`crate::marker::Publisher`]), and number by
//! [`crate::broker::Message::sequence`], so whatever a crash or a lost connection makes us repeat is
//! dropped and confirmed by the stream. We leave that to the stream, although it tells its last number:
//! it confirms a repeat only once enough replicas have the message, and the number says nothing of
//! replicas.
//!
//! What is dropped is only right if the lower numbers are all there. They are:
//!
//! - A session begins with the lowest message that has no confirm, or before, and goes on without gaps.
//!   So does what an earlier session has left in a socket of the broker, and whatever of both the broker
//!   takes in which order, it takes no number before those below it.
//! - No message is turned down alone. The first error ends the session, and a message that is too large
//!   for the broker ends the run: if others followed it, it could never follow them. (RabbitMQ 3.10 and
//!   4.0 take a message in a frame of its own, whatever `stream.frame_max` says.)
//!
//! `extraction_complete` has publishers of its own, named after those of all four dumps: it is told again
//! on every route when one of them was extracted anew.
//!
//! # What is refused
//!
//! On connecting, the stream is asked for the last number of every publisher. If it holds messages of
//! one that the state does not know to be ours, it would drop a whole extraction in silence. If it holds
//! less than it has confirmed, it was deleted. Both end the run with an error that says what to do.
//!
//! # One connection
//!
//! Any node of a cluster takes messages for any stream and hands them to its leader, so we use the
//! addresses of the configuration and not those that nodes claim to have, which are often not reachable
//! from outside. The official client connects again and counts by itself, which hides what all of the
//! above depends on; only its codec is used, and not for messages (`stream/message.rs`).
//!
//! A broker that is short of disk stops reading without notice. Its confirms are then late, and the
//! program's time-out for them makes a new session, which repeats nothing.

mod failure;
mod message;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use rabbitmq_stream_protocol::commands::close::CloseRequest;
use rabbitmq_stream_protocol::commands::create_stream::CreateStreamCommand;
use rabbitmq_stream_protocol::commands::declare_publisher::DeclarePublisherCommand;
use rabbitmq_stream_protocol::commands::generic::GenericResponse;
use rabbitmq_stream_protocol::commands::heart_beat::HeartBeatCommand;
use rabbitmq_stream_protocol::commands::open::{OpenCommand, OpenResponse};
use rabbitmq_stream_protocol::commands::peer_properties::PeerPropertiesCommand;
use rabbitmq_stream_protocol::commands::query_publisher_sequence::{
    QueryPublisherRequest, QueryPublisherResponse,
};
use rabbitmq_stream_protocol::commands::sasl_authenticate::SaslAuthenticateCommand;
use rabbitmq_stream_protocol::commands::sasl_handshake::SaslHandshakeCommand;
use rabbitmq_stream_protocol::commands::tune::TunesCommand;
use rabbitmq_stream_protocol::{Request, Response, ResponseCode, ResponseKind};
use sha2::{Digest, Sha256};
use tokio::time::{MissedTickBehavior, interval};

use self::failure::Failure;
use self::wire::{Frame, Publishing, Reader, Writer};
use super::address::AmqpAddress;
use super::worker::{Client, Commands, Protocol, Reach, refuse};
use crate::broker::{Broker, Command, Disconnect, Event, Message, Subject, Tag, Waker};
use crate::dump::{Kind, Version, file_name};
use crate::gzip::hex;
use crate::plan::Plan;
use crate::queue::EventSender;
use crate::time::{Clock, Instant};

/// How often each side is heard at the least. The protocol counts in seconds.
const HEARTBEAT_SECONDS: u32 = 10;

/// So many heartbeats without a sound end a connection.
const SILENT_HEARTBEATS_MAX: u32 = 3;

/// The bytes of a frame, unless one message alone makes it larger. Well below `stream.frame_max`, which
/// is 1 MiB if not configured.
const FRAME_BYTES_MAX: usize = 256 << 10;

/// How to reach and use the streams of a RabbitMQ.
#[derive(Clone, Debug)]
pub struct StreamConfig {
    /// The nodes of one cluster, tried in turn; at least one.
    pub addresses: Vec<AmqpAddress>,
    /// What the names of the streams begin with: `PREFIX-KIND`, at most 255 bytes. A stream that is
    /// missing is created, and keeps everything unless a policy says otherwise.
    pub prefix: String,
    /// Who publishes, at most 255.
    pub publishers: Vec<StreamPublisher>,
    /// Certificates in PEM form, of authorities to trust besides those of the system.
    pub ca_certificates: Option<String>,
    /// How long one attempt to connect to one address may take, everything included.
    pub connect_timeout: Duration,
    /// How long to wait for the broker's goodbye before the connection is cut.
    pub close_timeout: Duration,
}

impl StreamConfig {
    /// The default streams on `addresses`, no publishers, 5 seconds to connect, 2 to close.
    pub fn new(addresses: Vec<AmqpAddress>) -> Self {
        Self {
            addresses,
            prefix: "discogsography-discogs".to_owned(),
            publishers: Vec::new(),
            ca_certificates: None,
            connect_timeout: Duration::from_secs(5),
            close_timeout: Duration::from_secs(2),
        }
    }

    fn check(&self) -> Result<(), String> {
        if self
            .addresses
            .iter()
            .any(|address| !address.scheme.is_stream())
        {
            return Err(
                "an address of AMQP was given to streams; write rabbitmq-stream://".to_owned(),
            );
        }
        if self.prefix.len() > 255 - 1 - Kind::Releases.name().len() {
            return Err("the prefix of the streams is longer than the protocol allows".to_owned());
        }
        Ok(())
    }

    fn stream(&self, kind: Kind) -> String {
        format!("{}-{kind}", self.prefix)
    }
}

/// Who publishes to a stream: a name, under which the stream holds each number once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPublisher {
    /// The version of its messages.
    pub version: Version,
    /// The stream.
    pub route: Kind,
    /// Whether it publishes `extraction_complete`, and no other message; or all others.
    pub announces: bool,
    /// The name, at most 255 bytes.
    pub name: String,
    /// What the stream has to hold of it.
    pub holds: Holds,
}

/// What a stream has to hold of a publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Nothing.
    Nothing,
    /// The messages up to this number, and perhaps more.
    AtLeast(u64),
}

/// The publishers of a run of `plan`, whose dumps have been assigned theirs.
pub fn publishers(plan: &Plan) -> Vec<StreamPublisher> {
    let mut publishers = Vec::new();
    for planned in &plan.dumps {
        let (version, route) = (&plan.version, planned.dump.kind);
        let file = plan.marker.file(&planned.dump.file_name());
        let Some(publisher) = file.and_then(|file| file.publisher.as_ref()) else {
            continue;
        };
        let messages = planned.checkpoint.frontier.messages;
        let published = if messages > publisher.after {
            messages
        } else {
            0
        };
        publishers.push(StreamPublisher {
            version: version.clone(),
            route,
            announces: false,
            name: publisher.name(version, route),
            holds: match publisher.is_claimed {
                false => Holds::Nothing,
                true => Holds::AtLeast(published),
            },
        });
    }
    let digest = announcement(plan);
    publishers.extend(Kind::ALL.map(|route| StreamPublisher {
        version: plan.version.clone(),
        route,
        announces: true,
        name: format!("discogs-extractor-{}-{route}-end-{digest}", plan.version),
        holds: Holds::AtLeast(0),
    }));
    publishers
}

/// Tells apart the extractions that an `extraction_complete` can be about.
fn announcement(plan: &Plan) -> String {
    let mut digest = Sha256::new();
    for kind in Kind::ALL {
        let file = plan.marker.file(&file_name(&plan.version, kind));
        let publisher = file.and_then(|file| file.publisher.as_ref());
        let name = publisher.map(|publisher| publisher.name(&plan.version, kind));
        digest.update(name.unwrap_or_default());
        digest.update([0]);
    }
    hex(&digest.finalize()[..8])
}

/// The streams of a RabbitMQ. Dropping it closes the connection and waits for the thread to end, at most
/// for the close time-out.
pub struct RabbitMqStream(Client);

impl RabbitMqStream {
    /// Starts the thread, which connects only when told to. Deadlines are those of `clock`.
    pub fn new(config: StreamConfig, clock: Arc<dyn Clock>) -> Self {
        let reach = Reach {
            addresses: config.addresses.clone(),
            connect_timeout: config.connect_timeout,
            close_timeout: config.close_timeout,
        };
        Self(Client::new(reach, Streams { config }, clock))
    }
}

impl Broker for RabbitMqStream {
    fn submit(&mut self, command: Command) {
        self.0.submit(command);
    }

    fn poll(&mut self, deadline: Instant) -> Option<Event> {
        self.0.poll(deadline)
    }

    fn waker(&self) -> Waker {
        self.0.waker()
    }
}

impl fmt::Debug for RabbitMqStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RabbitMqStream")
    }
}

/// The stream protocol.
struct Streams {
    /// What its publishers have to hold rises with each confirm.
    config: StreamConfig,
}

impl Protocol for Streams {
    type Link = Link;

    fn check(&self) -> Result<(), String> {
        self.config.check()
    }

    async fn open(&mut self, address: &AmqpAddress) -> Result<Link, Disconnect> {
        let opened = Link::open(&mut self.config, address).await;
        opened.map_err(|failure| failure::disconnect(address, &failure))
    }

    async fn serve(
        &mut self,
        link: &mut Link,
        commands: &mut Commands,
        events: &EventSender,
    ) -> Result<(), Disconnect> {
        let served = self.exchange(link, commands, events).await;
        served.map_err(|failure| failure::disconnect(&link.address, &failure))
    }

    async fn close(&mut self, mut link: Link, events: &EventSender) {
        let _ = self.say_goodbye(&mut link, events).await;
    }
}

impl Streams {
    async fn exchange(
        &mut self,
        link: &mut Link,
        commands: &mut Commands,
        events: &EventSender,
    ) -> Result<(), Failure> {
        let mut heartbeat = interval(Duration::from_secs(HEARTBEAT_SECONDS.into()));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Confirms first, so that nothing else, least of all bad news, overtakes one.
            tokio::select! {
                biased;
                frame = link.reader.next() => self.take_in(link, frame?, events)?,
                written = link.writer.flush(), if link.writer.is_pending() => written?,
                command = commands.recv() => {
                    let first = command.unwrap_or(Command::Disconnect);
                    if self.obey(link, first, commands, events)?.is_break() {
                        return Ok(());
                    }
                },
                _ = heartbeat.tick() => link.beat()?,
            }
        }
    }

    /// Does what the program asks, all that has arrived in one go; breaks when it asks for the end.
    fn obey(
        &mut self,
        link: &mut Link,
        first: Command,
        commands: &mut Commands,
        events: &EventSender,
    ) -> Result<ControlFlow<()>, Failure> {
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Publish(tag, message) => link.publish(&self.config, tag, &message)?,
                Command::Connect(second) => refuse(second, events),
                Command::Disconnect => {
                    link.seal()?;
                    return Ok(ControlFlow::Break(()));
                }
            }
            next = commands.try_recv().ok();
        }
        link.seal()?;
        Ok(ControlFlow::Continue(()))
    }

    fn take_in(
        &mut self,
        link: &mut Link,
        frame: Frame,
        events: &EventSender,
    ) -> Result<(), Failure> {
        link.silent_heartbeats = 0;
        if let Some(closing) = frame.closing {
            return Err(Failure::Closed(closing));
        }
        match frame.response.kind() {
            ResponseKind::PublishConfirm(confirm) => {
                for number in confirm.publishing_ids {
                    self.confirmed(link, confirm.publisher_id, number, events);
                }
                Ok(())
            }
            ResponseKind::PublishError(error) => {
                let first = error.publishing_errors.into_iter().next();
                let code = first.map_or(ResponseCode::InternalError, |error| error.error_code);
                Err(Failure::Refused("publish".to_owned(), code))
            }
            ResponseKind::MetadataUpdate(_) => Err(Failure::Unavailable),
            _ => Ok(()),
        }
    }

    fn confirmed(&mut self, link: &mut Link, publisher: u8, number: u64, events: &EventSender) {
        let Some(tag) = link.unconfirmed.remove(&(publisher, number)) else {
            return;
        };
        let holds = &mut self.config.publishers[usize::from(publisher)].holds;
        if *holds == Holds::Nothing || matches!(holds, Holds::AtLeast(last) if *last < number) {
            *holds = Holds::AtLeast(number);
        }
        events.send(Event::Confirmed(tag));
    }

    /// Writes what is not written, and waits for the broker's goodbye. Confirms come before it.
    async fn say_goodbye(&mut self, link: &mut Link, events: &EventSender) -> Result<(), Failure> {
        let reason = "the program ends the session".to_owned();
        let correlation = link.correlate();
        let close = CloseRequest::new(correlation, ResponseCode::Ok, reason);
        link.writer.add(close)?;
        loop {
            tokio::select! {
                biased;
                frame = link.reader.next() => {
                    let frame = frame?;
                    if frame.response.correlation_id() == Some(correlation) {
                        return Ok(());
                    }
                    self.take_in(link, frame, events)?;
                }
                written = link.writer.flush(), if link.writer.is_pending() => written?,
            }
        }
    }
}

/// A connection that is ready to publish.
struct Link {
    address: AmqpAddress,
    reader: Reader,
    writer: Writer,
    correlation: u32,
    /// Which attempt a number of a publisher, counted in the order of the configuration, is.
    unconfirmed: BTreeMap<(u8, u64), Tag>,
    /// The messages of the next frame.
    publishing: Publishing,
    silent_heartbeats: u32,
}

impl Link {
    async fn open(config: &mut StreamConfig, address: &AmqpAddress) -> Result<Self, Failure> {
        let (reader, writer) = wire::connect(address, config.ca_certificates.as_deref()).await?;
        let mut link = Self {
            address: address.clone(),
            reader,
            writer,
            correlation: 0,
            unconfirmed: BTreeMap::new(),
            publishing: Publishing::new(0),
            silent_heartbeats: 0,
        };
        link.introduce().await?;
        link.authenticate().await?;
        link.enter().await?;
        for (number, publisher) in (0..).zip(&config.publishers) {
            link.declare(config, number, publisher).await?;
        }
        // From here on, what the stream holds may be ours.
        for publisher in &mut config.publishers {
            if publisher.holds == Holds::Nothing {
                publisher.holds = Holds::AtLeast(0);
            }
        }
        Ok(link)
    }

    fn correlate(&mut self) -> u32 {
        self.correlation += 1;
        self.correlation
    }

    /// Sends a request and waits for its answer.
    async fn ask(&mut self, request: impl Into<Request>) -> Result<Response, Failure> {
        self.writer.add(request)?;
        self.writer.flush().await?;
        loop {
            let frame = self.hear().await?;
            if frame.correlation_id() == Some(self.correlation) {
                return Ok(frame);
            }
        }
    }

    async fn hear(&mut self) -> Result<Response, Failure> {
        let frame = self.reader.next().await?;
        match frame.closing {
            Some(closing) => Err(Failure::Closed(closing)),
            None => Ok(frame.response),
        }
    }

    /// Asks for something that is answered by a code.
    async fn ask_for_code(&mut self, request: impl Into<Request>) -> Result<ResponseCode, Failure> {
        let response = self.ask(request).await?;
        let code = response.get::<GenericResponse>();
        let code = code.map(|answer| answer.code().clone());
        code.ok_or_else(|| Failure::Protocol("another answer than was asked for".to_owned()))
    }

    async fn introduce(&mut self) -> Result<(), Failure> {
        let properties = [
            ("product", "discogs-extractor"),
            ("connection_name", "discogs-extractor"),
            ("version", env!("CARGO_PKG_VERSION")),
        ];
        let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let correlation = self.correlate();
        let request = PeerPropertiesCommand::new(correlation, properties.into_iter().collect());
        self.ask(request).await?;
        Ok(())
    }

    /// Says who we are, and agrees on frames and heartbeats.
    async fn authenticate(&mut self) -> Result<(), Failure> {
        let correlation = self.correlate();
        self.ask(SaslHandshakeCommand::new(correlation)).await?;
        let AmqpAddress {
            username, password, ..
        } = &self.address;
        let secret = format!("\0{username}\0{password}").into_bytes();
        let correlation = self.correlate();
        let request = SaslAuthenticateCommand::new(correlation, "PLAIN".to_owned(), secret);
        match self.ask_for_code(request).await? {
            ResponseCode::Ok => {}
            code => return Err(Failure::Refused("let us in".to_owned(), code)),
        }
        let offered = loop {
            if let ResponseKind::Tunes(tunes) = self.hear().await?.kind() {
                break tunes;
            }
        };
        let tunes = TunesCommand::new(offered.max_frame_size, HEARTBEAT_SECONDS);
        self.writer.add(tunes)
    }

    /// Enters the virtual host.
    async fn enter(&mut self) -> Result<(), Failure> {
        let correlation = self.correlate();
        let vhost = self.address.vhost.clone();
        let response = self.ask(OpenCommand::new(correlation, vhost)).await?;
        let is_open = response
            .get::<OpenResponse>()
            .is_some_and(|open| open.is_ok());
        is_open.then_some(()).ok_or_else(|| {
            let asked = format!("open the virtual host `{}`", self.address.vhost);
            Failure::Refused(asked, ResponseCode::VirtualHostAccessFailure)
        })
    }

    /// Makes a publisher known, creates its stream if it is missing, and checks what that holds.
    async fn declare(
        &mut self,
        config: &StreamConfig,
        number: u8,
        publisher: &StreamPublisher,
    ) -> Result<(), Failure> {
        let stream = config.stream(publisher.route);
        let mut code = self.declare_publisher(number, publisher, &stream).await?;
        if code == ResponseCode::StreamDoesNotExist {
            self.create(&stream).await?;
            code = self.declare_publisher(number, publisher, &stream).await?;
        }
        if code != ResponseCode::Ok {
            return Err(Failure::Refused(
                format!("publish to stream `{stream}`"),
                code,
            ));
        }
        let last = self.last_number(publisher, &stream).await?;
        let publisher_name = publisher.name.clone();
        match publisher.holds {
            Holds::Nothing if last > 0 => Err(Failure::Swallowed {
                stream,
                publisher: publisher_name,
                last,
            }),
            Holds::AtLeast(confirmed) if last < confirmed => Err(Failure::Lost {
                stream,
                publisher: publisher_name,
                last,
                confirmed,
            }),
            _ => Ok(()),
        }
    }

    async fn declare_publisher(
        &mut self,
        number: u8,
        publisher: &StreamPublisher,
        stream: &str,
    ) -> Result<ResponseCode, Failure> {
        let (correlation, name) = (self.correlate(), Some(publisher.name.clone()));
        let request = DeclarePublisherCommand::new(correlation, number, name, stream.to_owned());
        self.ask_for_code(request).await
    }

    async fn create(&mut self, stream: &str) -> Result<(), Failure> {
        let correlation = self.correlate();
        let arguments = std::iter::empty().collect();
        let request = CreateStreamCommand::new(correlation, stream.to_owned(), arguments);
        match self.ask_for_code(request).await? {
            ResponseCode::Ok | ResponseCode::StreamAlreadyExists => Ok(()),
            code => Err(Failure::Refused(format!("create stream `{stream}`"), code)),
        }
    }

    /// The last number that the stream holds of a publisher; 0 if it holds nothing.
    async fn last_number(
        &mut self,
        publisher: &StreamPublisher,
        stream: &str,
    ) -> Result<u64, Failure> {
        let correlation = self.correlate();
        let (name, asked) = (publisher.name.clone(), stream.to_owned());
        let response = self
            .ask(QueryPublisherRequest::new(correlation, name, asked))
            .await?;
        let answer = response.get::<QueryPublisherResponse>();
        let last = answer
            .as_ref()
            .map_or(0, QueryPublisherResponse::from_response);
        // The number of an answer that is no success is 0 as well; its code can only be compared.
        let success = QueryPublisherResponse::new(correlation, ResponseCode::Ok, last);
        if answer == Some(success) {
            return Ok(last);
        }
        let asked = format!("tell what stream `{stream}` holds");
        Err(Failure::Refused(asked, ResponseCode::StreamNotAvailable))
    }

    /// Adds a message to the next frame.
    fn publish(
        &mut self,
        config: &StreamConfig,
        tag: Tag,
        message: &Message,
    ) -> Result<(), Failure> {
        let announces = message.subject == Subject::ExtractionComplete;
        let is_of = |publisher: &StreamPublisher| {
            publisher.route == message.route
                && publisher.announces == announces
                && publisher.version == message.version
        };
        let mut publishers = (0..).zip(&config.publishers);
        let found = publishers.find(|(_, publisher)| is_of(publisher));
        let (publisher, _) = found.ok_or_else(|| Failure::Unassigned(message.id()))?;
        let encoded = message::encode(message);
        let is_other = self.publishing.publisher() != publisher;
        if is_other || self.publishing.bytes_with(&encoded) > FRAME_BYTES_MAX {
            self.seal()?;
        }
        if is_other {
            self.publishing = Publishing::new(publisher);
        }
        self.publishing.add(message.sequence, &encoded);
        self.unconfirmed.insert((publisher, message.sequence), tag);
        Ok(())
    }

    /// Makes a frame of the messages that were added.
    fn seal(&mut self) -> Result<(), Failure> {
        self.writer.publish(&mut self.publishing)
    }

    /// Is heard, and finds out whether the broker was.
    fn beat(&mut self) -> Result<(), Failure> {
        self.silent_heartbeats += 1;
        if self.silent_heartbeats > SILENT_HEARTBEATS_MAX {
            return Err(Failure::Silent);
        }
        match self.writer.take_used() {
            true => Ok(()),
            false => self.writer.add(HeartBeatCommand {}),
        }
    }
}
