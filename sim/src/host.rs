//! The public host of the dumps, with its habits.
//!
//! It outlives the process. What it sends is counted, so that a test can tell what was fetched twice.
//! A request and each piece of its answer are operations of the world, so a life can end at any of
//! them. Habits are drawn from the tape: connections that break, end early or stall, pauses that it
//! asks for, pages with status 200 in the place of files, parts that it does not send.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use discogs_extractor::dump::{Kind, Version, checksums_name, file_name};
use discogs_extractor::http::{Head, Http, Piece, Request, Transfer};
use discogs_extractor::time::Instant;

use crate::dumps::truth::sha256;
use crate::tape::Tape;
use crate::world::World;

/// The address of the host.
pub const ROOT: &str = "https://host.test/";

/// The host. Clones are handles of the same one.
#[derive(Clone, Debug, Default)]
pub struct Host(Arc<Mutex<State>>);

#[derive(Clone, Debug, Default)]
struct State {
    versions: BTreeMap<Version, BTreeMap<String, Arc<Vec<u8>>>>,
    /// Bytes of content by file name.
    sent: BTreeMap<String, u64>,
    requests: u64,
}

/// What the host does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Answers.
    Fine,
    /// Refuses the connection.
    Refuses,
    /// Breaks the connection in the middle.
    Resets,
    /// Ends the connection in order, in the middle.
    EndsEarly,
    /// Says nothing any more, in the middle.
    Stalls,
    /// Asks for a pause of an hour.
    AsksForPause,
    /// Has too much to do.
    Overloaded,
    /// Forbids.
    Forbids,
    /// Sends a page for people, with status 200.
    SendsPage,
    /// Sends everything, whatever part was asked for.
    SendsAll,
}

const HABITS: [Habit; 10] = [
    Habit::Fine,
    Habit::Refuses,
    Habit::Resets,
    Habit::EndsEarly,
    Habit::Stalls,
    Habit::AsksForPause,
    Habit::Overloaded,
    Habit::Forbids,
    Habit::SendsPage,
    Habit::SendsAll,
];

impl Host {
    /// Uploads the dumps of a version, then its CHECKSUM file; those of the same name are replaced.
    pub fn upload(&self, version: &Version, dump: impl Fn(Kind) -> Vec<u8>) {
        let mut checksums = String::new();
        let mut files = BTreeMap::new();
        for kind in Kind::ALL {
            let (name, bytes) = (file_name(version, kind), dump(kind));
            writeln!(checksums, "{} {name}", sha256(&bytes)).expect("a string takes everything");
            files.insert(name, Arc::new(bytes));
        }
        files.insert(checksums_name(version), Arc::new(checksums.into_bytes()));
        self.lock().versions.insert(version.clone(), files);
    }

    /// Removes a file of a version, as if it had not been uploaded yet.
    pub fn withdraw(&self, version: &Version, name: &str) {
        let mut state = self.lock();
        let files = state.versions.get_mut(version);
        files.expect("the version is there").remove(name);
    }

    /// A host in the same state, which does not see what becomes of this one.
    #[must_use]
    pub fn branch(&self) -> Self {
        Self(Arc::new(Mutex::new(self.lock().clone())))
    }

    /// The bytes of a file, if it is published.
    pub fn published(&self, name: &str) -> Option<Arc<Vec<u8>>> {
        let state = self.lock();
        let mut files = state.versions.values().filter_map(|files| files.get(name));
        files.next().cloned()
    }

    /// How many bytes of a file were sent.
    pub fn sent(&self, name: &str) -> u64 {
        self.lock().sent.get(name).copied().unwrap_or_default()
    }

    /// How many requests came.
    pub fn requests(&self) -> u64 {
        self.lock().requests
    }

    /// The host as one life of the process meets it. It sends `piece_bytes` at a time, and has a
    /// habit once in `one_in` requests; never if that is 0.
    pub fn client(&self, world: &World, piece_bytes: usize, one_in: u32) -> impl Http + use<> {
        Client {
            host: self.clone(),
            world: world.clone(),
            tape: world.tape().fork("host"),
            piece_bytes,
            one_in,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The page of a year.
    fn page(&self, year: &str) -> Vec<u8> {
        let mut page = "<html><pre>\n<a href=\"?prefix=data%2F\">../</a>\n".to_owned();
        let versions = self.versions.iter();
        for (_, files) in versions.filter(|(version, _)| version.as_str().starts_with(year)) {
            for (name, bytes) in files {
                let length = bytes.len();
                writeln!(
                    page,
                    "{length} B <a href=\"?download=data%2F{year}%2F{name}\">{name}</a>"
                )
                .expect("a string takes everything");
            }
        }
        page.into_bytes()
    }

    /// The name and content of what a link leads to, and its type.
    fn content(&self, link: &str) -> Option<(String, Arc<Vec<u8>>, &'static str)> {
        let part = |prefix: &str| link.strip_prefix(prefix)?.strip_prefix("data%2F");
        if let Some(year) = part("?prefix=") {
            let page = Arc::new(self.page(year.strip_suffix("%2F")?));
            return Some((String::new(), page, "text/html; charset=utf-8"));
        }
        let name = part("?download=")?.split("%2F").nth(1)?;
        let mut files = self.versions.values().filter_map(|files| files.get(name));
        let bytes = Arc::clone(files.next()?);
        Some((name.to_owned(), bytes, "application/octet-stream"))
    }
}

struct Client {
    host: Host,
    world: World,
    tape: Tape,
    piece_bytes: usize,
    one_in: u32,
}

impl Http for Client {
    fn start(&mut self, request: &Request) -> Box<dyn Transfer> {
        let pieces = match self.answer(request) {
            Ok(pieces) => pieces,
            Err(error) => [Err(error)].into(),
        };
        Box::new(Answer {
            host: self.host.clone(),
            world: self.world.clone(),
            name: request
                .url
                .rsplit("%2F")
                .next()
                .unwrap_or_default()
                .to_owned(),
            pieces,
        })
    }
}

type Pieces = VecDeque<io::Result<Piece>>;

impl Client {
    fn answer(&self, request: &Request) -> io::Result<Pieces> {
        self.world.begin("http.start")?;
        self.host.lock().requests += 1;
        let habit = self.habit();
        self.world.note("http.start", || {
            format!("{} from {}: {habit:?}", request.url, request.from)
        });
        self.world.end()?;
        let status = |status, headers: &[(&str, &str)]| -> io::Result<Pieces> {
            let headers = headers.iter();
            let headers = headers.map(|(name, value)| (*name, (*value).to_owned()));
            Ok([Ok(Piece::Head(Head::new(status, headers))), Ok(Piece::End)].into())
        };
        match habit {
            Habit::Refuses => Err(io::ErrorKind::ConnectionRefused.into()),
            Habit::AsksForPause => status(429, &[("Retry-After", "3600")]),
            Habit::Overloaded => status(503, &[]),
            Habit::Forbids => status(403, &[]),
            Habit::SendsPage => {
                let page = b"<html>Just a moment...</html>".to_vec();
                let head = Head::new(200, [("Content-Type", "text/html".to_owned())]);
                Ok([Piece::Head(head), Piece::Bytes(page), Piece::End]
                    .map(Ok)
                    .into())
            }
            _ => match self.content(request, habit) {
                Some(pieces) => Ok(pieces),
                None => status(404, &[]),
            },
        }
    }

    fn habit(&self) -> Habit {
        if self.one_in == 0 {
            return Habit::Fine;
        }
        let mut weights = [1; HABITS.len()];
        weights[0] = self.one_in.saturating_mul(HABITS.len() as u32 - 1);
        HABITS[self.tape.choose_weighted("host.habit", &weights) as usize]
    }

    fn content(&self, request: &Request, habit: Habit) -> Option<Pieces> {
        let link = request.url.strip_prefix(ROOT)?;
        let (_, bytes, kind) = self.host.lock().content(link)?;
        let tag = format!("\"{}\"", &sha256(&bytes)[..8]);
        let is_same = request
            .if_range
            .as_ref()
            .is_none_or(|wanted| *wanted == tag);
        let from = match is_same && habit != Habit::SendsAll {
            true => usize::try_from(request.from).ok()?,
            false => 0,
        };
        let whole = bytes.len();
        if from > 0 && from >= whole {
            let range = [("Content-Range", format!("bytes */{whole}"))];
            return Some([Ok(Piece::Head(Head::new(416, range))), Ok(Piece::End)].into());
        }
        let mut headers = vec![
            ("Content-Type", kind.to_owned()),
            ("Content-Length", (whole - from).to_string()),
            ("ETag", tag),
        ];
        let status = match from {
            0 => 200,
            _ => {
                headers.push((
                    "Content-Range",
                    format!("bytes {from}-{}/{whole}", whole - 1),
                ));
                206
            }
        };
        let pieces = bytes[from..].chunks(self.piece_bytes);
        let mut pieces: Pieces = pieces
            .map(|piece| Ok(Piece::Bytes(piece.to_vec())))
            .collect();
        self.cut(&mut pieces, habit);
        pieces.push_front(Ok(Piece::Head(Head::new(status, headers))));
        Some(pieces)
    }

    /// Ends the pieces as the habit says.
    fn cut(&self, pieces: &mut Pieces, habit: Habit) {
        let end = match habit {
            Habit::Resets => Err(io::ErrorKind::ConnectionReset.into()),
            Habit::Stalls => Ok(Piece::Pending),
            _ => Ok(Piece::End),
        };
        if matches!(habit, Habit::Resets | Habit::EndsEarly | Habit::Stalls) {
            let count = u32::try_from(pieces.len())
                .expect("there are few pieces")
                .max(1);
            pieces.truncate(self.tape.choose("host.cut", count) as usize);
        }
        pieces.push_back(end);
    }
}

/// An answer on its way.
struct Answer {
    host: Host,
    world: World,
    name: String,
    pieces: Pieces,
}

impl Transfer for Answer {
    fn next(&mut self, deadline: Instant) -> io::Result<Piece> {
        self.world.begin("http.next")?;
        let piece = match self.pieces.front() {
            Some(Ok(Piece::Pending)) => {
                self.world.clock().advance_to(deadline);
                Ok(Piece::Pending)
            }
            Some(_) => self.pieces.pop_front().expect("there is one"),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        if let Ok(Piece::Bytes(bytes)) = &piece {
            let mut state = self.host.lock();
            *state.sent.entry(self.name.clone()).or_default() += bytes.len() as u64;
        }
        self.world.end()?;
        piece
    }
}
