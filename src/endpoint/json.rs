//! What is shown as JSON.
//!
//! # `/progress`
//!
//! One object; `null` is what is not known. Fields may be added, never renamed or removed.
//!
//! ```json
//! {
//!   "format": 1,
//!   "program": "0.1.0",
//!   "uptime_seconds": 3600.0,
//!   "status": "running",
//!   "activity": "publishing",
//!   "next_look_in_seconds": null,
//!   "can_trigger": true,
//!   "version": "20260801",
//!   "dumps": [
//!     {
//!       "kind": "artists",
//!       "stage": "publishing",
//!       "bytes": 480000000,
//!       "fetched_bytes": 480000000,
//!       "read_bytes": 120000000,
//!       "percent": 25.0,
//!       "records": 2500000,
//!       "messages": 2499998,
//!       "dead_letters": 2
//!     }
//!   ],
//!   "records_per_second": 15000.0,
//!   "bytes_per_second": 3000000.0,
//!   "seconds_left": 120.0,
//!   "in_flight": 812,
//!   "window": 1000,
//!   "unsaved": 3210,
//!   "save_interval": 5000,
//!   "saved_seconds_ago": 0.4,
//!   "saves": 500,
//!   "saves_failed": 0,
//!   "broker": "connected",
//!   "reconnects": 0,
//!   "blocked_seconds": 0.0,
//!   "records_read": 2504022,
//!   "messages_confirmed": 2499998,
//!   "messages_repeated": 0,
//!   "dead_letters": 2,
//!   "events": [{"seconds_ago": 12.5, "level": "info", "text": "connected to the broker"}]
//! }
//! ```
//!
//! `status` is one of those of `/health`, `activity` tells more: `idle`, `fetching`, `publishing`,
//! `completed`, `waiting` or `failed`. The `stage` of a dump is `pending`, `fetching`, `fetched`,
//! `publishing` or `completed`, and its `percent` is of what it is at. `broker` is `connected`, `blocked`,
//! `connecting`, or `null` while nothing is published. What is counted below `broker`, and `saves`, is
//! of the process; what stands in `dumps` is of the version, whoever published it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::board::{Activity, DumpShown, Shown, Stage};
use crate::dump::Kind;
use crate::human::percent;
use crate::time::{Instant, rfc3339};

/// A run whose driver has not moved for this long is stuck: it never waits for more than seconds.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// What users of earlier extractors poll as `extraction_status`: `waiting` comes after a success.
pub(super) const fn status(activity: Activity) -> &'static str {
    match activity {
        Activity::Idle => "idle",
        Activity::Fetching | Activity::Publishing => "running",
        Activity::Completed => "completed",
        Activity::Waiting(_) => "waiting",
        Activity::Failed(_) => "failed",
    }
}

const fn activity(activity: Activity) -> &'static str {
    match activity {
        Activity::Fetching => "fetching",
        Activity::Publishing => "publishing",
        other => status(other),
    }
}

const fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Pending => "pending",
        Stage::Fetching => "fetching",
        Stage::Fetched => "fetched",
        Stage::Publishing => "publishing",
        Stage::Completed => "completed",
    }
}

/// Why the program is not well, if it is not.
pub(super) fn trouble(shown: &Shown, now: Instant) -> Option<&'static str> {
    let silence = shown.seen_at.map_or(Duration::ZERO, |seen| now.since(seen));
    match shown.activity {
        Activity::Failed(Some(_)) => Some("it failed, and will be tried again"),
        Activity::Failed(None) => Some("it failed"),
        Activity::Publishing if silence > STUCK_AFTER => Some("it is stuck"),
        _ => None,
    }
}

/// Whether the program can work, and why.
pub(super) fn readiness(shown: &Shown) -> (bool, &'static str) {
    match shown.activity {
        Activity::Idle => (false, "nothing is begun"),
        Activity::Failed(_) => (false, "it failed"),
        Activity::Publishing if !shown.progress.is_connected => {
            (false, "the broker is not connected")
        }
        Activity::Publishing => (true, "publishing"),
        Activity::Fetching => (true, "fetching"),
        Activity::Completed | Activity::Waiting(_) => (true, "the version is published"),
    }
}

/// `/health`, with the fields of earlier extractors.
pub(super) fn health(shown: &Shown, now: Instant, unix: Duration) -> Value {
    let trouble = trouble(shown, now);
    let of_kind = |kind| shown.dumps.get(&kind);
    let records = |kind| of_kind(kind).map_or(0, |dump| dump.records);
    let last = |kind| {
        let settled_at = of_kind(kind).and_then(|dump| dump.settled_at);
        settled_at.map(|at| now.since(at).as_secs_f64())
    };
    let total: u64 = Kind::ALL.into_iter().map(records).sum();
    let mut progress: serde_json::Map<_, _> = Kind::ALL
        .map(|kind| (kind.name().to_owned(), json!(records(kind))))
        .into_iter()
        .collect();
    progress.insert("total".to_owned(), json!(total));
    let times: serde_json::Map<_, _> = Kind::ALL
        .map(|kind| (kind.name().to_owned(), json!(last(kind))))
        .into_iter()
        .collect();
    json!({
        "status": if trouble.is_none() { "healthy" } else { "unhealthy" },
        "service": "discogs-extractor",
        "trouble": trouble,
        "version": shown.version.as_ref().map(ToString::to_string),
        "extraction_status": status(shown.activity),
        "extraction_progress": progress,
        "last_extraction_time": times,
        "timestamp": rfc3339(unix),
    })
}

/// `/progress`; the endpoint was started at `since`.
pub(super) fn progress(shown: &Shown, now: Instant, since: Instant, can_trigger: bool) -> Value {
    let ago = |at: Instant| now.since(at).as_secs_f64();
    let next_look = match shown.activity {
        Activity::Waiting(at) | Activity::Failed(Some(at)) => Some(at.since(now).as_secs_f64()),
        _ => None,
    };
    let events = shown.events.iter().rev().map(|event| {
        json!({
            "seconds_ago": ago(event.at),
            "level": event.level.as_str().to_lowercase(),
            "text": event.text,
        })
    });
    let (run, totals) = (&shown.progress, &shown.totals);
    json!({
        "format": 1,
        "program": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": ago(since),
        "status": status(shown.activity),
        "activity": activity(shown.activity),
        "next_look_in_seconds": next_look,
        "can_trigger": can_trigger,
        "version": shown.version.as_ref().map(ToString::to_string),
        "dumps": shown.dumps.iter().map(|(kind, shown)| dump(*kind, shown)).collect::<Vec<_>>(),
        "records_per_second": shown.speed.records_per_second,
        "bytes_per_second": shown.speed.bytes_per_second,
        "seconds_left": shown.speed.left.map(|left| left.as_secs_f64()),
        "in_flight": run.in_flight,
        "window": shown.window_messages,
        "unsaved": run.unsaved,
        "save_interval": shown.save_interval,
        "saved_seconds_ago": shown.saved_at.map(ago),
        "saves": totals.saves.counts.iter().sum::<u64>(),
        "saves_failed": totals.saves_failed,
        "broker": broker(shown),
        "reconnects": totals.reconnects,
        "blocked_seconds": totals.blocked.as_secs_f64(),
        "records_read": totals.records_read,
        "messages_confirmed": totals.messages_confirmed,
        "messages_repeated": totals.messages_repeated,
        "dead_letters": totals.dead_letters,
        "events": events.collect::<Vec<_>>(),
    })
}

fn broker(shown: &Shown) -> Option<&'static str> {
    let run = &shown.progress;
    match shown.activity {
        Activity::Publishing => Some(match (run.is_connected, run.is_blocked) {
            (false, _) => "connecting",
            (true, true) => "blocked",
            (true, false) => "connected",
        }),
        _ => None,
    }
}

fn dump(kind: Kind, shown: &DumpShown) -> Value {
    let done = match shown.stage {
        Stage::Fetching => shown.fetched,
        _ => shown.read,
    };
    let part = shown.bytes.map(|bytes| percent(done, bytes));
    let percent = match shown.stage {
        Stage::Completed => Some(100.0),
        _ => part,
    };
    json!({
        "kind": kind.name(),
        "stage": stage(shown.stage),
        "bytes": shown.bytes,
        "fetched_bytes": shown.fetched,
        "read_bytes": shown.read,
        "percent": percent,
        "records": shown.records,
        "messages": shown.messages,
        "dead_letters": shown.dead_letters,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    fn shown(activity: Activity) -> Shown {
        let mut shown = Shown::default();
        shown.activity = activity;
        shown
    }

    #[test]
    fn what_it_does_decides_how_well_and_how_ready_it_is() {
        let check = |shown: &Shown, expected_status, is_well, is_ready| {
            assert_eq!(status(shown.activity), expected_status);
            assert_eq!(trouble(shown, at(100)).is_none(), is_well, "{shown:?}");
            assert_eq!(readiness(shown).0, is_ready, "{shown:?}");
        };
        check(&shown(Activity::Idle), "idle", true, false);
        check(&shown(Activity::Fetching), "running", true, true);
        check(&shown(Activity::Completed), "completed", true, true);
        check(&shown(Activity::Waiting(at(0))), "waiting", true, true);
        check(&shown(Activity::Failed(None)), "failed", false, false);
        check(
            &shown(Activity::Failed(Some(at(0)))),
            "failed",
            false,
            false,
        );
        let publishing = |is_connected, seen_at| {
            let mut shown = shown(Activity::Publishing);
            shown.progress.is_connected = is_connected;
            shown.seen_at = seen_at;
            shown
        };
        check(&publishing(false, None), "running", true, false);
        check(&publishing(true, Some(at(40))), "running", true, true);
        check(&publishing(true, Some(at(39))), "running", false, true);
    }

    #[test]
    fn health_has_the_fields_that_are_polled() {
        let mut shown = shown(Activity::Publishing);
        shown.seen_at = Some(at(10));
        let dump = DumpShown {
            records: 7,
            settled_at: Some(at(8)),
            ..DumpShown::default()
        };
        shown.dumps.insert(Kind::Labels, dump);
        let expected = json!({
            "status": "healthy",
            "service": "discogs-extractor",
            "trouble": null,
            "version": null,
            "extraction_status": "running",
            "extraction_progress":
                {"artists": 0, "labels": 7, "masters": 0, "releases": 0, "total": 7},
            "last_extraction_time":
                {"artists": null, "labels": 2.0, "masters": null, "releases": null},
            "timestamp": "1970-01-01T00:00:01.000Z",
        });
        assert_eq!(health(&shown, at(10), Duration::from_secs(1)), expected);
    }

    #[test]
    fn a_percentage_is_of_what_a_dump_is_at() {
        let check = |stage, expected| {
            let shown = DumpShown {
                stage,
                bytes: Some(200),
                fetched: 50,
                read: 100,
                ..DumpShown::default()
            };
            assert_eq!(dump(Kind::Labels, &shown)["percent"], json!(expected));
        };
        check(Stage::Fetching, 25.0);
        check(Stage::Publishing, 50.0);
        check(Stage::Completed, 100.0);
        let unknown = dump(Kind::Labels, &DumpShown::default());
        assert_eq!(unknown["percent"], Value::Null);
    }
}
