//! The messages of sock_diag(7), in the byte order of this machine (linux/inet_diag.h).

use std::collections::HashSet;
use std::io;

/// Whether more of a dump is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dump {
    GoesOn,
    Over,
}

/// Asks for all TCP sockets of a family, of one local port unless that is 0.
pub fn request(family: libc::c_int, port: u16) -> [u8; REQUEST_LEN] {
    let mut bytes = [0; REQUEST_LEN];
    // nlmsghdr. A request is 72 bytes long, flags and type are below 65,536.
    bytes[..4].copy_from_slice(&72_u32.to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // inet_diag_req_v2: family, protocol, extensions, padding, states, then the socket's id.
    bytes[16] = u8::try_from(family).unwrap_or(0);
    bytes[17] = IPPROTO_TCP;
    bytes[20..24].copy_from_slice(&(!(1_u32 << TIME_WAIT)).to_ne_bytes());
    bytes[24..26].copy_from_slice(&port.to_be_bytes());
    bytes
}

/// Reads a part of the answer.
pub fn read_dump(mut bytes: &[u8], cookies: &mut HashSet<u64>) -> io::Result<Dump> {
    while let Some((length, kind)) = header(bytes) {
        let message = &bytes[..length];
        match kind {
            SOCK_DIAG_BY_FAMILY => cookies.extend(cookie(message)),
            NLMSG_DONE => return Ok(Dump::Over),
            NLMSG_ERROR => {
                let code = message.get(16..).and_then(|rest| rest.first_chunk::<4>());
                let code = code.map_or(libc::EPROTO, |code| -i32::from_ne_bytes(*code));
                return Err(io::Error::from_raw_os_error(code));
            }
            _ => {}
        }
        // Messages begin at multiples of four.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Dump::GoesOn)
}

/// The cookie in a message about a socket, of which the rest may have been cut off.
pub fn cookie_of_event(bytes: &[u8]) -> Option<u64> {
    let (_, kind) = raw_header(bytes)?;
    (kind == SOCK_DIAG_BY_FAMILY).then(|| cookie(bytes))?
}

/// A program for [`crate::sys::set_filter`] that lets through what is about sockets of these local
/// ports. `None` when they are more than its jumps can pass over.
pub fn filter(ports: &[u16]) -> Option<Vec<libc::sock_filter>> {
    let step = |code, accept, refuse, value| libc::sock_filter {
        code,
        jt: accept,
        jf: refuse,
        k: value,
    };
    let count = u8::try_from(ports.len()).ok()?;
    // Load the port; compare it with each; nothing; everything.
    let mut program = vec![step(LOAD_U16, 0, 0, SPORT_AT)];
    for (left, port) in (1..=count).rev().zip(ports) {
        program.push(step(JUMP_IF_EQUAL, left, 0, (*port).into()));
    }
    program.push(step(RETURN, 0, 0, 0));
    program.push(step(RETURN, 0, 0, u32::MAX));
    Some(program)
}

/// A program that lets everything through.
pub fn everything() -> Vec<libc::sock_filter> {
    vec![libc::sock_filter {
        code: RETURN,
        jt: 0,
        jf: 0,
        k: u32::MAX,
    }]
}

/// Length and type of the first message, if all of it is there.
fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    raw_header(bytes).filter(|(length, _)| (16..=bytes.len()).contains(length))
}

fn raw_header(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?);
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    Some((usize::try_from(length).ok()?, kind))
}

fn cookie(message: &[u8]) -> Option<u64> {
    let (low, rest) = message.get(COOKIE_AT..)?.split_first_chunk::<4>()?;
    let (low, high) = (
        u32::from_ne_bytes(*low),
        u32::from_ne_bytes(*rest.first_chunk()?),
    );
    Some((u64::from(high) << 32) | u64::from(low))
}

/// What of an event must be received: up to the cookie's end.
pub const EVENT_LEN: usize = COOKIE_AT + 8;
const REQUEST_LEN: usize = 72;
/// Behind nlmsghdr (16), and family, state, timer and retransmissions (4).
const SPORT_AT: u32 = 20;
/// Behind both ports (4), both addresses (32) and the interface (4).
const COOKIE_AT: usize = 60;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const IPPROTO_TCP: u8 = 6;
const TIME_WAIT: u32 = 6;
/// `BPF_LD | BPF_H | BPF_ABS`, which reads big-endian.
const LOAD_U16: u16 = 0x28;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
const JUMP_IF_EQUAL: u16 = 0x15;
/// `BPF_RET | BPF_K`.
const RETURN: u16 = 0x06;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32, kind: u16, rest: &[u8]) -> Vec<u8> {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend_from_slice(rest);
        bytes
    }

    #[test]
    fn what_is_cut_off_or_lies_is_no_cookie() {
        let mut cookies = HashSet::new();
        for length in [0, 15, 1000, u32::MAX] {
            let bytes = message(length, SOCK_DIAG_BY_FAMILY, &[1; 100]);
            assert_eq!(read_dump(&bytes, &mut cookies).unwrap(), Dump::GoesOn);
        }
        let short = message(30, SOCK_DIAG_BY_FAMILY, &[1; 14]);
        assert_eq!(read_dump(&short, &mut cookies).unwrap(), Dump::GoesOn);
        assert_eq!(cookies.len(), 0);
        assert_eq!(cookie_of_event(&short), None);
        assert_eq!(cookie_of_event(&[]), None);
    }

    #[test]
    fn an_error_is_the_kernels() {
        let refused = message(20, NLMSG_ERROR, &(-libc::ENOENT).to_ne_bytes());
        let error = read_dump(&refused, &mut HashSet::new()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn more_ports_than_a_filter_holds_are_not_filtered() {
        assert_eq!(filter(&[1, 2, 3]).unwrap().len(), 6);
        assert_eq!(filter(&[0; 255]).unwrap().len(), 258);
        assert!(filter(&[0; 256]).is_none());
    }
}
