//! A real RabbitMQ for tests, as its administrator sees it.
//!
//! `RABBITMQ_TEST_URL` names it, for example `amqp://guest:guest@localhost:5672`. The tests create
//! exchanges and queues there and delete them again.

use std::process;

use discogs_extractor::dump::Kind;
use discogs_extractor::rabbitmq::{AmqpAddress, RabbitMqConfig, Topology};
use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};

/// The address of the RabbitMQ, or `None`, said aloud, if there is none.
pub(crate) fn url() -> Option<String> {
    variable("RABBITMQ_TEST_URL")
}

/// A variable of the environment; the test that needs it says so, and passes, if it is not set.
#[expect(
    clippy::disallowed_methods,
    reason = "where the RabbitMQ is cannot be known otherwise"
)]
pub(crate) fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    if value.is_none() {
        println!("skipped, because {name} is not set");
    }
    value
}

/// The real RabbitMQ.
pub(crate) struct RealBroker {
    url: String,
    /// Begins the names of all exchanges and queues of this test.
    pub(crate) prefix: String,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) channel: Channel,
    _connection: Connection,
}

impl RealBroker {
    /// The RabbitMQ at `url`, for the test `name`.
    pub(crate) fn open(url: &str, name: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (connection, channel) = runtime.block_on(async {
            let connection = Connection::connect(url, ConnectionProperties::default())
                .await
                .unwrap();
            let channel = connection.create_channel().await.unwrap();
            (connection, channel)
        });
        let broker = Self {
            url: url.to_owned(),
            prefix: format!("discogs-extractor-test-{}-{name}", process::id()),
            runtime,
            channel,
            _connection: connection,
        };
        broker.clean();
        broker
    }

    /// The exchange of `kind`, and the queue that is bound to it.
    pub(crate) fn exchange(&self, kind: Kind) -> String {
        format!("{}-{kind}", self.prefix)
    }

    /// Declares the exchange of `kind` and a classic queue that is bound to it.
    pub(crate) fn bind(&self, kind: Kind, arguments: &[(&str, AMQPValue)]) {
        let exchange = self.exchange(kind);
        self.declare_exchange(kind, ExchangeKind::Fanout);
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let (channel, name) = (&self.channel, exchange.as_str());
        self.runtime.block_on(async {
            let declared = channel.queue_declare(name.into(), options, table);
            declared.await.unwrap();
            let (options, table) = (QueueBindOptions::default(), FieldTable::default());
            let bound = channel.queue_bind(name.into(), name.into(), "".into(), options, table);
            bound.await.unwrap();
        });
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

    pub(crate) fn address(&self) -> AmqpAddress {
        self.url.parse().unwrap()
    }

    pub(crate) fn config(&self) -> RabbitMqConfig {
        let mut config = RabbitMqConfig::new(vec![self.address()]);
        config.topology = Topology::Fanout {
            prefix: self.prefix.clone(),
        };
        config
    }
}

impl Drop for RealBroker {
    fn drop(&mut self) {
        self.clean();
    }
}
