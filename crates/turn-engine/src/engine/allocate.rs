//! Allocate: RFC 8656 section 7.2, check by check.

use super::allocation::{Allocation, NewAllocation, RelayedAddress, lifetime};
use super::codec::*;
use super::event::{DenyReason, Event};
use super::ids::{Family, RelayedKey};
use super::message::{ATTR_ADDITIONAL_ADDRESS_FAMILY, FAMILY_V4, FAMILY_V6, Message};
use super::reply::Reply;
use super::requests::{Failure, Request};
use super::{Engine, OpenError, Output, RelaySockets};
use crate::shared::{Parity, PortLease, ReservationToken};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Ports to try where other programs of the machine hold some of the range. What they hold is
/// remembered, so that a range of which nine tenths are held is found out by a few requests, each
/// of which takes a fraction of a millisecond.
const MAX_TRIES: usize = 128;

/// Longer than any process runs, and no overflow of the clock.
const LONGEST_SESSION: Duration = Duration::from_secs(u32::MAX as u64);

/// What the client asks for.
struct Wish {
    families: Families,
    ports: Ports,
    lifetime: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Families {
    /// The client leaves it to the server.
    Any,
    One(Family),
    Both,
}

#[derive(Clone, Copy)]
enum Ports {
    Any(Parity),
    Reserved(ReservationToken),
}

/// Where the ports of an allocation come from.
enum Source {
    Pool(Parity),
    Reserved(PortLease),
}

impl<R: RelaySockets> Engine<R> {
    pub(super) fn allocate<'a>(
        &mut self,
        request: &Request<'_, 'a>,
        out: &mut impl Output<'a, R::Socket>,
    ) -> Result<Vec<u8>, Failure> {
        let (now, auth) = (request.now, &request.auth);
        if let Some(slot) = self.table.slot_of(request.five_tuple) {
            let allocation = self.table.get(slot);
            let again = allocation.transaction == request.message.transaction()
                && *allocation.username == *auth.username;
            return if again {
                Ok(allocation.answer.to_vec())
            } else {
                Err(CODE_ALLOC_MISMATCH.into())
            };
        }
        if auth.rest.expiry < now.unix {
            return Err(DenyReason::Expired.into());
        }
        let is_revoked = match auth.rest.is_lasting() {
            true => {
                let password = self.settings.users.revocable(auth.rest.user);
                password.is_some_and(|password| self.shared.revoked_until(&password).is_some())
            }
            false => self.shared.is_revoked(auth.rest.user, auth.rest.expiry),
        };
        if is_revoked {
            return Err(DenyReason::Revoked.into());
        }
        let signed_by = |secret| self.spent.secrets.contains(&secret);
        if self.spent.all
            || self.spent.users.contains(auth.rest.user)
            || auth.secret.is_some_and(signed_by)
        {
            return Err(DenyReason::Budget.into());
        }
        let mut wish = Wish::read(request.message)?;
        if self.draining {
            let refusal = Some(DenyReason::Draining);
            return Err(match self.alternate(request.five_tuple.client) {
                Some(_) => Failure {
                    code: CODE_TRY_ALTERNATE,
                    refusal,
                },
                None => DenyReason::Draining.into(),
            });
        }
        if wish.families == Families::Any {
            wish.families = Families::One(self.default_family());
        }
        if let Families::One(family) = wish.families
            && matches!(wish.ports, Ports::Any(_))
            && self.shared.relay_address(family).is_none()
        {
            return Err(CODE_ADDR_FAMILY_NOT_SUPPORTED.into());
        }
        let user: Arc<str> = auth.rest.user.into();
        let expiry = auth.rest.revocable_expiry();
        let client = request.five_tuple.client.ip();
        self.shared.expire_reservations(now.instant);
        // A reserved port gives its place in the quotas back, which this allocation then takes.
        let source = match wish.ports {
            Ports::Any(parity) => Source::Pool(parity),
            Ports::Reserved(token) => {
                let lease = self.shared.redeem(token, now.instant);
                Source::Reserved(lease.ok_or(DenyReason::Reservation)?)
            }
        };
        let quota = self
            .shared
            .lease_quota(&user, expiry, client, self.settings.quotas)?;
        let session_end = now.instant + self.settings.max_session.min(LONGEST_SESSION);
        let (expires, granted) = lifetime(wish.lifetime, now, session_end);

        let opened = self.open(wish.families, source, now.instant, expires)?;
        let reserved = match opened.spare {
            Some(spare) => {
                let quotas = self.settings.quotas;
                let place = self.shared.lease_quota(&user, expiry, client, quotas)?;
                let token = self.shared.reserve(spare, place, now.instant);
                Some(token.ok_or(DenyReason::Reservation)?)
            }
            None => None,
        };
        let mut allocation = Box::new(Allocation::new(NewAllocation {
            five_tuple: *request.five_tuple,
            username: auth.username.into(),
            user: Arc::clone(&user),
            secret: auth.secret,
            key: auth.signature.key.clone(),
            transaction: request.message.transaction(),
            opened: now.instant,
            session_end,
            relays: opened.relays,
            quota,
        }));
        let relayed: Vec<SocketAddr> = allocation.relayed().collect();
        let mut reply = Reply::success(request.message);
        for &address in &relayed {
            reply = reply.relayed(address);
        }
        reply = reply.lifetime(granted);
        if let Some(token) = reserved {
            reply = reply.reservation(token.0);
        }
        reply = reply.mapped(request.five_tuple.client);
        if let Some((family, failure)) = opened.missing {
            reply = reply.address_error(family, failure.code);
        }
        let answer = request.finish(reply);
        allocation.answer = answer.as_slice().into();
        let slot = self.table.insert(allocation);
        for relay in self.table.get(slot).relays.iter().flatten() {
            relay
                .lease
                .publish(self.id, self.table.key(slot, relay.lease.family()));
        }
        self.stats.allocations_opened += 1;
        out.event(Event::Opened {
            user,
            five_tuple: *request.five_tuple,
            relayed,
        });
        Ok(answer)
    }

    /// The family of an Allocate that names none. RFC 8656 section 7.2 wants IPv4; browsers never
    /// name one, so that a box with IPv6 alone would be of no use to them.
    fn default_family(&self) -> Family {
        let serves = |family| self.shared.relay_address(family).is_some();
        if !serves(Family::V4) && serves(Family::V6) {
            Family::V6
        } else {
            Family::V4
        }
    }

    /// Opens a relayed address of each family. Of a dual allocation one family may be missing.
    fn open(
        &mut self,
        families: Families,
        source: Source,
        now: Instant,
        expires: Instant,
    ) -> Result<Opened<R::Socket>, Failure> {
        let (slot, generation) = self.table.vacancy().ok_or(DenyReason::TotalQuota)?;
        let key = |family| RelayedKey::new(slot, family, generation);
        let mut opened = Opened {
            relays: [None, None],
            spare: None,
            missing: None,
        };
        let parity = match source {
            Source::Pool(parity) => parity,
            Source::Reserved(lease) => {
                let family = lease.family();
                let relay = self
                    .bind(lease, key(family), expires)?
                    .ok_or(DenyReason::NoPort)?;
                opened.relays[family as usize] = Some(relay);
                return Ok(opened);
            }
        };
        for family in Family::ALL {
            if families != Families::Both && families != Families::One(family) {
                continue;
            }
            match self.open_any(parity, key(family), now, expires) {
                Ok((relay, spare)) => {
                    opened.relays[family as usize] = Some(relay);
                    opened.spare = spare;
                }
                Err(failure) if opened.missing.is_none() && families == Families::Both => {
                    opened.missing = Some((family, failure));
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(opened)
    }

    fn open_any(
        &mut self,
        parity: Parity,
        key: RelayedKey,
        now: Instant,
        expires: Instant,
    ) -> Result<(RelayedAddress<R::Socket>, Option<PortLease>), Failure> {
        let family = key.family();
        if self.shared.relay_address(family).is_none() {
            return Err(CODE_ADDR_FAMILY_NOT_SUPPORTED.into());
        }
        for _ in 0..MAX_TRIES {
            let (lease, spare) = self
                .shared
                .lease_port(family, parity, now)
                .ok_or(DenyReason::NoPort)?;
            if let Some(relay) = self.bind(lease, key, expires)? {
                return Ok((relay, spare));
            }
        }
        Err(DenyReason::NoPort.into())
    }

    /// Binds a leased port; `None` where another program holds it, which is remembered.
    fn bind(
        &mut self,
        lease: PortLease,
        key: RelayedKey,
        expires: Instant,
    ) -> Result<Option<RelayedAddress<R::Socket>>, Failure> {
        let address = self
            .shared
            .relay_address(lease.family())
            .expect("a lease is of a family that is served");
        let bound = SocketAddr::new(address.bind, lease.port());
        let socket = match self.sockets.open(bound, key) {
            Ok(socket) => socket,
            Err(OpenError::PortHeld) => {
                self.stats.ports_held += 1;
                lease.set_aside();
                return Ok(None);
            }
            Err(OpenError::NoDescriptor) => return Err(DenyReason::NoDescriptor.into()),
            Err(OpenError::Other(_)) => return Err(DenyReason::Socket.into()),
        };
        let announced = SocketAddr::new(address.announced, lease.port());
        Ok(Some(RelayedAddress {
            socket,
            lease,
            announced,
            expires,
        }))
    }
}

/// What was opened for one Allocate.
struct Opened<S> {
    relays: [Option<RelayedAddress<S>>; 2],
    /// The port above an even one, to be reserved.
    spare: Option<PortLease>,
    /// The family that a dual allocation goes without, and why.
    missing: Option<(Family, Failure)>,
}

impl Wish {
    /// Reads the attributes of an Allocate in the order of RFC 8656 section 7.2.
    fn read(message: &Message<'_>) -> Result<Self, Failure> {
        match message.get(ATTR_REQUESTED_TRANSPORT) {
            Some(&[protocol, _, _, _]) if protocol == PROTO_UDP.0 => {}
            Some([_, _, _, _]) => return Err(CODE_UNSUPPORTED_TRANS_PROTO.into()),
            _ => return Err(CODE_BAD_REQUEST.into()),
        }
        let requested = message.get(ATTR_REQUESTED_ADDRESS_FAMILY);
        let additional = message.get(ATTR_ADDITIONAL_ADDRESS_FAMILY);
        let even = match message.get(ATTR_EVEN_PORT) {
            None => Parity::Any,
            Some([flags]) if flags & 0x80 != 0 => Parity::EvenPair,
            Some([_]) => Parity::Even,
            Some(_) => return Err(CODE_BAD_REQUEST.into()),
        };
        let ports = match message.get(ATTR_RESERVATION_TOKEN) {
            None => Ports::Any(even),
            Some(token) => {
                if even != Parity::Any || requested.is_some() || additional.is_some() {
                    return Err(CODE_BAD_REQUEST.into());
                }
                let token = token.try_into().map_err(|_| CODE_BAD_REQUEST)?;
                Ports::Reserved(ReservationToken(token))
            }
        };
        let families = match (requested, additional) {
            (None, None) => Families::Any,
            (Some(value), None) => {
                Families::One(read_family(value)?.ok_or(CODE_ADDR_FAMILY_NOT_SUPPORTED)?)
            }
            (None, Some(&[FAMILY_V6, _, _, _])) if even != Parity::EvenPair => Families::Both,
            _ => return Err(CODE_BAD_REQUEST.into()),
        };
        Ok(Self {
            families,
            ports,
            lifetime: read_lifetime(message)?,
        })
    }
}

/// The value of REQUESTED-ADDRESS-FAMILY; `None` for a family that nobody knows.
pub(super) fn read_family(value: &[u8]) -> Result<Option<Family>, Failure> {
    match value {
        [FAMILY_V4, _, _, _] => Ok(Some(Family::V4)),
        [FAMILY_V6, _, _, _] => Ok(Some(Family::V6)),
        [_, _, _, _] => Ok(None),
        _ => Err(CODE_BAD_REQUEST.into()),
    }
}

/// LIFETIME in seconds, if the client has a wish.
pub(super) fn read_lifetime(message: &Message<'_>) -> Result<Option<u32>, Failure> {
    let Some(value) = message.get(ATTR_LIFETIME) else {
        return Ok(None);
    };
    let value = value.try_into().map_err(|_| CODE_BAD_REQUEST)?;
    Ok(Some(u32::from_be_bytes(value)))
}
