//! What is answered to a request.
//!
//! # Who may ask
//!
//! A browser lets every web page send requests to this machine, and by DNS rebinding (a name that
//! first leads to the page's host and then here) also read what is answered. Two rules keep such
//! pages out; programs that are no browsers, like curl or Prometheus, don't notice them:
//!
//! - Where only this machine is listened to, the `Host` must be a name of this machine: `localhost`
//!   or a loopback address. A rebound name is none of them.
//! - `POST /trigger` with an `Origin`, which browsers send with every POST, must come from our own
//!   page: the origin is the `Host`, and that is `localhost` or an IP address, which can't be rebound.
//!   Behind a proxy with a name the button of the page is refused therefore; curl is not.
//!
//! Nothing that is answered is a secret: addresses of brokers carry no password anywhere in the
//! program's texts.

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Sources, json as views, metrics};
use crate::board::Shown;
use crate::time::Instant;

/// The page; all of it, so that it needs nothing from elsewhere.
const PAGE: &str = include_str!("page.html");

/// What is answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    fn new(status: StatusCode, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let fixed = |name, text| (name, HeaderValue::from_static(text));
        Self {
            status,
            headers: vec![
                fixed(header::CONTENT_TYPE, content_type),
                fixed(header::CACHE_CONTROL, "no-store"),
                fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                fixed(header::REFERRER_POLICY, "no-referrer"),
            ],
            body: body.into(),
        }
    }

    fn json(status: StatusCode, value: &Value) -> Self {
        Self::new(status, "application/json", format!("{value}\n"))
    }

    pub(super) fn error(status: StatusCode, text: &str) -> Self {
        Self::json(status, &json!({ "error": text }))
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// Everything that can be asked for.
pub(super) struct Routes {
    sources: Sources,
    /// Whether only this machine can ask.
    is_loopback: bool,
    /// When the endpoint was started.
    since: Instant,
    /// What the page may load and run: itself.
    policy: HeaderValue,
}

impl Routes {
    pub(super) fn new(sources: Sources, address: SocketAddr) -> Self {
        Self {
            is_loopback: address.ip().is_loopback(),
            since: sources.clock.now(),
            policy: policy(PAGE),
            sources,
        }
    }

    /// The answer to a request with this head and body.
    pub(super) fn answer(&self, head: &Parts, body: &[u8]) -> Answer {
        if let Some(refusal) = self.refuse(&head.headers) {
            return refusal;
        }
        let is_read = head.method == Method::GET || head.method == Method::HEAD;
        match head.uri.path() {
            "/trigger" if head.method == Method::POST => self.trigger(&head.headers, body),
            "/trigger" => not_allowed("POST"),
            path => match self.view(path) {
                Some(answer) if is_read => answer,
                Some(_) => not_allowed("GET, HEAD"),
                None => Answer::error(
                    StatusCode::NOT_FOUND,
                    "there are /, /progress, /health, /ready, /metrics and /trigger",
                ),
            },
        }
    }

    /// What is seen at `path`.
    fn view(&self, path: &str) -> Option<Answer> {
        if path == "/" {
            let page = Answer::new(StatusCode::OK, "text/html; charset=utf-8", PAGE);
            return Some(page.with(header::CONTENT_SECURITY_POLICY, self.policy.clone()));
        }
        let shown = self.sources.board.read();
        let (now, unix) = (self.sources.clock.now(), self.sources.clock.unix());
        let status = |is_good| match is_good {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        Some(match path {
            "/health" => {
                let is_well = views::trouble(&shown, now).is_none();
                Answer::json(status(is_well), &views::health(&shown, now, unix))
            }
            "/ready" => {
                let (is_ready, why) = views::readiness(&shown);
                Answer::json(
                    status(is_ready),
                    &json!({ "ready": is_ready, "reason": why }),
                )
            }
            "/progress" => {
                let can_trigger = self.sources.trigger.is_some();
                let progress = views::progress(&shown, now, self.since, can_trigger);
                Answer::json(StatusCode::OK, &progress)
            }
            "/metrics" => {
                let text = metrics::text(&shown, now, unix, self.since);
                Answer::new(
                    StatusCode::OK,
                    "text/plain; version=0.0.4; charset=utf-8",
                    text,
                )
            }
            _ => return None,
        })
    }

    /// Whether it asks by a name that is not this machine's.
    fn refuse(&self, headers: &HeaderMap) -> Option<Answer> {
        let is_foreign = |host: &str| !Host::of(host).is_some_and(|host| host.is_loopback());
        let host = headers.get(header::HOST)?;
        let is_refused = self.is_loopback && host.to_str().ok().is_none_or(is_foreign);
        is_refused.then(|| {
            Answer::error(
                StatusCode::MISDIRECTED_REQUEST,
                "only this machine is listened to, by the name localhost or its loopback address",
            )
        })
    }

    /// A wish for a look now: `{"force_reprocess": true}` in the body, if it is to be processed anew.
    fn trigger(&self, headers: &HeaderMap, body: &[u8]) -> Answer {
        if is_from_another_page(headers) {
            return Answer::error(
                StatusCode::FORBIDDEN,
                "another web page asks for this; use the page of this endpoint, by localhost or an IP \
                 address, or curl -X POST",
            );
        }
        let Some(trigger) = &self.sources.trigger else {
            let answer = json!({
                "status": "not_following",
                "error": "this is one run of one version; `follow` looks for new ones",
            });
            return Answer::json(StatusCode::CONFLICT, &answer);
        };
        let Some(is_forced) = is_forced(body) else {
            return Answer::error(
                StatusCode::BAD_REQUEST,
                "write nothing, or {\"force_reprocess\": true} or false",
            );
        };
        if is_running(&self.sources.board.read()) {
            return Answer::json(
                StatusCode::CONFLICT,
                &json!({ "status": "already_running" }),
            );
        }
        trigger.pull(is_forced);
        let answer = json!({ "status": "started", "force_reprocess": is_forced });
        Answer::json(StatusCode::ACCEPTED, &answer)
    }
}

fn is_running(shown: &Shown) -> bool {
    views::status(shown.activity) == "running"
}

fn not_allowed(allowed: &'static str) -> Answer {
    let text = format!("this is asked for by {allowed}");
    let answer = Answer::error(StatusCode::METHOD_NOT_ALLOWED, &text);
    answer.with(header::ALLOW, HeaderValue::from_static(allowed))
}

/// What the body of a wish says; `None` if it makes no sense.
fn is_forced(body: &[u8]) -> Option<bool> {
    if body.trim_ascii().is_empty() {
        return Some(false);
    }
    let value: Value = serde_json::from_slice(body).ok()?;
    match value.as_object()?.get("force_reprocess") {
        None => Some(false),
        Some(is_forced) => is_forced.as_bool(),
    }
}

/// Whether a browser sent it for a page that is not ours, or that may have been rebound.
fn is_from_another_page(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    let ours = || {
        let host = headers.get(header::HOST)?.to_str().ok()?;
        let authority = origin.to_str().ok()?.strip_prefix("http://")?;
        let can_be_rebound = matches!(Host::of(host)?, Host::Name);
        Some(authority.eq_ignore_ascii_case(host) && !can_be_rebound)
    };
    ours() != Some(true)
}

/// Whom a `Host` header names.
enum Host {
    Localhost,
    Address(IpAddr),
    Name,
}

impl Host {
    /// `None` if it makes no sense.
    fn of(host: &str) -> Option<Self> {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port),
            _ => (host, "80"),
        };
        port.parse::<u16>().ok()?;
        let address = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        Some(match address.unwrap_or(name).parse() {
            Ok(address) => Self::Address(address),
            Err(_) if name.eq_ignore_ascii_case("localhost") => Self::Localhost,
            Err(_) => Self::Name,
        })
    }

    fn is_loopback(&self) -> bool {
        match self {
            Self::Localhost => true,
            Self::Address(address) => address.is_loopback(),
            Self::Name => false,
        }
    }
}

/// Lets the page use its own style and script, ask us, and nothing else; nobody may frame it.
fn policy(page: &str) -> HeaderValue {
    let hash = |tag: &str| {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let inside = page
            .split_once(&open)
            .and_then(|(_, rest)| rest.split_once(&close));
        let (content, _) = inside.expect("the page has one of it");
        BASE64_STANDARD.encode(Sha256::digest(content))
    };
    let policy = format!(
        "default-src 'none'; connect-src 'self'; img-src data:; style-src 'sha256-{}'; \
         script-src 'sha256-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("style"),
        hash("script")
    );
    HeaderValue::from_str(&policy).expect("it is ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{Activity, Board};
    use crate::signals::Trigger;
    use crate::time::SystemClock;
    use hyper::Request;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    type Headers<'a> = &'a [(&'a str, &'a str)];

    /// What listens on `address`, and may hear wishes.
    fn routes(address: &str, trigger: Option<Arc<Trigger>>) -> Routes {
        let sources = Sources {
            board: Board::default(),
            clock: Arc::new(SystemClock::new()),
            trigger,
        };
        Routes::new(sources, address.parse().unwrap())
    }

    fn ask(routes: &Routes, method: &str, path: &str, headers: Headers<'_>, body: &str) -> Answer {
        let request = headers.iter().fold(
            Request::builder().method(method).uri(path),
            |request, (name, value)| request.header(*name, *value),
        );
        let (head, ()) = request.body(()).unwrap().into_parts();
        routes.answer(&head, body.as_bytes())
    }

    fn text(answer: Answer) -> String {
        String::from_utf8(answer.body).unwrap()
    }

    #[test]
    fn every_path_has_its_methods() {
        let routes = routes("127.0.0.1:8000", None);
        let check = |method: &str, path: &str, status: u16, allow: Option<&str>| {
            let answer = ask(&routes, method, path, &[], "");
            assert_eq!(answer.status, status, "{method} {path}");
            let allowed = answer
                .headers
                .iter()
                .find(|(name, _)| name == header::ALLOW);
            assert_eq!(allowed.map(|(_, value)| value.to_str().unwrap()), allow);
        };
        for path in ["/", "/progress", "/health", "/metrics", "/metrics?x=y"] {
            check("GET", path, 200, None);
            check("HEAD", path, 200, None);
            check("POST", path, 405, Some("GET, HEAD"));
        }
        check("GET", "/ready", 503, None);
        check("GET", "/trigger", 405, Some("POST"));
        check("DELETE", "/trigger", 405, Some("POST"));
        for path in ["/x", "/health/", "//", "/../etc/passwd"] {
            check("GET", path, 404, None);
            check("POST", path, 404, None);
        }
    }

    #[test]
    fn only_names_of_this_machine_are_answered_where_only_it_is_listened_to() {
        let check = |address: &str, host: &str, status: u16| {
            let routes = routes(address, None);
            let answer = ask(&routes, "GET", "/health", &[("Host", host)], "");
            assert_eq!(answer.status, status, "{host} at {address}");
        };
        for loopback in ["127.0.0.1:8000", "[::1]:8000"] {
            for host in [
                "localhost",
                "LOCALHOST:81",
                "127.0.0.1:8000",
                "127.9.9.9",
                "[::1]:1",
            ] {
                check(loopback, host, 200);
            }
            let others = [
                "",
                "example.org",
                "localhost.example.org:8000",
                "10.0.0.1",
                "localhost:x",
            ];
            for host in others {
                check(loopback, host, 421);
            }
        }
        for host in ["extractor:8000", "10.0.0.1:8000", "localhost"] {
            check("0.0.0.0:8000", host, 200);
        }
    }

    #[test]
    fn a_wish_is_heard_unless_another_page_has_it() {
        let check = |headers: Headers<'_>, status: u16| {
            let trigger = Arc::new(Trigger::default());
            let routes = routes("0.0.0.0:8000", Some(Arc::clone(&trigger)));
            let answer = ask(&routes, "POST", "/trigger", headers, "");
            assert_eq!(answer.status, status, "{headers:?}");
            let is_heard = trigger.flag.load(Ordering::Relaxed);
            assert_eq!(is_heard, status == 202, "{headers:?}");
        };
        let host = |host| ("Host", host);
        let origin = |origin| ("Origin", origin);
        check(&[], 202);
        check(&[host("extractor:8000")], 202);
        check(
            &[host("localhost:8000"), origin("http://localhost:8000")],
            202,
        );
        check(
            &[host("10.0.0.1:8000"), origin("http://10.0.0.1:8000")],
            202,
        );
        check(&[host("[::1]:8000"), origin("http://[::1]:8000")], 202);
        check(
            &[host("localhost:8000"), origin("http://localhost:3000")],
            403,
        );
        check(
            &[host("localhost:8000"), origin("https://example.org")],
            403,
        );
        check(&[host("localhost:8000"), origin("null")], 403);
        check(&[origin("http://localhost:8000")], 403);
        check(
            &[host("evil.org:8000"), origin("http://evil.org:8000")],
            403,
        );
    }

    #[test]
    fn a_wish_says_whether_to_begin_anew() {
        let check = |body: &str, status: u16, is_forced: bool| {
            let trigger = Arc::new(Trigger::default());
            let routes = routes("127.0.0.1:8000", Some(Arc::clone(&trigger)));
            let answer = ask(&routes, "POST", "/trigger", &[], body);
            assert_eq!(answer.status, status, "{body}");
            assert_eq!(trigger.take_forced(), is_forced, "{body}");
            if status == 202 {
                let expected =
                    format!("{{\"force_reprocess\":{is_forced},\"status\":\"started\"}}\n");
                assert_eq!(text(answer), expected);
            }
        };
        for body in [
            "",
            " \n",
            "{}",
            "{\"force_reprocess\": false}",
            "{\"other\": 1}",
        ] {
            check(body, 202, false);
        }
        check("{\"force_reprocess\": true}", 202, true);
        for body in ["x", "true", "[]", "{\"force_reprocess\": 1}"] {
            check(body, 400, false);
        }
    }

    #[test]
    fn a_wish_is_of_no_use_while_it_runs_or_where_nobody_looks() {
        let routes_of = |trigger| routes("127.0.0.1:8000", trigger);
        let answer = ask(&routes_of(None), "POST", "/trigger", &[], "");
        assert_eq!(answer.status, 409);
        assert!(text(answer).contains("not_following"));

        let routes = routes_of(Some(Arc::default()));
        let now = Instant::ORIGIN;
        for (activity, status) in [
            (Activity::Idle, 202),
            (Activity::Fetching, 409),
            (Activity::Publishing, 409),
            (Activity::Completed, 202),
            (Activity::Waiting(now), 202),
            (Activity::Failed(Some(now)), 202),
        ] {
            routes.sources.board.write().activity = activity;
            let answer = ask(&routes, "POST", "/trigger", &[], "");
            assert_eq!(answer.status, status, "{activity:?}");
            let is_told = text(answer).contains("already_running");
            assert_eq!(is_told, status == 409);
        }
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        for part in [
            "src=",
            "@import",
            "url(",
            "https://",
            " style=",
            " onclick=",
        ] {
            assert!(!PAGE.contains(part), "{part}");
        }
        for tag in ["<script", "<style"] {
            assert_eq!(PAGE.matches(tag).count(), 1, "{tag}");
        }
    }
}
