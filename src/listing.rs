//! The public listing of the dumps: one page for each year.
//!
//! ```text
//! 2026-08-01 19:17:09   388 B      <a href="?download=data%2F2026%2Fdiscogs_20260801_CHECKSUM.txt">..
//! 2026-08-01 08:50:20   85.4 MB    <a href="?download=data%2F2026%2Fdiscogs_20260801_labels.xml.gz">..
//! ```
//!
//! Every page has a link of this form, an empty one that to the page above it. A page without any is
//! something else that the host sends in its place, to make sure that it speaks with people, say.
//!
//! The CHECKSUM file is uploaded last, so a version that has one is complete. Links relative to the
//! page are all that is relied on; sizes are for an estimate.

use std::collections::BTreeMap;
use std::path::Path;

use crate::dump::{Dump, Kind, Version, checksums_name};

/// The versions on a page, oldest first.
pub type Listing = BTreeMap<Version, Listed>;

/// The files of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The link to the checksums, relative to the page.
    pub checksums: Option<String>,
    /// The links to the dumps, and their sizes in bytes as far as they can be read; rounded up.
    pub dumps: BTreeMap<Kind, (String, Option<u64>)>,
}

impl Listed {
    /// Whether everything has been uploaded.
    pub fn is_complete(&self) -> bool {
        self.checksums.is_some() && self.dumps.len() == Kind::ALL.len()
    }
}

/// The link to the page of a year, relative to the host's root.
pub fn page(year: i16) -> String {
    format!("?prefix=data%2F{year}%2F")
}

/// Whether a page is a listing, and be it an empty one.
pub fn is_listing(page: &str) -> bool {
    ["?prefix=", "?download="]
        .iter()
        .any(|link| page.contains(&format!("<a href=\"{link}")))
}

/// The files that a page links to. What is no dump's or CHECKSUM file's link is passed over.
pub fn parse(page: &str) -> Listing {
    let mut listing = Listing::new();
    for line in page.lines() {
        let Some((before, link)) = link(line) else {
            continue;
        };
        // The path is percent-encoded, and its last part is the file's name.
        let name = link.rsplit(['/', '=']).next().unwrap_or_default();
        let name = name.rsplit("%2F").next().unwrap_or_default();
        if let Some(dump) = Dump::from_path(Path::new(name)) {
            let listed = listing.entry(dump.version).or_default();
            listed
                .dumps
                .insert(dump.kind, (link.to_owned(), size(before)));
        } else if let Some(version) = checksums_version(name) {
            listing.entry(version).or_default().checksums = Some(link.to_owned());
        }
    }
    listing
}

/// The link of a line, and what stands before it.
fn link(line: &str) -> Option<(&str, &str)> {
    let (before, rest) = line.split_once("<a href=\"")?;
    let (link, _) = rest.split_once('"')?;
    link.starts_with("?download=").then_some((before, link))
}

fn checksums_version(name: &str) -> Option<Version> {
    let version = name.strip_prefix("discogs_")?.split('_').next()?;
    let version: Version = version.parse().ok()?;
    (checksums_name(&version) == name).then_some(version)
}

/// `2026-08-01 08:50:20   85.4 MB` as bytes. The page rounds to a tenth of a unit and does not say
/// whether that is of 1,000 or of 1,024, so it is the larger one, and a tenth more.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and this is an estimate"
)]
fn size(before: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 5] = [
        ("B", 1.0),
        ("KB", 1024.0),
        ("MB", 1_048_576.0),
        ("GB", 1_073_741_824.0),
        ("TB", 1_099_511_627_776.0),
    ];
    let mut words = before.split_whitespace().rev();
    let (unit, number) = (words.next()?, words.next()?);
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let number: f64 = number.parse().ok()?;
    Some(((number + 0.1) * unit) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(before: &str, name: &str) -> String {
        format!("{before}  <a href=\"?download=data%2F2026%2F{name}\">{name}</a>\n")
    }

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn a_version_is_complete_with_its_checksums() {
        let mut page = "<html><a href=\"?prefix=data%2F\">../</a>\n".to_owned();
        for kind in Kind::ALL {
            page += &line(
                "2026-08-01 08:50:20  1.5 KB",
                &format!("discogs_20260801_{kind}.xml.gz"),
            );
        }
        let listed = &parse(&page)[&version("20260801")];
        assert!(!listed.is_complete());
        let labels = "?download=data%2F2026%2Fdiscogs_20260801_labels.xml.gz";
        assert_eq!(
            listed.dumps[&Kind::Labels],
            (labels.to_owned(), Some(1_638))
        );

        page += &line("388 B", "discogs_20260801_CHECKSUM.txt");
        assert!(parse(&page)[&version("20260801")].is_complete());
    }

    #[test]
    fn other_links_are_passed_over() {
        let page = [
            "<a href=\"https://example.org/discogs_20260801_labels.xml.gz\">",
            "<a href=\"?download=data%2Fdiscogs_20260801_tapes.xml.gz\">",
            "<a href=\"?download=discogs_2026_CHECKSUM.txt\">",
            "<a href=\"?download=",
        ];
        assert_eq!(parse(&page.join("\n")), Listing::new());
    }

    #[test]
    fn an_empty_listing_is_one_and_another_page_is_not() {
        assert!(is_listing("<pre><a href=\"?prefix=data%2F\">../</a></pre>"));
        assert!(is_listing(&line("", "discogs_20260801_CHECKSUM.txt")));
        assert!(!is_listing("<html>Just a moment...</html>"));
        assert!(!is_listing(""));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "reads a sample")]
    fn the_real_page_is_understood() {
        let sample = Path::new("../shared/samples/hosting/listing_page_2026.html");
        let Ok(page) = std::fs::read_to_string(sample) else {
            println!("{} is absent", sample.display());
            return;
        };
        assert!(is_listing(&page));
        let listing = parse(&page);
        assert!(listing.values().all(Listed::is_complete));
        let releases = &listing[&version("20260101")].dumps[&Kind::Releases];
        assert_eq!(
            releases.0,
            "?download=data%2F2026%2Fdiscogs_20260101_releases.xml.gz"
        );
        assert_eq!(releases.1.unwrap() / 1_000_000_000, 11);
    }
}
