//! The packet path: ChannelData and Send indications out, peers' datagrams and hairpins in.
//!
//! Allocates nothing, locks nothing, and asks the policy nothing: a permission remembers how its
//! address may be reached.

use super::allocation::Route;
use super::codec::*;
use super::five_tuple::FiveTuple;
use super::gro::PayloadRun;
use super::ids::{Family, Now, RelayedKey};
use super::message::{self, CHANNEL_HEADER, CHANNELS, Message};
use super::{Engine, Output, RelaySockets, reply};
use rand::Rng;
use std::net::SocketAddr;

/// How a datagram came to a relayed address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    Socket,
    Hairpin,
}

impl<R: RelaySockets> Engine<R> {
    /// Takes ChannelData messages whose headers are the same.
    pub(super) fn channel_data<'a>(
        &mut self,
        now: Now,
        five_tuple: &FiveTuple,
        messages: PayloadRun<'a>,
        out: &mut impl Output<'a, R::Socket>,
    ) {
        let data = message::channel_data(messages.first());
        let Some((number, payload)) = data.filter(|(number, _)| CHANNELS.contains(number)) else {
            self.stats.dropped.malformed += messages.count() as u64;
            return;
        };
        let payloads = messages.narrow(CHANNEL_HEADER, payload.len());
        let bound = self
            .table
            .slot_of(five_tuple)
            .and_then(|slot| Some((slot, self.table.get(slot).channel(number, now.instant)?)));
        match bound {
            Some((slot, peer)) => self.relay_out(now, slot, peer, payloads, false, out),
            None => self.stats.dropped.no_allocation += payloads.count() as u64,
        }
    }

    pub(super) fn send<'a>(
        &mut self,
        now: Now,
        five_tuple: &FiveTuple,
        indication: &Message<'a>,
        out: &mut impl Output<'a, R::Socket>,
    ) {
        let peer = indication
            .get(ATTR_XOR_PEER_ADDRESS)
            .and_then(|v| indication.xor_address(v));
        let (Some(peer), Some(payload)) = (peer, indication.get(ATTR_DATA)) else {
            self.stats.dropped.malformed += 1;
            return;
        };
        if peer.port() == 0 || indication.unknown_attributes().next().is_some() {
            self.stats.dropped.malformed += 1;
            return;
        }
        let dont_fragment = indication.get(ATTR_DONT_FRAGMENT).is_some();
        match self.table.slot_of(five_tuple) {
            Some(slot) => self.relay_out(now, slot, peer, payload.into(), dont_fragment, out),
            None => self.stats.dropped.no_allocation += 1,
        }
    }

    fn relay_out<'a>(
        &mut self,
        now: Now,
        slot: u32,
        peer: SocketAddr,
        payloads: PayloadRun<'a>,
        dont_fragment: bool,
        out: &mut impl Output<'a, R::Socket>,
    ) {
        let allocation = self.table.get(slot);
        let Some(route) = allocation.permission(peer.ip(), now.instant) else {
            self.stats.dropped.no_permission += payloads.count() as u64;
            return;
        };
        let family = Family::of(peer.ip());
        if allocation.relay(family, now.instant).is_none() {
            self.stats.dropped.no_allocation += payloads.count() as u64;
            return;
        }
        if !self.admits(now, slot, &payloads) {
            return;
        }
        let allocation = self.table.get_mut(slot);
        allocation.sent.count(&payloads);
        let Some(relay) = &allocation.relays[family as usize] else {
            return;
        };
        let hairpin = match route {
            Route::Socket => None,
            Route::Hairpin | Route::HairpinOrSocket => self.shared.find(peer),
        };
        match hairpin {
            Some((worker, key)) => {
                let from = relay.announced;
                self.stats.hairpinned.count(&payloads);
                if worker == self.id {
                    self.relay_in(now, key, from, payloads, Arrival::Hairpin, out);
                } else {
                    out.to_worker(worker, key, from, payloads);
                }
            }
            None if route == Route::Hairpin => {
                self.stats.dropped.own_address += payloads.count() as u64;
            }
            None => {
                self.stats.to_peers.count(&payloads);
                out.to_peer(&relay.socket, peer, payloads, dont_fragment);
            }
        }
    }

    pub(super) fn relay_in<'a>(
        &mut self,
        now: Now,
        key: RelayedKey,
        from: SocketAddr,
        payloads: PayloadRun<'a>,
        arrival: Arrival,
        out: &mut impl Output<'a, R::Socket>,
    ) {
        let slot = self.table.slot_of_relay(key);
        let Some(slot) =
            slot.filter(|&s| self.table.get(s).relay(key.family(), now.instant).is_some())
        else {
            self.stats.dropped.no_allocation += payloads.count() as u64;
            return;
        };
        match self.table.get(slot).permission(from.ip(), now.instant) {
            None => {
                self.stats.dropped.no_permission += payloads.count() as u64;
                return;
            }
            // A service of this box must not reach a client that was let near its relays only.
            Some(Route::Hairpin) if arrival == Arrival::Socket => {
                self.stats.dropped.own_address += payloads.count() as u64;
                return;
            }
            Some(_) => {}
        }
        if !self.admits(now, slot, &payloads) {
            return;
        }
        let allocation = self.table.get_mut(slot);
        let to = &allocation.five_tuple;
        let length = payloads.length();
        let padding = length.next_multiple_of(4) - length;
        if let Some(number) = allocation.channel_to(from, now.instant) {
            let Ok(length) = u16::try_from(length) else {
                self.stats.dropped.malformed += payloads.count() as u64;
                return;
            };
            let ([n0, n1], [l0, l1]) = (number.to_be_bytes(), length.to_be_bytes());
            let padding = if to.transport.is_stream() { padding } else { 0 };
            out.to_client(to, &[n0, n1, l0, l1], payloads, padding);
        } else {
            for payload in payloads.singles() {
                let mut transaction = [0; 12];
                self.rng.fill_bytes(&mut transaction);
                let head = &mut self.scratch;
                if reply::write_data_head(head, &transaction, from, length).is_none() {
                    self.stats.dropped.malformed += payloads.count() as u64;
                    return;
                }
                out.to_client(to, head, payload, padding);
            }
        }
        allocation.received.count(&payloads);
        self.stats.to_clients.count(&payloads);
    }

    /// Reports an ICMP error to the client (RFC 8656 section 11.5), where that is wanted.
    pub(super) fn icmp<'a>(
        &mut self,
        now: Now,
        key: RelayedKey,
        peer: SocketAddr,
        (icmp_type, icmp_code): (u8, u8),
        error_data: u32,
        out: &mut impl Output<'a, R::Socket>,
    ) {
        let of_interest = match key.family() {
            Family::V4 => matches!(icmp_type, 3 | 11),
            Family::V6 => matches!(icmp_type, 1..=3),
        };
        let reported = self.settings.reports_icmp && of_interest;
        let Some(slot) = self.table.slot_of_relay(key).filter(|_| reported) else {
            return;
        };
        let allocation = self.table.get(slot);
        if allocation.permission(peer.ip(), now.instant).is_none() {
            return;
        }
        // Only "fragmentation needed" and "packet too big" carry an MTU.
        let too_big = match key.family() {
            Family::V4 => (icmp_type, icmp_code) == (3, 4),
            Family::V6 => icmp_type == 2,
        };
        let mut transaction = [0; 12];
        self.rng.fill_bytes(&mut transaction);
        let error_data = if too_big { error_data } else { 0 };
        let kind = (icmp_type, icmp_code);
        reply::write_icmp(&mut self.scratch, &transaction, peer, kind, error_data);
        let nothing: &[u8] = &[];
        out.to_client(&allocation.five_tuple, &self.scratch, nothing.into(), 0);
    }

    /// Charges `payloads` to the rates that are configured. Where there are any, every payload is
    /// judged by itself.
    fn admits(&mut self, now: Now, slot: u32, payloads: &PayloadRun<'_>) -> bool {
        let bytes = payloads.length() as u64;
        if let Some(rate) = self.settings.max_rate {
            let nanos = self.nanos(now);
            let bucket = &mut self.table.get_mut(slot).bucket;
            match bucket.admit(bytes, rate, nanos) {
                Some(next) => *bucket = next,
                None => {
                    self.stats.dropped.allocation_rate += 1;
                    return false;
                }
            }
        }
        if let Some(rate) = self.settings.total_rate
            && !self.shared.draw(bytes, rate, now.instant)
        {
            self.stats.dropped.total_rate += 1;
            return false;
        }
        true
    }
}
