//! The public host of the dumps on a local port: its listing, its CHECKSUM files, and whatever a test
//! tells it to do with a request.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use sha2::{Digest, Sha256};

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The file, or the empty string for the listing.
    pub(crate) file: String,
    /// The first byte that is wanted.
    pub(crate) from: usize,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Habit {
    /// It is answered.
    #[default]
    Fine,
    /// The connection breaks after so many bytes of content.
    BreaksAfter(usize),
    /// Nothing comes any more after so many bytes of content.
    HangsAfter(usize),
    /// This status, with `Retry-After: 1`.
    Status(u16),
    /// A page for people, with status 200.
    Page,
    /// Everything, whatever part is wanted.
    SendsAll,
}

/// The host.
pub(crate) struct Host {
    address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    asked: Vec<Asked>,
    /// What becomes of the next requests for a file.
    habits: BTreeMap<String, Vec<Habit>>,
}

impl Host {
    /// A host with these dumps, and the CHECKSUM file of their version.
    pub(crate) fn new(dumps: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || answer(stream.unwrap(), &shared));
            }
        });
        let host = Self { address, state };
        host.upload(dumps);
        host
    }

    /// Uploads dumps, in the place of those of the same name.
    pub(crate) fn upload(&self, dumps: BTreeMap<String, Vec<u8>>) {
        let version = dumps.keys().next().unwrap()[8..16].to_owned();
        let line = |(name, bytes): (&String, &Vec<u8>)| {
            let digits: String = Sha256::digest(bytes)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!("{digits} {name}\n")
        };
        let checksums: String = dumps.iter().map(line).collect();
        let mut state = self.lock();
        state.files.extend(dumps);
        let name = format!("discogs_{version}_CHECKSUM.txt");
        state.files.insert(name, checksums.into_bytes());
    }

    /// Has other bytes than its CHECKSUM file says.
    pub(crate) fn replace(&self, dumps: BTreeMap<String, Vec<u8>>) {
        self.lock().files.extend(dumps);
    }

    /// Its address.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Does this with the next requests for `file`, and answers the others.
    pub(crate) fn habits(&self, file: &str, habits: &[Habit]) {
        let mut habits = habits.to_vec();
        habits.reverse();
        self.lock().habits.insert(file.to_owned(), habits);
    }

    /// The requests for dumps that came since this was asked last.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let asked = std::mem::take(&mut self.lock().asked);
        let is_dump = |asked: &Asked| asked.file.ends_with(".gz");
        asked.into_iter().filter(is_dump).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// The path and the headers of a request, names in lowercase.
fn request(stream: &TcpStream) -> Option<(String, BTreeMap<String, String>)> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    Some((path, headers))
}

/// Answers one request. Whoever asked may be dead by now, so writing may fail.
fn answer(mut stream: TcpStream, state: &Mutex<State>) {
    let Some((path, headers)) = request(&stream) else {
        return;
    };
    let file = path.rsplit("%2F").next().unwrap().to_owned();
    let is_listing = path.contains("?prefix=");
    let range = headers.get("range").and_then(|range| {
        let from = range.strip_prefix("bytes=")?.strip_suffix('-')?;
        from.parse().ok()
    });
    let from: usize = range.unwrap_or_default();
    let (content, habit) = {
        let mut state = state.lock().unwrap();
        let file = if is_listing {
            String::new()
        } else {
            file.clone()
        };
        let habit = state.habits.get_mut(&file).and_then(Vec::pop);
        state.asked.push(Asked {
            file: file.clone(),
            from,
        });
        let content = match is_listing {
            true => Some(listing(&state.files)),
            false => state.files.get(&file).cloned(),
        };
        (content, habit.unwrap_or_default())
    };
    let _ = match content {
        Some(content) => send(&mut stream, &content, from, habit, is_listing),
        None => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    };
}

fn listing(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let line = |(name, bytes): (&String, &Vec<u8>)| {
        let (year, length) = (&name[8..12], bytes.len());
        format!(
            "2026-08-01 08:50:20 {length} B <a href=\"?download=data%2F{year}%2F{name}\">{name}</a>\n"
        )
    };
    let lines: String = files.iter().map(line).collect();
    format!("<html><pre>{lines}</pre></html>").into_bytes()
}

fn send(
    stream: &mut TcpStream,
    content: &[u8],
    from: usize,
    habit: Habit,
    is_page: bool,
) -> std::io::Result<()> {
    let from = if habit == Habit::SendsAll { 0 } else { from };
    let rest = content.get(from..).unwrap_or_default();
    let (whole, length) = (content.len(), rest.len());
    let head = match habit {
        Habit::Status(status) => {
            let head =
                format!("HTTP/1.1 {status} No\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n");
            return stream.write_all(head.as_bytes());
        }
        Habit::Page => {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>";
            return stream.write_all(head.as_bytes());
        }
        _ if from > 0 => format!(
            "HTTP/1.1 206 Partial\r\nContent-Range: bytes {from}-{}/{whole}\r\n",
            whole - 1
        ),
        _ => "HTTP/1.1 200 OK\r\n".to_owned(),
    };
    let kind = if is_page {
        "text/html"
    } else {
        "application/gzip"
    };
    let head = format!(
        "{head}Content-Type: {kind}\r\nETag: \"{whole}\"\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    match habit {
        Habit::BreaksAfter(count) => stream.write_all(&rest[..count.min(length)]),
        Habit::HangsAfter(count) => {
            stream.write_all(&rest[..count.min(length)])?;
            // Until the other side is gone.
            let _ = BufReader::new(&*stream).read_line(&mut String::new());
            Ok(())
        }
        _ => stream.write_all(rest),
    }
}
