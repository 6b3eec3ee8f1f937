//! When the publishers of a run may publish: not before the state says that they are new to the broker.
//!
//! A broker that recognises repeats drops, in silence, what a publisher of the same name published
//! before. Whether it holds something that this state knows nothing of, it can only be asked as long as
//! we have published nothing ourselves. So a publisher that is new is *claimed*:
//!
//! ```text
//! connected: the broker holds nothing of it ─→ noted in the marker ─→ saved ─→ the first message
//! ```
//!
//! A crash between any two of these leaves a publisher that is not claimed and has published nothing,
//! so the next run asks again; or one that is claimed, and whatever the broker holds of it is ours. A
//! broker that does not tell publishers apart has none in the marker, and nothing is waited for.

use crate::marker::Marker;
use crate::plan::Plan;

/// See the module.
#[derive(Debug)]
pub struct Claims {
    /// The file names of dumps whose publisher is not claimed.
    dumps: Vec<String>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The broker was not asked.
    Unknown,
    /// The broker holds nothing of them; the next save says so.
    Noted,
    /// The save that says so is running.
    Saving,
    /// There is nothing to claim, or it was saved.
    Settled,
}

impl Claims {
    /// What a run of `plan` has to claim.
    pub fn new(plan: &Plan) -> Self {
        let is_unclaimed = |name: &String| {
            let file = plan.marker.file(name);
            let publisher = file.and_then(|file| file.publisher.as_ref());
            publisher.is_some_and(|publisher| !publisher.is_claimed)
        };
        let names = plan.dumps.iter().map(|planned| planned.dump.file_name());
        let dumps: Vec<_> = names.filter(is_unclaimed).collect();
        let state = match dumps.is_empty() {
            true => State::Settled,
            false => State::Unknown,
        };
        Self { dumps, state }
    }

    /// The broker is connected, so it holds nothing of the publishers. Whether a save has to say so
    /// in `marker`.
    pub fn connected(&mut self, marker: &mut Marker) -> bool {
        if self.state != State::Unknown {
            return false;
        }
        for name in &self.dumps {
            if let Some(publisher) = &mut marker.file_mut(name).publisher {
                publisher.is_claimed = true;
            }
        }
        self.state = State::Noted;
        true
    }

    /// A save begins with the marker as it is now.
    pub fn save_begun(&mut self) {
        if self.state == State::Noted {
            self.state = State::Saving;
        }
    }

    /// The save is over.
    pub fn save_ended(&mut self, is_saved: bool) {
        if self.state == State::Saving {
            self.state = match is_saved {
                true => State::Settled,
                false => State::Noted,
            };
        }
    }

    /// Whether messages may be published.
    pub fn may_publish(&self) -> bool {
        self.state == State::Settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::{Dump, Kind, Version};
    use crate::marker::{Checkpoint, Frontier, Paths, Publisher};
    use crate::plan::PlannedDump;
    use crate::source::Fingerprint;
    use std::path::{Path, PathBuf};

    /// A plan of one dump, whose publisher is claimed or not, or is none.
    fn plan(is_claimed: Option<bool>) -> Plan {
        let version: Version = "20260801".parse().unwrap();
        let dump = Dump {
            version: version.clone(),
            kind: Kind::Labels,
            path: PathBuf::new(),
        };
        let fingerprint = Fingerprint("f".to_owned());
        let mut marker = Marker::new(&version);
        marker.file_mut(&dump.file_name()).publisher = is_claimed.map(|is_claimed| Publisher {
            fingerprint: fingerprint.clone(),
            generation: 1,
            rules: String::new(),
            after: 0,
            is_claimed,
        });
        let checkpoint = Checkpoint {
            fingerprint,
            file_bytes: 1,
            frontier: Frontier::default(),
        };
        Plan {
            paths: Paths::new(Path::new(""), &version),
            version,
            marker,
            dumps: vec![PlannedDump {
                dump,
                checkpoint,
                seek_point: None,
            }],
            warnings: Vec::new(),
        }
    }

    fn is_claimed(marker: &Marker) -> bool {
        let mut files = marker.processing_phase.progress_by_file.values();
        files.all(|file| file.publisher.as_ref().unwrap().is_claimed)
    }

    #[test]
    fn without_a_new_publisher_nothing_is_waited_for() {
        for is_claimed in [None, Some(true)] {
            let mut plan = plan(is_claimed);
            let mut claims = Claims::new(&plan);
            assert!(claims.may_publish());
            assert!(!claims.connected(&mut plan.marker));
            assert!(claims.may_publish());
        }
    }

    #[test]
    fn a_new_publisher_waits_for_a_save_that_begins_after_the_broker_was_asked() {
        let mut plan = plan(Some(false));
        let mut claims = Claims::new(&plan);
        claims.save_begun();
        assert!(!is_claimed(&plan.marker));
        assert!(claims.connected(&mut plan.marker));
        assert!(is_claimed(&plan.marker));
        claims.save_ended(true);
        assert!(!claims.may_publish(), "that save began before");
        claims.save_begun();
        assert!(!claims.may_publish());
        claims.save_ended(false);
        assert!(!claims.may_publish(), "that save failed");
        claims.save_begun();
        assert!(!claims.connected(&mut plan.marker), "asked already");
        claims.save_ended(true);
        assert!(claims.may_publish());
    }
}
