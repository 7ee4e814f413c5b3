//! What was counted, for the process that goes on.

use super::Connections;
use std::sync::atomic::Ordering;

impl Connections {
    /// Refused connections by each bound ([`Self::refused`]).
    pub fn all_refused(&self) -> [u64; 3] {
        (self.refused.each_ref()).map(|count| count.load(Ordering::Relaxed))
    }

    /// Goes on from what an earlier process counted.
    pub fn add_refused(&self, refused: [u64; 3], made_room: u64) {
        for (count, earlier) in self.refused.iter().zip(refused) {
            count.fetch_add(earlier, Ordering::Relaxed);
        }
        self.made_room.fetch_add(made_room, Ordering::Relaxed);
    }
}
