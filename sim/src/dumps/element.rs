//! A record as a tree: what a record *is*, before anybody decides how to spell it as XML or what
//! message it must become.

/// One element of a record.
///
/// An element holds text, or children, or nothing; Discogs has no mixed content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The name, without a namespace.
    pub name: &'static str,
    /// Names and values, in document order.
    pub attributes: Vec<(&'static str, String)>,
    /// The text, of an element without children.
    pub text: String,
    /// The children, in document order.
    pub children: Vec<Element>,
}

impl Element {
    /// An element with text, or an empty one if there is none.
    pub fn leaf(name: &'static str, text: impl Into<String>) -> Self {
        Self {
            name,
            attributes: Vec::new(),
            text: text.into(),
            children: Vec::new(),
        }
    }

    /// An element with children.
    pub fn parent(name: &'static str, children: Vec<Self>) -> Self {
        Self {
            children,
            ..Self::leaf(name, "")
        }
    }

    /// The same element with one more attribute.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    /// The first child of that name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Replaces a character in all texts and attribute values, here and below.
    pub fn replace(&mut self, from: char, to: &str) {
        self.text = self.text.replace(from, to);
        for (_, value) in &mut self.attributes {
            *value = value.replace(from, to);
        }
        for child in &mut self.children {
            child.replace(from, to);
        }
    }
}
