//! The first message after a resume at so many hundredths of the releases, by way of a seek point,
//! beside reading up to there.

#![expect(clippy::unwrap_used, reason = "a bench that can't run fails")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use discogs_extractor::dump::Kind;
use discogs_extractor::pool::pooled;
use discogs_extractor::record::Position;
use discogs_extractor::seek_point::SeekPoint;
use discogs_extractor::source::{Item, Read};
use support::pairs::{compare, configure};
use support::{Corpus, timed};

/// A place in a dump: what a checkpoint there would hold, and how long reading up to it took.
struct Place {
    position: Position,
    seek_point: Option<Arc<SeekPoint>>,
    taken: Duration,
}

fn resuming(criterion: &mut Criterion) {
    let corpus = Corpus::new(Kind::Releases);
    let mut group = criterion.benchmark_group("resuming");
    configure(&mut group);
    for (hundredths, place) in places(&corpus, [1, 50, 99]) {
        compare(
            &mut group,
            "resuming",
            &hundredths.to_string(),
            || timed(|| first_message(&corpus, &place)),
            || place.taken,
        );
    }
    group.finish();
}

fn first_message(corpus: &Corpus, place: &Place) {
    let point = place.seek_point.as_deref().cloned();
    let mut reads = pooled(corpus.source(place.position, point), 2);
    let first = reads.find(|read| matches!(read, Ok(Read::Item(_))));
    first.unwrap().unwrap();
}

/// The places that many hundredths of the XML into a dump.
#[expect(clippy::disallowed_methods, reason = "measures")]
fn places<const N: usize>(corpus: &Corpus, hundredths: [u64; N]) -> Vec<(u64, Place)> {
    let mut places = Vec::new();
    let mut last_point = None;
    let began = Instant::now();
    for read in pooled(corpus.source(Position::START, None), 2) {
        let Ok(Read::Item(item)) = read else {
            continue;
        };
        let Item {
            position,
            seek_point,
            ..
        } = item;
        last_point = seek_point.or(last_point);
        let wanted = hundredths.get(places.len());
        if let Some(wanted) =
            wanted.filter(|wanted| position.xml.0 * 100 >= corpus.xml_bytes * **wanted)
        {
            let place = Place {
                position,
                seek_point: last_point.clone(),
                taken: began.elapsed(),
            };
            places.push((*wanted, place));
        }
    }
    assert_eq!(places.len(), N);
    places
}

criterion_group!(benches, resuming);
criterion_main!(benches);
