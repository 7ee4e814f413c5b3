//! What an operator reads of allocations: one line at the end of each that was used, refusals by
//! kind and seldom.

use super::engine::{Event, FiveTuple, Refusal};
use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After the first refusal of a kind, further ones are only counted for this long.
const QUIET: Duration = Duration::from_secs(10);

/// One worker's way to the log.
#[derive(Default)]
pub(super) struct Journal {
    kinds: HashMap<Discriminant<Refusal>, Kind>,
}

struct Kind {
    refusal: Refusal,
    quiet_until: Instant,
    counted: u64,
}

impl Journal {
    pub(super) fn note(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Opened {
                user,
                five_tuple,
                relayed,
            } => tracing::debug!(
                %user, client = %five_tuple.client, transport = ?five_tuple.transport, ?relayed,
                "allocation opened"
            ),
            Event::Closed {
                user,
                five_tuple,
                relayed,
                sent,
                received,
                lived,
                reason,
            } => {
                // Browsers make allocations that no call comes to use; those are nobody's news.
                if sent.packets + received.packets > 0 {
                    tracing::info!(
                        %user, client = %five_tuple.client, transport = ?five_tuple.transport,
                        ?relayed, seconds = lived.as_secs(), sent = sent.bytes,
                        received = received.bytes, ?reason, "relayed"
                    );
                } else {
                    tracing::debug!(
                        %user, client = %five_tuple.client, transport = ?five_tuple.transport,
                        ?relayed, seconds = lived.as_secs(), ?reason, "allocation closed unused"
                    );
                }
            }
            Event::Refused {
                five_tuple,
                user,
                refusal,
            } => {
                if self.is_first(*refusal, now) {
                    log_refusal(five_tuple, user.as_ref(), *refusal);
                }
            }
        }
    }

    /// Logs how many refusals of each kind were left out, where it is time.
    pub(super) fn report(&mut self, now: Instant) {
        self.kinds.retain(|_, kind| {
            if kind.quiet_until > now {
                return true;
            }
            if kind.counted == 0 {
                return false;
            }
            tracing::info!(refusal = ?kind.refusal, count = kind.counted, "more relay requests refused");
            kind.counted = 0;
            kind.quiet_until = now + QUIET;
            true
        });
    }

    /// When [`report`](Self::report) is due next.
    pub(super) fn next_report(&self) -> Option<Instant> {
        self.kinds.values().map(|kind| kind.quiet_until).min()
    }

    fn is_first(&mut self, refusal: Refusal, now: Instant) -> bool {
        let kind = self.kinds.get_mut(&discriminant(&refusal));
        if let Some(kind) = kind {
            kind.counted += 1;
            return false;
        }
        self.kinds.insert(
            discriminant(&refusal),
            Kind {
                refusal,
                quiet_until: now + QUIET,
                counted: 0,
            },
        );
        true
    }
}

fn log_refusal(five_tuple: &FiveTuple, user: Option<&Arc<str>>, refusal: Refusal) {
    if let Some(fix) = fix(refusal) {
        tracing::warn!(
            user = user.map(|user| &**user), client = %five_tuple.client,
            transport = ?five_tuple.transport, ?refusal,
            "relay request refused: {fix}"
        );
        return;
    }
    tracing::info!(
        user = user.map(|user| &**user), client = %five_tuple.client,
        transport = ?five_tuple.transport, ?refusal,
        "relay request refused"
    );
}

/// What the operator can do about a refusal that the box is to blame for.
fn fix(refusal: Refusal) -> Option<&'static str> {
    match refusal {
        Refusal::NoDescriptor => Some(
            "the process has no file descriptor left: raise LimitNOFILE (ulimit -n), or lower \
             signal.max_connections",
        ),
        Refusal::NoPort => Some(
            "no port of turn.relay_ports is free: widen the range, or stop what holds its ports",
        ),
        Refusal::Socket => {
            Some("the relay address cannot be bound: check public.address and the interfaces")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_box_lacks_is_logged_with_its_fix_and_by_cause() {
        for refusal in [Refusal::NoDescriptor, Refusal::NoPort, Refusal::Socket] {
            assert!(fix(refusal).is_some(), "{refusal:?}");
        }
        let (mut journal, now) = (Journal::default(), Instant::now());
        let causes = [Refusal::NoDescriptor, Refusal::NoPort, Refusal::UserQuota];
        let first = |journal: &mut Journal| causes.map(|cause| journal.is_first(cause, now));
        assert_eq!(first(&mut journal), [true; 3]);
        assert_eq!(first(&mut journal), [false; 3]);
    }

    #[test]
    fn a_flood_of_one_kind_is_one_line_and_a_count_each_ten_seconds() {
        let (mut journal, start) = (Journal::default(), Instant::now());
        assert!(journal.is_first(Refusal::UserQuota, start));
        assert!(!journal.is_first(Refusal::UserQuota, start));
        assert!(journal.is_first(Refusal::Credentials, start));
        assert_eq!(journal.next_report(), Some(start + QUIET));
        journal.report(start + QUIET);
        assert!(!journal.is_first(Refusal::UserQuota, start + QUIET));
        assert!(
            journal.is_first(Refusal::Credentials, start + QUIET),
            "a kind that was quiet is news again"
        );
        journal.report(start + QUIET * 2);
        journal.report(start + QUIET * 3);
        assert_eq!(journal.next_report(), None);
    }
}
