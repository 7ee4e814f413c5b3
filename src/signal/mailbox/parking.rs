//! A mailbox that one process leaves and another one goes on with.

use super::super::carrier::{Message, ParkedMailbox};
use super::{Mailbox, MailboxCarrier, State, wake};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

impl Mailbox {
    /// Says by what another process finds the mailbox again; one without that ends with this process.
    pub fn set_label(&self, label: String) {
        let _ = self.label.set(label);
    }

    /// Whether another process goes on with it: a request is best made again, over another connection.
    pub fn is_parked(&self) -> bool {
        self.lock().parked
    }

    pub(super) fn can_park(&self) -> bool {
        let state = self.lock();
        let is_carried = state.adopted.is_none() && !state.upgraded;
        let goes_on = !state.closed && state.goodbye.is_none() && !self.keeps;
        is_carried && goes_on && self.label.get().is_some()
    }

    pub(super) fn park(&self) -> Option<ParkedMailbox> {
        let label = self.label.get()?.clone();
        let mut state = self.lock();
        if state.closed || state.upgraded {
            return None;
        }
        state.parked = true;
        wake(&mut state.fetcher);
        let silent = match state.attached {
            0 => state.seen.elapsed(),
            _ => Duration::ZERO,
        };
        let ms = |time: Duration| time.as_millis().try_into().unwrap_or(u64::MAX);
        Some(ParkedMailbox {
            label,
            idle: ms(self.idle),
            silent: ms(silent),
            unread: state.unread.drain(..).collect(),
            partial: std::mem::take(&mut state.partial),
            waiting: state.waiting.drain(..).collect(),
        })
    }

    /// The mailbox of an earlier process, and what its connection's task runs on.
    pub fn of(parked: ParkedMailbox) -> (Arc<Self>, MailboxCarrier) {
        let (mailbox, carrier) = Self::new(Duration::from_millis(parked.idle), false);
        mailbox.set_label(parked.label);
        {
            let mut state = mailbox.lock();
            let silent = Duration::from_millis(parked.silent);
            let now = Instant::now();
            *state = State {
                unread: parked.unread.into(),
                partial: parked.partial,
                bytes: parked.waiting.iter().map(Message::len).sum(),
                waiting: parked.waiting.into(),
                seen: now.checked_sub(silent).unwrap_or(now),
                ..State::new()
            };
        }
        (mailbox, carrier)
    }
}
