//! What becomes of permissions and channels, kept until the shell takes it.
//!
//! An engine that nobody watches keeps nothing here and has no timer for permissions and channels:
//! each is judged where it is read.

use super::event::Event;

/// The events of one call, in their order.
#[derive(Debug, Default)]
pub(super) struct Watch {
    on: bool,
    /// At most twice what one allocation can hold: the shell gets them after each allocation.
    events: Vec<Event>,
}

impl Watch {
    /// Keeps events from here on.
    pub(super) fn start(&mut self) {
        self.on = true;
    }

    /// Whether permissions and channels end by a timer.
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// Keeps an event, if somebody watches.
    pub(super) fn push(&mut self, event: impl FnOnce() -> Event) {
        if self.on {
            self.events.push(event());
        }
    }

    /// What was kept since the last call.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Event> {
        self.events.drain(..)
    }
}
