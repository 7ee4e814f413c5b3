//! Connections here whose client has asked for something that may be at another node, until that is known.

use super::super::State;
use super::{Granted, Message, Route, There};
use crate::auth::Grant;
use crate::protocol::{ClientMessage, Request};
use crate::signal::hub::{ConnId, Loss};
use crate::signal::nodes::{NodeId, Sought, Word};
use std::collections::VecDeque;
use std::time::Instant;

/// A client that has asked for something that may be elsewhere.
pub(in crate::signal::driver) struct Moving {
    /// Where its session is meanwhile, if not here.
    pub(super) from: Option<There>,
    /// Who was asked; `None` while that is sought.
    pub(super) to: Option<NodeId>,
    pub(super) sought: Sought,
    pub(super) message: ClientMessage,
    pub(super) grant: Grant,
    pub(super) behind: VecDeque<(Message, Granted)>,
    pub(super) until: Instant,
    pub(super) astray: u32,
}

impl Moving {
    /// What the node that was asked is told where its answer is not waited for; nothing where it has the
    /// client's session already.
    pub(super) fn end_of_wait(&self, vconn: u64, loss: Loss) -> Option<(NodeId, Word)> {
        let to = self.to?;
        let is_other = self.from.as_ref().is_none_or(|from| from.node != to);
        let word = match self.message.request {
            Request::Resume { .. } => Word::Closed { vconn, loss },
            _ => Word::Cancel { vconn },
        };
        is_other.then_some((to, word))
    }
}

impl State {
    pub(super) fn take_moving(&mut self, conn: ConnId) -> Option<Box<Moving>> {
        let links = self.links.as_mut()?;
        match links.routes.remove(&conn)? {
            Route::Moving(moving) => Some(moving),
            there @ Route::There(_) => {
                links.routes.insert(conn, there);
                None
            }
        }
    }

    pub(super) fn is_asked(&self, conn: ConnId, node: NodeId) -> bool {
        let links = self.links.as_ref();
        links.is_some_and(|links| match links.routes.get(&conn) {
            Some(Route::Moving(moving)) => moving.to == Some(node),
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests;
