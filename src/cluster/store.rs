//! What is in Redis: the names of keys, and the four scripts by which everything there changes hands.
//!
//! Each script touches keys of one slot and looks at no clock, so that a Redis that stalls, or one
//! whose clock jumps, buries nobody.

#[cfg(test)]
pub(crate) mod model;

use super::Incarnation;
use std::fmt;

/// Counts the own beat and registers who is new; answers the store's memory, the own count (0: buried)
/// and all counts. Keys: nodes, mark. Arguments: the incarnation, the mark that it knows, and one that
/// it has drawn: for a store without, or in place of the one that it knows, of the same memory, which is
/// what the first 16 bytes stand for. A node that knows another memory registers anew, as it cannot have
/// been buried in this one.
pub const BEAT: &str = r"
local mark = redis.call('GET', KEYS[2])
if not mark then
  mark = ARGV[3]
  redis.call('SET', KEYS[2], mark)
elseif mark == ARGV[2] and string.sub(mark, 1, 16) == string.sub(ARGV[3], 1, 16) then
  mark = ARGV[3]
  redis.call('SET', KEYS[2], mark)
end
local count = 0
if string.sub(mark, 1, 16) ~= string.sub(ARGV[2], 1, 16) or redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  count = redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
end
return {mark, count, redis.call('HGETALL', KEYS[1])}
";

/// Buries a node whose count is still the one that was seen; answers 0 where it has moved, or where the
/// store has forgotten since: then the count began anew and says nothing. Keys: nodes, mark. Arguments:
/// the incarnation, the count, the mark.
pub const BURY: &str = r"
local mark = redis.call('GET', KEYS[2])
if not mark or string.sub(mark, 1, 16) ~= string.sub(ARGV[3], 1, 16) then return 0 end
local count = redis.call('HGET', KEYS[1], ARGV[1])
if not count then return 1 end
if count ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
return 1
";

/// Makes the asker a room's home, where it is nobody's, or that of the expected node. Key: the room.
/// Arguments: the incarnation, the expected one or nothing, and for how long the record is kept, ms.
/// Answers 1 (it was already) or 2 with the epoch and all fields, or 0 with the owner.
pub const CLAIM: &str = r"
local owner = redis.call('HGET', KEYS[1], 'o')
local won = 1
if owner ~= ARGV[1] then
  if owner and owner ~= '' and owner ~= ARGV[2] then return {0, owner} end
  redis.call('HINCRBY', KEYS[1], 'e', 1)
  redis.call('HSET', KEYS[1], 'o', ARGV[1])
  won = 2
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {won, redis.call('HGET', KEYS[1], 'e'), redis.call('HGETALL', KEYS[1])}
";

/// Saves fields of a room, where the asker is its home in that epoch; answers 0 where it is not. Key:
/// the room. Arguments: the incarnation, the epoch, `keep`, `end` (the room has no members left) or
/// `give` (nobody is its home from here on), for how long the record is kept, how many pairs of field
/// and value follow, those, and the fields that go.
pub const SAVE: &str = r"
if redis.call('HGET', KEYS[1], 'o') ~= ARGV[1] or redis.call('HGET', KEYS[1], 'e') ~= ARGV[2] then
  return 0
end
if ARGV[3] == 'end' then
  redis.call('DEL', KEYS[1])
  return 1
end
local last = 5 + 2 * tonumber(ARGV[5])
for i = 6, last, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
for i = last + 1, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
if ARGV[3] == 'give' then redis.call('HSET', KEYS[1], 'o', '') end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
";

/// Bytes of a mark that stand for the memory; the others say how rooms are found in it.
pub const MEMORY: usize = 16;

/// What of a mark stands for the store's memory.
pub fn memory(mark: &[u8]) -> &[u8] {
    &mark[..mark.len().min(MEMORY)]
}

/// For how long the record of a room is kept that nobody saves or renews, ms: a day.
pub const KEPT_MS: u64 = 24 * 3600 * 1000;

/// What becomes of a room with a save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stays with its home.
    Keep,
    /// It has no members left.
    End,
    /// Nobody is its home from here on.
    Give,
}

impl Fate {
    /// As the script takes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::End => "end",
            Self::Give => "give",
        }
    }
}

/// Names of keys and channels, with the cluster's prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Takes the prefix: several clusters may share a Redis.
    pub fn new(prefix: &str) -> Self {
        let prefix = prefix.to_owned();
        Self { prefix }
    }

    fn of(&self, rest: impl fmt::Display) -> String {
        format!("{}:{rest}", self.prefix)
    }

    /// The counts of all nodes.
    pub fn nodes(&self) -> String {
        self.of("{n}:nodes")
    }

    /// The store's memory.
    pub fn mark(&self) -> String {
        self.of("{n}:mark")
    }

    /// What a node says of itself.
    pub fn node(&self, node: Incarnation) -> String {
        self.of(format_args!("n:{node}"))
    }

    /// A room's record.
    pub fn room(&self, hash: &str) -> String {
        self.of(format_args!("r:{{{hash}}}"))
    }

    /// A room's image while it moves.
    pub fn image(&self, hash: &str) -> String {
        self.of(format_args!("h:{{{hash}}}"))
    }

    /// Revocations by their expiry.
    pub fn revoked(&self) -> String {
        self.of("v")
    }

    /// What all nodes are to know.
    pub fn notes(&self) -> String {
        self.of("d")
    }

    /// The channel on which a node listens.
    pub fn inbox(&self, node: Incarnation) -> String {
        self.of(format_args!("c:{node}"))
    }

    /// What the ACL of Redis has to allow.
    pub fn acl(&self, user: &str) -> String {
        let prefix = &self.prefix;
        format!("user {user} on ~{prefix}:* &{prefix}:* {COMMANDS}")
    }
}

/// The commands that nodes and their scripts use, as an ACL allows them.
const COMMANDS: &str = "-@all +@connection +publish +subscribe +unsubscribe +eval +evalsha \
                        +script|load +hget +hgetall +hset +hdel +hexists +hincrby +set +get +del \
                        +pexpire +zadd +zrange +zremrangebyscore";
