//! Messages of JSON-RPC in every framing.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]
#![allow(dead_code, reason = "each test file uses a part")]

use std::fmt::Write as _;

use portyard_testkit::{Client, Daemon};
use serde_json::Value;

use crate::doors::{self, json_call, post};

/// How messages stand on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Http,
    Length,
    Lines,
    Headers,
}

pub const FRAMINGS: [Framing; 4] = [
    Framing::Http,
    Framing::Length,
    Framing::Lines,
    Framing::Headers,
];

pub fn connect(daemon: &Daemon) -> Client {
    Client::connect(&daemon.endpoint("json-rpc"))
}

#[track_caller]
pub fn call(client: &Client, framing: Framing, method: &str, params: &str) -> Value {
    send(client, framing, &json_call(method, params));
    serde_json::from_str(&receive(client, framing).unwrap()).unwrap()
}

#[track_caller]
pub fn send(client: &Client, framing: Framing, message: &str) {
    client.send(framed(framing, message));
}

pub fn framed(framing: Framing, message: &str) -> Vec<u8> {
    match framing {
        Framing::Http => post(message),
        Framing::Length => {
            let length = u32::try_from(message.len()).unwrap();
            [&length.to_be_bytes()[..], message.as_bytes()].concat()
        }
        Framing::Lines => format!("{message}\n").into_bytes(),
        Framing::Headers => {
            let mut framed = String::new();
            let _ = write!(framed, "Content-Length: {}\r\n\r\n{message}", message.len());
            framed.into_bytes()
        }
    }
}

/// A reply; over HTTP also that there is none.
#[track_caller]
pub fn receive(client: &Client, framing: Framing) -> Option<String> {
    let text = |bytes| Some(String::from_utf8(bytes).unwrap());
    match framing {
        Framing::Http => {
            let answer = doors::answer(client);
            let status = if answer.body.is_empty() { 204 } else { 200 };
            assert_eq!(answer.status, status, "{answer:?}");
            (status == 200).then(|| answer.text())
        }
        Framing::Length => {
            let length = client.receive(4).try_into().unwrap();
            text(client.receive(u32::from_be_bytes(length) as usize))
        }
        Framing::Lines => Some(client.receive_line().trim_end().into()),
        Framing::Headers => {
            let line = client.receive_line();
            let length = line.strip_prefix("Content-Length: ").unwrap().trim_end();
            assert_eq!(client.receive_line(), "\r\n");
            text(client.receive(length.parse().unwrap()))
        }
    }
}
