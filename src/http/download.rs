//! Files that clients read: as many at once as there are descriptors for, and each only as long as its
//! reader goes on reading.

use super::serve::{Caller, Ending};
use crate::net::FileCharge;
use axum::http::Extensions;
use futures_util::stream::{Stream, StreamExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::sleep;

/// How long a reader may take for one chunk: 64 KiB at 17 kbit/s.
const STALLED: Duration = Duration::from_secs(30);
/// How often a request looks whether a file of others is closed, and the pause between two looks.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// Whose connection a file goes to; nobody's in tests.
#[derive(Default)]
pub(super) struct Download {
    caller: Option<Caller>,
    ending: Option<Ending>,
}

impl Download {
    pub(super) fn of(request: &Extensions) -> Self {
        Self {
            caller: request.get().cloned(),
            ending: request.get().cloned(),
        }
    }

    /// The right to open one file, once there is one.
    pub(super) async fn slot(self) -> Option<Slot> {
        let mut charge = None;
        if let Some(caller) = &self.caller {
            for _ in 0..ATTEMPTS {
                charge = caller.place.open_file();
                if charge.is_some() {
                    break;
                }
                sleep(PAUSE).await;
            }
            charge.as_ref()?;
        }
        Some(Slot {
            _charge: charge,
            ending: self.ending,
        })
    }
}

/// The right to have one file open.
pub(super) struct Slot {
    _charge: Option<FileCharge>,
    ending: Option<Ending>,
}

impl Slot {
    /// Passes `chunks` on, and ends the connection once no chunk has been taken for a while. A body that
    /// is not read is not polled either, so that something else has to look.
    pub(super) fn watch<T>(self, chunks: impl Stream<Item = T>) -> impl Stream<Item = T> {
        let moved = Arc::new(AtomicBool::new(true));
        if let Some(ending) = self.ending.clone() {
            tokio::spawn(watch(Arc::downgrade(&moved), ending));
        }
        chunks.map(move |chunk| {
            let _ = &self;
            moved.store(true, Ordering::Relaxed);
            chunk
        })
    }
}

async fn watch(moved: Weak<AtomicBool>, ending: Ending) {
    loop {
        sleep(STALLED).await;
        match moved.upgrade() {
            None => return,
            Some(moved) if moved.swap(false, Ordering::Relaxed) => {}
            Some(_) => return ending.0.notify_one(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_not_read_ends_its_connection() {
        let slot = |ending: &Ending| Slot {
            _charge: None,
            ending: Some(ending.clone()),
        };
        let (read, unread) = (Ending::default(), Ending::default());
        let mut taken = Box::pin(slot(&read).watch(stream::repeat(1)));
        let kept = slot(&unread).watch(stream::repeat(1));
        for _ in 0..20 {
            taken.next().await;
            sleep(STALLED / 3).await;
        }
        assert!(timeout(STALLED, unread.0.notified()).await.is_ok());
        assert!(
            timeout(Duration::from_millis(1), read.0.notified())
                .await
                .is_err()
        );
        drop(kept);
        drop(taken);
        // Nobody looks after a file that is closed.
        assert!(timeout(STALLED * 4, read.0.notified()).await.is_err());
    }
}
