//! The Network Time Protocol as far as one packet each way goes: versions 1 to 4 (RFC 5905, RFC
//! 4330).
//!
//! [`Packet`] is the 48 bytes, [`Timestamp`] and [`Short`] the numbers in it. A server turns a
//! request into an answer with [`Server::reply`], or into a refusal with [`kiss`]; a client asks
//! with [`Request`] and learns offset and delay with [`measure`]. Authentication and extension
//! fields are left out: what follows the header is ignored.

mod client;
mod packet;
mod server;
mod stamp;

pub use client::{BadReply, Measurement, Request, measure};
pub use packet::{KissCode, LEN, LeapIndicator, Mode, Packet, TooShort};
pub use server::{Ignored, NTP_PORT, Server, kiss};
pub use stamp::{Short, Timestamp};
