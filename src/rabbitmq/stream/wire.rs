//! Frames over a TCP or TLS connection.
//!
//! Reading and writing are apart, and each of their futures may be dropped at any time without
//! losing a byte: the session waits for both at once, so a broker that does not read can't keep it
//! from hearing.

use std::io;
use std::pin::Pin;

use rabbitmq_stream_protocol::codec::{Decoder, Encoder};
use rabbitmq_stream_protocol::{Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::failure::Failure;
use crate::rabbitmq::address::{AmqpAddress, Scheme};

/// The largest frame that is believed: what we are sent is small. Larger lengths are text of another
/// protocol.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// The bytes of a frame before its content: length, key and version.
const HEADER_BYTES: usize = 8;

/// What the broker sent.
pub(super) struct Frame {
    /// The content.
    pub(super) response: Response,
    /// Why the broker closes the connection, if it does.
    pub(super) closing: Option<Closing>,
}

/// A request to close, as a code of the protocol and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closing {
    pub(super) code: u16,
    pub(super) reason: String,
}

/// Connects to `address`; `ca_certificates` are authorities to trust, in PEM form, besides those of the
/// system.
pub(super) async fn connect(
    address: &AmqpAddress,
    ca_certificates: Option<&str>,
) -> Result<(Reader, Writer), Failure> {
    let socket = TcpStream::connect((address.host.as_str(), address.port)).await?;
    socket.set_nodelay(true)?;
    if address.scheme != Scheme::StreamTls {
        let (read, write) = socket.into_split();
        return Ok((Reader::new(read), Writer::new(write)));
    }
    let host = ServerName::try_from(address.host.clone())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let config = ClientConfig::builder_with_provider(
        tokio_rustls::rustls::crypto::ring::default_provider().into(),
    )
    .with_safe_default_protocol_versions()
    .map_err(io::Error::other)?
    .with_root_certificates(roots(ca_certificates)?)
    .with_no_client_auth();
    let connector = TlsConnector::from(std::sync::Arc::new(config));
    let (read, write) = tokio::io::split(connector.connect(host, socket).await?);
    Ok((Reader::new(read), Writer::new(write)))
}

fn roots(ca_certificates: Option<&str>) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    // Those of the system's that can't be read are not trusted.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in
        CertificateDer::pem_slice_iter(ca_certificates.unwrap_or_default().as_bytes())
    {
        let certificate = certificate.map_err(io::Error::other)?;
        roots.add(certificate).map_err(io::Error::other)?;
    }
    Ok(roots)
}

/// What comes from the broker.
pub(super) struct Reader {
    io: Pin<Box<dyn AsyncRead + Send>>,
    /// The bytes that are no whole frame yet.
    buffer: Vec<u8>,
    /// How much of them was handed out.
    taken: usize,
}

impl Reader {
    fn new(io: impl AsyncRead + Send + 'static) -> Self {
        Self {
            io: Box::pin(io),
            buffer: Vec::new(),
            taken: 0,
        }
    }

    /// The next frame. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Frame, Failure> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(frame);
            }
            self.buffer.drain(..self.taken);
            self.taken = 0;
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    fn take(&mut self) -> Result<Option<Frame>, Failure> {
        let rest = &self.buffer[self.taken..];
        let Some((length, _)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length + 4 < HEADER_BYTES || length > FRAME_BYTES_MAX {
            return Err(Failure::Protocol("a frame without end".to_owned()));
        }
        let Some(bytes) = rest.get(..4 + length) else {
            return Ok(None);
        };
        self.taken += bytes.len();
        let (_, response) = Response::decode(bytes)
            .map_err(|error| Failure::Protocol(format!("a frame that is none: {error:?}")))?;
        let closing = closing(bytes);
        Ok(Some(Frame { response, closing }))
    }
}

/// A request to close: correlation, code, and a text behind the header.
fn closing(frame: &[u8]) -> Option<Closing> {
    const CLOSE: u16 = 22;
    let number = |from: usize| {
        let (number, _) = frame.get(from..)?.split_first_chunk()?;
        Some(u16::from_be_bytes(*number))
    };
    let reason = frame.get(HEADER_BYTES + 8..).unwrap_or_default();
    (number(4)? == CLOSE).then_some(Closing {
        code: number(HEADER_BYTES + 4)?,
        reason: String::from_utf8_lossy(reason).into_owned(),
    })
}

/// A frame that publishes messages of one publisher.
pub(super) struct Publishing {
    publisher: u8,
    count: u32,
    /// Each a number, a length and a message.
    entries: Vec<u8>,
}

impl Publishing {
    const KEY: u16 = 2;
    const VERSION: u16 = 1;
    /// Key, version, publisher and count, which the limit of a frame includes, unlike its length.
    const EMPTY_BYTES: usize = 2 + 2 + 1 + 4;
    /// The number and the length of a message.
    const ENTRY_BYTES: usize = 8 + 4;

    /// Without messages.
    pub(super) const fn new(publisher: u8) -> Self {
        Self {
            publisher,
            count: 0,
            entries: Vec::new(),
        }
    }

    pub(super) const fn publisher(&self) -> u8 {
        self.publisher
    }

    /// The bytes of a frame with this message only.
    pub(super) const fn bytes_alone(message: &[u8]) -> usize {
        Self::EMPTY_BYTES + Self::ENTRY_BYTES + message.len()
    }

    /// The bytes of this frame with one more message.
    pub(super) const fn bytes_with(&self, message: &[u8]) -> usize {
        self.entries.len() + Self::bytes_alone(message)
    }

    /// Adds a message of less than 4 GiB.
    pub(super) fn add(&mut self, number: u64, message: &[u8]) {
        let length = u32::try_from(message.len()).expect("a message is smaller than 4 GiB");
        self.count += 1;
        self.entries.extend(number.to_be_bytes());
        self.entries.extend(length.to_be_bytes());
        self.entries.extend(message);
    }
}

/// What goes to the broker.
pub(super) struct Writer {
    io: Pin<Box<dyn AsyncWrite + Send>>,
    /// The frames that are not written, in bytes. The program's window bounds them.
    buffer: Vec<u8>,
    /// How much of them is written.
    written: usize,
    /// Whether a frame was added since this was asked last.
    is_used: bool,
}

impl Writer {
    fn new(io: impl AsyncWrite + Send + 'static) -> Self {
        Self {
            io: Box::pin(io),
            buffer: Vec::new(),
            written: 0,
            is_used: false,
        }
    }

    /// Adds a frame; [`Self::flush`] writes it.
    pub(super) fn add(&mut self, request: impl Into<Request>) -> Result<(), Failure> {
        self.is_used = true;
        request
            .into()
            .encode(&mut self.buffer)
            .map_err(|error| Failure::Protocol(format!("a frame that can't be written: {error:?}")))
    }

    /// Adds the frame that `publishing` has become, and leaves that without messages.
    pub(super) fn publish(&mut self, publishing: &mut Publishing) -> Result<(), Failure> {
        if publishing.count == 0 {
            return Ok(());
        }
        let length = Publishing::EMPTY_BYTES + publishing.entries.len();
        let length = u32::try_from(length)
            .map_err(|_| Failure::Protocol("a frame that can't be written".to_owned()))?;
        self.is_used = true;
        self.buffer.extend(length.to_be_bytes());
        for header in [Publishing::KEY, Publishing::VERSION] {
            self.buffer.extend(header.to_be_bytes());
        }
        self.buffer.push(publishing.publisher);
        self.buffer.extend(publishing.count.to_be_bytes());
        self.buffer.append(&mut publishing.entries);
        publishing.count = 0;
        Ok(())
    }

    /// Whether something is not written.
    pub(super) fn is_pending(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Whether a frame was added since this was asked last.
    pub(super) fn take_used(&mut self) -> bool {
        std::mem::take(&mut self.is_used)
    }

    /// Writes everything. May be dropped and called again.
    pub(super) async fn flush(&mut self) -> Result<(), Failure> {
        while self.written < self.buffer.len() {
            let written = self.io.write(&self.buffer[self.written..]).await?;
            if written == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            self.written += written;
        }
        self.io.flush().await?;
        self.buffer.clear();
        self.written = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rabbitmq_stream_protocol::commands::close::CloseRequest;
    use rabbitmq_stream_protocol::{ResponseCode, ResponseKind};
    use tokio::runtime::Builder;

    /// The frames of `bytes`, which arrive `step` bytes at a time, up to the first failure.
    fn read(bytes: &[u8], step: usize) -> (Vec<Frame>, Failure) {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut sender, receiver) = tokio::io::duplex(step);
            let mut reader = Reader::new(receiver);
            let send = async {
                sender.write_all(bytes).await.unwrap();
                drop(sender);
            };
            let receive = async {
                let mut frames = Vec::new();
                loop {
                    match reader.next().await {
                        Ok(frame) => frames.push(frame),
                        Err(failure) => return (frames, failure),
                    }
                }
            };
            tokio::join!(send, receive).1
        })
    }

    const HEARTBEAT: [u8; 8] = [0, 0, 0, 4, 0, 23, 0, 1];

    #[test]
    fn frames_are_whole_whatever_the_steps_in_which_they_come() {
        for step in [1, 3, 8, 100] {
            let (frames, failure) = read(&HEARTBEAT.repeat(5), step);
            assert_eq!(frames.len(), 5);
            assert!(
                frames.iter().all(|frame| {
                    matches!(frame.response.kind_ref(), ResponseKind::Heartbeat(_))
                })
            );
            assert!(matches!(failure, Failure::Io(_)), "{failure:?}");
        }
    }

    #[test]
    fn another_protocol_is_found_out() {
        for bytes in [b"AMQP\x00\x00\x09\x01".as_slice(), b"HTTP/1.1 400", &[0; 8]] {
            let (frames, failure) = read(bytes, 100);
            assert_eq!(frames.len(), 0);
            assert!(matches!(failure, Failure::Protocol(_)), "{failure:?}");
        }
    }

    #[test]
    fn why_the_broker_closes_is_heard() {
        let mut bytes = Vec::new();
        let reason = "node is stopping".to_owned();
        let close = CloseRequest::new(7, ResponseCode::InternalError, reason.clone());
        Request::from(close).encode(&mut bytes).unwrap();
        let (frames, _) = read(&bytes, 100);
        assert_eq!(frames[0].closing, Some(Closing { code: 15, reason }));
    }
}
