//! Refresh, CreatePermission and ChannelBind: requests on a living allocation.

use super::allocate::{read_family, read_lifetime};
use super::allocation::{
    Allocation, BindError, MAX_PERMISSIONS, Route, TooManyPermissions, lifetime,
};
use super::codec::*;
use super::event::{CloseReason, DenyReason};
use super::ids::Family;
use super::message::CHANNELS;
use super::policy::{Denial, PeerPolicy, Verdict};
use super::reply::Reply;
use super::requests::{Failure, Request};
use super::{Engine, Output, RelaySockets};
use crate::shared::SharedState;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

impl<R: RelaySockets> Engine<R> {
    pub(super) fn refresh<'a>(
        &mut self,
        request: &Request<'_, 'a>,
        out: &mut impl Output<'a, R::Socket>,
    ) -> Result<Vec<u8>, Failure> {
        let (now, slot) = (request.now, self.allocation_of(request)?);
        let family = match request.message.get(ATTR_REQUESTED_ADDRESS_FAMILY) {
            Some(value) => Some(read_family(value)?.ok_or(CODE_PEER_ADDR_FAMILY_MISMATCH)?),
            None => None,
        };
        let allocation = self.table.get_mut(slot);
        if family.is_some_and(|family| allocation.relays[family as usize].is_none()) {
            return Err(CODE_PEER_ADDR_FAMILY_MISMATCH.into());
        }
        let granted = match read_lifetime(request.message)? {
            Some(0) => {
                self.end(slot, family, CloseReason::Client, now, out);
                Duration::ZERO
            }
            requested => {
                let (expires, granted) = lifetime(requested, now, allocation.session_end);
                for relay in allocation.relays.iter_mut().flatten() {
                    if family.is_none_or(|family| family == relay.lease.family()) {
                        relay.expires = expires;
                    }
                }
                self.table.rearm(slot);
                granted
            }
        };
        Ok(request.finish(Reply::success(request.message).lifetime(granted)))
    }

    pub(super) fn create_permission(
        &mut self,
        request: &Request<'_, '_>,
    ) -> Result<Vec<u8>, Failure> {
        let slot = self.allocation_of(request)?;
        let mut peers = Vec::new();
        for (kind, value) in request.message.attributes() {
            if kind != ATTR_XOR_PEER_ADDRESS {
                continue;
            }
            let peer = peer(request, value, self.table.get(slot))?;
            let route = route(&self.settings.policy, &self.shared, peer.ip())?;
            if !peers.contains(&(peer.ip(), route)) {
                if peers.len() == MAX_PERMISSIONS {
                    return Err(DenyReason::Permissions.into());
                }
                peers.push((peer.ip(), route));
            }
        }
        if peers.is_empty() {
            return Err(CODE_BAD_REQUEST.into());
        }
        self.table
            .get_mut(slot)
            .permit(&peers, request.now.instant, &mut self.watch)
            .map_err(|TooManyPermissions| DenyReason::Permissions)?;
        self.rearm_watched(slot);
        Ok(request.finish(Reply::success(request.message)))
    }

    pub(super) fn channel_bind(&mut self, request: &Request<'_, '_>) -> Result<Vec<u8>, Failure> {
        let slot = self.allocation_of(request)?;
        let number = match request.message.get(ATTR_CHANNEL_NUMBER) {
            Some(&[n0, n1, _, _]) => u16::from_be_bytes([n0, n1]),
            _ => return Err(CODE_BAD_REQUEST.into()),
        };
        let value = request
            .message
            .get(ATTR_XOR_PEER_ADDRESS)
            .ok_or(CODE_BAD_REQUEST)?;
        let peer = peer(request, value, self.table.get(slot))?;
        if !CHANNELS.contains(&number) || peer.port() == 0 {
            return Err(CODE_BAD_REQUEST.into());
        }
        let route = route(&self.settings.policy, &self.shared, peer.ip())?;
        let bound = self.table.get_mut(slot).bind(
            number,
            peer,
            route,
            request.now.instant,
            &mut self.watch,
        );
        bound.map_err(|error| match error {
            BindError::Conflict => Failure::from(CODE_BAD_REQUEST),
            BindError::TooManyChannels => DenyReason::Channels.into(),
            BindError::TooManyPermissions => DenyReason::Permissions.into(),
        })?;
        self.rearm_watched(slot);
        Ok(request.finish(Reply::success(request.message)))
    }

    /// Brings the timer up to date after a permission or a channel changed.
    fn rearm_watched(&mut self, slot: u32) {
        if self.watch.is_on() {
            self.table.rearm(slot);
        }
    }

    /// The allocation that a request is for, if it is its sender's (RFC 8656 section 5).
    fn allocation_of(&self, request: &Request<'_, '_>) -> Result<u32, Failure> {
        let slot = self
            .table
            .slot_of(request.five_tuple)
            .ok_or(CODE_ALLOC_MISMATCH)?;
        if *self.table.get(slot).username == *request.auth.username {
            Ok(slot)
        } else {
            Err(CODE_WRONG_CREDENTIALS.into())
        }
    }
}

/// Reads a peer address, which must be of a family that the allocation has.
fn peer<S>(
    request: &Request<'_, '_>,
    value: &[u8],
    allocation: &Allocation<S>,
) -> Result<SocketAddr, Failure> {
    let peer = request.message.xor_address(value).ok_or(CODE_BAD_REQUEST)?;
    match allocation.relays[Family::of(peer.ip()) as usize] {
        Some(_) => Ok(peer),
        None => Err(CODE_PEER_ADDR_FAMILY_MISMATCH.into()),
    }
}

/// How `ip` may be reached, if at all.
pub(super) fn route(
    policy: &PeerPolicy,
    shared: &SharedState,
    ip: IpAddr,
) -> Result<Route, DenyReason> {
    match policy.judge(ip) {
        Verdict::Allow => Ok(Route::Socket),
        Verdict::Own { listed: true } => Ok(Route::HairpinOrSocket),
        Verdict::Own { listed: false } if shared.hosts(ip) => Ok(Route::Hairpin),
        Verdict::Own { listed: false } => Err(DenyReason::Peer(Denial::Own)),
        Verdict::Deny(denial) => Err(DenyReason::Peer(denial)),
    }
}
