//! A RabbitMQ as its administrator and its consumers see it, over a connection of their own.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use discogs_extractor::dump::Kind;
use discogs_extractor::rabbitmq::{AmqpAddress, RabbitMqConfig, Topology};
use lapin::options::{
    BasicGetOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::watch;

/// After that an answer to the goodbye is not waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A message as a consumer gets it.
#[derive(Clone, PartialEq)]
pub(crate) struct Delivery {
    pub(crate) id: String,
    pub(crate) body: Vec<u8>,
    pub(crate) properties: BasicProperties,
}

/// A connection, and the exchanges and queues of one test. Not for keeping: between two calls
/// nobody answers the heartbeats.
pub(crate) struct Administrator {
    pub(crate) url: String,
    /// Begins the names of all exchanges and queues of this test.
    pub(crate) prefix: String,
    runtime: Runtime,
    channel: Channel,
    connection: Connection,
}

impl Administrator {
    /// Connects, once the RabbitMQ at `url` takes connections.
    pub(crate) fn connect(url: &str, prefix: &str) -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        let (connection, channel) = watch::look_for(url, || runtime.block_on(open(url)).ok());
        Self {
            url: url.to_owned(),
            prefix: prefix.to_owned(),
            runtime,
            channel,
            connection,
        }
    }

    /// The exchange of `kind`, and the queue that is bound to it.
    pub(crate) fn exchange(&self, kind: Kind) -> String {
        format!("{}-{kind}", self.prefix)
    }

    /// Declares the exchange of `kind` and a queue, classic if `arguments` don't say otherwise.
    pub(crate) fn declare(&self, kind: Kind, arguments: &[(&str, AMQPValue)]) {
        self.declare_exchange(kind, ExchangeKind::Fanout);
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let name = self.exchange(kind).as_str().into();
        let declared = self.channel.queue_declare(name, options, table);
        self.runtime.block_on(declared).unwrap();
    }

    /// Declares the exchange of `kind` and a queue that is bound to it.
    pub(crate) fn declare_bound(&self, kind: Kind, arguments: &[(&str, AMQPValue)]) {
        self.declare(kind, arguments);
        self.bind(kind);
    }

    pub(crate) fn bind(&self, kind: Kind) {
        let name = self.exchange(kind);
        let (queue, exchange) = (name.as_str().into(), name.as_str().into());
        let (options, table) = (QueueBindOptions::default(), FieldTable::default());
        let bound = self
            .channel
            .queue_bind(queue, exchange, "".into(), options, table);
        self.runtime.block_on(bound).unwrap();
    }

    pub(crate) fn unbind(&self, kind: Kind) {
        let name = self.exchange(kind);
        let (queue, exchange) = (name.as_str().into(), name.as_str().into());
        let unbound = self
            .channel
            .queue_unbind(queue, exchange, "".into(), FieldTable::default());
        self.runtime.block_on(unbound).unwrap();
    }

    pub(crate) fn declare_exchange(&self, kind: Kind, exchange_kind: ExchangeKind) {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let table = FieldTable::default();
        let name = self.exchange(kind).as_str().into();
        let declared = self
            .channel
            .exchange_declare(name, exchange_kind, options, table);
        self.runtime.block_on(declared).unwrap();
    }

    pub(crate) fn delete_exchange(&self, kind: Kind) {
        let name = self.exchange(kind).as_str().into();
        let options = ExchangeDeleteOptions::default();
        let deleted = self.channel.exchange_delete(name, options);
        self.runtime.block_on(deleted).unwrap();
    }

    /// Takes the next message out of the queue of `kind`, if there is one.
    pub(crate) fn take(&self, kind: Kind) -> Option<Delivery> {
        let queue = self.exchange(kind).as_str().into();
        let taken = self
            .channel
            .basic_get(queue, BasicGetOptions { no_ack: true });
        let message = self.runtime.block_on(taken).unwrap()?.delivery;
        let id = message.properties.message_id().clone().unwrap();
        Some(Delivery {
            id: id.to_string(),
            body: message.data,
            properties: message.properties,
        })
    }

    /// Deletes the exchanges and queues of the test.
    pub(crate) fn clean(&self) {
        self.runtime.block_on(async {
            for kind in Kind::ALL {
                let name = self.exchange(kind);
                let queue = QueueDeleteOptions::default();
                let _ = self.channel.queue_delete(name.as_str().into(), queue).await;
                let exchange = ExchangeDeleteOptions::default();
                let _ = self
                    .channel
                    .exchange_delete(name.as_str().into(), exchange)
                    .await;
            }
        });
    }

    /// Whether the exchange or the queue of `kind` is there.
    pub(crate) fn knows(&self, kind: Kind) -> bool {
        let name = self.exchange(kind);
        let queue = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let exchange = ExchangeDeclareOptions {
            passive: true,
            ..ExchangeDeclareOptions::default()
        };
        let table = FieldTable::default;
        self.runtime.block_on(async {
            // What is not there costs the channel.
            let channel = self.connection.create_channel().await.unwrap();
            let declared = channel.queue_declare(name.as_str().into(), queue, table());
            let has_queue = declared.await.is_ok();
            let channel = self.connection.create_channel().await.unwrap();
            let fanout = ExchangeKind::Fanout;
            let declared =
                channel.exchange_declare(name.as_str().into(), fanout, exchange, table());
            has_queue || declared.await.is_ok()
        })
    }

    pub(crate) fn address(&self) -> AmqpAddress {
        self.url.parse().unwrap()
    }

    /// Where connections to it lead.
    pub(crate) fn socket(&self) -> SocketAddr {
        let AmqpAddress { host, port, .. } = self.address();
        let mut resolved = (host.as_str(), port).to_socket_addrs().unwrap();
        resolved.next().unwrap()
    }

    /// How the program reaches the exchanges of the test.
    pub(crate) fn config(&self) -> RabbitMqConfig {
        let mut config = RabbitMqConfig::new(vec![self.address()]);
        config.topology = Topology::Fanout {
            prefix: self.prefix.clone(),
        };
        config
    }
}

impl Drop for Administrator {
    fn drop(&mut self) {
        let close = self.connection.close(200, "OK".into());
        // In an alarm the answer does not come; then the connection ends without one.
        let _ = self
            .runtime
            .block_on(async { timeout(CLOSE_TIMEOUT, close).await });
    }
}

async fn open(url: &str) -> lapin::Result<(Connection, Channel)> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}
