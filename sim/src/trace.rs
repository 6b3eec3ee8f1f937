//! The trace hash: one number for everything that happened in a run, in its order.
//!
//! Two runs of one seed must agree in it, in debug and release builds and on any machine: the
//! cheapest proof that nothing but the tape decides. It is FNV-1a over 64-bit little-endian words
//! (no pointers, no `Hash` of the standard library, whose result may change), with a final mix.

/// An order-sensitive hash under construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace(u64);

const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

impl Trace {
    /// The hash of nothing.
    #[expect(clippy::new_without_default, reason = "an empty hash is a decision")]
    pub const fn new() -> Self {
        Self(BASIS)
    }

    /// Takes in a number.
    pub const fn number(&mut self, number: u64) {
        // The rotation carries the high bits back down: FNV's multiplication only moves bits up.
        self.0 = (self.0 ^ number).wrapping_mul(PRIME).rotate_left(29);
    }

    /// Takes in a string of bytes and its length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.number(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.number(u64::from_le_bytes(last));
        self.number(bytes.len() as u64);
    }

    /// The hash of everything taken in so far.
    pub const fn value(self) -> u64 {
        let z = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        z ^ (z >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(parts: &[&[u8]]) -> u64 {
        let mut trace = Trace::new();
        for part in parts {
            trace.bytes(part);
        }
        trace.value()
    }

    #[test]
    fn order_length_and_borders_count() {
        let different = [
            hash(&[]),
            hash(&[b""]),
            hash(&[b"\0"]),
            hash(&[b"a", b"b"]),
            hash(&[b"b", b"a"]),
            hash(&[b"ab"]),
            hash(&[b"12345678"]),
            hash(&[b"12345678\0"]),
        ];
        for (i, one) in different.iter().enumerate() {
            for other in &different[..i] {
                assert_ne!(one, other);
            }
        }
    }

    #[test]
    fn the_hash_is_the_same_on_every_machine() {
        assert_eq!(hash(&[b"checkpoint"]), 7_251_526_257_910_308_923);
    }
}
