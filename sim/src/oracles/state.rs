//! The oracles of the product's own files: the state marker, its counters, what is left behind.

use std::path::Path;

use discogs_extractor::dump::{Kind, file_name};
use discogs_extractor::marker::{self, FileProgress, Marker, Status};
use discogs_extractor::source;

use crate::disk::Disk;
use crate::faults::Faults;
use crate::guarantee::{Guarantee, Violation};
use crate::program::{End, Sight};
use crate::scenario::Scenario;
use crate::scene::{Scene, letters};
use crate::tape::Tape;
use crate::world::World;

/// Everything that must hold of the product's files in an image.
pub fn examine(scene: &Scene<'_>, sight: Sight) -> Vec<Violation> {
    let marker = match whole_marker(scene, sight) {
        Ok(marker) => marker,
        Err(violation) => return vec![violation],
    };
    let mut violations = Vec::new();
    if let Some(marker) = &marker {
        violations.extend(
            Kind::ALL
                .into_iter()
                .filter_map(|kind| true_counters(scene, marker, kind)),
        );
    }
    if sight.end != End::Open {
        violations.extend(marker.as_ref().and_then(|marker| complete(scene, marker)));
    }
    if sight.end == End::Clean {
        violations.extend(clean_end(scene));
    }
    violations
}

/// The marker's own name holds a whole marker: nothing before the first save, and always something
/// once a save was reported. Not so if the disk itself has damaged it.
pub fn whole_marker(scene: &Scene<'_>, sight: Sight) -> Result<Option<Marker>, Violation> {
    let world = World::new(Tape::benign(), Faults::none());
    let disk = Disk::mount(&world, scene.image);
    let read = marker::read(&disk, &Scenario::paths().marker());
    let read = read.expect("nothing fails in a world without faults");
    let broken = |what: String| Violation::new(Guarantee::WholeMarker, what);
    match read {
        Err(_) if sight.is_rotten => Ok(None),
        Err(reason) => Err(broken(reason)),
        Ok(None) if sight.has_saved => Err(broken("it is missing".to_owned())),
        Ok(marker) => Ok(marker),
    }
}

/// Of each dump the marker counts the records, messages and dead letters up to its checkpoint, and
/// the dead-letter file begins with exactly those. What it says of a dump that has other bytes by
/// now means nothing.
pub fn true_counters(scene: &Scene<'_>, marker: &Marker, kind: Kind) -> Option<Violation> {
    let file = marker.file(&file_name(&Scenario::version(), kind))?;
    let checkpoint = file.checkpoint.as_ref()?;
    let world = World::new(Tape::benign(), Faults::none());
    let disk = Disk::mount(&world, scene.image);
    let present = source::fingerprint(&disk, &Scenario::dump_path(kind));
    let present = present.expect("nothing fails in a world without faults");
    if present != checkpoint.fingerprint {
        return None;
    }
    let what = miscounted(scene, file, kind)?;
    Some(Violation::new(
        Guarantee::TrueCounters,
        format!("{kind}: {what}"),
    ))
}

fn miscounted(scene: &Scene<'_>, file: &FileProgress, kind: Kind) -> Option<String> {
    let frontier = file.checkpoint.as_ref()?.frontier;
    let (truth, refused) = (scene.truth(kind), scene.refused(kind));
    let is_skipped = |record: &u64| truth.message(*record).is_none() || refused.contains(record);
    let path = Scenario::paths().dead_letters(kind);
    let kept = scene.image.read(path).unwrap_or_default();
    let kept = kept.get(..usize::try_from(frontier.dead_letter_bytes).ok()?);
    let kept = kept.map(letters).unwrap_or_default();
    let is_skip = kept.iter().all(is_skipped) && kept.is_sorted_by(|one, next| one < next);
    let counted = [
        ("records_extracted", file.records_extracted, frontier.record),
        (
            "messages",
            frontier.messages,
            truth.sequence(frontier.record),
        ),
        ("dead_letters", frontier.dead_letters, kept.len() as u64),
        (
            "messages_published",
            file.messages_published,
            frontier.record - kept.len() as u64,
        ),
    ];
    if !is_skip {
        return Some(format!("the dead letters are {kept:?}"));
    }
    let wrong = counted.into_iter().find(|(_, says, is)| says != is);
    wrong.map(|(name, says, is)| format!("`{name}` says {says}, but it is {is}"))
}

/// A complete run says so: every dump completed to its last record, every sum right.
pub fn complete(scene: &Scene<'_>, marker: &Marker) -> Option<Violation> {
    let (mut records, mut messages) = (0, 0);
    for kind in Kind::ALL {
        let truth = scene.truth(kind);
        records += truth.records();
        messages += truth.messages() - scene.refused(kind).len() as u64;
        let file = marker.file(&file_name(&Scenario::version(), kind));
        let is_complete = |file: &&FileProgress| {
            file.status == Status::Completed && file.records_extracted == truth.records()
        };
        if file.filter(is_complete).is_none() {
            return Some(Violation::new(
                Guarantee::TrueCounters,
                format!("{kind} is not complete: {file:?}"),
            ));
        }
    }
    let says = (
        marker.processing_phase.records_extracted,
        marker.publishing_phase.messages_published,
    );
    (says != (records, messages) || !marker.is_complete()).then(|| {
        let what = format!("the sums are {says:?}, not {:?}", (records, messages));
        Violation::new(Guarantee::TrueCounters, what)
    })
}

/// No temporary file and no seek point is left. What a failed removal leaves is removed by the next
/// start, and the removal is durable with the next save.
pub fn clean_end(scene: &Scene<'_>) -> Option<Violation> {
    let is_temporary = |path: &&Path| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("tmp" | "recovering" | "seek"))
    };
    let path = scene.image.paths().find(is_temporary)?;
    Some(Violation::new(
        Guarantee::CleanEnd,
        format!("{} is left behind", path.display()),
    ))
}
