//! The page in a browser: Chromium, driven by ChromeDriver over the protocol of W3C WebDriver.
//!
//! Without them these tests say so and pass, unless `REQUIRE_CHROMIUM=1`. The screenshots stay in
//! `target/tmp`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::client;
use crate::download::{dumps, name, site};
use crate::host::{Habit, Host};
use crate::watched::Watched;

/// Looks at a page in a moment; not waited for by a test that passes.
const LOOKS_MAX: u32 = 1_200;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// A browser with one page; gone when dropped.
struct Browser {
    driver: Child,
    address: String,
    session: String,
}

impl Browser {
    /// A browser whose windows are so wide, or `None`, said aloud, if there is none.
    fn open(width: u32, is_dark: bool) -> Option<Self> {
        let started = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let is_required = std::env::var("REQUIRE_CHROMIUM").is_ok_and(|value| value == "1");
        let Ok(mut driver) = started else {
            assert!(
                !is_required,
                "REQUIRE_CHROMIUM=1, and there is no chromedriver"
            );
            println!("skipped, because there is no chromedriver");
            return None;
        };
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, rest) = line.split_once("successfully on port ")?;
            Some(rest.trim_end_matches('.').to_owned())
        });
        // What it says later must not block it.
        thread::spawn(move || lines.count());
        let mut browser = Self {
            driver,
            address: format!("127.0.0.1:{}", port.expect("it says its port")),
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

    fn go(&self, address: &str) {
        self.tell("/url", json!({ "url": format!("http://{address}/") }));
    }

    /// The value of an expression in the page.
    fn value(&self, expression: &str) -> Value {
        let script = format!("return {expression};");
        self.tell("/execute/sync", json!({ "script": script, "args": [] }))
    }

    /// The text of the element with this id.
    fn text(&self, id: &str) -> String {
        let value = self.value(&format!("document.getElementById('{id}').innerText"));
        value.as_str().unwrap_or_default().to_owned()
    }

    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
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
    fn until_text(&self, id: &str, part: &str) {
        self.until(part, || self.text(id).contains(part));
    }

    fn click(&self, id: &str) {
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
    fn screenshot(&self, name: &str) {
        let png = self.request("GET", "/screenshot", "");
        let png = BASE64_STANDARD.decode(png.as_str().unwrap()).unwrap();
        assert!(png.len() > 5_000, "there is something to see");
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}.png"));
        fs::write(&path, png).unwrap();
        println!("screenshot: {}", path.display());
    }

    /// Nothing was refused or went wrong in the page.
    fn has_no_trouble(&self) {
        let log = self.tell("/se/log", json!({ "type": "browser" }));
        assert_eq!(log, json!([]));
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

/// The width of a bar, in parts of a hundred.
fn bar(browser: &Browser, kind: &str) -> f64 {
    let fill = format!("document.querySelector('#dump-{kind} .fill').style.width");
    let width = browser.value(&fill);
    let width = width.as_str().unwrap().trim_end_matches('%');
    width.parse().unwrap()
}

#[test]
fn it_shows_a_download_its_end_and_that_the_program_is_gone() {
    for (width, is_dark, look) in [
        (1000, false, "light"),
        (1000, true, "dark"),
        (390, true, "phone"),
    ] {
        let Some(browser) = Browser::open(width, is_dark) else {
            return;
        };
        shows(&browser, look);
    }
}

fn shows(browser: &Browser, look: &str) {
    let (site, host) = (site(), Host::new(dumps()));
    host.habits(&name("releases"), &[Habit::HangsAfter(60_000)]);
    let line = format!(
        "follow data --download-url {} --broker file:spool",
        host.address()
    );
    let mut watched = Watched::start(&site, &line, &[]);
    watched.until(|progress| progress["dumps"][3]["fetched_bytes"] == 60_000);
    browser.go(&watched.address);
    browser.until_text("status", "downloading");
    browser.until_text("dump-releases", "60.0 kB of 141 kB");
    let part = 100.0 * 60_000.0 / dumps()[&name("releases")].len() as f64;
    assert!((bar(browser, "releases") - part).abs() < 0.01);
    assert_eq!(
        browser.value("document.getElementById('look').disabled"),
        true
    );
    browser.screenshot(&format!("downloading-{look}"));
    browser.has_no_trouble();

    watched.kill();
    browser.until_text("lost", "Connection lost");
    browser.screenshot(&format!("lost-{look}"));
    let mut watched = Watched::start(&site, &line, &[]);
    watched.until(|progress| progress["activity"] == "waiting");
    browser.go(&watched.address);
    browser.until_text("status", "complete, waiting");
    let messages = watched.progress()["messages_confirmed"].to_string();
    browser.until_text("flight-more", &format!("{messages} confirmed"));
    for kind in ["artists", "labels", "masters", "releases"] {
        assert_eq!(bar(browser, kind), 100.0);
    }
    browser.screenshot(&format!("complete-{look}"));
    browser.click("look");
    browser.until("another look", || {
        browser
            .text("events")
            .matches("looking for the next")
            .count()
            == 2
    });
    browser.has_no_trouble();
}
