//! Portyard's protocols as pure values: bytes in, bytes out.
//!
//! Nothing here opens a socket, reads a clock, a file or the environment, or starts a thread. What
//! a protocol needs of the world (the time, randomness, limits, secrets) is an argument. So every
//! rule is tested without a network, every decoder is fuzzed as it is, and a failure replays from
//! its arguments.
//!
//! # The map
//!
//! Time flows from a number to text. [`civil`] turns Unix seconds and a zone offset into a calendar
//! date, [`ctime`] writes that date as the 24 characters everybody knows, [`daytime`] ends it with
//! CRLF (RFC 867), and [`timestamp`] puts it in brackets before what a peer said. [`time`] is the
//! other branch: 32 bits of seconds (RFC 868). [`sntp`] is the third: the 48-byte packet, the
//! server's rules and the client's arithmetic (RFC 5905, RFC 4330).
//!
//! What a person types arrives as lines: [`mod@line`] finds where one ends, under a cap.
//! [`command`] and [`sleep`] parse such a line, [`fib`] parses a datagram, and each has an error
//! whose text is the answer the person gets. Those texts quote the peer only through [`escape`].
//!
//! [`chargen`] is the endless pattern (RFC 864). Echo (RFC 862) and discard (RFC 863) need nothing
//! from here.
//!
//! Programs frame their messages. [`framing`] reads a length before or a delimiter behind each one,
//! under a cap and without believing what is announced. [`auth`] is what comes before the first
//! message: three dialogues that prove a key, each as a machine for either end. [`proxy`] reads what
//! a load balancer says about the connection before all of it. [`mod@array`] is for bulk: the size
//! before an array of numbers, and the receipt behind it.
//!
//! Programs call each other. [`jsonrpc`] is JSON-RPC 2.0 from the bytes of a stream to a call and back,
//! with JSON for any [`value`]. [`websocket`] makes messages of the bytes behind an upgraded request. [`pickle`] reads and writes Python's pickles as far as they are data,
//! never as the programs they may be, and holds the calls that Python makes over its connections.
//!
//! Processes give each other connections. [`broker`] is what fd-broker and its workers say about them,
//! [`ancillary`] is how the kernel lays out the descriptors beside the bytes, and [`client_hello`] finds
//! whom a TLS client means to talk to, so that the right process gets it.
//! [`hold`] is what a program asks fd-broker for by name, and how one broker hands all it has to its
//! successor.
//!
//! [`signature`] tells whether a datagram looks like one of our own answers, which is never
//! answered: most of these protocols have no direction field, and two servers pointed at each other
//! would talk for ever.

#![forbid(unsafe_code)]

pub mod ancillary;
pub mod array;
pub mod auth;
pub mod broker;
pub mod chargen;
pub mod civil;
pub mod client_hello;
pub mod command;
pub mod ctime;
pub mod daytime;
pub mod decimal;
pub mod escape;
pub mod fib;
pub mod framing;
pub mod hold;
pub mod http;
pub mod jsonrpc;
pub mod line;
pub mod operate;
pub mod pickle;
mod plain;
pub mod proxy;
pub mod signature;
pub mod sleep;
pub mod sntp;
pub mod time;
pub mod timestamp;
pub mod value;
pub mod websocket;
pub mod xmlrpc;
