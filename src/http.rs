//! Downloads as the program sees them: one request at a time, and what comes back in pieces.
//!
//! [`Http::start`] never blocks. Everything that happens comes out of [`Transfer::next`], which is
//! the only wait and has a deadline, so that a stop request is noticed while a host says nothing.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use crate::time::Instant;

/// Where downloads come from.
pub trait Http {
    /// Begins a GET request.
    fn start(&mut self, request: &Request) -> Box<dyn Transfer>;
}

/// A GET request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The address.
    pub url: String,
    /// The byte from which the content is wanted; 0 for all of it.
    pub from: u64,
    /// The validator that the bytes before `from` came with: if the content is another one by now,
    /// all of it is wanted. `None` if there was none.
    pub if_range: Option<String>,
}

/// A request under way. Dropping it gives the connection up.
pub trait Transfer {
    /// The next piece; waits for one until `deadline`.
    ///
    /// # Errors
    /// The connection could not be made, or broke. Nothing follows.
    fn next(&mut self, deadline: Instant) -> io::Result<Piece>;
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The status and the headers; comes first, once.
    Head(Head),
    /// Some of the content, not empty.
    Bytes(Vec<u8>),
    /// The connection ended in order; nothing follows. What was announced may not all have come.
    End,
    /// Nothing until the deadline.
    Pending,
}

/// The status and the headers of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// By name in lowercase.
    pub headers: BTreeMap<String, String>,
}

impl Head {
    /// A head with these headers.
    pub fn new<'a>(status: u16, headers: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let headers = headers.into_iter();
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value));
        Self {
            status,
            headers: headers.collect(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.trim())
    }

    /// The length of this response's content in bytes.
    pub fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// Of a part: the byte that it begins with, and the length of the whole if that is told. From
    /// `bytes 200-1000/67589`, or `bytes */67589` without a beginning.
    pub fn range(&self) -> (Option<u64>, Option<u64>) {
        let parsed = || {
            let range = self.header("content-range")?.strip_prefix("bytes ")?;
            let (part, whole) = range.split_once('/')?;
            let from = part.split_once('-').and_then(|(from, _)| from.parse().ok());
            Some((from, whole.parse().ok()))
        };
        parsed().unwrap_or_default()
    }

    /// What tells whether the content is still the same: a strong entity tag, else the date of the
    /// last change.
    pub fn validator(&self) -> Option<&str> {
        let tag = self.header("etag").filter(|tag| !tag.starts_with("W/"));
        tag.or_else(|| self.header("last-modified"))
    }

    /// Whether the content is a page for people and not a file.
    pub fn is_html(&self) -> bool {
        self.header("content-type")
            .is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html"))
    }

    /// How long the host wants to be left alone; `unix` is the present time since the Unix epoch.
    pub fn retry_after(&self, unix: Duration) -> Option<Duration> {
        let value = self.header("retry-after")?;
        if let Ok(seconds) = value.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let date = jiff::fmt::rfc2822::parse(value).ok()?;
        let seconds = u64::try_from(date.timestamp().as_second()).ok()?;
        Some(Duration::from_secs(seconds).saturating_sub(unix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(name: &str, value: &str) -> Head {
        Head::new(200, [(name, value.to_owned())])
    }

    #[test]
    fn ranges_are_read_with_and_without_a_beginning() {
        let check = |value: &str, expected| {
            assert_eq!(head("Content-Range", value).range(), expected, "{value}");
        };
        check("bytes 200-1000/67589", (Some(200), Some(67_589)));
        check("bytes 0-0/*", (Some(0), None));
        check("bytes */67589", (None, Some(67_589)));
        check("lines 1-2/3", (None, None));
        assert_eq!(Head::default().range(), (None, None));
    }

    #[test]
    fn only_a_strong_tag_or_a_date_is_a_validator() {
        let check = |headers: &[(&str, &str)], expected| {
            let headers = headers.iter();
            let head = Head::new(
                200,
                headers.map(|(name, value)| (*name, (*value).to_owned())),
            );
            assert_eq!(head.validator(), expected);
        };
        let date = ("Last-Modified", "Sat, 01 Aug 2026 19:24:10 GMT");
        check(&[("ETag", "\"abc\""), date], Some("\"abc\""));
        check(&[("ETag", "W/\"abc\""), date], Some(date.1));
        check(&[("ETag", "W/\"abc\"")], None);
    }

    #[test]
    fn a_host_may_say_when_in_seconds_or_as_a_date() {
        let noon = Duration::from_secs(1_785_585_600);
        let check = |value: &str, expected| {
            let wait = head("Retry-After", value).retry_after(noon);
            assert_eq!(wait, expected, "{value}");
        };
        check("3600", Some(Duration::from_secs(3600)));
        check(
            "Sat, 01 Aug 2026 12:00:30 GMT",
            Some(Duration::from_secs(30)),
        );
        check("Sat, 01 Aug 2026 11:00:00 GMT", Some(Duration::ZERO));
        check("soon", None);
    }
}
