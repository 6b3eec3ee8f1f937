//! A connection with its channel and exchanges: what a session works on.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{
    Channel, Confirmation, Connection, ConnectionProperties, DefaultConnectionBuilder,
    ExchangeKind, message::BasicReturnMessage,
};

use super::address::{AmqpAddress, Scheme};
use super::properties::properties;
use super::unanswered::{Acknowledgement, Publication, Return};
use super::{QueueType, RabbitMqConfig, Topology};
use crate::broker::Message;
use crate::dump::Kind;

/// Seconds. A connection is given up when nothing came for about twice as long; shorter, and a
/// busy machine loses healthy connections.
const HEARTBEAT: u16 = 10;

/// Where the messages of a kind go.
#[derive(Clone, Debug)]
struct Route {
    exchange: ShortString,
    routing_key: ShortString,
}

impl Route {
    fn new(topology: &Topology, kind: Kind) -> Self {
        match topology {
            Topology::Fanout { prefix } => Self {
                exchange: format!("{prefix}-{kind}").into(),
                routing_key: ShortString::default(),
            },
            Topology::Topic { exchange } => Self {
                exchange: exchange.as_str().into(),
                routing_key: kind.name().into(),
            },
        }
    }
}

/// An open connection, ready to publish with confirms.
pub(super) struct Link {
    connection: Connection,
    channel: Arc<Channel>,
    /// One for each kind, in the order of [`Kind::ALL`].
    routes: [Route; Kind::ALL.len()],
    /// What lapin tells about the connection: alarms, errors.
    pub(super) notices: Pin<Box<dyn Stream<Item = lapin::Event> + Send>>,
}

impl Link {
    /// Connects, opens a channel with confirms, and declares what is configured.
    pub(super) async fn open(
        config: &RabbitMqConfig,
        address: &AmqpAddress,
    ) -> lapin::Result<Self> {
        let connection = connect(config, address).await?;
        let notices = Box::pin(connection.events_listener());
        let channel = connection.create_channel().await?;
        let routes = Kind::ALL.map(|kind| Route::new(&config.topology, kind));
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        declare_exchanges(&channel, &config.topology, &routes).await?;
        declare_queues(&channel, config, &routes).await?;
        Ok(Self {
            connection,
            channel: Arc::new(channel),
            routes,
            notices,
        })
    }

    /// The publication of `message`, whose identity is `id`.
    pub(super) fn publish(&self, message: Arc<Message>, id: &str) -> Publication<lapin::Error> {
        let Route {
            exchange,
            routing_key,
        } = self.routes[message.route as usize].clone();
        let properties = properties(&message, id);
        let channel = Arc::clone(&self.channel);
        Box::pin(async move {
            let options = BasicPublishOptions {
                mandatory: true,
                ..BasicPublishOptions::default()
            };
            let confirm = channel
                .basic_publish(exchange, routing_key, options, &message.body, properties)
                .await?;
            drop(message);
            Ok(acknowledgement(confirm.await?))
        })
    }

    /// Says goodbye to the broker. Without bound while the broker blocks us.
    pub(super) async fn close(&self) -> lapin::Result<()> {
        self.connection.close(200, "OK".into()).await
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

async fn connect(config: &RabbitMqConfig, address: &AmqpAddress) -> lapin::Result<Connection> {
    let name = format!("discogs-extractor {}", env!("CARGO_PKG_VERSION"));
    DefaultConnectionBuilder::new()?
        .with_uri(uri(address))
        .with_properties(ConnectionProperties::default().with_connection_name(name.into()))
        .with_tls_config(OwnedTLSConfig {
            identity: None,
            cert_chain: config.ca_certificates.clone(),
        })
        .connect()
        .await
}

fn uri(address: &AmqpAddress) -> AMQPUri {
    AMQPUri {
        scheme: match address.scheme {
            Scheme::Amqp => AMQPScheme::AMQP,
            Scheme::Amqps => AMQPScheme::AMQPS,
            Scheme::Stream | Scheme::StreamTls => unreachable!("checked before each session"),
        },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: address.username.clone(),
                password: address.password.clone(),
            },
            host: address.host.clone(),
            port: address.port,
        },
        vhost: address.vhost.clone(),
        query: AMQPQueryString {
            heartbeat: Some(HEARTBEAT),
            ..AMQPQueryString::default()
        },
    }
}

async fn declare_exchanges(
    channel: &Channel,
    topology: &Topology,
    routes: &[Route],
) -> lapin::Result<()> {
    let (kind, routes) = match topology {
        Topology::Fanout { .. } => (ExchangeKind::Fanout, routes),
        Topology::Topic { .. } => (ExchangeKind::Topic, &routes[..1]),
    };
    for Route { exchange, .. } in routes {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        channel
            .exchange_declare(
                exchange.clone(),
                kind.clone(),
                options,
                FieldTable::default(),
            )
            .await?;
    }
    Ok(())
}

/// Declares each configured queue for each kind, and binds it. A name without `{kind}` is one
/// queue that is bound to all.
async fn declare_queues(
    channel: &Channel,
    config: &RabbitMqConfig,
    routes: &[Route],
) -> lapin::Result<()> {
    for queue in &config.queues {
        for (kind, route) in Kind::ALL.into_iter().zip(routes) {
            let name = ShortString::from(queue.name_for(kind));
            declare_queue(channel, &name, queue.queue_type).await?;
            channel
                .queue_bind(
                    name,
                    route.exchange.clone(),
                    route.routing_key.clone(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await?;
        }
    }
    Ok(())
}

async fn declare_queue(
    channel: &Channel,
    name: &ShortString,
    queue_type: QueueType,
) -> lapin::Result<()> {
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    let queue_type = AMQPValue::LongString(queue_type.name().into());
    arguments.insert("x-queue-type".into(), queue_type);
    channel
        .queue_declare(name.clone(), options, arguments)
        .await?;
    Ok(())
}

/// Deletes the exchanges and queues that are configured, on a connection of its own.
pub(super) async fn remove(config: &RabbitMqConfig, address: &AmqpAddress) -> lapin::Result<()> {
    let connection = connect(config, address).await?;
    let channel = connection.create_channel().await?;
    for kind in Kind::ALL {
        for queue in &config.queues {
            let name = ShortString::from(queue.name_for(kind));
            let options = QueueDeleteOptions::default();
            channel.queue_delete(name, options).await?;
        }
        let exchange = Route::new(&config.topology, kind).exchange;
        let options = ExchangeDeleteOptions::default();
        channel.exchange_delete(exchange, options).await?;
    }
    connection.close(200, "OK".into()).await
}

fn acknowledgement(confirmation: Confirmation) -> Acknowledgement {
    match confirmation {
        Confirmation::Ack(returned) => {
            Acknowledgement::Ack(returned.map(|returned| describe(&returned)))
        }
        Confirmation::Nack(returned) => {
            Acknowledgement::Nack(returned.map(|returned| describe(&returned)))
        }
        Confirmation::NotRequested => unreachable!("the channel is in confirm mode"),
    }
}

fn describe(returned: &BasicReturnMessage) -> Return {
    let why = format!(
        "{} {} from exchange `{}`, routing key `{}`; bind a queue to it",
        returned.reply_code, returned.reply_text, returned.exchange, returned.routing_key
    );
    let id = returned.delivery.properties.message_id();
    Return {
        message_id: id.as_ref().map(|id| id.to_string()).unwrap_or_default(),
        why,
    }
}
