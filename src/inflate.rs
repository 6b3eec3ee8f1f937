//! Raw deflate data, inflated from its start or from a block boundary in its middle.
//!
//! A boundary between two blocks is a place where inflating can begin, given the bits of the byte
//! there that belong to the next block, and the window: the last 32 KiB that were inflated, to
//! which the next blocks refer. Only the C interface of zlib can stop at one ([`Z_BLOCK`]) and begin
//! there (`inflatePrime`, `inflateSetDictionary`). Behind it stands zlib-rs, which is Rust; its safe
//! interface has neither.
//!
//! # Soundness
//!
//! This is the only file with `unsafe` in it. Every call is a call of a function of that interface
//! with the one stream that [`Inflate`] owns, and what they ask for holds:
//!
//! - *The stream is initialised*, by [`Inflate::new`], which does not return otherwise, and it is
//!   ended nowhere but in `drop`. Nobody else has a pointer to it. It is boxed, so it has one
//!   address for its whole life, as zlib asks for.
//! - *Input and output are valid for the call.* The pointers are those of a shared and of an
//!   exclusive slice that live longer than the call, and the lengths are at most theirs. zlib never
//!   writes through the input pointer, and reads of the output only what it has written. After the
//!   call the stream keeps no pointer that is used again: the next call sets both before it
//!   inflates, and the others read and write neither.
//! - *The dictionary* is a slice that lives longer than the call, which copies it; the window is
//!   copied into a buffer of [`WINDOW_BYTES`], which is the most that there is.
//! - *Sending it to another thread* is sound: all that the stream points to is its own state, from
//!   Rust's global allocator, and no thread-local state is involved. `&Inflate` can do nothing but
//!   copy the window, and is not shared between threads.

#![expect(
    unsafe_code,
    reason = "only the C interface of zlib can begin at a block boundary; see Soundness"
)]

use std::ffi::c_int;
use std::fmt;
use std::mem::size_of;

use libz_rs_sys::{
    Z_BLOCK, Z_BUF_ERROR, Z_NO_FLUSH, Z_OK, Z_STREAM_END, inflate, inflateEnd,
    inflateGetDictionary, inflateInit2_, inflatePrime, inflateReset, inflateSetDictionary,
    z_stream, zlibVersion,
};

/// The most that deflate data refers back to, in bytes.
pub const WINDOW_BYTES: usize = 32 * 1024;

/// 2^15 bytes of window; negative for raw data, without the header of zlib or gzip.
const RAW: c_int = -15;

// What `data_type` says after a call, by zlib's documentation of `inflate`.
const UNUSED_BITS: c_int = 0b111;
const IN_LAST_BLOCK: c_int = 64;
const AT_BOUNDARY: c_int = 128;

/// What one call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inflated {
    /// How many bytes of the input were used.
    pub used: usize,
    /// How many bytes of the output were written.
    pub written: usize,
    /// Where that leads to.
    pub place: Place,
}

/// A place in deflate data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a block: the input is used up, or the output is full.
    Inside,
    /// At the start of a block that follows another.
    Boundary {
        /// How many bits of the last used byte belong to the next block: its highest, up to 7.
        unused_bits: u8,
    },
    /// At the end of the last block.
    End,
    /// At something that is no deflate data. The same again from now on.
    Damage,
}

/// Inflates one stream of raw deflate data after another.
pub struct Inflate(Box<z_stream>);

// SAFETY: see Soundness, "sending it to another thread".
unsafe impl Send for Inflate {}

impl Inflate {
    /// At the start of a stream.
    ///
    /// # Panics
    /// If there is no memory.
    pub fn new() -> Self {
        let mut stream = Box::new(z_stream::default());
        let size = c_int::try_from(size_of::<z_stream>()).expect("it is about a hundred bytes");
        // SAFETY: the stream is valid and has Rust's allocator; the version is a static string.
        let code = unsafe { inflateInit2_(&raw mut *stream, RAW, zlibVersion(), size) };
        assert_eq!(code, Z_OK, "the version fits, and there is memory");
        Self(stream)
    }

    /// Goes to the start of another stream.
    pub fn reset(&mut self) {
        // SAFETY: the stream is initialised.
        let code = unsafe { inflateReset(&raw mut *self.0) };
        assert_eq!(code, Z_OK, "the stream is initialised");
    }

    /// Goes to a block boundary of another stream: `window` was inflated before it, and the highest
    /// `unused_bits` of `byte` come before the next input.
    ///
    /// # Panics
    /// If there are more than 7 bits, or more than [`WINDOW_BYTES`].
    pub fn reset_to(&mut self, unused_bits: u8, byte: u8, window: &[u8]) {
        assert!(unused_bits < 8 && window.len() <= WINDOW_BYTES);
        self.reset();
        let bits = c_int::from(byte) >> (8 - unused_bits);
        let length = u32::try_from(window.len()).expect("a window is small");
        let stream = &raw mut *self.0;
        // SAFETY: the stream is initialised.
        let primed = unsafe { inflatePrime(stream, unused_bits.into(), bits) };
        // SAFETY: the stream is initialised, the dictionary a slice.
        let placed = unsafe { inflateSetDictionary(stream, window.as_ptr(), length) };
        assert_eq!((primed, placed), (Z_OK, Z_OK), "the stream is raw and new");
    }

    /// Inflates `input` into `output` until one of them is used up or the data ends; if
    /// `to_boundary`, not beyond the next block boundary.
    pub fn inflate(&mut self, input: &[u8], output: &mut [u8], to_boundary: bool) -> Inflated {
        let length = |slice: &[u8]| u32::try_from(slice.len()).unwrap_or(u32::MAX);
        let (input_bytes, output_bytes) = (length(input), length(output));
        let stream = &mut *self.0;
        (stream.next_in, stream.avail_in) = (input.as_ptr(), input_bytes);
        (stream.next_out, stream.avail_out) = (output.as_mut_ptr(), output_bytes);
        let flush = if to_boundary { Z_BLOCK } else { Z_NO_FLUSH };
        // SAFETY: the stream is initialised, its pointers and lengths were just set to slices.
        let code = unsafe { inflate(&raw mut *stream, flush) };
        let state = stream.data_type;
        let is_boundary = state & AT_BOUNDARY != 0 && state & IN_LAST_BLOCK == 0;
        Inflated {
            used: (input_bytes - stream.avail_in) as usize,
            written: (output_bytes - stream.avail_out) as usize,
            place: match code {
                Z_OK | Z_BUF_ERROR if is_boundary => Place::Boundary {
                    unused_bits: u8::try_from(state & UNUSED_BITS).expect("it is below 8"),
                },
                // Without input or without room there is nothing to do, which is no damage.
                Z_OK | Z_BUF_ERROR => Place::Inside,
                Z_STREAM_END => Place::End,
                _ => Place::Damage,
            },
        }
    }

    /// What was inflated last of the present stream, up to [`WINDOW_BYTES`].
    pub fn window(&self) -> Vec<u8> {
        let mut window = vec![0; WINDOW_BYTES];
        let mut length = 0;
        // SAFETY: the stream is initialised; the buffer has room for the largest window.
        let code = unsafe {
            inflateGetDictionary(&raw const *self.0, window.as_mut_ptr(), &raw mut length)
        };
        assert_eq!(code, Z_OK, "the stream is initialised");
        window.truncate(length as usize);
        window
    }
}

impl Default for Inflate {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Inflate {
    fn drop(&mut self) {
        // SAFETY: the stream is initialised, and not used again.
        unsafe { inflateEnd(&raw mut *self.0) };
    }
}

impl fmt::Debug for Inflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inflate")
    }
}
