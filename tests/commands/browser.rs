//! Chromium, driven by ChromeDriver over the protocol of W3C WebDriver.
//!
//! Without them tests say so and pass, unless `REQUIRE_CHROMIUM=1`. The screenshots stay in
//! `target/tmp`.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::client;

/// Looks at a page in a moment; not waited for by a test that passes.
const LOOKS_MAX: u32 = 1_200;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// ChromeDriver was seen to end instead of saying its port, on a busy machine: it is started again.
const STARTS_MAX: u32 = 10;

/// A browser with one page; gone when dropped.
pub(crate) struct Browser {
    driver: Child,
    address: String,
    session: String,
}

fn start() -> io::Result<Child> {
    Command::new("chromedriver")
        .arg("--port=0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
}

/// Where it listens, if it does not end instead.
fn port(driver: &mut Child) -> Option<String> {
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let port = lines.find_map(|line| {
        let line = line.unwrap();
        let (_, rest) = line.split_once("successfully on port ")?;
        Some(rest.trim_end_matches('.').to_owned())
    });
    // What it says later must not block it.
    thread::spawn(move || lines.count());
    port
}

impl Browser {
    /// A browser whose windows are so wide, or `None`, said aloud, if there is none.
    pub(crate) fn open(width: u32, is_dark: bool) -> Option<Self> {
        let is_required = std::env::var("REQUIRE_CHROMIUM").is_ok_and(|value| value == "1");
        let Ok(mut driver) = start() else {
            assert!(
                !is_required,
                "REQUIRE_CHROMIUM=1, and there is no chromedriver"
            );
            println!("skipped, because there is no chromedriver");
            return None;
        };
        let mut starts = 1;
        let port = loop {
            if let Some(port) = port(&mut driver) {
                break port;
            }
            assert!(
                starts < STARTS_MAX,
                "chromedriver ends whenever it is started"
            );
            driver.wait().unwrap();
            driver = start().unwrap();
            starts += 1;
        };
        let mut browser = Self {
            driver,
            address: format!("127.0.0.1:{port}"),
            session: String::new(),
        };
        browser.begin(width, is_dark);
        Some(browser)
    }

    fn begin(&mut self, width: u32, is_dark: bool) {
        let scheme = format!(
            "--blink-settings=preferredColorScheme={}",
            u8::from(!is_dark)
        );
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ];
        let arguments: Vec<_> = arguments.into_iter().chain([scheme.as_str()]).collect();
        let screen = json!({ "width": width, "height": 1000, "pixelRatio": 1.0 });
        let options = json!({
            "args": arguments,
            "mobileEmulation": { "deviceMetrics": screen },
        });
        let wanted = json!({ "browserName": "chrome", "goog:chromeOptions": options });
        let session = self.tell("", json!({ "capabilities": { "alwaysMatch": wanted } }));
        self.session = format!("/{}", session["sessionId"].as_str().unwrap());
    }

    fn request(&self, method: &str, path: &str, body: &str) -> Value {
        let path = format!("/session{}{path}", self.session);
        let content = [("Content-Type", "application/json")];
        let answer = client::ask(&self.address, method, &path, &content, body);
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        answer.json()["value"].clone()
    }

    #[expect(clippy::needless_pass_by_value, reason = "json! is written in place")]
    fn tell(&self, path: &str, body: Value) -> Value {
        self.request("POST", path, &body.to_string())
    }

    pub(crate) fn go(&self, address: &str) {
        self.tell("/url", json!({ "url": format!("http://{address}/") }));
    }

    /// The value of an expression in the page.
    pub(crate) fn value(&self, expression: &str) -> Value {
        let script = format!("return {expression};");
        self.tell("/execute/sync", json!({ "script": script, "args": [] }))
    }

    /// The text of the element with this id.
    pub(crate) fn text(&self, id: &str) -> String {
        let value = self.value(&format!("document.getElementById('{id}').innerText"));
        value.as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        for _ in 0..LOOKS_MAX {
            if is_so() {
                return;
            }
            thread::sleep(BETWEEN_LOOKS);
        }
        panic!(
            "{what} did not come about: {}",
            self.value("document.body.innerText")
        );
    }

    /// Waits until the element with this id has this in its text.
    pub(crate) fn until_text(&self, id: &str, part: &str) {
        self.until(part, || self.text(id).contains(part));
    }

    pub(crate) fn click(&self, id: &str) {
        let found = self.tell(
            "/element",
            json!({ "using": "css selector", "value": format!("#{id}") }),
        );
        let element = found.as_object().unwrap().values().next().unwrap();
        self.tell(
            &format!("/element/{}/click", element.as_str().unwrap()),
            json!({}),
        );
    }

    /// Keeps what is on the screen.
    pub(crate) fn screenshot(&self, name: &str) {
        let png = self.request("GET", "/screenshot", "");
        let png = BASE64_STANDARD.decode(png.as_str().unwrap()).unwrap();
        assert!(png.len() > 5_000, "there is something to see");
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}.png"));
        fs::write(&path, png).unwrap();
        println!("screenshot: {}", path.display());
    }

    /// Nothing was refused or went wrong in the page.
    pub(crate) fn has_no_trouble(&self) {
        let log = self.tell("/se/log", json!({ "type": "browser" }));
        // What a program that was killed does not answer.
        let is_trouble = |entry: &&Value| !entry.to_string().contains("ERR_CONNECTION_REFUSED");
        let trouble: Vec<_> = log.as_array().unwrap().iter().filter(is_trouble).collect();
        assert!(trouble.is_empty(), "{trouble:?}");
        let wider = "document.documentElement.scrollWidth > window.innerWidth";
        assert_eq!(
            self.value(wider),
            false,
            "the page is as wide as the window"
        );
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Closing the session ends the browser; it fails where a test failed before.
        let path = format!("/session{}", self.session);
        if !thread::panicking() {
            client::ask(&self.address, "DELETE", &path, &[], "");
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The width of a bar on the page, in parts of a hundred.
pub(crate) fn bar(browser: &Browser, kind: &str) -> f64 {
    let fill = format!("document.querySelector('#dump-{kind} .fill').style.width");
    let width = browser.value(&fill);
    let width = width.as_str().unwrap().trim_end_matches('%');
    width.parse().unwrap()
}
