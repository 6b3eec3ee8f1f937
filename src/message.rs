//! From the XML of one record to the JSON of one message. (being written)

/// What becomes of one well-formed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The record's id, never empty.
    pub id: String,
    /// SHA-256 of the normalised record, 64 lowercase hexadecimal digits.
    pub sha256: String,
    /// The whole message body: compact JSON on one line.
    pub body: Vec<u8>,
    /// Whether bytes that are not UTF-8 had to be replaced by U+FFFD.
    pub repaired: bool,
}
