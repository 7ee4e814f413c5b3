//! How many calls ring at one device, and whose.
//!
//! Nobody can be kept from being called: where a device has as many calls as may ring, a newcomer
//! takes the place of a call from the network that has most of them.

use super::super::names::site;
use super::super::{Cx, Hub};
use super::Stage;
use crate::protocol::{CallId, PeerId};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Calls that one session may ring with at one device: a second one where the first was forgotten.
const RINGING_PER_PAIR: usize = 2;
/// Calls that may ring at one device.
const RINGING_PER_DEVICE: usize = 64;
/// How many of those may be of callers from one network.
const RINGING_PER_NETWORK: usize = RINGING_PER_DEVICE / 2;
/// How many may be of callers from one IPv6 /48, which may hold many networks.
const RINGING_PER_SITE: usize = RINGING_PER_DEVICE * 3 / 4;

/// Where one more call may ring at a device.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Free,
    /// In the place of this one.
    Of(CallId),
    None,
}

/// The calls of one network that ring at a device.
#[derive(Debug, Default)]
struct Share {
    calls: usize,
    /// By caller: how many, and the place and id of the one that ends first.
    callers: BTreeMap<PeerId, (usize, Reverse<usize>, CallId)>,
}

impl Hub {
    /// Where one more call of `caller`, which is in `network`, may ring at `device`.
    pub(super) fn place_for(&self, device: PeerId, caller: PeerId, network: IpAddr) -> Place {
        let Some(session) = self.sessions.get(device) else {
            return Place::None;
        };
        let (mut all, mut of_pair, mut of_network) = (0, 0, 0);
        let mut shares: BTreeMap<IpAddr, Share> = BTreeMap::new();
        // The order in which they came.
        for (n, id) in session.calls.iter().enumerate() {
            let Some(call) = self.calls.get(id) else {
                continue;
            };
            if call.caller == device || !matches!(call.stage, Stage::Ringing { .. }) {
                continue;
            }
            all += 1;
            of_pair += usize::from(call.caller == caller);
            let Some(from) = self.sessions.get(call.caller).map(|from| from.network) else {
                continue;
            };
            of_network += usize::from(from == network);
            let share = shares.entry(site(from)).or_default();
            share.calls += 1;
            let first = (0, Reverse(n), *id);
            share.callers.entry(call.caller).or_insert(first).0 += 1;
        }
        let of_site = shares.get(&site(network)).map_or(0, |share| share.calls);
        if of_pair >= RINGING_PER_PAIR
            || of_network >= RINGING_PER_NETWORK
            || of_site >= RINGING_PER_SITE
        {
            return Place::None;
        }
        if all < RINGING_PER_DEVICE {
            return Place::Free;
        }
        let Some((_, most)) = shares.into_iter().max_by_key(|(_, share)| share.calls) else {
            return Place::None;
        };
        // Two of the same size would go on taking places from each other.
        if of_site + 1 >= most.calls {
            return Place::None;
        }
        let callers = most.callers.into_values();
        let oldest = callers.max_by_key(|(calls, place, _)| (*calls, *place));
        oldest.map_or(Place::None, |(_, _, call)| Place::Of(call))
    }

    /// Ends the ringing of a call at a device, as if its time were up.
    pub(super) fn displace(&mut self, cx: &mut Cx<'_>, id: CallId, device: PeerId) {
        let Some(Stage::Ringing { devices, .. }) = self.calls.get(&id).map(|call| &call.stage)
        else {
            return;
        };
        if devices.len() == 1 {
            return self.finish_call(cx, id, "timeout");
        }
        self.hang_up(cx, id, device, "timeout");
        self.drop_device(cx, id, device);
    }
}
