//! The streams of a test as their consumers see them, over AMQP.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering};

use discogs_extractor::dump::Kind;
use discogs_extractor::rabbitmq::stream::StreamConfig;
use discogs_extractor::rabbitmq::{AmqpAddress, Scheme};
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::runtime::Runtime;

use crate::administrator::Delivery;
use crate::shared::Shared;

/// Begins the identity of what is published to find the end of a stream by.
const END: &str = "end";

/// The streams of one test, on a RabbitMQ that is somebody else's to keep.
pub(crate) struct Streams {
    /// Begins their names.
    prefix: String,
    /// Where their consumers find them, over AMQP.
    url: String,
    /// Where the stream protocol is spoken, on the same host.
    port: u16,
    runtime: Runtime,
}

impl Streams {
    pub(crate) fn new(url: &str, port: u16, prefix: &str) -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        Self {
            prefix: prefix.to_owned(),
            url: url.to_owned(),
            port,
            runtime: builder.enable_all().build().unwrap(),
        }
    }

    /// Those on the shared RabbitMQ, which deletes them at the end of the test.
    pub(crate) fn of(shared: &Shared) -> Self {
        Self::new(&shared.url, shared.stream_port, &shared.prefix)
    }

    pub(crate) fn stream(&self, kind: Kind) -> String {
        format!("{}-{kind}", self.prefix)
    }

    fn address(&self) -> AmqpAddress {
        let mut address: AmqpAddress = self.url.parse().unwrap();
        address.scheme = Scheme::Stream;
        address.port = self.port;
        address
    }

    pub(crate) fn socket(&self) -> SocketAddr {
        let AmqpAddress { host, port, .. } = self.address();
        let mut resolved = (host.as_str(), port).to_socket_addrs().unwrap();
        resolved.next().unwrap()
    }

    /// The arguments of the program that reach the streams by way of a port of this machine.
    pub(crate) fn arguments(&self, port: u16) -> String {
        let AmqpAddress {
            username, password, ..
        } = self.address();
        let prefix = &self.prefix;
        format!(
            "--broker rabbitmq-stream://{username}:{password}@127.0.0.1:{port} --exchange-prefix {prefix}"
        )
    }

    /// How the program reaches the streams, without publishers.
    pub(crate) fn config(&self) -> StreamConfig {
        let mut config = StreamConfig::new(vec![self.address()]);
        config.prefix.clone_from(&self.prefix);
        config
    }

    /// Deletes a stream, if it is there.
    pub(crate) fn delete(&self, kind: Kind) {
        let name = self.stream(kind);
        self.administer(async |channel| {
            let options = QueueDeleteOptions::default();
            channel.queue_delete(name.as_str().into(), options).await
        })
        .unwrap();
    }

    /// Everything that a stream holds, from its beginning; nothing if there is no such stream.
    pub(crate) fn held(&self, kind: Kind) -> Vec<Delivery> {
        let name = self.stream(kind);
        let held = self.administer(async |channel| read(&channel, &name).await);
        held.unwrap_or_default()
    }

    fn administer<T>(
        &self,
        work: impl AsyncFnOnce(Channel) -> lapin::Result<T>,
    ) -> lapin::Result<T> {
        self.runtime.block_on(async {
            let properties = ConnectionProperties::default();
            let connection = Connection::connect(&self.url, properties).await?;
            let worked = work(connection.create_channel().await?).await;
            let _ = connection.close(200, "".into()).await;
            worked
        })
    }
}

/// Reads up to a message that is published for the purpose, and left out.
async fn read(channel: &Channel, stream: &str) -> lapin::Result<Vec<Delivery>> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let table = FieldTable::default();
    channel.queue_declare(stream.into(), options, table).await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    static READS: AtomicU64 = AtomicU64::new(0);
    let end = format!("{END} {}", READS.fetch_add(1, Ordering::Relaxed));
    let properties = BasicProperties::default().with_message_id(end.as_str().into());
    channel
        .basic_publish(
            "".into(),
            stream.into(),
            BasicPublishOptions::default(),
            b"",
            properties,
        )
        .await?
        .await?;
    channel.basic_qos(1_000, BasicQosOptions::default()).await?;
    let mut from = FieldTable::default();
    from.insert(
        "x-stream-offset".into(),
        AMQPValue::LongString("first".into()),
    );
    let options = BasicConsumeOptions::default();
    let mut consumer = channel
        .basic_consume(stream.into(), "".into(), options, from)
        .await?;
    let mut held = Vec::new();
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        delivery.ack(BasicAckOptions::default()).await?;
        let id = delivery
            .properties
            .message_id()
            .clone()
            .unwrap()
            .to_string();
        if id == end {
            break;
        }
        if !id.starts_with(END) {
            held.push(Delivery {
                id,
                body: delivery.data,
                properties: delivery.properties,
            });
        }
    }
    Ok(held)
}
