//! Requests: Binding, and the authenticated ones with everything their errors have in common.

use super::auth::{Authenticated, PASSWORD_ALGORITHMS, Unauthenticated, Verifier};
use super::codec::*;
use super::event::{DenyReason, Event};
use super::five_tuple::FiveTuple;
use super::ids::Now;
use super::message::{ClassicBinding, Message};
use super::nonce::{self, Features};
use super::reply::{self, Origin, Reply};
use super::{Engine, Family, Output, RelaySockets, Transport};
use std::net::SocketAddr;
use std::sync::Arc;

/// How many times the length of a datagram from a source that has proved nothing an answer to it
/// should have at most. The first Allocate of a browser has 28 bytes.
const AMPLIFICATION: usize = 3;

/// How many times the bytes on the wire an answer may have at the very most: a realm that is long
/// must not keep browsers out.
const WIRE_AMPLIFICATION: usize = 3;

/// An authenticated request with what it arrived by.
pub(super) struct Request<'r, 'a> {
    pub(super) now: Now,
    pub(super) five_tuple: &'r FiveTuple,
    pub(super) message: &'r Message<'a>,
    pub(super) auth: Authenticated<'a>,
}

/// An error response in the making.
pub(super) struct Failure {
    pub(super) code: ErrorCode,
    /// Which limit or rule it was, where an operator may want to know.
    pub(super) refusal: Option<DenyReason>,
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self {
            code,
            refusal: None,
        }
    }
}

impl From<DenyReason> for Failure {
    fn from(refusal: DenyReason) -> Self {
        let code = match refusal {
            DenyReason::Credentials | DenyReason::Expired | DenyReason::Revoked => {
                CODE_UNAUTHORIZED
            }
            DenyReason::UserQuota | DenyReason::IpQuota | DenyReason::Budget => {
                CODE_ALLOC_QUOTA_REACHED
            }
            DenyReason::Peer(_) => CODE_FORBIDDEN,
            DenyReason::TotalQuota
            | DenyReason::NoPort
            | DenyReason::Socket
            | DenyReason::NoDescriptor
            | DenyReason::Permissions
            | DenyReason::Channels
            | DenyReason::Reservation
            | DenyReason::Draining => CODE_INSUFFICIENT_CAPACITY,
        };
        Self {
            code,
            refusal: Some(refusal),
        }
    }
}

impl<R: RelaySockets> Engine<R> {
    /// Answers a Binding request, from another address of the box if the client asks for that
    /// (RFC 5780 section 6.1).
    pub(super) fn binding<'a>(
        &mut self,
        five_tuple: &FiveTuple,
        request: &Message<'a>,
        out: &mut impl Output<'a, R::Socket>,
    ) {
        let discovers = five_tuple.transport == Transport::Udp && self.discovery.has_second_port();
        let understood = |kind| discovers && [ATTR_CHANGE_REQUEST, ATTR_PADDING].contains(&kind);
        let unknown = request.unknown_attributes();
        let mut unknown: Vec<_> = unknown.filter(|kind| !understood(*kind)).collect();
        let change = request.get(ATTR_CHANGE_REQUEST).filter(|_| discovers);
        let mut origin = five_tuple.server;
        match change {
            Some(&[_, _, _, flags]) => match self.discovery.change(origin, flags) {
                Some(changed) => origin = changed,
                None => unknown.push(ATTR_CHANGE_REQUEST),
            },
            Some(_) => {
                reply::count(&mut self.stats.refused, CODE_BAD_REQUEST);
                let reply = Reply::error(request, CODE_BAD_REQUEST).finish(None);
                return out.reply(five_tuple, &reply);
            }
            None => {}
        }
        if !unknown.is_empty() {
            let reply = Reply::error(request, CODE_UNKNOWN_ATTRIBUTE).unknown_attributes(unknown);
            reply::count(&mut self.stats.refused, CODE_UNKNOWN_ATTRIBUTE);
            out.reply(five_tuple, &reply.finish(None));
            return;
        }
        let padding = request.get(ATTR_PADDING).filter(|_| discovers);
        let other = match discovers {
            true => self.discovery.other(five_tuple.server),
            false => None,
        };
        let told = (other.is_some() || change.is_some() || padding.is_some()).then(|| Origin {
            response: self.announced(origin),
            other: other.map(|other| self.announced(other)),
            padding: padding.map(<[u8]>::len),
        });
        reply::write_binding(&mut self.scratch, request, five_tuple.client, told.as_ref());
        self.stats.bindings += 1;
        let from = FiveTuple {
            server: origin,
            ..*five_tuple
        };
        out.reply(&from, &self.scratch);
    }

    /// Answers a Binding request of RFC 3489 (RFC 5389 section 12.2). One that asks for what cannot
    /// be had is dropped: from an answer that comes from elsewhere, its client would conclude what
    /// is not so.
    pub(super) fn classic_binding<'a>(
        &mut self,
        five_tuple: &FiveTuple,
        request: &ClassicBinding,
        out: &mut impl Output<'a, R::Socket>,
    ) {
        let discovers = five_tuple.transport == Transport::Udp;
        let Some(origin) = (match request.change {
            0 => Some(five_tuple.server),
            flags if discovers => self.discovery.change(five_tuple.server, flags),
            _ => None,
        }) else {
            self.stats.dropped.unexpected += 1;
            return;
        };
        let other = self.discovery.other(five_tuple.server);
        let told = other.filter(|_| discovers).map(|other| Origin {
            response: self.announced(origin),
            other: Some(self.announced(other)),
            padding: None,
        });
        let (scratch, client) = (&mut self.scratch, five_tuple.client);
        reply::write_classic_binding(scratch, &request.transaction, client, told.as_ref());
        self.stats.bindings += 1;
        let from = FiveTuple {
            server: origin,
            ..*five_tuple
        };
        out.reply(&from, &self.scratch);
    }

    /// How clients know an address of the box, which may be behind 1:1 NAT.
    fn announced(&self, server: SocketAddr) -> SocketAddr {
        let relays = self.shared.relay_address(Family::of(server.ip()));
        match relays.filter(|relays| relays.bind == server.ip()) {
            Some(relays) => SocketAddr::new(relays.announced, server.port()),
            None => server,
        }
    }

    /// Answers Allocate, Refresh, CreatePermission and ChannelBind.
    pub(super) fn request<'a>(
        &mut self,
        now: Now,
        five_tuple: &FiveTuple,
        message: &Message<'a>,
        out: &mut impl Output<'a, R::Socket>,
    ) {
        let known = self
            .table
            .slot_of(five_tuple)
            .map(|slot| self.table.get(slot));
        let verifier = Verifier {
            realm: &self.settings.realm,
            secrets: &self.settings.secrets,
            users: &self.settings.users,
            nonce_key: self.shared.nonce_key(),
            known: known.map(|allocation| (&*allocation.username, &allocation.key)),
        };
        let auth = match verifier.verify(message, five_tuple.client, now.unix) {
            Ok(auth) => auth,
            Err(why) => {
                let (code, refusal) = match why {
                    Unauthenticated::Anonymous => (CODE_UNAUTHORIZED, None),
                    Unauthenticated::Malformed => (CODE_BAD_REQUEST, None),
                    Unauthenticated::WrongCredentials => {
                        (CODE_UNAUTHORIZED, Some(DenyReason::Credentials))
                    }
                    Unauthenticated::StaleNonce => (CODE_STALE_NONCE, None),
                };
                return self.challenge(now, five_tuple, message, Failure { code, refusal }, out);
            }
        };
        let request = Request {
            now,
            five_tuple,
            message,
            auth,
        };
        let answer = if message.unknown_attributes().next().is_some() {
            Err(CODE_UNKNOWN_ATTRIBUTE.into())
        } else {
            match message.method() {
                METHOD_ALLOCATE => self.allocate(&request, out),
                METHOD_REFRESH => self.refresh(&request, out),
                METHOD_CREATE_PERMISSION => self.create_permission(&request),
                METHOD_CHANNEL_BIND => self.channel_bind(&request),
                _ => return,
            }
        };
        self.report(out);
        match answer {
            Ok(answer) => {
                self.stats.requests += 1;
                out.reply(five_tuple, &answer);
            }
            // An expired credential needs a new one.
            Err(failure) if failure.code == CODE_UNAUTHORIZED => {
                self.challenge(now, five_tuple, message, failure, out);
            }
            Err(failure) => self.fail(&request, failure, out),
        }
    }

    /// Sends an error response that is signed like every answer to an authenticated request.
    fn fail<'a>(
        &mut self,
        request: &Request<'_, 'a>,
        failure: Failure,
        out: &mut impl Output<'a, R::Socket>,
    ) {
        let mut reply = Reply::error(request.message, failure.code);
        match failure.code {
            CODE_UNKNOWN_ATTRIBUTE => {
                reply = reply.unknown_attributes(request.message.unknown_attributes())
            }
            CODE_TRY_ALTERNATE => {
                if let Some(alternate) = self.alternate(request.five_tuple.client) {
                    reply = reply.alternate(alternate);
                }
            }
            _ => {}
        }
        let bytes = request.finish(reply);
        reply::count(&mut self.stats.refused, failure.code);
        if let Some(refusal) = failure.refusal {
            self.stats.policy_denials += u64::from(matches!(refusal, DenyReason::Peer(_)));
            let user = Some(Arc::from(request.auth.rest.user));
            out.event(Event::Refused {
                five_tuple: *request.five_tuple,
                user,
                refusal,
            });
        }
        out.reply(request.five_tuple, &bytes);
    }

    /// Sends an unsigned error response with what the client needs to authenticate itself.
    ///
    /// The answer to a datagram is bounded by the length of the datagram, and by nothing else: a
    /// limit on the number of answers could be used up by a sender that forges the source.
    fn challenge<'a>(
        &mut self,
        now: Now,
        five_tuple: &FiveTuple,
        request: &Message<'a>,
        failure: Failure,
        out: &mut impl Output<'a, R::Socket>,
    ) {
        self.stats.auth_failures += u64::from(failure.refusal.is_some());
        let write = |form| self.write_challenge(now, five_tuple, request, failure.code, form);
        let mut bytes = write(Form::Full);
        for shorter in [Form::Terse, Form::Shortest] {
            if five_tuple.transport.is_stream() || bytes.len() <= AMPLIFICATION * request.len() {
                break;
            }
            bytes = write(shorter);
        }
        if amplifies(five_tuple, request, &bytes) {
            self.stats.dropped.amplification += 1;
            return;
        }
        reply::count(&mut self.stats.refused, failure.code);
        if let Some(refusal) = failure.refusal {
            out.event(Event::Refused {
                five_tuple: *five_tuple,
                user: None,
                refusal,
            });
        }
        out.reply(five_tuple, &bytes);
    }

    fn write_challenge(
        &self,
        now: Now,
        five_tuple: &FiveTuple,
        request: &Message<'_>,
        code: ErrorCode,
        form: Form,
    ) -> Vec<u8> {
        let mut reply = match form {
            Form::Full => Reply::error(request, code),
            Form::Terse | Form::Shortest => Reply::terse_error(request, code),
        };
        if code != CODE_BAD_REQUEST {
            let features = match form {
                Form::Full | Form::Terse => Features::Announced,
                Form::Shortest => Features::None,
            };
            let key = self.shared.nonce_key();
            let nonce = nonce::mint(key, five_tuple.client, now.unix, features);
            reply = reply
                .text(ATTR_REALM, &self.settings.realm)
                .text(ATTR_NONCE, &nonce);
            if features == Features::Announced {
                reply = reply.raw(ATTR_PASSWORD_ALGORITHMS, &PASSWORD_ALGORITHMS);
            }
        }
        if form == Form::Full || request.has_fingerprint() {
            reply.finish(None)
        } else {
            reply.finish_bare()
        }
    }

    /// Where a client may go instead; only an address of its own family helps it (RFC 8489
    /// section 10).
    pub(super) fn alternate(&self, client: SocketAddr) -> Option<SocketAddr> {
        let family = Family::of(client.ip());
        self.settings
            .alternates
            .iter()
            .copied()
            .find(|a| Family::of(a.ip()) == family)
    }
}

impl Request<'_, '_> {
    /// The signed bytes of `reply`.
    pub(super) fn finish(&self, reply: Reply) -> Vec<u8> {
        let reply = match self.message.method() {
            METHOD_ALLOCATE | METHOD_REFRESH => reply.software(),
            _ => reply,
        };
        reply.finish(Some(&self.auth.signature))
    }
}

/// What of a challenge is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Everything.
    Full,
    /// No reason phrase, and FINGERPRINT only where the request has one.
    Terse,
    /// What a client of RFC 5389 needs: ERROR-CODE, REALM, NONCE.
    Shortest,
}

/// Over a stream the source has shown that it is where it says.
fn amplifies(five_tuple: &FiveTuple, request: &Message<'_>, reply: &[u8]) -> bool {
    let headers = match Family::of(five_tuple.client.ip()) {
        Family::V4 => 20 + 8,
        Family::V6 => 40 + 8,
    };
    five_tuple.transport == Transport::Udp
        && headers + reply.len() > WIRE_AMPLIFICATION * (headers + request.len())
}
