//! Sixteen bytes at a time: what most of the time is spent with is telling bytes from others.

use wide::u8x16;

/// How many bytes are looked at together.
pub(crate) const WIDTH: usize = 16;

/// Sixteen bytes, or what is known of each: all its bits are set, or none.
pub(crate) type Lanes = u8x16;

/// Marks bytes that are `byte`.
#[inline(always)]
pub(crate) fn equal(lanes: Lanes, byte: u8) -> Lanes {
    lanes.simd_eq(Lanes::splat(byte))
}

/// Marks bytes that are at most `byte`.
#[inline(always)]
fn at_most(lanes: Lanes, byte: u8) -> Lanes {
    lanes.min(Lanes::splat(byte)).simd_eq(lanes)
}

/// Marks bytes that may not stand in a JSON string as they are.
#[inline(always)]
pub(crate) fn escaped(lanes: Lanes) -> Lanes {
    at_most(lanes, 0x1F) | equal(lanes, b'"') | equal(lanes, b'\\')
}

/// Marks bytes that are neither an ASCII letter nor `_`.
#[inline(always)]
pub(crate) fn unlettered(lanes: Lanes) -> Lanes {
    let from_a = (lanes | Lanes::splat(0x20)) - Lanes::splat(b'a');
    !(at_most(from_a, b'z' - b'a') | equal(lanes, b'_'))
}

/// The first of `bytes` that `mark` marks; it marks no letter.
#[inline(always)]
pub(crate) fn find(bytes: &[u8], mark: impl Fn(Lanes) -> Lanes) -> Option<usize> {
    let mut at = 0;
    while at < bytes.len() {
        let marks = mark(Lanes::new(first(&bytes[at..]))).to_bitmask();
        if marks != 0 {
            return Some(at + marks.trailing_zeros() as usize);
        }
        at += WIDTH;
    }
    None
}

/// The first so many of `bytes`; if they are fewer, they are filled up with a letter.
#[inline(always)]
pub(crate) fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    match bytes.first_chunk() {
        Some(chunk) => *chunk,
        None => filled_up(bytes),
    }
}

#[cold]
fn filled_up<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut chunk = [b'x'; N];
    chunk[..bytes.len()].copy_from_slice(bytes);
    chunk
}

/// Whether the first `length` bytes of both are the same, if there are as many.
#[inline(always)]
pub(crate) fn begin_alike(one: &[u8], other: &[u8], length: usize) -> bool {
    match (one.first_chunk(), other.first_chunk()) {
        (Some(one), Some(other)) if length <= WIDTH => {
            let alike = Lanes::new(*one).simd_eq(Lanes::new(*other));
            alike.to_bitmask().trailing_ones() as usize >= length
        }
        _ => one
            .get(..length)
            .is_some_and(|one| other.get(..length) == Some(one)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mark: impl Fn(Lanes) -> Lanes, is_marked: impl Fn(u8) -> bool) {
        for byte in 0..=0xFF {
            for neighbour in [b'_', b'z', b'Z', 0, 0x7F, 0x80, 0xFF] {
                let mut bytes = [neighbour; WIDTH];
                bytes[3] = byte;
                let marks = mark(Lanes::new(bytes)).to_bitmask();
                let expected = (0..WIDTH).filter(|&at| is_marked(bytes[at]));
                let expected = expected.fold(0, |all, at| all | 1 << at);
                assert_eq!(marks, expected, "{bytes:?}");
            }
        }
    }

    #[test]
    fn each_byte_is_told_from_all_others() {
        check(|lanes| equal(lanes, b'<'), |byte| byte == b'<');
        check(escaped, |byte| byte < 0x20 || matches!(byte, b'"' | b'\\'));
        check(unlettered, |byte| {
            !byte.is_ascii_alphabetic() && byte != b'_'
        });
    }

    #[test]
    fn the_first_is_found_at_any_place() {
        for length in 0..3 * WIDTH {
            let mut bytes = vec![b'x'; length];
            let find = |bytes: &[u8]| find(bytes, |lanes| equal(lanes, b'<'));
            assert_eq!(find(&bytes), None);
            for at in (0..length).rev() {
                bytes[at] = b'<';
                assert_eq!(find(&bytes), Some(at), "{length}");
            }
        }
    }

    #[test]
    fn beginnings_are_compared_to_the_byte() {
        let text = [*b"0123456789"; 5].concat();
        for length in 0..=text.len() {
            assert!(begin_alike(&text, &text, length));
            assert!(!begin_alike(&text[..length], &text, length + 1));
            for at in 0..text.len() {
                let mut other = text.clone();
                other[at] = b'x';
                assert_eq!(begin_alike(&text, &other, length), at >= length);
            }
        }
    }
}
