//! What an operator reads of allocations: one line at the end of each that was used, refusals by
//! kind and seldom.

use crate::address::shown_socket;
use crate::relay::engine::{DenyReason, Event, FiveTuple};
use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After the first refusal of a kind, further ones are only counted for this long.
const QUIET: Duration = Duration::from_secs(10);

/// Called on a worker's thread with what becomes of allocations; must not block.
pub type OnAllocation = Arc<dyn Fn(&Event) + Send + Sync>;

/// One worker's way to the log.
#[derive(Default)]
pub(in crate::relay) struct AllocationLog {
    /// Who is told beside the log.
    pub(in crate::relay) observer: Option<OnAllocation>,
    kinds: HashMap<Discriminant<DenyReason>, Kind>,
}

struct Kind {
    refusal: DenyReason,
    quiet_until: Instant,
    counted: u64,
}

impl AllocationLog {
    pub(in crate::relay) fn record(&mut self, event: &Event, now: Instant) {
        if let Some(observer) = &self.observer {
            observer(event);
        }
        match event {
            Event::Opened {
                user,
                five_tuple,
                relayed,
            } => tracing::debug!(
                %user, client = shown_socket(five_tuple.client), transport = ?five_tuple.transport, ?relayed,
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
                ..
            } => {
                // Browsers make allocations that no call comes to use; those are nobody's news.
                if sent.packets + received.packets > 0 {
                    tracing::info!(
                        %user, client = shown_socket(five_tuple.client), transport = ?five_tuple.transport,
                        ?relayed, seconds = lived.as_secs(), sent = sent.bytes,
                        received = received.bytes, ?reason, "relayed"
                    );
                } else {
                    tracing::debug!(
                        %user, client = shown_socket(five_tuple.client), transport = ?five_tuple.transport,
                        ?relayed, seconds = lived.as_secs(), ?reason, "allocation closed unused"
                    );
                }
            }
            // The worker does not watch its engine.
            Event::PermissionInstalled { .. }
            | Event::PermissionGone { .. }
            | Event::ChannelBound { .. }
            | Event::ChannelGone { .. } => {}
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
    pub(in crate::relay) fn report(&mut self, now: Instant) {
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
    pub(in crate::relay) fn next_report(&self) -> Option<Instant> {
        self.kinds.values().map(|kind| kind.quiet_until).min()
    }

    fn is_first(&mut self, refusal: DenyReason, now: Instant) -> bool {
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

fn log_refusal(five_tuple: &FiveTuple, user: Option<&Arc<str>>, refusal: DenyReason) {
    if let Some(fix) = fix(refusal) {
        tracing::warn!(
            user = user.map(|user| &**user), client = shown_socket(five_tuple.client),
            transport = ?five_tuple.transport, ?refusal,
            "relay request refused: {fix}"
        );
        return;
    }
    tracing::info!(
        user = user.map(|user| &**user), client = shown_socket(five_tuple.client),
        transport = ?five_tuple.transport, ?refusal,
        "relay request refused"
    );
}

/// What the operator can do about a refusal that the box is to blame for.
fn fix(refusal: DenyReason) -> Option<&'static str> {
    match refusal {
        DenyReason::NoDescriptor => Some(
            "the process has no file descriptor left: raise LimitNOFILE (ulimit -n), or lower \
             signal.max_connections",
        ),
        DenyReason::NoPort => Some(
            "no port of turn.relay_ports is free: widen the range, or stop what holds its ports",
        ),
        DenyReason::Socket => {
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
        for refusal in [
            DenyReason::NoDescriptor,
            DenyReason::NoPort,
            DenyReason::Socket,
        ] {
            assert!(fix(refusal).is_some(), "{refusal:?}");
        }
        let (mut allocation_log, now) = (AllocationLog::default(), Instant::now());
        let causes = [
            DenyReason::NoDescriptor,
            DenyReason::NoPort,
            DenyReason::UserQuota,
        ];
        let first = |allocation_log: &mut AllocationLog| {
            causes.map(|cause| allocation_log.is_first(cause, now))
        };
        assert_eq!(first(&mut allocation_log), [true; 3]);
        assert_eq!(first(&mut allocation_log), [false; 3]);
    }

    #[test]
    fn a_flood_of_one_kind_is_one_line_and_a_count_each_ten_seconds() {
        let (mut allocation_log, start) = (AllocationLog::default(), Instant::now());
        assert!(allocation_log.is_first(DenyReason::UserQuota, start));
        assert!(!allocation_log.is_first(DenyReason::UserQuota, start));
        assert!(allocation_log.is_first(DenyReason::Credentials, start));
        assert_eq!(allocation_log.next_report(), Some(start + QUIET));
        allocation_log.report(start + QUIET);
        assert!(!allocation_log.is_first(DenyReason::UserQuota, start + QUIET));
        assert!(
            allocation_log.is_first(DenyReason::Credentials, start + QUIET),
            "a kind that was quiet is news again"
        );
        allocation_log.report(start + QUIET * 2);
        allocation_log.report(start + QUIET * 3);
        assert_eq!(allocation_log.next_report(), None);
    }
}
