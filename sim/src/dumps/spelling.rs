//! How a record is spelled as XML.
//!
//! XML has many spellings for the same content: `<x/>` and `<x></x>`, `&amp;` and `&#38;`, single
//! and double quotes, CDATA, comments, white space between elements. Discogs' own writer uses few
//! of them; records that passed through other tools show the rest. A speller mostly does what
//! Discogs does and now and then something else that means the same.

use std::fmt::Write;

use super::element::Element;
use crate::random::Random;

/// Spells one record. Which spellings it takes is wholly determined by its random stream.
#[derive(Debug)]
pub(super) struct Speller {
    random: Random,
    xml: String,
    indented: bool,
}

impl Speller {
    /// The XML of a record, without a line end behind it.
    pub(super) fn spell(record: &Element, mut random: Random) -> String {
        let indented = random.chance(1, 200);
        let mut speller = Self {
            random,
            xml: String::with_capacity(4096),
            indented,
        };
        speller.element(record, 0);
        speller.xml
    }

    fn element(&mut self, element: &Element, depth: usize) {
        self.xml.push('<');
        self.xml.push_str(element.name);
        for (name, value) in &element.attributes {
            self.attribute(name, value);
        }
        if element.text.is_empty() && element.children.is_empty() {
            return self.close_empty(element.name);
        }
        self.xml.push('>');
        if element.children.is_empty() {
            self.text(&element.text);
        } else {
            self.children(&element.children, depth + 1);
        }
        self.close(element.name);
    }

    fn children(&mut self, children: &[Element], depth: usize) {
        for child in children {
            self.between_elements(depth);
            self.element(child, depth);
        }
        self.between_elements(depth - 1);
    }

    /// White space and comments may stand between elements without meaning anything.
    fn between_elements(&mut self, depth: usize) {
        if self.indented {
            self.xml.push('\n');
            (0..depth).for_each(|_| self.xml.push_str("  "));
        }
        if self.random.chance(1, 4000) {
            self.comment();
        }
    }

    fn comment(&mut self) {
        // Looks like markup on purpose: a reader that searches for tags must not find these.
        let comments = [
            "<!-- checked -->",
            "<!-- <label> & </release> -->",
            "<!---->",
        ];
        let comment = self.random.pick(&comments);
        self.xml.push_str(comment);
    }

    fn close_empty(&mut self, name: &str) {
        match self.random.below(64) {
            0 => {
                self.xml.push('>');
                self.close(name);
            }
            1 => self.xml.push_str(" />"),
            _ => self.xml.push_str("/>"),
        }
    }

    fn close(&mut self, name: &str) {
        self.xml.push_str("</");
        self.xml.push_str(name);
        if self.random.chance(1, 4000) {
            self.xml.push(' ');
        }
        self.xml.push('>');
    }

    fn attribute(&mut self, name: &str, value: &str) {
        let quote = if self.random.chance(1, 100) {
            '\''
        } else {
            '"'
        };
        self.xml.push(' ');
        self.xml.push_str(name);
        self.xml.push('=');
        self.xml.push(quote);
        for character in value.chars() {
            match character {
                '&' => self.xml.push_str("&amp;"),
                '<' => self.xml.push_str("&lt;"),
                '>' if !self.random.chance(1, 2) => self.xml.push_str("&gt;"),
                '"' if quote == '"' => self.xml.push_str("&quot;"),
                '\'' if quote == '\'' => self.xml.push_str("&apos;"),
                // A raw line end or tab in an attribute would be read as a blank.
                '\t' | '\n' | '\r' => self.decimal(character),
                _ => self.xml.push(character),
            }
        }
        self.xml.push(quote);
    }

    fn text(&mut self, text: &str) {
        match self.random.below(1000) {
            0..2 if may_be_cdata(text) => self.cdata(text),
            2..4 => self.text_around_a_comment(text),
            4..20 => self.text_in_references(text),
            _ => self.plain_text(text),
        }
    }

    fn cdata(&mut self, text: &str) {
        self.xml.push_str("<![CDATA[");
        self.xml.push_str(text);
        self.xml.push_str("]]>");
    }

    fn text_around_a_comment(&mut self, text: &str) {
        let characters = text.chars().count();
        let at = text.char_indices().nth(characters / 2);
        let (before, after) = text.split_at(at.map_or(0, |(byte, _)| byte));
        self.plain_text(before);
        self.comment();
        self.plain_text(after);
    }

    fn text_in_references(&mut self, text: &str) {
        let hexadecimal = self.random.chance(1, 3);
        for character in text.chars() {
            match character {
                ' '..='~' if !matches!(character, '&' | '<' | '>' | '"' | '\'') => {
                    self.xml.push(character);
                }
                _ if hexadecimal => self.hexadecimal(character),
                _ => self.decimal(character),
            }
        }
    }

    fn plain_text(&mut self, text: &str) {
        let mut rest = text;
        while let Some(at) = rest.find(['&', '<', '>', '\r', '"']) {
            let (plain, from) = rest.split_at(at);
            self.xml.push_str(plain);
            let (special, after) = from.split_at(1);
            let spelled = match special {
                "&" => "&amp;",
                "<" => "&lt;",
                ">" => "&gt;",
                // A raw carriage return would be read as a line feed.
                "\r" => "&#13;",
                _ if self.random.chance(1, 16) => "&quot;",
                quote => quote,
            };
            self.xml.push_str(spelled);
            rest = after;
        }
        self.xml.push_str(rest);
    }

    fn decimal(&mut self, character: char) {
        write!(self.xml, "&#{};", u32::from(character)).expect("a string takes all text");
    }

    fn hexadecimal(&mut self, character: char) {
        write!(self.xml, "&#x{:X};", u32::from(character)).expect("a string takes all text");
    }
}

/// Within CDATA nothing is decoded, so a carriage return can't be written there.
fn may_be_cdata(text: &str) -> bool {
    !text.contains('\r') && !text.contains("]]>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_used_and_plain_ones_prevail() {
        let record = Element::parent(
            "label",
            vec![
                Element::leaf("name", "a<b> & \"c\" \u{e9}\r\n"),
                Element::leaf("empty", "").with("of", "> ' \" \n"),
            ],
        );
        let spelled = |seed| Speller::spell(&record, Random::new(seed));
        let spellings = (0..5000).map(spelled).collect::<Vec<_>>();
        let plain = "<label><name>a&lt;b&gt; &amp; \"c\" \u{e9}&#13;\n</name>";
        assert!(
            spellings
                .iter()
                .filter(|xml| xml.starts_with(plain))
                .count()
                > 4000
        );
        for rare in [
            "&quot;",
            "&#x",
            "&#233;",
            "<!--",
            "></empty>",
            " />",
            "'> ",
            "=\"> ",
            "\n  <",
        ] {
            assert!(spellings.iter().any(|xml| xml.contains(rare)), "{rare}");
        }
        let text = Element::parent("label", vec![Element::leaf("name", "a<b")]);
        let xml = (0..5000).map(|seed| Speller::spell(&text, Random::new(seed)));
        assert!(xml.into_iter().any(|xml| xml.contains("<![CDATA[a<b]]>")));
    }
}
