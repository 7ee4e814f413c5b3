//! The router of one network: one task that reads packets, asks the NAT, and sends them on.

use crate::edge::{Arrival, Edge, Gateway, is_outside, is_query};
use crate::kind::Kind;
use crate::link::{Impairment, Link};
use crate::nat::{Counts, Nat, Outbound};
use crate::packet::{Packet, Protocol};
use crate::stun_server;
use crate::wan::{Place, is_of_the_lab, slot_of};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;
use tun_rs::AsyncDevice;

/// More than any packet is.
const BUFFER: usize = 65_536;

/// What a router is asked to do while it runs.
pub enum Order {
    /// Tells what passed since the last reset.
    Counts(oneshot::Sender<Counts>),
    /// Counts from zero.
    Reset,
    /// Forgets mappings and counts.
    Forget,
    /// Takes the second public addresses, or the first ones.
    Move {
        /// The second ones.
        second: bool,
    },
}

/// A router.
pub struct Router {
    place: Place,
    nat: Nat,
    /// The host inside.
    tun: AsyncDevice,
    gateway: Gateway,
    edge: Option<Edge>,
    arrivals: mpsc::Receiver<Arrival>,
    up: Link,
    down: Link,
}

impl Router {
    /// Puts one together; `internet` lets it send to the machine's network.
    #[must_use]
    pub fn new(
        kind: Kind,
        place: Place,
        tun: AsyncDevice,
        gateway: Gateway,
        impairment: Impairment,
        internet: bool,
    ) -> Self {
        let (edge, arrivals) = Edge::new();
        let nat = Nat::new(kind, place.plan.public(false), rand::random());
        Self {
            place,
            nat,
            tun,
            gateway,
            edge: internet.then_some(edge),
            arrivals,
            up: Link::new(impairment, rand::random()),
            down: Link::new(impairment, rand::random()),
        }
    }

    /// Runs until nobody can send orders any more.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut buffers = [vec![0; BUFFER], vec![0; BUFFER], vec![0; BUFFER]];
        let [inside, gateway, wan] = &mut buffers;
        loop {
            let due = [&self.up, &self.down]
                .into_iter()
                .filter_map(|link| link.next_timeout())
                .min();
            let sleep = async {
                match due {
                    Some(due) => sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                read = self.tun.recv(inside) => {
                    // The device is gone with its namespace.
                    let Ok(length) = read else { return };
                    if let Some(packet) = Packet::parse(&inside[..length]) {
                        self.up.push(Instant::now(), packet);
                    }
                }
                read = self.gateway.tun.recv(gateway) => {
                    let Ok(length) = read else { return };
                    self.handle_gateway(&gateway[..length]);
                }
                read = self.place.receive(wan) => {
                    let Ok(length) = read else { return };
                    if let Some(packet) = Packet::parse(&wan[..length]) {
                        self.handle_outside(Instant::now(), packet);
                    }
                }
                Some(arrival) = self.arrivals.recv() => {
                    let now = Instant::now();
                    match arrival.from_router {
                        true => self.down.push(now, arrival.packet),
                        false => self.handle_outside(now, arrival.packet),
                    }
                }
                order = orders.recv() => match order {
                    Some(order) => self.carry_out(order),
                    None => return,
                },
                () = sleep => {}
            }
            self.flush(Instant::now());
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Counts(answer) => {
                let _ = answer.send(self.nat.counts().clone());
            }
            Order::Reset => self.nat.reset_counts(),
            Order::Forget => self.nat.forget(),
            Order::Move { second } => self.nat.move_to(self.place.plan.public(second)),
        }
    }

    fn flush(&mut self, now: Instant) {
        while let Some(packet) = self.up.pop(now) {
            self.handle_inside(now, packet);
        }
        while let Some(packet) = self.down.pop(now) {
            if let Some(bytes) = packet.write() {
                // A full queue of the device drops, as a network card's does.
                let _ = self.tun.try_send(&bytes);
            }
        }
    }

    fn handle_inside(&mut self, now: Instant, packet: Packet) {
        if self.place.plan.router().contains(&packet.dst.ip()) {
            match (&mut self.edge, packet.protocol) {
                (Some(edge), Protocol::Udp) if is_query(&packet, self.place.plan) => {
                    edge.resolve(now, &packet);
                }
                (Some(_), Protocol::Tcp) => self.send_to_gateway(packet),
                _ => {}
            }
            return;
        }
        match self.nat.outbound(now, packet) {
            Outbound::Forward(packet) => self.route(now, packet),
            Outbound::Reject(reset) => self.down.push(now, reset),
            Outbound::Drop => {}
        }
    }

    fn route(&mut self, now: Instant, packet: Packet) {
        let is_own = |slot| self.place.plan.is(slot);
        if let Some(slot) = slot_of(packet.dst.ip()) {
            if is_own(slot) {
                // Hairpinning (RFC 4787 REQ-9): from one's own public address.
                self.handle_outside(now, packet);
            } else if let Some(bytes) = packet.write() {
                self.place.send(slot, &bytes);
            }
        } else if let Some(answer) = stun_server::answer(&packet) {
            self.handle_outside(now, answer);
        } else if packet.protocol == Protocol::Tcp
            && (is_outside(&packet) || is_of_the_lab(packet.dst.ip()))
        {
            self.send_to_gateway(packet);
        } else if let Some(edge) = self.edge.as_mut().filter(|_| is_outside(&packet)) {
            edge.send(now, &packet);
        }
    }

    fn send_to_gateway(&mut self, packet: Packet) {
        if let Some(bytes) = packet.write() {
            let _ = self.gateway.tun.try_send(&bytes);
        }
    }

    fn handle_gateway(&mut self, bytes: &[u8]) {
        let Some(packet) = Packet::parse(bytes) else {
            return;
        };
        let now = Instant::now();
        match self.place.plan.router().contains(&packet.src.ip()) {
            true => self.down.push(now, packet),
            false => self.handle_outside(now, packet),
        }
    }

    fn handle_outside(&mut self, now: Instant, packet: Packet) {
        if let Some(packet) = self.nat.inbound(now, packet) {
            self.down.push(now, packet);
        }
    }
}
