//! Downloads over the network: [`crate::http`] by way of ureq, each request on a thread of its own.
//!
//! `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` are honoured, as everywhere. Certificates are held
//! against Mozilla's roots.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use ureq::Agent;

use crate::http::{Head, Http, Piece, Request, Transfer};
use crate::time::{Clock, Instant};

/// How long connecting may take, and how long the head of a response.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one response may take; the rest is asked for by another request.
const BODY_TIMEOUT: Duration = Duration::from_secs(6 * 3600);
/// How many bytes are handed over at once.
const PIECE_BYTES: usize = 128 * 1024;
/// How many pieces wait to be taken.
const PIECES_WAITING: usize = 4;

/// The network.
pub struct HttpClient {
    agent: Agent,
    clock: Arc<dyn Clock>,
}

impl HttpClient {
    /// A client whose deadlines are of `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(ANSWER_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .timeout_recv_body(Some(BODY_TIMEOUT))
            .user_agent(concat!("discogs-extractor/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: config.into(),
            clock,
        }
    }
}

impl Http for HttpClient {
    /// # Panics
    /// If the system can't start a thread.
    #[expect(
        clippy::disallowed_methods,
        reason = "a request blocks, so it has a thread of its own"
    )]
    fn start(&mut self, request: &Request) -> Box<dyn Transfer> {
        let (sender, pieces) = sync_channel(PIECES_WAITING);
        let (agent, request) = (self.agent.clone(), request.clone());
        let work = move || {
            if let Err(error) = send(&agent, &request, &sender) {
                // Nobody listening is how the request is told to end.
                let _ = sender.send(Err(error));
            }
        };
        std::thread::Builder::new()
            .name("download".to_owned())
            .spawn(work)
            .expect("the system can start a thread");
        Box::new(Receiving {
            pieces,
            clock: Arc::clone(&self.clock),
        })
    }
}

type Pieces = SyncSender<io::Result<Piece>>;

/// Makes the request, and sends what comes back until nobody listens.
fn send(agent: &Agent, request: &Request, pieces: &Pieces) -> io::Result<()> {
    let mut get = agent.get(&request.url);
    if request.from > 0 {
        get = get.header("Range", format!("bytes={}-", request.from));
        if let Some(validator) = &request.if_range {
            get = get.header("If-Range", validator);
        }
    }
    let response = get.call().map_err(io::Error::other)?;
    let headers = response.headers().iter();
    let headers = headers.filter_map(|(name, value)| {
        let value = value.to_str().ok()?;
        Some((name.as_str(), value.to_owned()))
    });
    let head = Head::new(response.status().as_u16(), headers);
    let mut is_wanted = pieces.send(Ok(Piece::Head(head))).is_ok();
    let mut body = response.into_body().into_reader();
    while is_wanted {
        let mut bytes = vec![0; PIECE_BYTES];
        let count = body.read(&mut bytes)?;
        bytes.truncate(count);
        let piece = match count {
            0 => Piece::End,
            _ => Piece::Bytes(bytes),
        };
        is_wanted = pieces.send(Ok(piece)).is_ok() && count > 0;
    }
    Ok(())
}

/// A request under way on its thread.
struct Receiving {
    pieces: Receiver<io::Result<Piece>>,
    clock: Arc<dyn Clock>,
}

impl Transfer for Receiving {
    fn next(&mut self, deadline: Instant) -> io::Result<Piece> {
        let wait = deadline.since(self.clock.now());
        match self.pieces.recv_timeout(wait) {
            Ok(piece) => piece,
            Err(RecvTimeoutError::Timeout) => Ok(Piece::Pending),
            Err(RecvTimeoutError::Disconnected) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
