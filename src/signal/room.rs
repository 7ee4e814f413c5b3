//! One room: who is in it with which role, and who may come in.
//!
//! Knows peers by their ids only; what they are called and how to reach them is the hub's.

use crate::auth::Role;
use crate::protocol::{ErrorCode, PeerId, RoomView};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// A room with at least one member.
#[derive(Debug)]
pub struct Room {
    /// Its name.
    pub id: Arc<str>,
    /// Whether newcomers are refused.
    pub locked: bool,
    /// How many it holds at most.
    pub max_peers: u32,
    /// What newcomers must know.
    pub password: Option<PasswordHash>,
    /// What its host says of it.
    pub metadata: Option<Box<RawValue>>,
    /// Whether addresses are kept from showing.
    pub relay_only: bool,
    /// Unix milliseconds.
    pub created_at: u64,
    /// The network of who made it.
    pub maker: IpAddr,
    /// Invitations by their ids.
    pub invites: BTreeMap<String, Invite>,
    members: Vec<Member>,
}

/// An invitation that a host gave out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// The host.
    pub by: PeerId,
    /// Whether a token made that one host: then the role is as if a token had given it.
    pub by_token: bool,
    /// Unix seconds.
    pub expires_at: u64,
    /// How often it may still be used; `None`: as often as one likes.
    pub uses: Option<u32>,
}

/// One peer in a room.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub peer: PeerId,
    /// What it may do.
    pub role: Role,
    /// The role that a token gave, if one did: such a member never becomes host by succession, and
    /// a host by token is not under hosts of another kind.
    pub token_role: Option<Role>,
    /// Unix milliseconds.
    pub joined_at: u64,
}

/// A password as it is kept: salted SHA-256. A slow hash would let anyone burn the server's CPU,
/// and what it protects against, the theft of a stored file, cannot happen: rooms live in memory.
#[derive(Clone, Serialize, Deserialize)]
pub struct PasswordHash {
    salt: [u8; 16],
    hash: [u8; 32],
}

impl PasswordHash {
    /// Hashes with a salt that the caller has drawn.
    pub fn new(password: &SecretString, salt: [u8; 16]) -> Self {
        Self {
            salt,
            hash: salted(password, &salt),
        }
    }

    /// Compares in constant time.
    pub fn verify(&self, password: &SecretString) -> bool {
        salted(password, &self.salt).ct_eq(&self.hash).into()
    }
}

/// Weak passwords can be guessed from their hash.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

fn salted(password: &SecretString, salt: &[u8; 16]) -> [u8; 32] {
    Sha256::new()
        .chain_update(salt)
        .chain_update(password.expose_secret())
        .finalize()
        .into()
}

impl Room {
    /// Makes a room without members, restrictions or metadata.
    pub fn new(id: Arc<str>, max_peers: u32, created_at: u64, maker: IpAddr) -> Self {
        Self {
            id,
            locked: false,
            max_peers,
            password: None,
            metadata: None,
            relay_only: false,
            created_at,
            maker,
            invites: BTreeMap::new(),
            members: Vec::new(),
        }
    }

    /// Puts members where they were in the room that this one continues.
    pub fn restore_members(&mut self, members: Vec<Member>) {
        self.members = members;
    }

    /// Whether someone with the right password may come in, once `leaving` members are out.
    /// Neither a lock nor `max_peers`, both of which any host may set, keeps out those whom a token
    /// makes host; `limit` is the server's own and holds for everybody.
    ///
    /// # Errors
    /// `room-locked` or `room-full`.
    pub fn admit(
        &self,
        token_role: Option<Role>,
        leaving: usize,
        limit: u32,
    ) -> Result<(), ErrorCode> {
        let (locked, limit) = match token_role {
            Some(Role::Host) => (false, limit),
            _ => (self.locked, self.max_peers.min(limit)),
        };
        if locked {
            Err(ErrorCode::RoomLocked)
        } else if self.members.len() - leaving >= limit as usize {
            Err(ErrorCode::RoomFull)
        } else {
            Ok(())
        }
    }

    /// Adds a newcomer. Without a token's role it is a member, or host where there is none: then
    /// nobody in the room may become one.
    pub fn add(&mut self, peer: PeerId, token_role: Option<Role>, joined_at: u64) {
        let role = token_role.unwrap_or(if self.has_host() {
            Role::Member
        } else {
            Role::Host
        });
        self.members.push(Member {
            peer,
            role,
            token_role,
            joined_at,
        });
    }

    /// Removes a member; returns who becomes host because the last one has left.
    pub fn remove(&mut self, peer: PeerId) -> Option<PeerId> {
        let index = self.members.iter().position(|m| m.peer == peer)?;
        let left = self.members.remove(index);
        if left.role != Role::Host || self.has_host() {
            return None;
        }
        // Members stand in the order in which they came.
        let heir = self
            .members
            .iter_mut()
            .find(|m| m.role == Role::Member && m.token_role.is_none())?;
        heir.role = Role::Host;
        Some(heir.peer)
    }

    /// Gives a member another role.
    ///
    /// # Errors
    /// `no-such-peer`, or `forbidden` where the room would be left without a host.
    pub fn set_role(&mut self, peer: PeerId, role: Role) -> Result<(), ErrorCode> {
        let hosts = self.members.iter().filter(|m| m.role == Role::Host).count();
        let member = self
            .members
            .iter_mut()
            .find(|m| m.peer == peer)
            .ok_or(ErrorCode::NoSuchPeer)?;
        if member.role == Role::Host && role != Role::Host && hosts == 1 {
            return Err(ErrorCode::Forbidden);
        }
        member.role = role;
        Ok(())
    }

    /// Whether `asker`, a host, may remove or demote `target`: a token's host answers to others of
    /// its kind only.
    pub fn rules_over(&self, asker: PeerId, target: PeerId) -> bool {
        let by_token = |peer| {
            self.member(peer)
                .is_some_and(|member| member.token_role == Some(Role::Host))
        };
        asker == target || by_token(asker) || !by_token(target)
    }

    /// The member of that id.
    pub fn member(&self, peer: PeerId) -> Option<&Member> {
        self.members.iter().find(|m| m.peer == peer)
    }

    /// All members, in the order in which they came.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// All members but one.
    pub fn others(&self, peer: PeerId) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |m| m.peer != peer)
    }

    /// The room as those see it who are not in it.
    pub fn counted_view(&self) -> RoomView<'_> {
        RoomView {
            peers: Some(self.members.len()),
            ..self.view()
        }
    }

    /// The room as its members see it.
    pub fn view(&self) -> RoomView<'_> {
        RoomView {
            room_id: &self.id,
            locked: self.locked,
            max_peers: self.max_peers,
            has_password: self.password.is_some(),
            metadata: self.metadata.as_deref(),
            relay_only: self.relay_only,
            created_at: self.created_at,
            peers: None,
        }
    }

    fn has_host(&self) -> bool {
        self.members.iter().any(|m| m.role == Role::Host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId::from_bits(1);
    const B: PeerId = PeerId::from_bits(2);
    const C: PeerId = PeerId::from_bits(3);

    fn room(max_peers: u32) -> Room {
        Room::new("r".into(), max_peers, 0, IpAddr::from([192, 0, 2, 1]))
    }

    fn role(room: &Room, peer: PeerId) -> Role {
        room.member(peer).unwrap().role
    }

    #[test]
    fn the_first_is_host_and_the_longest_present_inherits() {
        let mut room = room(9);
        for peer in [A, B, C] {
            room.add(peer, None, 0);
        }
        assert_eq!((role(&room, A), role(&room, B)), (Role::Host, Role::Member));
        assert_eq!(room.remove(A), Some(B));
        assert_eq!(room.remove(C), None);
        assert_eq!(role(&room, B), Role::Host);
    }

    #[test]
    fn roles_given_by_tokens_do_not_rise() {
        let mut room = room(9);
        room.add(A, None, 0);
        room.add(B, Some(Role::Member), 0);
        room.add(C, None, 0);
        assert_eq!(room.remove(A), Some(C));
        assert_eq!(room.remove(C), None);
        assert_eq!(role(&room, B), Role::Member);
    }

    #[test]
    fn who_comes_into_a_room_without_a_host_becomes_one() {
        let mut room = room(9);
        room.add(A, Some(Role::Viewer), 0);
        room.add(B, Some(Role::Member), 0);
        room.add(C, None, 0);
        assert_eq!(role(&room, C), Role::Host);
        assert_eq!(room.remove(C), None);
        room.add(C, None, 0);
        assert_eq!(role(&room, C), Role::Host);
    }

    #[test]
    fn viewers_do_not_inherit_and_one_of_two_hosts_may_go() {
        let mut room = room(9);
        room.add(A, None, 0);
        room.add(B, None, 0);
        room.add(C, None, 0);
        room.set_role(B, Role::Viewer).unwrap();
        room.set_role(C, Role::Host).unwrap();
        assert_eq!(room.remove(A), None);
        assert_eq!(room.remove(C), None);
        assert_eq!(role(&room, B), Role::Viewer);
    }

    #[test]
    fn the_last_host_cannot_step_down() {
        let mut room = room(9);
        room.add(A, None, 0);
        room.add(B, None, 0);
        assert_eq!(room.set_role(A, Role::Member), Err(ErrorCode::Forbidden));
        assert_eq!(room.set_role(C, Role::Member), Err(ErrorCode::NoSuchPeer));
        room.set_role(B, Role::Host).unwrap();
        room.set_role(A, Role::Member).unwrap();
    }

    #[test]
    fn locks_and_capacity_are_checked() {
        const LIMIT: u32 = 2;
        let mut room = room(1);
        assert_eq!(room.admit(None, 0, LIMIT), Ok(()));
        room.add(A, None, 0);
        assert_eq!(room.admit(None, 0, LIMIT), Err(ErrorCode::RoomFull));
        assert_eq!(room.admit(None, 1, LIMIT), Ok(()));
        room.locked = true;
        assert_eq!(room.admit(None, 1, LIMIT), Err(ErrorCode::RoomLocked));
        let member = Some(Role::Member);
        assert_eq!(room.admit(member, 1, LIMIT), Err(ErrorCode::RoomLocked));
        let host = Some(Role::Host);
        assert_eq!(room.admit(host, 0, LIMIT), Ok(()), "locked and full");
        room.add(B, host, 0);
        assert_eq!(room.admit(host, 0, LIMIT), Err(ErrorCode::RoomFull));
    }

    #[test]
    fn a_tokens_host_answers_to_its_kind_only() {
        let mut room = room(9);
        room.add(A, None, 0);
        room.add(B, Some(Role::Host), 0);
        room.add(C, Some(Role::Host), 0);
        assert!(!room.rules_over(A, B), "a host, but by no token");
        assert!(room.rules_over(B, A) && room.rules_over(B, C) && room.rules_over(B, B));
        room.set_role(B, Role::Member).unwrap();
        assert!(!room.rules_over(A, B), "still the token's");
    }

    #[test]
    fn passwords_are_verified_and_not_kept() {
        let hash = PasswordHash::new(&"open sesame".into(), [7; 16]);
        assert!(hash.verify(&"open sesame".into()));
        assert!(!hash.verify(&"open sesame ".into()));
        assert!(!hash.verify(&"".into()));
        assert_ne!(
            hash.hash,
            PasswordHash::new(&"open sesame".into(), [8; 16]).hash
        );
    }
}
