//! Datagrams in a pipe: each line of the input is one, and its answer is one line.

use std::io::{self, BufRead, Read};

use portyard_core::exit::{Exit, Fatal};

use crate::ask::{MAX_DATAGRAM, Patience, Verdict, ask};
use crate::connect::Target;
use crate::out::Out;
use crate::stop::{Outcome, Stop};

/// Sends each line of standard input, without its line end, and prints its answer.
pub fn exchange(target: &Target, patience: Patience) -> Outcome {
    let mut input = io::stdin().lock();
    let mut out = Out::new();
    while let Some(line) = next_line(&mut input)? {
        let answer = round_trip(target, patience, &line)?;
        out.bytes(&answer)?;
        if !answer.ends_with(b"\n") {
            out.bytes(b"\n")?;
        }
        out.flush()?;
    }
    Ok(Exit::Ok)
}

/// Sends one datagram and returns the one that answers it.
pub fn round_trip(target: &Target, patience: Patience, line: &[u8]) -> Result<Vec<u8>, Fatal> {
    ask(
        target,
        patience,
        |_| line.to_vec(),
        |answer| Verdict::Take(answer.bytes.clone()),
    )
}

/// The next line without its LF or CR LF; `None` at the end.
fn next_line(input: &mut impl BufRead) -> Result<Option<Vec<u8>>, Stop> {
    let mut line = Vec::new();
    // One datagram, its line end, and one byte more that tells that it is too long.
    let cap = MAX_DATAGRAM as u64 + 3;
    let read = input
        .take(cap)
        .read_until(b'\n', &mut line)
        .map_err(|error| Stop::fatal(Exit::Io, format!("cannot read standard input: {error}")))?;
    if read == 0 {
        return Ok(None);
    }
    if line.ends_with(b"\n") {
        line.pop();
        if line.ends_with(b"\r") {
            line.pop();
        }
    }
    if line.len() > MAX_DATAGRAM {
        return Err(Stop::fatal(
            Exit::Usage,
            format!("a line of the input is longer than the {MAX_DATAGRAM} bytes of a datagram"),
        ));
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_longer_than_a_datagram_is_refused() {
        let fits = vec![b'x'; MAX_DATAGRAM];
        let long = vec![b'x'; MAX_DATAGRAM + 1];
        assert!(next_line(&mut &long[..]).is_err());
        assert_eq!(next_line(&mut &fits[..]).unwrap(), Some(fits));
    }

    #[test]
    fn line_ends_are_left_out_and_empty_lines_are_lines() {
        let mut input = &b"a\r\n\nb"[..];
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut input).unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, [&b"a"[..], b"", b"b"]);
    }
}
