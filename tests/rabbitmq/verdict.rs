//! Whether what consumers got is what had to come of the dumps.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use discogs_extractor::dump::Kind;
use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::administrator::Delivery;
use crate::site::{DATASET, VERSION, WINDOW};

/// In which order first deliveries come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// That of the records.
    Strict,
    /// That of the records, but for messages that the broker turned down, or had not confirmed when
    /// it was killed: it may have kept those behind them. So they come at most a window too late.
    WithinWindow,
}

/// What consumers of a version expect.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) order: Order,
    /// Records that the broker does not take.
    pub(crate) refused: BTreeSet<String>,
}

impl Verdict {
    pub(crate) fn new(order: Order) -> Self {
        Self {
            order,
            refused: BTreeSet::new(),
        }
    }

    /// Panics if anything is missing, out of order, unexpected or wrong, or not the same every time.
    pub(crate) fn pass(&self, deliveries: &BTreeMap<Kind, Vec<Delivery>>) {
        for kind in Kind::ALL {
            let firsts = firsts(&deliveries[&kind]);
            self.pass_ids(kind, &firsts);
            self.pass_bodies(kind, &firsts);
        }
    }

    fn pass_ids(&self, kind: Kind, firsts: &[&Delivery]) {
        let records = (1..=DATASET.truth[&kind].len()).map(|ordinal| ordinal.to_string());
        let ends = ["file_complete", "extraction_complete"].map(str::to_owned);
        let ids = records
            .chain(ends)
            .map(|name| format!("{VERSION}-{kind}-{name}"));
        let expected: Vec<_> = ids.filter(|id| !self.refused.contains(id)).collect();
        let actual: Vec<_> = firsts.iter().map(|first| first.id.clone()).collect();
        let delivered: BTreeSet<_> = actual.iter().collect();
        let is_missing = |id: &&String| !delivered.contains(id);
        let missing: Vec<_> = expected.iter().filter(is_missing).collect();
        assert!(missing.is_empty(), "missing: {missing:?}");
        assert_eq!(actual.len(), expected.len(), "{kind}: nothing else");
        let slack = match self.order {
            Order::Strict => 0,
            Order::WithinWindow => WINDOW as usize,
        };
        for (place, id) in expected.iter().enumerate() {
            let is_end = place + 2 >= expected.len();
            let nearby =
                &actual[place.saturating_sub(slack)..(place + slack + 1).min(actual.len())];
            let is_in_order = match is_end {
                true => actual[place] == *id,
                false => nearby.contains(id),
            };
            assert!(
                is_in_order,
                "{id} is not at its place; there is {}",
                actual[place]
            );
        }
    }

    fn pass_bodies(&self, kind: Kind, firsts: &[&Delivery]) {
        let prefix = format!("{VERSION}-{kind}-");
        for first in firsts {
            let body: Value = serde_json::from_slice(&first.body).expect("a message is JSON");
            let name = first.id.strip_prefix(&prefix).unwrap();
            match name.parse::<usize>() {
                Ok(ordinal) => assert_eq!(body, DATASET.truth[&kind][ordinal - 1], "{}", first.id),
                Err(_) => assert_eq!(body["type"], name, "{}", first.id),
            }
        }
    }
}

/// The first delivery of each message, in order; panics if another one is different.
fn firsts(deliveries: &[Delivery]) -> Vec<&Delivery> {
    let mut seen = BTreeMap::new();
    let mut firsts = Vec::new();
    for delivery in deliveries {
        let first = *seen.entry(&delivery.id).or_insert(delivery);
        if std::ptr::eq(first, delivery) {
            firsts.push(delivery);
        }
        let (body, again) = (text(first), text(delivery));
        assert_eq!(body, again, "{}: another time, another body", delivery.id);
        assert_eq!(first.properties, delivery.properties, "{}", delivery.id);
    }
    firsts
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.body).into_owned()
}

/// What consumers get if nothing goes wrong.
fn undisturbed() -> BTreeMap<Kind, Vec<Delivery>> {
    let delivery = |kind, name: &str, body: String| Delivery {
        id: format!("{VERSION}-{kind}-{name}"),
        body: body.into_bytes(),
        properties: BasicProperties::default(),
    };
    let of_kind = |kind| {
        let truth = (1..).zip(&DATASET.truth[&kind]);
        let records = truth.map(|(ordinal, message)| {
            let ordinal: u64 = ordinal;
            delivery(kind, &ordinal.to_string(), message.to_string())
        });
        let ends = ["file_complete", "extraction_complete"];
        let ends = ends.map(|name| delivery(kind, name, json!({ "type": name }).to_string()));
        (kind, records.chain(ends).collect())
    };
    Kind::ALL.map(of_kind).into()
}

/// Whether a verdict accepts what consumers get after this change.
fn accepts(order: Order, change: impl FnOnce(&mut Vec<Delivery>)) -> bool {
    let mut deliveries = undisturbed();
    change(deliveries.get_mut(&Kind::Masters).unwrap());
    let verdict = || Verdict::new(order).pass(&deliveries);
    catch_unwind(AssertUnwindSafe(verdict)).is_ok()
}

#[test]
fn what_is_lost_or_wrong_or_out_of_order_is_found() {
    let (strict, within_window) = (Order::Strict, Order::WithinWindow);
    assert!(accepts(strict, |_| ()));
    let repeat = |all: &mut Vec<Delivery>| all.insert(20, all[10].clone());
    assert!(accepts(strict, repeat));
    assert!(accepts(within_window, |all| all.swap(10, 20)));

    assert!(!accepts(strict, |all| drop(all.remove(10))));
    assert!(!accepts(strict, |all| drop(all.pop())));
    assert!(!accepts(strict, |all| all.swap(10, 11)));
    assert!(!accepts(within_window, |all| all.swap(10, 1_000)));
    let end_too_early = |all: &mut Vec<Delivery>| all.swap(1_999, 2_000);
    assert!(!accepts(within_window, end_too_early));
    assert!(!accepts(strict, |all| all[10].body = b"{}".to_vec()));
    assert!(!accepts(strict, |all| all.push(Delivery {
        id: "?".to_owned(),
        ..all[10].clone()
    })));
    let other_bytes = |all: &mut Vec<Delivery>| {
        let mut again = all[10].clone();
        again.body.push(b' ');
        all.push(again);
    };
    assert!(!accepts(strict, other_bytes));
    let other_properties = |all: &mut Vec<Delivery>| {
        let mut again = all[10].clone();
        again.properties = again.properties.with_timestamp(1);
        all.push(again);
    };
    assert!(!accepts(strict, other_properties));
}
