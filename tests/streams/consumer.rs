//! The streams of a test as their consumers see them, over AMQP.

use std::process;
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

/// A message as a consumer gets it.
#[derive(Clone, PartialEq)]
pub(crate) struct Delivery {
    pub(crate) id: String,
    pub(crate) body: Vec<u8>,
    pub(crate) properties: BasicProperties,
}

/// Begins the identity of what is published to find the end of a stream by.
const END: &str = "end";

/// The streams of one test; deleted at its end.
pub(crate) struct Streams {
    /// Begins their names.
    pub(crate) prefix: String,
    url: String,
    runtime: Runtime,
}

impl Streams {
    /// For the test `name`, or `None`, said aloud, if there is no RabbitMQ.
    pub(crate) fn get(name: &str) -> Option<Self> {
        let Ok(url) = std::env::var("RABBITMQ_TEST_URL") else {
            println!("skipped, because RABBITMQ_TEST_URL is not set");
            return None;
        };
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let streams = Self {
            prefix: format!("discogs-extractor-test-{}-{name}", process::id()),
            url,
            runtime: builder.enable_all().build().unwrap(),
        };
        streams.clean();
        Some(streams)
    }

    pub(crate) fn stream(&self, kind: Kind) -> String {
        format!("{}-{kind}", self.prefix)
    }

    /// Where the stream protocol is spoken.
    pub(crate) fn address(&self) -> AmqpAddress {
        let mut address: AmqpAddress = self.url.parse().unwrap();
        let port = std::env::var("RABBITMQ_TEST_STREAM_PORT");
        address.scheme = Scheme::Stream;
        address.port = port.map_or(5552, |port| port.parse().unwrap());
        address
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

    /// Makes a queue with the name of a stream.
    pub(crate) fn declare_queue(&self, kind: Kind) {
        let name = self.stream(kind);
        self.administer(async |channel| {
            let options = QueueDeclareOptions {
                durable: true,
                ..QueueDeclareOptions::default()
            };
            let table = FieldTable::default();
            channel
                .queue_declare(name.as_str().into(), options, table)
                .await
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

    fn clean(&self) {
        for kind in Kind::ALL {
            self.delete(kind);
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.clean();
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
