//! One allocation: its relayed addresses, permissions and channels, each with its deadline.
//!
//! Deadlines are checked where they are read; what has run out is swept when something is added, and
//! by a timer where the engine is watched.

use super::auth::Key;
use super::event::{AllocationView, Event, Flow};
use super::five_tuple::FiveTuple;
use super::ids::{Family, Now};
use super::message::TransactionId;
use super::watch::Watch;
use crate::credential::SecretId;
use crate::rate::Bucket;
use crate::shared::{PortLease, QuotaLease};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// RFC 8656 section 9.
const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
/// RFC 8656 section 12.
const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

/// Peers of one allocation at a time: an ICE agent pairs with a few dozen candidates at most, and
/// they are searched one by one for every packet.
pub(super) const MAX_PERMISSIONS: usize = 64;
pub(super) const MAX_CHANNELS: usize = 64;

/// What one client has here.
#[derive(Debug)]
pub(super) struct Allocation<S> {
    pub(super) five_tuple: FiveTuple,
    pub(super) username: Box<str>,
    pub(super) user: Arc<str>,
    pub(super) secret: Option<SecretId>,
    pub(super) key: Key,
    /// The Allocate that made it, and its answer, for when the request is retransmitted.
    pub(super) transaction: TransactionId,
    pub(super) answer: Box<[u8]>,
    pub(super) opened: Instant,
    pub(super) session_end: Instant,
    /// By [`Family`]; at least one.
    pub(super) relays: [Option<RelayedAddress<S>>; 2],
    permissions: Vec<Permission>,
    channels: Vec<Channel>,
    pub(super) sent: Flow,
    pub(super) received: Flow,
    pub(super) bucket: Bucket,
    quota: QuotaLease,
}

/// One relayed address. The socket closes before its port can be lent again.
#[derive(Debug)]
pub(super) struct RelayedAddress<S> {
    pub(super) socket: S,
    pub(super) lease: PortLease,
    pub(super) announced: SocketAddr,
    pub(super) expires: Instant,
}

/// How datagrams travel between an allocation and a permitted address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// Through the relay socket.
    Socket,
    /// An address of this box: only to and from its live relays, inside the process.
    Hairpin,
    /// An address of this box that `allowed_peers` opens: live relays inside the process, all
    /// else through the socket.
    HairpinOrSocket,
}

#[derive(Debug)]
struct Permission {
    ip: IpAddr,
    until: Instant,
    route: Route,
}

#[derive(Debug)]
struct Channel {
    number: u16,
    peer: SocketAddr,
    until: Instant,
}

/// Why a channel was not bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BindError {
    /// The number or the peer is bound otherwise.
    Conflict,
    TooManyChannels,
    TooManyPermissions,
}

/// No room for another permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooManyPermissions;

/// What an allocation starts with.
pub(super) struct NewAllocation<S> {
    pub(super) five_tuple: FiveTuple,
    pub(super) username: Box<str>,
    pub(super) user: Arc<str>,
    pub(super) secret: Option<SecretId>,
    pub(super) key: Key,
    pub(super) transaction: TransactionId,
    pub(super) opened: Instant,
    pub(super) session_end: Instant,
    pub(super) relays: [Option<RelayedAddress<S>>; 2],
    pub(super) quota: QuotaLease,
}

impl<S> Allocation<S> {
    pub(super) fn new(opening: NewAllocation<S>) -> Self {
        let NewAllocation {
            five_tuple,
            username,
            user,
            secret,
            key,
            transaction,
            ..
        } = opening;
        Self {
            five_tuple,
            username,
            user,
            secret,
            key,
            transaction,
            answer: Box::default(),
            opened: opening.opened,
            session_end: opening.session_end,
            relays: opening.relays,
            permissions: Vec::new(),
            channels: Vec::new(),
            sent: Flow::default(),
            received: Flow::default(),
            bucket: Bucket::default(),
            quota: opening.quota,
        }
    }

    /// The relayed address of `family`, if it lives.
    pub(super) fn relay(&self, family: Family, now: Instant) -> Option<&RelayedAddress<S>> {
        self.relays[family as usize]
            .as_ref()
            .filter(|relay| relay.expires > now)
    }

    /// Announced relayed addresses, one or two.
    pub(super) fn relayed(&self) -> impl Iterator<Item = SocketAddr> {
        self.relays.iter().flatten().map(|relay| relay.announced)
    }

    /// When the first of its relayed addresses expires.
    pub(super) fn deadline(&self) -> Instant {
        let deadlines = self.relays.iter().flatten().map(|relay| relay.expires);
        deadlines.min().unwrap_or(self.session_end)
    }

    /// When the first of its relayed addresses, permissions and channels expires.
    pub(super) fn first_end(&self) -> Instant {
        let permissions = self.permissions.iter().map(|p| p.until);
        let channels = self.channels.iter().map(|c| c.until);
        let ends = permissions.chain(channels);
        ends.fold(self.deadline(), Instant::min)
    }

    /// Removes the permissions and channels that have run out.
    pub(super) fn sweep(&mut self, now: Instant, watch: &mut Watch) {
        self.retain_permissions(|p| p.until > now, watch);
        self.retain_channels(|c| c.until > now, watch);
    }

    /// Has `watch` keep an event for each permission and channel that is here.
    pub(super) fn introduce(&self, watch: &mut Watch) {
        let five_tuple = self.five_tuple;
        for &Permission { ip: peer, .. } in &self.permissions {
            watch.push(|| Event::PermissionInstalled { five_tuple, peer });
        }
        for channel in &self.channels {
            watch.push(|| Event::ChannelBound {
                five_tuple,
                number: channel.number,
                peer: channel.peer,
            });
        }
    }

    fn retain_permissions(
        &mut self,
        mut stays: impl FnMut(&mut Permission) -> bool,
        watch: &mut Watch,
    ) {
        let five_tuple = self.five_tuple;
        self.permissions.retain_mut(|permission| {
            let stays = stays(permission);
            if !stays {
                let peer = permission.ip;
                watch.push(|| Event::PermissionGone { five_tuple, peer });
            }
            stays
        });
    }

    fn retain_channels(&mut self, stays: impl Fn(&Channel) -> bool, watch: &mut Watch) {
        let five_tuple = self.five_tuple;
        self.channels.retain(|channel| {
            let stays = stays(channel);
            if !stays {
                let &Channel { number, peer, .. } = channel;
                watch.push(|| Event::ChannelGone {
                    five_tuple,
                    number,
                    peer,
                });
            }
            stays
        });
    }

    /// How datagrams travel between here and `ip`; `None` without a live permission.
    pub(super) fn permission(&self, ip: IpAddr, now: Instant) -> Option<Route> {
        let permission = self.permissions.iter().find(|p| p.ip == ip)?;
        (permission.until > now).then_some(permission.route)
    }

    /// Installs or refreshes permissions, all of them or none.
    pub(super) fn permit(
        &mut self,
        peers: &[(IpAddr, Route)],
        now: Instant,
        watch: &mut Watch,
    ) -> Result<(), TooManyPermissions> {
        self.retain_permissions(|p| p.until > now, watch);
        let before = self.permissions.len();
        for &(ip, route) in peers {
            if self.permissions.iter().any(|p| p.ip == ip) {
                continue;
            }
            if self.permissions.len() == MAX_PERMISSIONS {
                self.permissions.truncate(before);
                return Err(TooManyPermissions);
            }
            self.permissions.push(Permission {
                ip,
                until: now + PERMISSION_LIFETIME,
                route,
            });
        }
        for &(ip, route) in peers {
            if let Some(permission) = self.permissions.iter_mut().find(|p| p.ip == ip) {
                permission.until = now + PERMISSION_LIFETIME;
                permission.route = route;
            }
        }
        let five_tuple = self.five_tuple;
        for &Permission { ip: peer, .. } in &self.permissions[before..] {
            watch.push(|| Event::PermissionInstalled { five_tuple, peer });
        }
        Ok(())
    }

    /// Judges every permission anew; `judge` returns `None` for what is no longer allowed.
    pub(super) fn reapply_policy(
        &mut self,
        judge: impl Fn(IpAddr) -> Option<Route>,
        watch: &mut Watch,
    ) {
        let stays = |permission: &mut Permission| match judge(permission.ip) {
            Some(route) => {
                permission.route = route;
                true
            }
            None => false,
        };
        self.retain_permissions(stays, watch);
    }

    /// The peer that channel `number` is bound to.
    pub(super) fn channel(&self, number: u16, now: Instant) -> Option<SocketAddr> {
        let channel = self.channels.iter().find(|c| c.number == number)?;
        (channel.until > now).then_some(channel.peer)
    }

    /// The channel that is bound to `peer`.
    pub(super) fn channel_to(&self, peer: SocketAddr, now: Instant) -> Option<u16> {
        let channel = self.channels.iter().find(|c| c.peer == peer)?;
        (channel.until > now).then_some(channel.number)
    }

    /// Binds or refreshes a channel and the permission of its peer (RFC 8656 section 12.2).
    pub(super) fn bind(
        &mut self,
        number: u16,
        peer: SocketAddr,
        route: Route,
        now: Instant,
        watch: &mut Watch,
    ) -> Result<(), BindError> {
        self.retain_channels(|c| c.until > now, watch);
        let found = self
            .channels
            .iter()
            .position(|c| c.number == number || c.peer == peer);
        match found.map(|at| &self.channels[at]) {
            Some(channel) if channel.number != number || channel.peer != peer => {
                return Err(BindError::Conflict);
            }
            None if self.channels.len() == MAX_CHANNELS => return Err(BindError::TooManyChannels),
            _ => {}
        }
        self.permit(&[(peer.ip(), route)], now, watch)
            .map_err(|TooManyPermissions| BindError::TooManyPermissions)?;
        let until = now + CHANNEL_LIFETIME;
        match found {
            Some(at) => self.channels[at].until = until,
            None => {
                self.channels.push(Channel {
                    number,
                    peer,
                    until,
                });
                let five_tuple = self.five_tuple;
                watch.push(|| Event::ChannelBound {
                    five_tuple,
                    number,
                    peer,
                });
            }
        }
        Ok(())
    }

    /// Each permission with its end.
    pub(super) fn permissions(&self) -> impl Iterator<Item = (IpAddr, Instant)> {
        self.permissions.iter().map(|p| (p.ip, p.until))
    }

    /// Each channel with its end.
    pub(super) fn channels(&self) -> impl Iterator<Item = (u16, SocketAddr, Instant)> {
        self.channels.iter().map(|c| (c.number, c.peer, c.until))
    }

    /// Takes over permissions and channels of an earlier process.
    pub(super) fn take_over(
        &mut self,
        permissions: impl Iterator<Item = (IpAddr, Instant, Route)>,
        channels: impl Iterator<Item = (u16, SocketAddr, Instant)>,
    ) {
        let permissions = permissions.take(MAX_PERMISSIONS);
        self.permissions = permissions
            .map(|(ip, until, route)| Permission { ip, until, route })
            .collect();
        let channels = channels.take(MAX_CHANNELS);
        self.channels = channels
            .map(|(number, peer, until)| Channel {
                number,
                peer,
                until,
            })
            .collect();
    }

    /// What it holds: the relayed addresses and its place in the quotas.
    pub(super) fn dismantle(self) -> ([Option<RelayedAddress<S>>; 2], QuotaLease) {
        (self.relays, self.quota)
    }

    /// Forgets permissions and channels of a family whose relayed address is gone.
    pub(super) fn forget_family(&mut self, family: Family, watch: &mut Watch) {
        self.retain_permissions(|p| Family::of(p.ip) != family, watch);
        self.retain_channels(|c| Family::of(c.peer.ip()) != family, watch);
    }

    /// Forgets all permissions and channels.
    pub(super) fn forget_peers(&mut self, watch: &mut Watch) {
        self.retain_permissions(|_| false, watch);
        self.retain_channels(|_| false, watch);
    }

    pub(super) fn view(&self, now: Instant) -> AllocationView {
        AllocationView {
            user: Arc::clone(&self.user),
            secret: self.secret,
            five_tuple: self.five_tuple,
            relayed: self.relayed().collect(),
            sent: self.sent,
            received: self.received,
            age: now.saturating_duration_since(self.opened),
            expires_in: self.deadline().saturating_duration_since(now),
            permissions: self.permissions.iter().filter(|p| p.until > now).count(),
            channels: self.channels.iter().filter(|c| c.until > now).count(),
        }
    }
}

/// Bounds of the lifetime that a client may ask for (RFC 8656 section 7.2).
const DEFAULT_LIFETIME: u32 = 600;
const MAX_LIFETIME: u32 = 3_600;

/// When an allocation expires that asked for `requested` seconds at `now`, and how long that is
/// in whole seconds.
pub(super) fn lifetime(
    requested: Option<u32>,
    now: Now,
    session_end: Instant,
) -> (Instant, Duration) {
    let granted = requested
        .unwrap_or(DEFAULT_LIFETIME)
        .clamp(DEFAULT_LIFETIME, MAX_LIFETIME);
    let expires = (now.instant + Duration::from_secs(granted.into())).min(session_end);
    let left = expires.saturating_duration_since(now.instant);
    // Rounded up: 0 would tell the client that its allocation is gone.
    (
        expires,
        Duration::from_secs(left.as_millis().div_ceil(1_000) as u64),
    )
}
