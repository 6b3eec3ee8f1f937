//! Watching over HTTP: a page for people, JSON for health checks and scripts, metrics for Prometheus,
//! and the wish that `follow` look for a new version now.
//!
//! | path | what |
//! |---|---|
//! | `GET /` | a page with bars, which shows `/progress` |
//! | `GET /progress` | everything that is known, as JSON (`json.rs`) |
//! | `GET /health` | the fields that users of earlier extractors poll; 503 if it failed or is stuck |
//! | `GET /ready` | 200 if it can work, else 503 |
//! | `GET /metrics` | Prometheus' text format (`metrics.rs`) |
//! | `POST /trigger` | 202, or 409 while it is running or if it is no `follow` (`routes.rs`) |
//!
//! It runs on a thread of its own and only reads the [`Board`], so that whoever asks, and however
//! often, can't stop the program. One request a connection, and a connection has
//! `CONNECTION_TIMEOUT` from its first byte to its last: nobody holds one of the
//! `CONNECTIONS_MAX` for longer.

mod json;
mod metrics;
mod routes;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use crate::board::Board;
use crate::config::ListenConfig;
use crate::endpoint::routes::{Answer, Routes};
use crate::settings::ConfigError;
use crate::signals::Trigger;
use crate::time::Clock;

/// How many connections are served at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may take, all in all.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// The largest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 4 << 10;
/// The pause after a connection could not be accepted, for want of file descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is shown, and who hears wishes.
#[derive(Clone)]
pub struct Sources {
    /// What is shown.
    pub board: Board,
    /// The clock that instants on the board are of.
    pub clock: Arc<dyn Clock>,
    /// Who looks for new versions, if anybody does.
    pub trigger: Option<Arc<Trigger>>,
}

/// The endpoint, as long as this lives.
pub struct Endpoint {
    /// Where it listens; the port is one that was free if 0 was configured.
    pub address: SocketAddr,
    /// `None` only while dropping, which tells the thread to end.
    life: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// Listens, and answers from now on.
    ///
    /// # Errors
    /// The address can't be listened on; another program may do that already.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the adapter of the board to HTTP"
    )]
    pub fn start(listen: &ListenConfig, sources: Sources) -> Result<Self, ConfigError> {
        let failed = |error: io::Error| {
            let address = listen.address;
            listen.value.error(format!(
                "cannot listen on {address}: {error}; choose another address with --listen, or off"
            ))
        };
        let (listener, runtime) = open(listen.address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (life, ended) = oneshot::channel();
        let routes = Arc::new(Routes::new(sources, address));
        let work = move || runtime.block_on(serve(listener, routes, ended));
        let thread = std::thread::Builder::new().name("endpoint".to_owned());
        Ok(Self {
            address,
            life: Some(life),
            thread: Some(thread.spawn(work).map_err(failed)?),
        })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.life = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been reported where it happened.
            let _ = thread.join();
        }
    }
}

fn open(address: SocketAddr) -> io::Result<(TcpListener, Runtime)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    Ok((listener, runtime))
}

/// Serves connections until the other end of `ended` is dropped.
async fn serve(listener: TcpListener, routes: Arc<Routes>, ended: oneshot::Receiver<()>) {
    let listener = tokio::net::TcpListener::from_std(listener);
    let listener = listener.expect("a runtime with IO takes a listener that does not block");
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accept = async {
        loop {
            let place = Arc::clone(&room).acquire_owned().await;
            let place = place.expect("nobody closes the semaphore");
            let Ok((stream, _)) = listener.accept().await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let routes = Arc::clone(&routes);
            tokio::spawn(async move {
                // Whoever asked may be gone.
                let _ = timeout(CONNECTION_TIMEOUT, converse(stream, routes)).await;
                drop(place);
            });
        }
    };
    tokio::select! {
        () = accept => {}
        _ = ended => {}
    }
}

/// One request and its answer.
async fn converse(stream: TcpStream, routes: Arc<Routes>) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        let routes = Arc::clone(&routes);
        async move { Ok::<_, Infallible>(answer(request, &routes).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(request: Request<Incoming>, routes: &Routes) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    // Nothing else has a body that matters.
    if head.method != Method::POST {
        return response(routes.answer(&head, &[]));
    }
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => response(routes.answer(&head, &body.to_bytes())),
        Err(error) => {
            let text = format!("the body can't be read, or is too large: {error}");
            response(Answer::error(StatusCode::PAYLOAD_TOO_LARGE, &text))
        }
    }
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    for (name, value) in answer.headers {
        headers.insert(name, value);
    }
    response
}
