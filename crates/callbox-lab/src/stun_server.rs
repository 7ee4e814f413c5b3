//! A STUN server with two addresses and two ports (RFC 5780), which every router of the lab is:
//! request in, response out. Pure.

use crate::packet::{Packet, Protocol};
use crate::wan::probe_address;
use std::net::SocketAddr;
use stun::addr::MappedAddress;
use stun::attributes::{ATTR_CHANGE_REQUEST, ATTR_OTHER_ADDRESS, ATTR_RESPONSE_ORIGIN};
use stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter};
use stun::xoraddr::XorMappedAddress;

/// The two ports.
pub const PORTS: [u16; 2] = [3478, 3479];
const CHANGE_ADDRESS: u8 = 0x04;
const CHANGE_PORT: u8 = 0x02;

/// The answer to a datagram that came to one of the four endpoints; none if it came elsewhere or
/// is not a request.
#[must_use]
pub fn answer(packet: &Packet) -> Option<Packet> {
    if packet.protocol != Protocol::Udp {
        return None;
    }
    let v6 = packet.dst.is_ipv6();
    let second = [false, true]
        .into_iter()
        .find(|second| probe_address(v6, *second) == packet.dst.ip())?;
    let port = PORTS.iter().position(|port| *port == packet.dst.port())?;
    let mut request = Message {
        raw: packet.payload().to_vec(),
        ..Message::default()
    };
    request.decode().ok()?;
    if request.typ != BINDING_REQUEST {
        return None;
    }
    let change = match request.get(ATTR_CHANGE_REQUEST) {
        Ok(value) => *value.get(3)?,
        Err(_) => 0,
    };
    let endpoint =
        |second: bool, port: usize| SocketAddr::new(probe_address(v6, second), PORTS[port]);
    let from = endpoint(
        second != (change & CHANGE_ADDRESS != 0),
        port ^ usize::from(change & CHANGE_PORT != 0),
    );
    let address = |endpoint: SocketAddr| MappedAddress {
        ip: endpoint.ip(),
        port: endpoint.port(),
    };
    let mut response = Message::new();
    response.transaction_id = request.transaction_id;
    response.set_type(BINDING_SUCCESS);
    response.write_header();
    let mapped = XorMappedAddress {
        ip: packet.src.ip(),
        port: packet.src.port(),
    };
    mapped.add_to(&mut response).ok()?;
    let other = address(endpoint(!second, port ^ 1));
    other.add_to_as(&mut response, ATTR_OTHER_ADDRESS).ok()?;
    let origin = address(from);
    origin.add_to_as(&mut response, ATTR_RESPONSE_ORIGIN).ok()?;
    Some(Packet::udp(from, packet.src, &response.raw))
}
