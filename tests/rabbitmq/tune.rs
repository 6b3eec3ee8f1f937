//! `tune` with a RabbitMQ: it measures what really goes there, and cleans up.

use discogs_extractor::dump::Kind;
use serde_json::Value;

use crate::administrator::Administrator;
use crate::shared::Shared;
use crate::site::Site;

/// The prefix of what it declares.
const PREFIX: &str = "discogs-extractor-tune";

#[test]
fn a_rabbitmq_is_measured_and_left_as_it_was() {
    let Some(shared) = Shared::get("tune") else {
        return;
    };
    let site = Site::new();
    // What a killed one has left.
    let left = Administrator::connect(&shared.url, PREFIX);
    left.declare_bound(Kind::Artists, &[]);
    assert!(left.knows(Kind::Artists));
    drop(left);
    let arguments = format!("tune . --broker {} --seconds 1 --json", shared.url);
    let output = site.program().args(arguments.split(' ')).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();

    let broker = report["broker"].as_str().unwrap();
    assert!(broker.starts_with("RabbitMQ at "), "{broker}");
    assert!(!broker.contains("guest"), "{broker}");
    assert!(report["machine"]["records_per_second"].as_f64().unwrap() > 0.0);
    let rows = report["rows"].as_array().unwrap().iter();
    let mut intervals = rows.map(|row| row["interval"].as_u64());
    assert!(intervals.any(|interval| interval == report["recommended"].as_u64()));
    let administrator = Administrator::connect(&shared.url, PREFIX);
    for kind in Kind::ALL {
        assert!(!administrator.knows(kind), "{kind} is left behind");
    }
}
