//! The records of the four kinds of dumps, in their 2020 and their 2025 form.
//!
//! Frequencies and orders follow real dumps: how many tracks, credits, images and videos a record
//! has, which parts are often missing, which are there but empty, and how long the long ones are.

use discogs_extractor::dump::Kind;

use super::Form;
use super::element::Element;
use super::text::Author;
use crate::random::Random;

#[rustfmt::skip]
const ROLES: &[&str] = &[
    "Written-By", "Written-By", "Written-By", "Producer", "Producer", "Composed By",
    "Vocals", "Music By", "Remix", "Lyrics By", "Guitar", "Drums", "Bass", "Mastered By",
    "Lead Vocals", "Engineer", "Featuring", "Design [Sleeve]", "Photography By [Photo]",
    "Keyboards, Synthesizer", "Producer, Mixed By, Programmed By [Drum Programming]",
    "Lacquer Cut By", "Arranged By",
];
const JOINS: &[&str] = &[",", ",", "&", "Feat.", "/", "And", "With", "vs.", "•"];
#[rustfmt::skip]
const GENRES: &[&str] = &[
    "Electronic", "Electronic", "Rock", "Pop", "Jazz", "Hip Hop", "Folk, World, & Country",
    "Classical", "Funk / Soul", "Reggae", "Latin", "Stage & Screen",
];
#[rustfmt::skip]
const STYLES: &[&str] = &[
    "Techno", "House", "Deep House", "Synth-pop", "Punk", "Rock & Roll", "Ambient",
    "Drum n Bass", "Tech House", "Disco", "Downtempo", "Experimental", "Soul-Jazz",
    "Chanson", "Black Metal",
];
#[rustfmt::skip]
const COUNTRIES: &[&str] = &[
    "US", "US", "US", "Germany", "UK", "Japan", "Italy", "Canada", "Netherlands", "France",
    "UK, Europe & US", "Sweden", "USSR", "Bosnia & Herzegovina",
];
#[rustfmt::skip]
const QUALITIES: &[&str] = &[
    "Needs Vote", "Needs Vote", "Needs Vote", "Needs Vote", "Needs Vote", "Correct",
    "Complete and Correct", "Needs Minor Changes",
];
#[rustfmt::skip]
const FORMATS: &[&str] = &[
    "Vinyl", "Vinyl", "CD", "CD", "Cassette", "File", "CDr", "Box Set",
];
#[rustfmt::skip]
const DESCRIPTIONS: &[&str] = &[
    "12\"", "7\"", "LP", "Album", "Compilation", "33 ⅓ RPM", "45 RPM", "Single", "Stereo",
    "Limited Edition", "Reissue", "Promo", "EP",
];
#[rustfmt::skip]
const COMPANY_ROLES: &[(&str, &str)] = &[
    ("21", "Published By"), ("13", "Phonographic Copyright (p)"), ("14", "Copyright (c)"),
    ("23", "Recorded At"), ("9", "Distributed By"), ("10", "Manufactured By"),
    ("17", "Pressed By"), ("29", "Mastered At"), ("27", "Mixed At"),
];
#[rustfmt::skip]
const IDENTIFIERS: &[&str] = &[
    "Matrix / Runout", "Matrix / Runout", "Matrix / Runout", "Barcode", "Rights Society",
    "Other", "Label Code", "Mastering SID Code", "Depósito Legal",
];
#[rustfmt::skip]
const IDENTIFIER_DESCRIPTIONS: &[&str] = &[
    "", "", "Text", "Side A", "Side B", "Scanned", "Variant 1", "Label > Side A",
    "Runout \"etched\"", "Runout,\nside B",
];

/// The record of an id.
pub(super) fn record(kind: Kind, form: Form, id: u64, random: Random) -> Element {
    let mut maker = Maker {
        form,
        author: Author { random },
        known: Vec::new(),
    };
    match kind {
        Kind::Artists => maker.artist(id),
        Kind::Labels => maker.label(id),
        Kind::Masters => maker.master(id),
        Kind::Releases => maker.release(id),
    }
}

struct Maker {
    form: Form,
    author: Author,
    /// The ids and names that occurred in this record: the same people are credited repeatedly.
    known: Vec<(String, String)>,
}

impl Maker {
    fn artist(&mut self, id: u64) -> Element {
        let mut parts = self.images(1, 5, 2);
        parts.extend([leaf("id", id.to_string()), leaf("name", self.author.name())]);
        if self.chance(1, 7) {
            parts.push(leaf("realname", self.author.person()));
        }
        let profile = self.sometimes(1, 4, |author| author.prose(5));
        self.push_text(&mut parts, "profile", profile);
        parts.push(self.data_quality());
        if self.chance(1, 7) {
            parts.push(self.texts("urls", "url", 3, Author::url));
        }
        if self.chance(1, 4) {
            parts.push(self.texts("namevariations", "name", 4, Author::name));
        }
        for (name, times) in [("aliases", 8), ("groups", 8), ("members", 6)] {
            if self.chance(times, 64) {
                parts.push(self.people(name));
            } else if self.form == Form::Y2020 && self.chance(1, 64) {
                parts.push(leaf(name, ""));
            }
        }
        self.record("artist", parts)
    }

    /// Names with ids. In the 2020 form each member's id stands once more, in an element before it.
    fn people(&mut self, container: &'static str) -> Element {
        let count = self.long_tailed(4, 60).max(1);
        let mut people = Vec::new();
        for _ in 0..count {
            let id = self.some_id();
            if container == "members" && self.form == Form::Y2020 {
                people.push(leaf("id", &id));
            }
            people.push(leaf("name", self.author.name()).with("id", id));
        }
        Element::parent(container, people)
    }

    fn label(&mut self, id: u64) -> Element {
        let mut parts = self.images(1, 4, 1);
        parts.extend([leaf("id", id.to_string()), leaf("name", self.author.name())]);
        for (name, times, lines) in [("contactinfo", 8, 6), ("profile", 15, 4)] {
            let text = self.sometimes(times, 64, |author| author.prose(lines));
            self.push_text(&mut parts, name, text);
        }
        parts.push(self.data_quality());
        if self.chance(1, 12) {
            let id = self.some_id();
            parts.push(leaf("parentLabel", self.author.name()).with("id", id));
        }
        if self.chance(1, 7) {
            parts.push(self.texts("urls", "url", 4, Author::url));
        }
        if self.chance(1, 14) {
            parts.push(self.sublabels());
        }
        self.record("label", parts)
    }

    fn sublabels(&mut self) -> Element {
        let count = self.long_tailed(4, 120).max(1);
        let mut labels = Vec::new();
        for _ in 0..count {
            let id = self.some_id();
            labels.push(leaf("label", self.author.name()).with("id", id));
        }
        Element::parent("sublabels", labels)
    }

    fn master(&mut self, id: u64) -> Element {
        let title = self.author.title();
        let mut parts = vec![leaf("main_release", self.some_id())];
        parts.extend(self.images(19, 20, 3));
        parts.push(self.artists("artists", 1));
        parts.push(self.picks("genres", "genre", GENRES));
        if self.chance(9, 10) {
            parts.push(self.picks("styles", "style", STYLES));
        }
        if self.chance(1, 12) {
            parts.push(leaf("notes", self.author.prose(5)));
        }
        parts.extend([
            leaf("year", self.author.year().to_string()),
            leaf("title", &title),
        ]);
        parts.push(self.data_quality());
        if self.chance(3, 5) {
            parts.push(self.videos(7, &title));
        }
        self.record("master", parts).with("id", id.to_string())
    }

    fn release(&mut self, id: u64) -> Element {
        let title = self.author.title();
        let mut parts = self.images(19, 20, 4);
        parts.push(self.artists("artists", 1));
        parts.push(leaf("title", &title));
        parts.push(self.labels("labels", "label"));
        if self.form == Form::Y2025 && self.chance(1, 12) {
            parts.push(self.labels("series", "series"));
        }
        self.push_credits(&mut parts, "extraartists", 5);
        parts.push(self.formats());
        parts.push(self.picks("genres", "genre", GENRES));
        if self.chance(17, 20) {
            parts.push(self.picks("styles", "style", STYLES));
        }
        if self.chance(31, 32) {
            parts.push(leaf("country", *self.author.random.pick(COUNTRIES)));
        }
        if self.chance(7, 8) {
            parts.push(leaf("released", self.release_date()));
        }
        if self.chance(5, 8) {
            parts.push(leaf("notes", self.notes()));
        }
        parts.push(self.data_quality());
        if self.chance(3, 5) {
            parts.push(self.master_id());
        }
        parts.push(self.tracklist());
        self.push_list(&mut parts, "identifiers", 4, Self::identifier);
        if self.chance(1, 2) {
            parts.push(self.videos(5, &title));
        }
        self.push_list(&mut parts, "companies", 4, Self::company);
        let record = self.record("release", parts);
        record.with("id", id.to_string()).with("status", "Accepted")
    }

    fn notes(&mut self) -> String {
        if self.chance(1, 60) {
            self.author.blank()
        } else {
            self.author.prose(7)
        }
    }

    fn master_id(&mut self) -> Element {
        let is_main = if self.chance(1, 2) { "true" } else { "false" };
        leaf("master_id", self.some_id()).with("is_main_release", is_main)
    }

    fn release_date(&mut self) -> String {
        let year = self.author.year();
        match self.author.random.below(4) {
            0 => format!("{year}-{:02}-00", self.author.random.between(1, 12)),
            1 => format!(
                "{year}-{:02}-{:02}",
                self.author.random.between(1, 12),
                self.author.random.between(1, 28)
            ),
            _ => year.to_string(),
        }
    }

    fn tracklist(&mut self) -> Element {
        let count = self.long_tailed(16, 400).max(1);
        let credited = self.chance(1, 4);
        let is_vinyl = self.chance(1, 2);
        let mut tracks = Vec::new();
        for number in 1..=count {
            let position = match number.checked_sub(count.div_ceil(2)) {
                Some(on_side_b @ 1..) if is_vinyl => format!("B{on_side_b}"),
                _ if is_vinyl => format!("A{number}"),
                _ => number.to_string(),
            };
            tracks.push(self.track(&position, credited, true));
        }
        Element::parent("tracklist", tracks)
    }

    fn track(&mut self, position: &str, credited: bool, may_nest: bool) -> Element {
        let nests = may_nest && self.chance(1, 150);
        let mut parts = Vec::new();
        let position_text = if nests { "" } else { position };
        self.push_text(&mut parts, "position", position_text.to_owned());
        parts.push(leaf("title", self.author.title()));
        let duration = self.sometimes(5, 8, |author| {
            format!(
                "{}:{:02}",
                author.random.between(1, 9),
                author.random.below(60)
            )
        });
        self.push_text(&mut parts, "duration", duration);
        if credited && self.chance(5, 8) {
            parts.push(self.artists("artists", 1));
        }
        if credited && self.chance(7, 8) {
            parts.push(self.artists("extraartists", 4));
        }
        if nests {
            let tracks = self.author.random.between(1, 5);
            let tracks =
                (1..=tracks).map(|part| self.track(&format!("{position}.{part}"), false, false));
            parts.push(Element::parent("sub_tracks", tracks.collect()));
        }
        Element::parent("track", parts)
    }

    fn push_credits(&mut self, parts: &mut Vec<Element>, name: &'static str, typical: u64) {
        if self.chance(3, 5) {
            parts.push(self.artists(name, typical));
        } else if self.form == Form::Y2020 {
            parts.push(leaf(name, ""));
        }
    }

    fn artists(&mut self, container: &'static str, typical: u64) -> Element {
        let credits = container == "extraartists";
        let most = if credits { 120 } else { 12 };
        let count = self.long_tailed(typical, most).max(1);
        let mut artists = Vec::new();
        for number in 1..=count {
            artists.push(self.artist_credit(credits, number < count));
        }
        Element::parent(container, artists)
    }

    fn artist_credit(&mut self, credit: bool, joined: bool) -> Element {
        let mut parts = Vec::new();
        let (id, name) = self.somebody();
        let id = if self.chance(1, 60) {
            self.unknown_id()
        } else {
            Some(id)
        };
        parts.extend(id.map(|id| leaf("id", id)));
        parts.push(leaf("name", name));
        let anv = self.sometimes(1, 8, Author::person);
        self.push_text(&mut parts, "anv", anv);
        let join = if joined {
            *self.author.random.pick(JOINS)
        } else {
            ""
        };
        self.push_text(&mut parts, "join", join.to_owned());
        let role = if credit {
            *self.author.random.pick(ROLES)
        } else {
            ""
        };
        self.push_text(&mut parts, "role", role.to_owned());
        let tracks = if credit && self.chance(1, 16) {
            format!(
                "A{} to B{}",
                self.author.random.between(1, 4),
                self.author.random.between(1, 6)
            )
        } else {
            String::new()
        };
        self.push_text(&mut parts, "tracks", tracks);
        Element::parent("artist", parts)
    }

    /// Whom Discogs does not know has the id 0 in 2020, and no id in 2025.
    fn unknown_id(&self) -> Option<String> {
        (self.form == Form::Y2020).then(|| "0".to_owned())
    }

    /// An id with a name, in two of five cases ones that occurred before.
    fn somebody(&mut self) -> (String, String) {
        if !self.known.is_empty() && self.chance(2, 5) {
            return self.author.random.pick(&self.known).clone();
        }
        let somebody = (self.some_id(), self.author.name());
        self.known.push(somebody.clone());
        somebody
    }

    fn labels(&mut self, container: &'static str, item: &'static str) -> Element {
        let count = self.long_tailed(1, 6).max(1);
        let mut labels = Vec::new();
        for _ in 0..count {
            let label = Element::leaf(item, "").with("name", self.author.name());
            let label = label.with("catno", self.author.catalogue_number());
            labels.push(label.with("id", self.some_id()));
        }
        Element::parent(container, labels)
    }

    fn formats(&mut self) -> Element {
        let count = if self.chance(1, 16) { 2 } else { 1 };
        Element::parent("formats", (0..count).map(|_| self.format()).collect())
    }

    fn format(&mut self) -> Element {
        let name = *self.author.random.pick(FORMATS);
        let quantity = self.long_tailed(1, 12).max(1);
        let text = self.sometimes(1, 8, Author::title);
        let parts = if self.chance(31, 32) {
            vec![self.picks("descriptions", "description", DESCRIPTIONS)]
        } else {
            Vec::new()
        };
        let format = Element::parent("format", parts).with("name", name);
        format.with("qty", quantity.to_string()).with("text", text)
    }

    fn identifier(&mut self) -> Element {
        let kind = *self.author.random.pick(IDENTIFIERS);
        let description = *self.author.random.pick(IDENTIFIER_DESCRIPTIONS);
        let value = if self.chance(1, 3) {
            (self.author.random.below(9_000_000_000_000)).to_string()
        } else {
            format!(
                "{} {} <> A1",
                self.author.catalogue_number(),
                self.author.key(2)
            )
        };
        let mut identifier = Element::leaf("identifier", "").with("type", kind);
        if self.form == Form::Y2025 || !description.is_empty() {
            identifier = identifier.with("description", description);
        }
        identifier.with("value", value)
    }

    fn company(&mut self) -> Element {
        let (id, name) = self.somebody();
        let is_unknown = self.chance(1, 40);
        let shown_id = if is_unknown {
            self.unknown_id()
        } else {
            Some(id.clone())
        };
        let mut parts = Vec::new();
        parts.extend(shown_id.map(|id| leaf("id", id)));
        parts.push(leaf("name", name));
        let number = self.sometimes(1, 8, Author::catalogue_number);
        self.push_text(&mut parts, "catno", number);
        let (code, role) = *self.author.random.pick(COMPANY_ROLES);
        parts.extend([leaf("entity_type", code), leaf("entity_type_name", role)]);
        if !is_unknown {
            parts.push(leaf(
                "resource_url",
                format!("https://api.discogs.com/labels/{id}"),
            ));
        }
        Element::parent("company", parts)
    }

    fn videos(&mut self, typical: u64, of: &str) -> Element {
        let count = self.long_tailed(typical * 2, 40).max(1);
        Element::parent("videos", (0..count).map(|_| self.video(of)).collect())
    }

    fn video(&mut self, of: &str) -> Element {
        let source = format!("https://www.youtube.com/watch?v={}", self.author.key(11));
        // A video that was deleted is an element with attributes only.
        let parts = if self.chance(31, 32) {
            self.video_texts(of)
        } else {
            Vec::new()
        };
        let duration = self.author.random.below(600).to_string();
        let video = Element::parent("video", parts).with("src", source);
        video.with("duration", duration).with("embed", "true")
    }

    fn video_texts(&mut self, of: &str) -> Vec<Element> {
        let title = if self.chance(1, 2) {
            format!("{} - {of}", self.somebody().1)
        } else {
            self.author.title()
        };
        let description = self.author.video_description(&title);
        let mut parts = vec![leaf("title", title)];
        self.push_text(&mut parts, "description", description);
        parts
    }

    /// The images of a 2020 record, present `times` in `of` cases; there are none in 2025.
    fn images(&mut self, times: u64, of: u64, typical: u64) -> Vec<Element> {
        if self.form == Form::Y2025 || !self.chance(times, of) {
            return Vec::new();
        }
        let count = self.long_tailed(typical, 40).max(1);
        let images = (0..count).map(|number| self.image(number == 0)).collect();
        vec![Element::parent("images", images)]
    }

    fn image(&mut self, primary: bool) -> Element {
        let (width, height) = (
            self.author.random.between(150, 600),
            self.author.random.between(150, 600),
        );
        Element::leaf("image", "")
            .with("type", if primary { "primary" } else { "secondary" })
            .with("uri", "")
            .with("uri150", "")
            .with("width", width.to_string())
            .with("height", height.to_string())
    }

    fn data_quality(&mut self) -> Element {
        leaf("data_quality", *self.author.random.pick(QUALITIES))
    }

    fn picks(&mut self, container: &'static str, item: &'static str, from: &[&str]) -> Element {
        let count = self.long_tailed(2, 6).max(1);
        let start = self.author.random.index(from.len());
        let picked = from.iter().cycle().skip(start);
        let count = usize::try_from(count).expect("a small number");
        Element::parent(
            container,
            picked.take(count).map(|text| leaf(item, *text)).collect(),
        )
    }

    fn texts(
        &mut self,
        container: &'static str,
        item: &'static str,
        typical: u64,
        text: fn(&mut Author) -> String,
    ) -> Element {
        let count = self.long_tailed(typical * 2, 60).max(1);
        let items = (0..count).map(|_| leaf(item, text(&mut self.author)));
        Element::parent(container, items.collect())
    }

    fn push_list(
        &mut self,
        parts: &mut Vec<Element>,
        name: &'static str,
        typical: u64,
        item: fn(&mut Self) -> Element,
    ) {
        if self.chance(9, 16) {
            let count = self.long_tailed(typical, 80).max(1);
            parts.push(Element::parent(
                name,
                (0..count).map(|_| item(self)).collect(),
            ));
        } else if self.form == Form::Y2020 {
            parts.push(leaf(name, ""));
        }
    }

    /// An element that 2020 writes empty and 2025 leaves out when there is nothing to say.
    fn push_text(&self, parts: &mut Vec<Element>, name: &'static str, text: String) {
        if self.form == Form::Y2020 || !text.is_empty() {
            parts.push(leaf(name, text));
        }
    }

    /// The whole record. Some have two parts in an unusual order.
    fn record(&mut self, name: &'static str, mut parts: Vec<Element>) -> Element {
        if self.chance(1, 12) {
            let one = self.author.random.index(parts.len());
            let other = self.author.random.index(parts.len());
            parts.swap(one, other);
        }
        Element::parent(name, parts)
    }

    fn sometimes(
        &mut self,
        times: u64,
        of: u64,
        text: impl FnOnce(&mut Author) -> String,
    ) -> String {
        if self.chance(times, of) {
            text(&mut self.author)
        } else {
            String::new()
        }
    }

    fn some_id(&mut self) -> String {
        let digits = self.author.random.between(2, 7);
        self.author
            .random
            .between(
                10,
                10_u64.pow(u32::try_from(digits).expect("a small number")),
            )
            .to_string()
    }

    /// Most counts are small, few are huge: the bound doubles as long as luck lasts.
    fn long_tailed(&mut self, typical: u64, most: u64) -> u64 {
        let mut bound = typical;
        while bound < most && self.chance(1, 9) {
            bound = (bound * 3).min(most);
        }
        self.author.random.below(bound + 1)
    }

    fn chance(&mut self, times: u64, of: u64) -> bool {
        self.author.random.chance(times, of)
    }
}

fn leaf(name: &'static str, text: impl Into<String>) -> Element {
    Element::leaf(name, text)
}
