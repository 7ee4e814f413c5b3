//! One room: who is in it with which role, and who may come in.
//!
//! Knows peers by their ids only; what they are called and how to reach them is the hub's.

use crate::auth::Role;
use crate::protocol::{ErrorCode, PeerId, RoomView};
use secrecy::{ExposeSecret, SecretString};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::fmt;
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
    members: Vec<Member>,
}

/// One peer in a room.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// Who.
    pub peer: PeerId,
    /// What it may do.
    pub role: Role,
    /// Whether a token gave the role: such a member never becomes host by succession.
    pub role_from_token: bool,
    /// Unix milliseconds.
    pub joined_at: u64,
}

/// A password as it is kept: salted SHA-256. A slow hash would let anyone burn the server's CPU,
/// and what it protects against, the theft of a stored file, cannot happen: rooms live in memory.
#[derive(Clone)]
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
    pub fn new(id: Arc<str>, max_peers: u32, created_at: u64) -> Self {
        Self {
            id,
            locked: false,
            max_peers,
            password: None,
            metadata: None,
            relay_only: false,
            created_at,
            members: Vec::new(),
        }
    }

    /// Tells whether someone with the right password may come in, once `leaving` members are out.
    /// A lock does not keep out those whom a token makes host: a host that lost its session must
    /// be able to unlock its room.
    ///
    /// # Errors
    /// `room-locked` or `room-full`.
    pub fn admit(&self, token_role: Option<Role>, leaving: usize) -> Result<(), ErrorCode> {
        if self.locked && token_role != Some(Role::Host) {
            Err(ErrorCode::RoomLocked)
        } else if self.members.len() - leaving >= self.max_peers as usize {
            Err(ErrorCode::RoomFull)
        } else {
            Ok(())
        }
    }

    /// Seats a newcomer. Without a token's role the first one is host and others are members.
    pub fn add(&mut self, peer: PeerId, token_role: Option<Role>, joined_at: u64) {
        let role = token_role.unwrap_or(if self.members.is_empty() {
            Role::Host
        } else {
            Role::Member
        });
        self.members.push(Member {
            peer,
            role,
            role_from_token: token_role.is_some(),
            joined_at,
        });
    }

    /// Removes a member; returns who becomes host because the last one has left.
    pub fn remove(&mut self, peer: PeerId) -> Option<PeerId> {
        let index = self.members.iter().position(|m| m.peer == peer)?;
        let left = self.members.remove(index);
        if left.role != Role::Host || self.members.iter().any(|m| m.role == Role::Host) {
            return None;
        }
        // Members stand in the order in which they came.
        let heir = self
            .members
            .iter_mut()
            .find(|m| m.role == Role::Member && !m.role_from_token)?;
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
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId::from_bits(1);
    const B: PeerId = PeerId::from_bits(2);
    const C: PeerId = PeerId::from_bits(3);

    fn room(max_peers: u32) -> Room {
        Room::new("r".into(), max_peers, 0)
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
    fn locks_and_seats_are_checked() {
        let mut room = room(1);
        assert_eq!(room.admit(None, 0), Ok(()));
        room.add(A, None, 0);
        assert_eq!(room.admit(None, 0), Err(ErrorCode::RoomFull));
        assert_eq!(room.admit(None, 1), Ok(()));
        room.locked = true;
        assert_eq!(room.admit(None, 1), Err(ErrorCode::RoomLocked));
        assert_eq!(room.admit(Some(Role::Host), 1), Ok(()));
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
