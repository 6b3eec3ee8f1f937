//! The RabbitMQ to measure, and a publisher that does nothing but publish: the ceiling.

use std::collections::VecDeque;
use std::process;
use std::sync::LazyLock;
use std::time::Duration;

use discogs_extractor::dump::Kind;
use discogs_extractor::message::Content;
use discogs_extractor::rabbitmq::{DeclaredQueue, QueueType, RabbitMqConfig, Topology};
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};

use lapin::types::{AMQPValue, FieldTable};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
    PublisherConfirm,
};
use tokio::runtime::{Builder, Runtime};

use super::timed;

/// The window of the product, by default.
const WINDOW: (usize, usize) = (1_000, 16 << 20);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build().unwrap()
});

/// Where it is, if there is one.
pub(crate) fn url() -> Option<String> {
    std::env::var("RABBITMQ_TEST_URL").ok()
}

/// What the names of exchanges begin with that lead to queues of this type; of this process alone.
pub(crate) fn prefix(queue_type: QueueType) -> String {
    format!("discogs-extractor-bench-{}-{queue_type:?}", process::id()).to_lowercase()
}

/// How the product reaches it.
pub(crate) fn config(queue_type: QueueType) -> RabbitMqConfig {
    let url = url().expect("asked for only if there is one");
    let mut config = RabbitMqConfig::new(vec![url.parse().unwrap()]);
    let prefix = prefix(queue_type);
    config.queues.push(DeclaredQueue {
        name: format!("{prefix}-{{kind}}"),
        queue_type,
    });
    config.topology = Topology::Fanout { prefix };
    config
}

async fn open() -> (Connection, Channel) {
    let url = url().expect("asked for only if there is one");
    let connection = Connection::connect(&url, ConnectionProperties::default());
    let connection = connection.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// An empty queue that is bound to the exchange of `kind`. A new one, because one that was purged
/// still has to clean up.
pub(crate) fn empty(kind: Kind, queue_type: QueueType) {
    RUNTIME.block_on(async {
        let (connection, channel) = open().await;
        let name = format!("{}-{kind}", prefix(queue_type));
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let table = FieldTable::default;
        let declared =
            channel.exchange_declare(name.as_str().into(), ExchangeKind::Fanout, durable, table());
        declared.await.unwrap();
        delete_queue(&channel, &name).await;
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let mut arguments = table();
        let type_name = format!("{queue_type:?}").to_lowercase();
        let type_name = AMQPValue::LongString(type_name.into());
        arguments.insert("x-queue-type".into(), type_name);
        let declared = channel.queue_declare(name.as_str().into(), durable, arguments);
        declared.await.unwrap();
        let options = QueueBindOptions::default();
        let (queue, exchange) = (name.as_str().into(), name.as_str().into());
        let bound = channel.queue_bind(queue, exchange, "".into(), options, table());
        bound.await.unwrap();
        connection.close(200, "OK".into()).await.unwrap();
    });
}

async fn delete_queue(channel: &Channel, name: &str) {
    let options = QueueDeleteOptions::default();
    channel.queue_delete(name.into(), options).await.unwrap();
}

/// Deletes everything that the product and [`empty`] have declared.
pub(crate) fn clean() {
    RUNTIME.block_on(async {
        let (connection, channel) = open().await;
        for queue_type in [QueueType::Quorum, QueueType::Classic] {
            for kind in Kind::ALL {
                let name = format!("{}-{kind}", prefix(queue_type));
                delete_queue(&channel, &name).await;
                let options = ExchangeDeleteOptions::default();
                let deleted = channel.exchange_delete(name.as_str().into(), options);
                deleted.await.unwrap();
            }
        }
        connection.close(200, "OK".into()).await.unwrap();
    });
}

/// How long a plain publisher takes for the same bodies, to the same kind of exchange and queue,
/// with the same window, persistent, mandatory and confirmed. It adds neither identity nor headers.
pub(crate) fn publish_bare(kind: Kind, queue_type: QueueType, messages: &[Content]) -> Duration {
    empty(kind, queue_type);
    timed(|| {
        RUNTIME.block_on(async {
            let (connection, channel) = open().await;
            let options = ConfirmSelectOptions::default();
            channel.confirm_select(options).await.unwrap();
            let exchange = format!("{}-{kind}", prefix(queue_type));
            publish(&channel, &exchange, messages).await;
            connection.close(200, "OK".into()).await.unwrap();
        });
    })
}

async fn publish(channel: &Channel, exchange: &str, messages: &[Content]) {
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let properties = BasicProperties::default().with_delivery_mode(2);
    let mut window = VecDeque::new();
    let mut bytes = 0;
    for Content { body, .. } in messages {
        while window.len() == WINDOW.0 || bytes > 0 && bytes + body.len() > WINDOW.1 {
            bytes -= settle(&mut window).await;
        }
        let published = channel.basic_publish(
            exchange.into(),
            "".into(),
            options,
            body,
            properties.clone(),
        );
        window.push_back((body.len(), published.await.unwrap()));
        bytes += body.len();
    }
    while !window.is_empty() {
        settle(&mut window).await;
    }
}

/// Waits for the oldest confirm; returns the length of its body.
async fn settle(window: &mut VecDeque<(usize, PublisherConfirm)>) -> usize {
    let (bytes, confirm) = window.pop_front().unwrap();
    let confirmation = confirm.await.unwrap();
    assert!(matches!(confirmation, Confirmation::Ack(None)));
    bytes
}
