//! Content codings: gzip, deflate, br and zstd, of requests and of answers.

use std::io::{self, Write};

use brotli::enc::BrotliEncoderParams;
use brotli::{CompressorWriter, DecompressorWriter};
use flate2::write::{GzEncoder, MultiGzDecoder, ZlibEncoder};
use flate2::{Compression, Decompress, FlushDecompress, Status};
use zstd::stream::raw::{self, Operation as _};

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, which HTTP calls deflate.
    Deflate,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

/// Makes the coded bytes of a stream.
pub enum Encoder {
    /// gzip.
    Gzip(GzEncoder<Vec<u8>>),
    /// deflate.
    Deflate(ZlibEncoder<Vec<u8>>),
    /// br.
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    /// zstd.
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

/// Undoes a coding, within caps.
pub struct Decoder {
    kind: Kind,
    takes_raw: bool,
    taken: u64,
    given: u64,
}

enum Kind {
    /// A file of gzip is a series of members (RFC 1952, 2.2).
    Gzip(MultiGzDecoder<Sink>),
    Deflate(Stepped<Decompress>),
    Brotli(Box<DecompressorWriter<Sink>>),
    Zstd(Stepped<raw::Decoder<'static>>),
}

/// A decoder of which the writers of its library do not tell whether it came to its end.
struct Stepped<D> {
    decoder: D,
    sink: Sink,
    /// What was taken in is complete.
    over: bool,
}

/// What a decoder has done: bytes taken, bytes given, and whether that was all.
struct Done {
    taken: usize,
    given: usize,
    over: bool,
}

trait Step {
    fn step(&mut self, bytes: &[u8], out: &mut [u8]) -> io::Result<Done>;
}

impl Step for Decompress {
    fn step(&mut self, bytes: &[u8], out: &mut [u8]) -> io::Result<Done> {
        let (taken, given) = (self.total_in(), self.total_out());
        let status = self.decompress(bytes, out, FlushDecompress::None)?;
        // No more than the lengths of the slices.
        let count = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(usize::MAX);
        Ok(Done {
            taken: count(self.total_in(), taken),
            given: count(self.total_out(), given),
            over: status == Status::StreamEnd,
        })
    }
}

impl Step for raw::Decoder<'static> {
    fn step(&mut self, bytes: &[u8], out: &mut [u8]) -> io::Result<Done> {
        let status = self.run_on_buffers(bytes, out)?;
        Ok(Done {
            taken: status.bytes_read,
            given: status.bytes_written,
            over: status.remaining == 0,
        })
    }
}

impl<D: Step> Stepped<D> {
    fn new(decoder: D) -> Self {
        Self {
            decoder,
            sink: Sink::default(),
            over: false,
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.over {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

impl<D: Step> Write for Stepped<D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut out = [0; BLOCK];
        let mut at = 0;
        loop {
            let done = self.decoder.step(&bytes[at..], &mut out)?;
            at += done.taken;
            self.over = done.over;
            self.sink.write_all(&out[..done.given])?;
            let is_stuck = done.taken == 0 && done.given == 0;
            // What fills the room for it may have left something behind.
            if is_stuck || (at == bytes.len() && done.given < out.len()) {
                return Ok(at);
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes what is decoded, as long as there is room.
#[derive(Default)]
struct Sink {
    bytes: Vec<u8>,
    room: usize,
}

/// Why bytes cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They are not of that coding, or not all of it.
    #[error("the body is not what its Content-Encoding says")]
    Malformed,
    /// There is more in them than is allowed.
    #[error("the decompressed body is too large")]
    TooLarge,
    /// They grow as only bombs do.
    #[error("the body decompresses to more than {RATIO_MAX} times its size")]
    Ratio,
}

impl Coding {
    /// The best first, where a client does not mind.
    pub const NAMES: &'static [&'static str] = &["zstd", "br", "gzip", "deflate"];

    /// The coding of that name, in any case.
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            // RFC 9110, 8.4.1.3.
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "br" => Some(Self::Brotli),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The name in header fields.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

impl Encoder {
    /// An encoder, as good as can be had without making anybody wait.
    pub fn new(coding: Coding) -> io::Result<Self> {
        let level = Compression::new(5);
        Ok(match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), level)),
            Coding::Deflate => Self::Deflate(ZlibEncoder::new(Vec::new(), level)),
            Coding::Brotli => {
                let parameters = BrotliEncoderParams {
                    quality: 4,
                    lgwin: 18,
                    ..BrotliEncoderParams::default()
                };
                let encoder = CompressorWriter::with_params(Vec::new(), BLOCK, &parameters);
                Self::Brotli(Box::new(encoder))
            }
            Coding::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 3)?),
        })
    }

    /// Takes bytes in, and returns what is ready; with `flush` all that was taken in is in it.
    pub fn write(&mut self, bytes: &[u8], flush: bool) -> io::Result<Vec<u8>> {
        let writer: &mut dyn Write = match self {
            Self::Gzip(encoder) => encoder,
            Self::Deflate(encoder) => encoder,
            Self::Brotli(encoder) => encoder,
            Self::Zstd(encoder) => encoder,
        };
        writer.write_all(bytes)?;
        if flush {
            writer.flush()?;
        }
        Ok(std::mem::take(match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Deflate(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        }))
    }

    /// The last bytes.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Deflate(encoder) => encoder.finish(),
            Self::Brotli(encoder) => Ok(encoder.into_inner()),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl Decoder {
    /// A decoder.
    pub fn new(coding: Coding) -> io::Result<Self> {
        let sink = Sink::default();
        let kind = match coding {
            Coding::Gzip => Kind::Gzip(MultiGzDecoder::new(sink)),
            Coding::Deflate => Kind::Deflate(Stepped::new(Decompress::new(true))),
            Coding::Brotli => Kind::Brotli(Box::new(DecompressorWriter::new(sink, BLOCK))),
            Coding::Zstd => {
                let mut decoder = raw::Decoder::new()?;
                // RFC 9659, 3.
                decoder.set_parameter(raw::DParameter::WindowLogMax(23))?;
                Kind::Zstd(Stepped::new(decoder))
            }
        };
        Ok(Self {
            kind,
            takes_raw: false,
            taken: 0,
            given: 0,
        })
    }

    /// The same, for deflate too as some servers say it, without the wrapping of RFC 1950 (RFC 9110, 8.4.1.2).
    pub fn of_answer(coding: Coding) -> io::Result<Self> {
        let takes_raw = true;
        Self::new(coding).map(|decoder| Self {
            takes_raw,
            ..decoder
        })
    }

    /// Takes bytes in, and returns what they decode to, at most `room` bytes.
    pub fn write(&mut self, bytes: &[u8], room: u64) -> Result<Vec<u8>, DecodeError> {
        if self.takes_raw
            && self.taken == 0
            && let (Kind::Deflate(decoder), Some(first)) = (&mut self.kind, bytes.first())
            // What a wrapping begins with, and no first block of its own does.
            && first & 0x0f != 8
        {
            *decoder = Stepped::new(Decompress::new(false));
        }
        self.taken += bytes.len() as u64;
        let ratio = (self.taken.saturating_mul(RATIO_MAX) + SMALL).saturating_sub(self.given);
        let least = room.min(ratio);
        self.sink().room = usize::try_from(least).unwrap_or(usize::MAX);
        let writer: &mut dyn Write = match &mut self.kind {
            Kind::Gzip(decoder) => decoder,
            Kind::Deflate(decoder) => decoder,
            Kind::Brotli(decoder) => decoder,
            Kind::Zstd(decoder) => decoder,
        };
        let written = writer.write_all(bytes).and_then(|()| writer.flush());
        if let Err(error) = written {
            return Err(match error.kind() {
                io::ErrorKind::FileTooLarge if ratio < room => DecodeError::Ratio,
                io::ErrorKind::FileTooLarge => DecodeError::TooLarge,
                _ => DecodeError::Malformed,
            });
        }
        Ok(self.take())
    }

    /// The last bytes, of a body that is complete.
    pub fn finish(mut self, room: u64) -> Result<Vec<u8>, DecodeError> {
        self.sink().room = usize::try_from(room).unwrap_or(usize::MAX);
        let finished = match &mut self.kind {
            Kind::Gzip(decoder) => decoder.try_finish(),
            Kind::Deflate(decoder) => decoder.finish(),
            Kind::Brotli(decoder) => decoder.close(),
            Kind::Zstd(decoder) => decoder.finish(),
        };
        finished.map_err(|_| DecodeError::Malformed)?;
        Ok(self.take())
    }

    fn sink(&mut self) -> &mut Sink {
        match &mut self.kind {
            Kind::Gzip(decoder) => decoder.get_mut(),
            Kind::Deflate(decoder) => &mut decoder.sink,
            Kind::Brotli(decoder) => decoder.get_mut(),
            Kind::Zstd(decoder) => &mut decoder.sink,
        }
    }

    fn take(&mut self) -> Vec<u8> {
        let bytes = std::mem::take(&mut self.sink().bytes);
        self.given += bytes.len() as u64;
        bytes
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.room.saturating_sub(self.bytes.len()) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Text compresses to a tenth, a page of zeros to a thousandth.
const RATIO_MAX: u64 = 100;
/// What a few bytes may become whatever their ratio.
const SMALL: u64 = 64 << 10;
const BLOCK: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Coding; 4] = [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd];

    fn encode(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut encoder = Encoder::new(coding).unwrap();
        let mut out = encoder.write(bytes, false).unwrap();
        out.extend(encoder.finish().unwrap());
        out
    }

    fn decode(
        coding: Coding,
        bytes: &[u8],
        piece: usize,
        room: u64,
    ) -> Result<Vec<u8>, DecodeError> {
        let mut decoder = Decoder::new(coding).unwrap();
        let mut out = Vec::new();
        for piece in bytes.chunks(piece) {
            out.extend(decoder.write(piece, room - out.len() as u64)?);
        }
        let rest = decoder.finish(room - out.len() as u64)?;
        Ok([out, rest].concat())
    }

    #[test]
    fn every_coding_gives_back_what_it_took_in_any_pieces() {
        let text: Vec<u8> = (0..50_000_u32).map(|n| (n * n % 61) as u8 + b' ').collect();
        for coding in ALL {
            let coded = encode(coding, &text);
            for piece in [1, 1000, 1 << 20] {
                let decoded = decode(coding, &coded, piece, 1 << 20);
                assert!(decoded.as_deref() == Ok(&text[..]), "{coding:?} {piece}");
            }
            for cut in [coded.len() / 2, coded.len() - 1] {
                let cut = decode(coding, &coded[..cut], 1000, 1 << 20);
                assert_eq!(cut, Err(DecodeError::Malformed), "{coding:?}");
            }
            assert_eq!(
                decode(coding, &[0x55; 100], 100, 1 << 20),
                Err(DecodeError::Malformed)
            );
        }
    }

    #[test]
    fn gzip_is_a_series_of_members_and_nothing_else() {
        let members = [encode(Coding::Gzip, b"one "), encode(Coding::Gzip, b"two")].concat();
        for piece in [1, 7, 1000] {
            let decoded = decode(Coding::Gzip, &members, piece, 1000);
            assert_eq!(decoded.as_deref(), Ok(&b"one two"[..]), "{piece}");
            for behind in [&b"junk"[..], &members[..5]] {
                let more = [&members, behind].concat();
                let decoded = decode(Coding::Gzip, &more, piece, 1000);
                assert_eq!(decoded, Err(DecodeError::Malformed), "{piece} {behind:?}");
            }
        }
        let bombs = encode(Coding::Gzip, &vec![0; 1 << 20]).repeat(20);
        let decoded = decode(Coding::Gzip, &bombs, 512, u64::MAX);
        assert_eq!(decoded, Err(DecodeError::Ratio));
    }

    #[test]
    fn a_bomb_is_noticed_before_it_has_gone_off() {
        let zeros = vec![0; 20 << 20];
        for coding in ALL {
            let bomb = encode(coding, &zeros);
            assert_eq!(
                decode(coding, &bomb, 512, u64::MAX),
                Err(DecodeError::Ratio),
                "{coding:?}"
            );
            assert_eq!(
                decode(coding, &bomb, 512, 1000),
                Err(DecodeError::TooLarge),
                "{coding:?}"
            );
        }
    }

    #[test]
    fn a_flush_brings_everything_out() {
        for coding in ALL {
            let mut encoder = Encoder::new(coding).unwrap();
            let first = encoder.write(b"data: 1\n\n", true).unwrap();
            let mut decoder = Decoder::new(coding).unwrap();
            assert_eq!(
                decoder.write(&first, 1000).unwrap(),
                b"data: 1\n\n",
                "{coding:?}"
            );
        }
    }
}
