//! Payload: by a channel, and between a client and two permitted peers and a stranger. Each has an
//! address of its own, since permissions are for addresses.
//!
//! Both servers forward in the order in which they receive, and loopback loses nothing. So what is
//! sent before a payload that arrives has arrived itself, or never will.

use super::SOON;
use super::client::{Client, bind, message, peer, request};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use stun::attributes::*;
use stun::message::*;
use turn_engine::credential::Credential;

const ENDS: &[u8] = b"ends";
const PROBE: &[u8] = b"probe";

pub(crate) fn outcomes(server: SocketAddr, good: &Credential) -> Vec<(&'static str, String)> {
    let mut all = vec![];
    let (client, relayed) = Client::relayed(server, good);
    let bound = at("127.0.0.1:0");
    let mut buffer = [0; 100];
    bind(&client, 0x4000, bound.local_addr().unwrap());
    let data = [&[0x40, 0, 0, 2][..], b"hi\0\0"].concat();
    client.socket.send(&data).unwrap();
    let length = bound.recv(&mut buffer).unwrap();
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    all.push(("ChannelData to a bound peer", text));
    bound.send_to(b"hello", relayed).unwrap();
    client.socket.recv(&mut buffer).unwrap();
    let [n0, n1, l0, l1] = [0, 1, 2, 3].map(|n| buffer[n]);
    let length = u16::from_be_bytes([l0, l1]);
    let text = format!("ChannelData {n0:02x}{n1:02x} of {length} bytes");
    all.push(("what a bound peer sends", text));

    let (client, relayed) = Client::relayed(server, good);
    let [first, second, stranger] = ["127.0.0.2:0", "127.0.0.3:0", "127.0.0.4:0"].map(at);
    let mut permission = request(METHOD_CREATE_PERMISSION, &[]);
    for socket in [&first, &second] {
        peer(&mut permission, socket.local_addr().unwrap());
    }
    assert_eq!(client.ask(permission), "success");
    for (to, from, socket) in [
        (
            "Send to the first of two permitted peers",
            "what the first of two permitted peers sends",
            &first,
        ),
        (
            "Send to the second of two permitted peers",
            "what the second of two permitted peers sends",
            &second,
        ),
        ("Send to a stranger", "what a stranger sends", &stranger),
    ] {
        send(&client, socket, PROBE);
        send(&client, &first, ENDS);
        all.push((to, receives(socket, &first)));
        socket.send_to(PROBE, relayed).unwrap();
        first.send_to(ENDS, relayed).unwrap();
        all.push((from, is_told(&client, socket)));
    }
    all
}

fn at(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// A Send indication.
fn send(client: &Client, to: &UdpSocket, payload: &[u8]) {
    let mut indication = message(METHOD_SEND, CLASS_INDICATION);
    peer(&mut indication, to.local_addr().unwrap());
    indication.add(ATTR_DATA, payload);
    client.socket.send(&indication.raw).unwrap();
}

/// Whether the probe is at `socket` when the end has come to `first`.
fn receives(socket: &UdpSocket, first: &UdpSocket) -> String {
    let mut buffer = [0; 100];
    let mut received = false;
    loop {
        let length = first.recv(&mut buffer).unwrap();
        match &buffer[..length] {
            ENDS => break,
            other => received |= other == PROBE,
        }
    }
    socket.set_nonblocking(true).unwrap();
    match socket.recv(&mut buffer) {
        Ok(length) => received |= &buffer[..length] == PROBE,
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
    }
    socket.set_nonblocking(false).unwrap();
    said(received)
}

/// Whether the client gets the probe of `socket` before the end.
fn is_told(client: &Client, socket: &UdpSocket) -> String {
    let mut received = false;
    loop {
        let mut buffer = [0; 200];
        let length = client.socket.recv(&mut buffer).unwrap();
        let mut indication = Message::new();
        indication.unmarshal_binary(&buffer[..length]).unwrap();
        let mut from = stun::xoraddr::XorMappedAddress::default();
        from.get_from_as(&indication, ATTR_XOR_PEER_ADDRESS)
            .unwrap();
        match &indication.get(ATTR_DATA).unwrap()[..] {
            ENDS => return said(received),
            payload => {
                assert_eq!(payload, PROBE);
                assert_eq!(
                    SocketAddr::new(from.ip, from.port),
                    socket.local_addr().unwrap()
                );
                received = true;
            }
        }
    }
}

fn said(received: bool) -> String {
    let text = if received { "received" } else { "silence" };
    text.into()
}
