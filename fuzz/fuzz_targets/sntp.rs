//! Any 48 bytes survive decoding and encoding; an answer is 48 bytes, is never answered itself, and
//! a client that asked accepts it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::sntp::{
    BadReply, KissCode, LEN, Mode, Packet, Server, Timestamp, kiss, measure,
};

fuzz_target!(|input: (u16, u64, u64, &[u8])| {
    let (port, received, transmit, request) = input;
    let (received, transmit) = (Timestamp(received), Timestamp(transmit));
    // As a client: bytes from anywhere.
    let _ = measure(received, request, transmit);

    let Ok(packet) = Packet::decode(request) else {
        assert!(request.len() < LEN);
        return;
    };
    assert_eq!(packet.encode()[..], request[..LEN]);
    assert_eq!(Packet::decode(&packet.encode()), Ok(packet));

    let server = Server::local(request[0]);
    let refusal = kiss(KissCode::Rate, request, port, received, transmit);
    let Ok(answer) = server.reply(request, port, received, transmit) else {
        assert_eq!(refusal, None);
        return;
    };
    assert!(server.reply(&answer, port, received, transmit).is_err());
    let refusal = refusal.expect("what can be answered can be refused");
    if Packet::decode(&answer).is_ok_and(|answer| answer.mode == Mode::Server) {
        let refused = Err(BadReply::Kiss(KissCode::Rate));
        assert_eq!(measure(packet.transmit, &refusal, received), refused);
        match measure(packet.transmit, &answer, received) {
            Ok(seen) => assert_eq!(seen.version, packet.version),
            Err(error) => assert_eq!(error, BadReply::NoTime),
        }
    }
});
