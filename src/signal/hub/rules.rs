//! The operator's rules on messages and calls.

use crate::auth::Role;
use crate::protocol::MessageType;

/// The rules of the operator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The first that fits the sender's role decides. What fits none is allowed.
    pub messages: Vec<MessageRule>,
    /// The first that fits both parties decides. Where there are rules, what fits none is refused.
    pub calls: Vec<CallRule>,
}

/// What members of a role may send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageRule {
    /// Whose messages; `None`: everybody's.
    pub role: Option<Role>,
    /// These types, and no others; `None`: any.
    pub allow: Option<Vec<MessageType>>,
    /// Not these.
    pub deny: Vec<MessageType>,
    /// Bytes of what others get of it.
    pub max: Option<usize>,
}

/// Who may call whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallRule {
    /// A glob over the caller's identity.
    pub from: Option<String>,
    /// A glob over the identity that is called.
    pub to: Option<String>,
    /// It fits parties whose tokens have the same `team` claim.
    pub same_team: bool,
    /// It fits members of one room.
    pub same_room: bool,
    /// Whether what fits is refused.
    pub deny: bool,
}
