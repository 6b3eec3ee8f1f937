//! State markers as earlier extractors left them, and what must be read from them.
//!
//! Written in the style of the two generations that are in use: the older one has no checksums and
//! took its counts before the broker confirmed; the newer one names the checksum of each download.
//! Neither has checkpoints. Ours are not here: the tests of the marker make their own.

use std::collections::BTreeMap;

use discogs_extractor::dump::{Kind, Version, file_name};
use serde_json::{Value, json};

/// One state marker of another program, or the ruins of one.
#[derive(Clone, Debug)]
pub struct Marker {
    /// Its name, as a file name.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub what: &'static str,
    /// The bytes of the file.
    pub bytes: Vec<u8>,
    /// The kinds whose dumps need not be processed again; `None` if the file can't be used at all.
    /// All others start at their first record.
    pub completed: Option<Vec<Kind>>,
}

impl Marker {
    /// As it stands in `expected.json`.
    pub fn expected(&self) -> Value {
        let completed = self.completed.clone().unwrap_or_default();
        let from_start = Kind::ALL
            .into_iter()
            .filter(|kind| !completed.contains(kind));
        let names = |kinds: Vec<Kind>| kinds.into_iter().map(Kind::name).collect::<Vec<_>>();
        json!({
            "loads": self.completed.is_some(),
            "from_start": names(from_start.collect()),
            "completed": names(completed),
        })
    }
}

/// What is true of a dump, so that markers can tell the truth about it, or not.
#[derive(Clone, Debug)]
pub struct Facts {
    /// How many records it holds.
    pub records: u64,
    /// The size of the file.
    pub bytes: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub checksum: String,
}

/// All markers of a version, which has all four dumps.
pub fn markers(version: &Version, dumps: &BTreeMap<Kind, Facts>) -> Vec<Marker> {
    let make = Maker { version, dumps };
    let mut markers = make.whole();
    markers.extend(make.ruins());
    markers
}

struct Maker<'a> {
    version: &'a Version,
    dumps: &'a BTreeMap<Kind, Facts>,
}

impl Maker<'_> {
    fn whole(&self) -> Vec<Marker> {
        use Kind::{Artists, Labels, Masters, Releases};
        let marker = |name, what, value, completed: &[Kind]| Marker {
            name,
            what,
            bytes: pretty(&value),
            completed: Some(completed.to_vec()),
        };
        vec![
            marker(
                "older_completed.json",
                "The older extractor finished: nothing is left to do.",
                self.older(&Kind::ALL, &[]),
                &Kind::ALL,
            ),
            marker(
                "older_in_progress.json",
                "The older extractor was killed in the releases: its count can't be trusted.",
                self.older(&[Artists, Labels], &[Releases]),
                &[Artists, Labels],
            ),
            marker(
                "older_failed.json",
                "The older extractor gave up on the labels: they start over.",
                self.older_failed(),
                &[Artists],
            ),
            marker(
                "newer_completed.json",
                "The newer extractor finished with these dumps: nothing is left to do.",
                self.newer(&Kind::ALL, &[]),
                &Kind::ALL,
            ),
            marker(
                "newer_in_progress.json",
                "The newer extractor was killed in the masters.",
                self.newer(&[Artists, Labels], &[Masters]),
                &[Artists, Labels],
            ),
            marker(
                "newer_changed_source.json",
                "The labels were completed from other bytes: they start over.",
                self.newer_changed_source(),
                &[Artists, Masters, Releases],
            ),
            marker(
                "unknown_fields.json",
                "Fields that nobody knows, at every level.",
                self.with_unknown_fields(),
                &[Artists],
            ),
            marker(
                "fragment.json",
                "Half of the fields, no version and no summary; the file name has the version.",
                self.fragment(),
                &[],
            ),
        ]
    }

    fn ruins(&self) -> Vec<Marker> {
        let whole = pretty(&self.older(&[Kind::Artists], &[Kind::Labels]));
        let marker = |name, what, bytes| Marker {
            name,
            what,
            bytes,
            completed: None,
        };
        vec![
            marker(
                "cut.json",
                "The first half of a marker, as a crash leaves it that writes in place.",
                whole[..whole.len() / 2].to_vec(),
            ),
            marker("empty.json", "No bytes at all.", Vec::new()),
            marker(
                "zeros.json",
                "Zero bytes, as some file systems leave them after a power failure.",
                vec![0; 512],
            ),
            marker("not_an_object.json", "JSON, but a list.", b"[]\n".to_vec()),
        ]
    }

    fn older(&self, completed: &[Kind], in_progress: &[Kind]) -> Value {
        let mut progress = serde_json::Map::new();
        let mut states = serde_json::Map::new();
        let mut extracted = 0;
        for (kind, facts) in self.dumps {
            let (status, records) = if completed.contains(kind) {
                ("completed", facts.records)
            } else if in_progress.contains(kind) {
                ("in_progress", facts.records / 2)
            } else {
                continue;
            };
            extracted += records;
            progress.insert(self.file(*kind), file_progress(status, records));
            states.insert(kind.name().to_owned(), json!(status));
        }
        let finished = states.len() == 4 && states.values().all(|status| status == "completed");
        let status = if finished { "completed" } else { "in_progress" };
        let ended = finished.then_some("2026-08-04T09:41:07.304118272Z");
        json!({
            "metadata_version": "1.0",
            "last_updated": "2026-08-04T09:41:07.304118272Z",
            "current_version": self.version.as_str(),
            "download_phase": {
                "status": "completed",
                "started_at": "2026-08-04T07:12:40.118320751Z",
                "completed_at": "2026-08-04T07:30:02.700145690Z",
                "files_downloaded": 4,
                "files_total": 4,
                "bytes_downloaded": self.bytes(),
                "errors": [],
            },
            "processing_phase": {
                "status": status,
                "started_at": "2026-08-04T07:30:02.912004518Z",
                "completed_at": ended,
                "files_processed": states.values().filter(|status| *status == "completed").count(),
                "files_total": 4,
                "records_extracted": extracted,
                "current_file": if finished { None } else { progress.keys().next_back() },
                "progress_by_file": progress,
                "errors": [],
            },
            "publishing_phase": {
                "status": if finished { "completed" } else { "pending" },
                "messages_published": 0,
                "batches_sent": 0,
                "errors": [],
                "last_amqp_heartbeat": null,
            },
            "summary": {
                "overall_status": status,
                "total_duration_seconds": finished.then_some(8_907.25),
                "files_by_type": states,
            },
        })
    }

    fn older_failed(&self) -> Value {
        let mut marker = self.older(&[Kind::Artists], &[Kind::Labels]);
        marker["processing_phase"]["status"] = json!("failed");
        marker["processing_phase"]["progress_by_file"][self.file(Kind::Labels)]["status"] =
            json!("failed");
        marker["summary"]["overall_status"] = json!("failed");
        marker["summary"]["files_by_type"]["labels"] = json!("failed");
        marker
    }

    fn newer(&self, completed: &[Kind], in_progress: &[Kind]) -> Value {
        let mut marker = self.older(completed, in_progress);
        let mut downloads = serde_json::Map::new();
        for (kind, facts) in self.dumps {
            let file = self.file(*kind);
            let download = json!({
                "status": "completed",
                "bytes_downloaded": facts.bytes,
                "started_at": "2026-08-04T07:12:40.118Z",
                "completed_at": "2026-08-04T07:16:11.020Z",
                "checksum": facts.checksum,
            });
            let progress = &mut marker["processing_phase"]["progress_by_file"][&file];
            if progress.is_null() {
                *progress = file_progress("pending", 0);
                progress["started_at"] = Value::Null;
                marker["summary"]["files_by_type"][kind.name()] = json!("pending");
            } else {
                progress["source_checksum"] = json!(facts.checksum);
                progress["batches_sent"] = json!(facts.records.div_ceil(100));
            }
            downloads.insert(file, download);
        }
        marker["download_phase"]["downloads_by_file"] = Value::Object(downloads);
        marker
    }

    fn newer_changed_source(&self) -> Value {
        let mut marker = self.newer(&Kind::ALL, &[]);
        let labels = self.file(Kind::Labels);
        marker["processing_phase"]["progress_by_file"][labels]["source_checksum"] =
            json!("5a".repeat(32));
        marker
    }

    fn with_unknown_fields(&self) -> Value {
        let mut marker = self.older(&[Kind::Artists], &[Kind::Masters]);
        marker["flavour"] = json!({"of": ["the", "month", 8]});
        marker["processing_phase"]["workers"] = json!(4);
        marker["processing_phase"]["progress_by_file"][self.file(Kind::Artists)]["retries"] =
            json!([1, 2]);
        marker["summary"]["host"] = Value::Null;
        marker
    }

    fn fragment(&self) -> Value {
        let mut progress = serde_json::Map::new();
        for kind in [Kind::Artists, Kind::Labels] {
            let records = self.dumps[&kind].records / 2;
            let counts = json!({
                "status": "in_progress",
                "records_extracted": records,
                "messages_published": records,
                "batches_sent": records.div_ceil(100),
            });
            progress.insert(self.file(kind), counts);
        }
        json!({
            "download_phase": {"status": "completed", "bytes_downloaded": self.bytes()},
            "processing_phase": {"status": "in_progress", "progress_by_file": progress},
            "publishing_phase": {"status": "in_progress"},
        })
    }

    fn bytes(&self) -> u64 {
        self.dumps.values().map(|facts| facts.bytes).sum()
    }

    fn file(&self, kind: Kind) -> String {
        file_name(self.version, kind)
    }
}

fn file_progress(status: &str, records: u64) -> Value {
    let ended = (status == "completed").then_some("2026-08-04T08:02:55.640119004Z");
    json!({
        "status": status,
        "records_extracted": records,
        "messages_published": records / 10,
        "started_at": "2026-08-04T07:30:02.912005001Z",
        "completed_at": ended,
    })
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_read_follows_from_the_file() {
        let version = "20260801".parse::<Version>().unwrap();
        let facts = |kind: Kind| Facts {
            records: 100,
            bytes: 1_000,
            checksum: kind.name().repeat(8),
        };
        let dumps = BTreeMap::from(Kind::ALL.map(|kind| (kind, facts(kind))));
        for marker in markers(&version, &dumps) {
            let parsed = serde_json::from_slice::<Value>(&marker.bytes);
            let Some(completed) = marker.completed else {
                assert!(
                    !parsed.is_ok_and(|value| value.is_object()),
                    "{}",
                    marker.name
                );
                continue;
            };
            let files = parsed.unwrap()["processing_phase"]["progress_by_file"].take();
            let done = |kind: &Kind| {
                let file = &files[file_name(&version, *kind)];
                let source = file["source_checksum"].as_str();
                file["status"] == "completed"
                    && source.is_none_or(|source| source == dumps[kind].checksum)
            };
            let found = Kind::ALL.into_iter().filter(done).collect::<Vec<_>>();
            assert_eq!(found, completed, "{}", marker.name);
        }
    }
}
