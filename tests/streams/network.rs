//! A network between the program and a RabbitMQ that is slow, and can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::Duration;

use discogs_extractor::rabbitmq::AmqpAddress;

/// The most bytes that travel at once.
const PACKET_BYTES: usize = 4 << 10;

/// How long a packet takes to the RabbitMQ, one after the other.
const DELAY: Duration = Duration::from_millis(1);

pub(crate) struct Network {
    /// Where the program finds the RabbitMQ.
    pub(crate) port: u16,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    arrived: Arc<AtomicU64>,
}

impl Network {
    pub(crate) fn new(target: &AmqpAddress) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let network = Self {
            port: listener.local_addr().unwrap().port(),
            streams: Arc::default(),
            arrived: Arc::default(),
        };
        let (streams, arrived) = (Arc::clone(&network.streams), Arc::clone(&network.arrived));
        let target = (target.host.clone(), target.port);
        spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Who can't be led on, because the RabbitMQ is dead, is hung up on.
                let Ok(server) = TcpStream::connect(target.clone()) else {
                    continue;
                };
                for (from, to, is_up) in [(&client, &server, true), (&server, &client, false)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    streams.lock().unwrap().push(from.try_clone().unwrap());
                    let arrived = is_up.then(|| Arc::clone(&arrived));
                    spawn(move || carry(from, to, arrived.as_deref()));
                }
            }
        });
        network
    }

    /// How many bytes have arrived at the RabbitMQ so far.
    pub(crate) fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Cuts every connection; new ones are possible.
    pub(crate) fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, arrived: Option<&AtomicU64>) {
    let mut packet = [0; PACKET_BYTES];
    while let Ok(length @ 1..) = from.read(&mut packet) {
        if arrived.is_some() {
            sleep(DELAY);
        }
        if to.write_all(&packet[..length]).is_err() {
            break;
        }
        if let Some(arrived) = arrived {
            arrived.fetch_add(length as u64, Ordering::Relaxed);
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
