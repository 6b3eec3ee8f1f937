//! The page in a browser.

use crate::browser::{Browser, bar};
use crate::download::{name, site};
use crate::host::{Habit, Host};
use crate::site::dumps;
use crate::watched::Watched;

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
