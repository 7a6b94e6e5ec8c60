//! Compression in pieces, so that nobody's word is taken for how large something becomes.

use larder_core::{Error, ErrorKind, Result};

/// How values are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Zstandard at its usual level: small.
    #[cfg(feature = "zstd")]
    Zstd,
    /// LZ4: quick.
    #[cfg(feature = "lz4")]
    Lz4,
}

/// How far an expanded value may go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ceiling {
    pub(super) bytes: usize,
    pub(super) ratio: usize,
}

// The numbers on the wire; 0 is what is not compressed.
#[cfg(feature = "zstd")]
const ZSTD: u8 = 1;
#[cfg(feature = "lz4")]
const LZ4: u8 = 2;

// A value is compressed in pieces of so many bytes, each on its own with its length before it. So what a piece may
// become is known without asking it, and reading stops at the first one that goes too far.
const PIECE: usize = 128 * 1024;

#[cfg(feature = "zstd")]
const LEVEL: i32 = 3;

impl Compression {
    pub(super) fn number(self) -> u8 {
        match self {
            #[cfg(feature = "zstd")]
            Compression::Zstd => ZSTD,
            #[cfg(feature = "lz4")]
            Compression::Lz4 => LZ4,
        }
    }

    /// Compressed, if that is of use: smaller, and not so much smaller that a reader would take it for a bomb.
    pub(super) fn squeeze(self, raw: &[u8], ceiling: Ceiling) -> Result<Option<Vec<u8>>> {
        // Nobody would read it again.
        if raw.len() > ceiling.bytes {
            return Err(Error::new(
                ErrorKind::TooLarge,
                "the value is larger than what may be unpacked again; keep it smaller, or raise max_unpacked",
            ));
        }
        let mut squeezed = Vec::with_capacity(raw.len() / 2);
        match self {
            #[cfg(feature = "zstd")]
            Compression::Zstd => {
                let refused = |source: std::io::Error| {
                    Error::new(ErrorKind::Other, "the value cannot be compressed")
                        .with_source(source)
                };
                let mut compressor = zstd::bulk::Compressor::new(LEVEL).map_err(refused)?;
                for piece in raw.chunks(PIECE) {
                    push(&mut squeezed, &compressor.compress(piece).map_err(refused)?);
                }
            }
            #[cfg(feature = "lz4")]
            Compression::Lz4 => {
                for piece in raw.chunks(PIECE) {
                    push(&mut squeezed, &lz4_flex::block::compress(piece));
                }
            }
        }
        let useful =
            squeezed.len() < raw.len() && raw.len() <= squeezed.len().saturating_mul(ceiling.ratio);
        Ok(useful.then_some(squeezed))
    }
}

// A piece is 128 KiB, and hardly more when it does not compress.
fn push(squeezed: &mut Vec<u8>, piece: &[u8]) {
    squeezed.extend_from_slice(&(piece.len() as u32).to_be_bytes());
    squeezed.extend_from_slice(piece);
}

/// What was compressed, `None` when it is none, or would become larger than the ceiling: then it takes the work and the
/// room of one piece more than allowed at most.
pub(super) fn expand(number: u8, squeezed: &[u8], ceiling: Ceiling) -> Option<Vec<u8>> {
    let most = ceiling.bytes.min(squeezed.len().saturating_mul(ceiling.ratio));
    let mut room = vec![0; PIECE];
    let mut expander = Expander::new(number)?;
    let (mut raw, mut rest) = (Vec::new(), squeezed);
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (piece, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let length = expander.expand(piece, &mut room)?;
        if raw.len() + length > most {
            return None;
        }
        raw.extend_from_slice(room.get(..length)?);
        rest = after;
    }
    rest.is_empty().then_some(raw)
}

enum Expander {
    #[cfg(feature = "zstd")]
    Zstd(zstd::bulk::Decompressor<'static>),
    #[cfg(feature = "lz4")]
    Lz4,
}

impl Expander {
    // What this build lacks it cannot read.
    fn new(number: u8) -> Option<Self> {
        match number {
            #[cfg(feature = "zstd")]
            ZSTD => zstd::bulk::Decompressor::new().ok().map(Expander::Zstd),
            #[cfg(feature = "lz4")]
            LZ4 => Some(Expander::Lz4),
            _ => None,
        }
    }

    // Into room that is there: neither of them asks for memory on the piece's word.
    fn expand(&mut self, piece: &[u8], room: &mut [u8]) -> Option<usize> {
        match self {
            #[cfg(feature = "zstd")]
            Expander::Zstd(zstd) => zstd.decompress_to_buffer(piece, room).ok(),
            #[cfg(feature = "lz4")]
            Expander::Lz4 => lz4_flex::block::decompress_into(piece, room).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[Compression] = &[
        #[cfg(feature = "zstd")]
        Compression::Zstd,
        #[cfg(feature = "lz4")]
        Compression::Lz4,
    ];
    const WIDE: Ceiling = Ceiling { bytes: 64 << 20, ratio: 1 << 20 };

    fn words(length: usize) -> Vec<u8> {
        (0..).flat_map(|n: u32| format!("word {} ", n % 977).into_bytes()).take(length).collect()
    }

    #[test]
    fn what_was_squeezed_expands_to_itself() {
        for compression in ALL {
            for length in [1, 5000, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 77] {
                let raw = words(length);
                match compression.squeeze(&raw, WIDE).unwrap() {
                    Some(squeezed) => {
                        assert!(squeezed.len() < raw.len());
                        let back = expand(compression.number(), &squeezed, WIDE);
                        assert_eq!(back.as_ref(), Some(&raw), "{compression:?}, {length}");
                    }
                    None => assert!(length < 100, "{compression:?}, {length}: text is squeezed"),
                }
            }
            let noise: Vec<u8> = (0..10_000).map(|_| rand::random()).collect();
            assert_eq!(compression.squeeze(&noise, WIDE).unwrap(), None, "it would not be smaller");
        }
    }

    // K07. A little that would become a lot stops at the ceiling, and what is a bomb to a reader is never written.
    #[test]
    fn k07_bombs_stop_at_the_ceiling() {
        for compression in ALL {
            let zeros = vec![0; PIECE];
            let piece = compression.squeeze(&zeros, WIDE).unwrap().expect("zeros are squeezed");
            // A megabyte or more of it claims gigabytes with Zstandard, and as much as LZ4 can.
            let pieces = (1 << 20) / piece.len() + 1;
            let bomb = piece.repeat(pieces);
            assert!(pieces * PIECE > 128 << 20, "{compression:?}: {pieces}");
            let bytes = Ceiling { bytes: 1 << 20, ratio: usize::MAX };
            assert_eq!(
                expand(compression.number(), &bomb, bytes),
                None,
                "{compression:?}: too many"
            );
            let ratio = Ceiling { bytes: usize::MAX, ratio: 100 };
            assert_eq!(
                expand(compression.number(), &bomb, ratio),
                None,
                "{compression:?}: too far"
            );
            assert_eq!(compression.squeeze(&zeros, ratio).unwrap(), None, "it stays as it is");
            let small = Ceiling { bytes: 1000, ratio: 100 };
            let error = compression.squeeze(&words(1001), small).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooLarge, "nobody would read it again");
        }
    }

    // K06. A piece that says more than it has, or becomes more than a piece, is none; nothing panics.
    #[test]
    fn k06_hostile_bytes_are_no_value() {
        let small = Ceiling { bytes: 1 << 20, ratio: 300 };
        for compression in ALL {
            let number = compression.number();
            let good = compression.squeeze(&words(300_000), WIDE).unwrap().expect("text");
            for end in (0..good.len()).step_by(97) {
                assert_ne!(expand(number, &good[..end], WIDE).map(|raw| raw.len()), Some(300_000));
            }
            assert_eq!(expand(number, &[0xff; 100], small), None);
            assert_eq!(expand(number, &[0, 0, 0, 200, 1, 2, 3], small), None);
            for _ in 0..10_000 {
                let mut changed = good[..2000].to_vec();
                for _ in 0..3 {
                    let at = rand::random_range(0..changed.len());
                    changed[at] = rand::random();
                }
                let expanded = expand(number, &changed, small);
                assert!(expanded.is_none_or(|raw| raw.len() <= 1 << 20));
            }
            assert_eq!(expand(99, &good, WIDE), None, "a way that nobody knows");
        }
    }

    // A whole Zstandard frame that is larger than a piece is none of ours.
    #[cfg(feature = "zstd")]
    #[test]
    fn a_piece_cannot_become_more_than_a_piece() {
        let mut bomb = Vec::new();
        push(&mut bomb, &zstd::bulk::compress(&vec![0; 8 << 20], LEVEL).unwrap());
        assert!(bomb.len() < 4096);
        assert_eq!(expand(ZSTD, &bomb, WIDE), None);
    }
}
