//! A seek point: everything that reading a gzip file from its middle needs, and the file that
//! keeps it between two runs.
//!
//! A checkpoint says where reading goes on in the XML. Without more, everything before is inflated
//! and thrown away, a minute for the largest dump. A seek point lies at a deflate block boundary
//! before that place; from there it is a few megabytes.
//!
//! It is an accelerator and nothing depends on it: it is kept in a file of its own, believed only if
//! its hash is right and it was made of the same dump, and without it a resume inflates and skips.
//!
//! ```text
//! SHA-256 of the rest, 32 bytes │ header, JSON │ \n │ window, as it is, up to 32 KiB
//! ```
//!
//! The window is not compressed: that would save 25 KiB of a file that exists once for each dump.
//!
//! What was verified before the point stays verified: the CRC-32 and the length of the member go
//! on at the point, so its trailer is checked as if the file was read in one go, and so does the
//! SHA-256 of the file. At the end the checksum is that of all bytes that were read, each hashed
//! by the run that read it first.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest, Sha256};

use crate::inflate::WINDOW_BYTES;

/// A place in a gzip file where inflating can begin, and what is known there.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeekPoint {
    /// How many bytes of the file are used, in part the last one.
    pub compressed: u64,
    /// How many bits of the last used byte are not used: its highest, up to 7.
    pub unused_bits: u8,
    /// How many bytes were inflated.
    pub inflated: u64,
    /// CRC-32 of the member's content up to here.
    pub member_crc: u32,
    /// Length in bytes of the member's content up to here.
    pub member_length: u64,
    /// The [state](hash_state) of a SHA-256 of the used bytes.
    pub sha256: Vec<u8>,
    /// The last bytes of the member's content up to here, at most 32 KiB.
    #[serde(skip)]
    pub window: Vec<u8>,
}

/// What stands in the file before the window.
#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    dump: String,
    #[serde(flatten)]
    point: SeekPoint,
}

/// Changes with the layout, also with that of the hash's state: sha2 keeps it within 0.11.
const FORMAT: u32 = 1;

const DIGEST_BYTES: usize = 32;

/// What a hash has come to, to go on with in another run.
pub fn hash_state(hasher: &Sha256) -> Vec<u8> {
    hasher.serialize().to_vec()
}

impl SeekPoint {
    /// The hash of the used bytes, to go on with. `None` if it is the state of another hash.
    pub fn hasher(&self) -> Option<Sha256> {
        let state = SerializedState::<Sha256>::try_from(&*self.sha256).ok()?;
        Sha256::deserialize(&state).ok()
    }

    /// The file of a point of the dump with this fingerprint.
    pub fn to_bytes(&self, fingerprint: &str) -> Vec<u8> {
        let header = Header {
            format: FORMAT,
            dump: fingerprint.to_owned(),
            point: self.clone(),
        };
        let mut bytes = vec![0; DIGEST_BYTES];
        serde_json::to_writer(&mut bytes, &header).expect("a header is JSON");
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.window);
        let digest = Sha256::digest(&bytes[DIGEST_BYTES..]);
        bytes[..DIGEST_BYTES].copy_from_slice(&digest);
        bytes
    }

    /// The point in a file, if it is whole and of the dump with this fingerprint.
    ///
    /// # Errors
    /// Why it can't be used.
    pub fn from_bytes(bytes: &[u8], fingerprint: &str) -> Result<Self, &'static str> {
        const DAMAGED: &str = "it is damaged";
        let (digest, rest) = bytes.split_at_checked(DIGEST_BYTES).ok_or(DAMAGED)?;
        if *digest != *Sha256::digest(rest) {
            return Err(DAMAGED);
        }
        let end = memchr::memchr(b'\n', rest).ok_or(DAMAGED)?;
        let header = serde_json::from_slice::<Header>(&rest[..end]);
        let header = header.ok().filter(|header| header.format == FORMAT);
        let Header {
            dump, mut point, ..
        } = header.ok_or("another version of the program made it")?;
        if dump != fingerprint {
            return Err("it is of another file");
        }
        point.window = rest[end + 1..].to_vec();
        let is_place = point.unused_bits < 8 && point.compressed > 0;
        let is_whole = point.window.len() <= WINDOW_BYTES && point.hasher().is_some();
        (is_place && is_whole).then_some(point).ok_or(DAMAGED)
    }
}

/// In short, without the window.
impl fmt::Debug for SeekPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (compressed, inflated) = (self.compressed, self.inflated);
        write!(f, "SeekPoint({compressed} -> {inflated})")
    }
}
