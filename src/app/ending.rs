//! The end of a box: clients are asked to go elsewhere, then the connections, the listeners and the relay
//! are closed.

use super::{App, cluster, revocations};
use crate::http::Phase;
use std::time::{Duration, Instant};

/// How often a box that drains looks whether its last allocation is gone.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How long clients may take to receive the close frame of a box that ends: what a connection gives
/// them, and some more.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

impl App {
    /// Comes back when the admin API asks for a drain.
    pub async fn drain_asked(&self) {
        self.drain_asked.notified().await;
    }

    /// How long a drain waits for calls to end.
    pub fn grace(&self) -> Duration {
        self.reloader.grace()
    }

    /// Refuses newcomers, tells everybody, and returns once the last connection and the last
    /// allocation are gone or the grace has ended.
    pub async fn drain(&self) {
        self.phase.send_replace(Phase::Draining);
        self.reloader.hooks.node("node-draining");
        self.stop_inherited.send_replace(true);
        if let Some(relay) = &self.relay {
            relay.drain();
        }
        let grace_ends = Instant::now() + self.grace();
        match &self.cluster {
            Some(node) => cluster::leave(node, &self.driver).await,
            None => (self.driver).drain(grace_ends, self.reloader.has_alternate()),
        }
        let empty = async {
            self.driver.empty().await;
            // Those of other programs, which have no connection here, live as long as they are used.
            while let Some(relay) = &self.relay
                && !relay.allocations().await.is_empty()
            {
                tokio::time::sleep(DRAIN_POLL_INTERVAL).await;
            }
        };
        let _ = tokio::time::timeout_at(grace_ends.into(), empty).await;
    }

    /// Comes back once a part of the box has ended by itself, so that the box had better be started
    /// anew: clients of a relay worker that is gone would be refused for ever.
    pub async fn failed(&self) {
        match &self.relay {
            Some(relay) => relay.failed().await,
            None => std::future::pending().await,
        }
    }

    /// Closes the connections that are left, then every listener, then the relay.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        self.driver.end();
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.driver.empty()).await;
        self.tasks.shutdown().await;
        if let Some(relay) = &self.relay {
            if let Some(log) = &self.revocations {
                revocations::append(relay, log).await;
            }
            relay.close();
        }
        if let Some(usage) = &self.usage {
            usage.close();
        }
        self.reloader.hooks.flush().await;
    }
}
