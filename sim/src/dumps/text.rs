//! Names, titles and prose that look like Discogs' own: many scripts, invented names, line ends of
//! two kinds, links, `[a=..]` markup, and the invisible characters that people paste.
//!
//! Nothing here is taken from a dump. The mix of a small vocabulary with invented words and
//! numbers is tuned so that gzip compresses it about as well as the real thing, 5 to 1.

use crate::random::Random;

#[rustfmt::skip]
const WORDS: &[&str] = &[
    "the", "of", "and", "love", "night", "blue", "in", "a", "to", "you", "dance", "house",
    "deep", "city", "light", "dream", "for", "my", "time", "black", "sun", "fire", "heart",
    "on", "rain", "soul", "red", "moon", "world", "street", "machine", "electric", "live",
    "song", "river", "without", "home", "never", "again", "summer", "winter", "radio",
    "star", "silver", "gold", "water", "dark", "little", "big", "old", "new", "lost", "one",
    "two", "king", "queen", "road", "mountain", "sky", "sound", "system", "space", "jungle",
    "acid", "rhythm", "groove", "funk", "children", "mother", "devil", "angel", "paradise",
    "shadow", "mirror", "glass", "paper", "stone", "white", "green", "from", "with", "into",
    "under", "over", "after", "before", "morning", "evening", "train", "station", "window",
    "garden", "ocean", "wild", "broken", "golden", "secret", "silent", "strange",
    "beautiful", "people", "freedom", "forever",
];

#[rustfmt::skip]
const PROSE: &[&str] = &[
    "recorded", "at", "the", "studio", "in", "and", "released", "by", "on", "label", "was",
    "is", "a", "of", "founded", "with", "from", "producer", "songwriter", "band", "group",
    "member", "born", "vinyl", "edition", "limited", "copies", "track", "tracks",
    "original", "mix", "sleeve", "printed", "insert", "side", "first", "pressing", "comes",
    "includes", "lyrics", "all", "rights", "reserved", "unauthorized", "copying",
    "prohibited", "distributed", "manufactured", "under", "licence", "written", "composed",
    "performed", "arranged", "mastered", "catalog", "number", "appears", "spine", "cover",
    "back", "only", "also", "known", "as", "see", "for", "other", "versions", "this",
    "release", "has", "been", "later", "independent", "electronic", "music", "during",
    "years", "formed", "together", "after", "several",
];

#[rustfmt::skip]
const SYLLABLES: &[&str] = &[
    "ba", "bor", "ca", "chel", "da", "del", "do", "e", "el", "fa", "fer", "ga", "gre", "ha",
    "hol", "i", "ja", "jo", "ka", "kel", "kir", "la", "len", "li", "lo", "lund", "ma",
    "man", "mar", "mi", "mo", "na", "nel", "ni", "no", "o", "pa", "per", "po", "qui", "ra",
    "ri", "ro", "sa", "sen", "shi", "so", "ster", "ta", "ti", "to", "tur", "u", "va", "ver",
    "vi", "wa", "wil", "xi", "ya", "za", "zo", "ö", "ä", "é", "ñ", "ü", "ø", "ç", "ł", "ğ",
    "ş", "ő", "ž",
];

#[rustfmt::skip]
const FIRST_NAMES: &[&str] = &[
    "John", "Anna", "Peter", "Maria", "David", "Laura", "Jean-Paul", "Björn", "José",
    "Søren", "Mike", "Chris", "Robert", "Sarah", "Thomas", "Elena", "Marco", "Yuki", "Paul",
    "Karin", "Łukasz", "François", "Zoë", "Andrés", "Tony", "George", "Nina", "Alex",
    "Steve", "Carlos",
];

/// Words of other scripts, each row one script.
#[rustfmt::skip]
const SCRIPTS: &[&[&str]] = &[
    &["Песня", "о", "море", "Ночной", "город", "Звезда", "и", "ветер", "Оркестр", "Мелодия"],
    &["Τραγούδι", "της", "νύχτας", "Θάλασσα", "και", "ήλιος", "Αθήνα"],
    &["夜", "の", "歌", "東京", "ラジオ", "さくら", "海", "ロック", "ベスト"],
    &["月亮", "代表", "我的", "心", "城市", "之", "光", "精選"],
    &["밤", "노래", "서울", "사랑", "바다"],
    &["\u{623}\u{63a}\u{646}\u{64a}\u{629}", "\u{644}\u{64a}\u{644}", "\u{628}\u{62d}\u{631}"],
    &["\u{5e9}\u{5d9}\u{5e8}", "\u{5dc}\u{5d9}\u{5dc}\u{5d4}", "\u{5d9}\u{5dd}"],
    &["เพลง", "กลางคืน", "ทะเล"],
    &["गीत", "रात", "समुद्र"],
    &["Ձայն", "გიორგი", "ህይወት", "🎵", "🎧🏽"],
];

/// What people paste without seeing it: zero-width and direction marks, odd blanks, separators,
/// byte order marks, C1 controls that once were Windows-1252.
#[rustfmt::skip]
const INVISIBLE: &[char] = &[
    '\u{200e}', '\u{200e}', '\u{200e}', '\u{200b}', '\u{200f}', '\u{202c}', '\u{feff}',
    '\u{ad}', '\u{a0}', '\u{a0}', '\u{2028}', '\u{3000}', '\u{85}', '\u{92}', '\u{96}',
    '\u{9f}', '\t',
];

/// Leaves that are there but say nothing. All count as white space, so all become null.
#[rustfmt::skip]
const BLANKS: &[&str] = &[
    " ", " ", " ", " ", "\r\n", "\n\n", "\r\n\r\n \r\n", "\t", "\u{a0}", "\u{3000}",
    "\u{2003} ",
];

/// A writer of texts.
#[derive(Debug)]
pub(super) struct Author {
    /// Where all choices come from.
    pub(super) random: Random,
}

impl Author {
    /// A text of white space only.
    pub(super) fn blank(&mut self) -> String {
        (*self.random.pick(BLANKS)).to_owned()
    }

    /// An invented word with a capital: `Belmaro`.
    pub(super) fn invented(&mut self) -> String {
        let syllables = self.random.between(2, 3);
        let word = (0..syllables)
            .map(|_| *self.random.pick(SYLLABLES))
            .collect::<String>();
        capitalised(&word)
    }

    /// The name of a person: `Anna Belmaro`.
    pub(super) fn person(&mut self) -> String {
        let first = *self.random.pick(FIRST_NAMES);
        let name = match self.random.below(8) {
            0 => format!("{first} {}. {}", self.initial(), self.invented()),
            1 => format!("{}. {}", self.initial(), self.invented()),
            2 => format!("{first} \"{}\" {}", self.word(), self.invented()),
            _ => format!("{first} {}", self.invented()),
        };
        self.touched(name)
    }

    /// The name of an artist or a label, at times with the number that tells namesakes apart.
    pub(super) fn name(&mut self) -> String {
        let mut name = match self.random.below(6) {
            0 | 1 => self.person(),
            2 => format!(
                "The {} {}",
                capitalised(self.word()),
                capitalised(self.word())
            ),
            3 => format!("{} & {}", self.invented(), self.invented()),
            _ => self.title(),
        };
        if self.random.chance(1, 6) {
            name = format!("{name} ({})", self.random.between(2, 40));
        }
        name
    }

    /// The title of a track or a release.
    pub(super) fn title(&mut self) -> String {
        if self.random.chance(1, 12) {
            return self.foreign();
        }
        let words = self.random.between(1, 4);
        let mut title = String::new();
        for _ in 0..words {
            if !title.is_empty() {
                title.push(' ');
            }
            let word = if self.random.chance(1, 3) {
                self.invented()
            } else {
                capitalised(self.word())
            };
            title.push_str(&word);
        }
        match self.random.below(40) {
            0 => title.push_str(" (Original Mix)"),
            1 => title = format!("{title} <Remix>"),
            2 => title = format!("\"{title}\""),
            3 => title.push_str(" / Rock 'n' Roll"),
            4 => title.push_str(" & More…"),
            _ => {}
        }
        self.touched(title)
    }

    /// A few sentences, as in notes and profiles; at most about `lines` lines.
    pub(super) fn prose(&mut self, lines: u64) -> String {
        let end = if self.random.chance(1, 2) {
            "\r\n"
        } else {
            "\n"
        };
        let mut text = String::new();
        for line in 0..self.random.between(1, lines) {
            if line > 0 {
                text.push_str(end);
            }
            if line > 0 && self.random.chance(1, 3) {
                text.push_str(end);
            }
            let sentence = self.sentence();
            text.push_str(&sentence);
        }
        if self.random.chance(1, 6) {
            text.push_str(end);
        }
        self.touched(text)
    }

    /// What stands under a video; ends abruptly, because it is cut to a length.
    pub(super) fn video_description(&mut self, title: &str) -> String {
        match self.random.below(8) {
            0..3 => self.automatic_description(title),
            3 => self.blank(),
            4 => self.url(),
            5 => format!("{} {}", self.title(), self.year()),
            _ => self.prose(6),
        }
    }

    fn automatic_description(&mut self, title: &str) -> String {
        let (artist, album, label) = (self.name(), self.title(), self.name());
        let (year, day) = (self.year(), self.random.between(10, 28));
        format!(
            "Provided to YouTube by {label}\n\n{title} · {artist}\n\n{album}\n\n\
             ℗ {year} {label}\n\nReleased on: {year}-10-{day}\n\nProducer: {artist}\n\n\
             Auto-generated by YouTube."
        )
    }

    /// A link.
    pub(super) fn url(&mut self) -> String {
        let name = self.handle();
        match self.random.below(9) {
            0 => format!("https://www.facebook.com/{name}"),
            1 => format!("https://{name}.bandcamp.com/"),
            2 => format!("https://soundcloud.com/{name}"),
            3 => format!("http://www.{name}.com/"),
            4 => format!("https://en.wikipedia.org/wiki/{}", self.invented()),
            5 => format!("https://www.youtube.com/channel/UC{}", self.key(22)),
            6 => format!(
                "http://www.{name}.de/index.php?id={}&lang=en",
                self.random.below(900)
            ),
            7 => format!("https://www.instagram.com/{name}/"),
            _ => format!("www.{name}.co.uk"),
        }
    }

    /// `length` characters as in the key of a video.
    pub(super) fn key(&mut self, length: usize) -> String {
        const KEY: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        (0..length)
            .map(|_| char::from(*self.random.pick(KEY)))
            .collect()
    }

    /// A year between 1955 and 2026, mostly a late one.
    pub(super) fn year(&mut self) -> u64 {
        let span = self.random.between(5, 71);
        2026 - self.random.below(span)
    }

    /// A catalogue number.
    pub(super) fn catalogue_number(&mut self) -> String {
        let letters = self.handle().to_uppercase();
        let letters = letters.chars().take(3).collect::<String>();
        match self.random.below(5) {
            0 => "none".to_owned(),
            1 => format!("{letters}-{:03}", self.random.below(400)),
            2 => format!(
                "{} {} {}",
                self.random.below(9),
                self.random.below(999),
                self.random.below(999)
            ),
            _ => format!("{letters} {}", self.random.below(9000)),
        }
    }

    fn sentence(&mut self) -> String {
        let words = self.random.between(3, 14);
        let mut sentence = capitalised(self.prose_word());
        for _ in 0..words {
            sentence.push(' ');
            let word = match self.random.below(24) {
                0 => format!("[a={}]", self.name()),
                1 => format!("[l{}]", self.random.below(900_000)),
                2 => format!("[url={}]{}[/url]", self.url(), self.word()),
                3 | 4 => self.invented(),
                5 => self.year().to_string(),
                6 => self.foreign(),
                _ => self.prose_word().to_owned(),
            };
            sentence.push_str(&word);
        }
        sentence.push('.');
        sentence
    }

    fn foreign(&mut self) -> String {
        let script = *self.random.pick(SCRIPTS);
        let words = self.random.between(1, 4);
        (0..words)
            .map(|_| *self.random.pick(script))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Now and then a text has something at its edges or between its words that nobody sees.
    fn touched(&mut self, text: String) -> String {
        match self.random.below(120) {
            0 => format!("{text} "),
            1 => format!(" {text}"),
            2 => {
                let mark = *self.random.pick(INVISIBLE);
                text.replacen(' ', &format!(" {mark}"), 1)
            }
            3 => format!("{}{text}", self.random.pick(INVISIBLE)),
            _ => text,
        }
    }

    fn handle(&mut self) -> String {
        let word = self.invented().to_lowercase();
        let ascii = word.chars().filter(char::is_ascii).collect::<String>();
        format!("{ascii}{}", self.word())
    }

    fn word(&mut self) -> &'static str {
        let word: &&str = self.random.pick(WORDS);
        word
    }

    fn prose_word(&mut self) -> &'static str {
        let word: &&str = self.random.pick(PROSE);
        word
    }

    fn initial(&mut self) -> char {
        char::from(*self.random.pick(b"ABCDEFGHJKLMNOPRSTW"))
    }
}

fn capitalised(word: &str) -> String {
    let mut characters = word.chars();
    let first = characters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(characters).collect()
}
