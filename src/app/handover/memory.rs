//! Whether the copy that a hand-over makes has room below the limit of the service (`MemoryMax=`):
//! beyond it the kernel would end the box, and every call with it.

use std::fs;
use std::path::Path;

/// Where control groups are.
const ROOT: &str = "/sys/fs/cgroup";

/// A frame of a ring is there as data, as text, and in the memory file, and the successor makes data of
/// it while it has the text.
const COPIES: u64 = 4;
/// What a session takes beside its ring, and an allocation, in all copies.
const SESSION: u64 = 8 << 10;
const ALLOCATION: u64 = 8 << 10;

/// What there is to hand over.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub(super) sessions: usize,
    pub(super) ring_bytes: usize,
    pub(super) allocations: usize,
}

impl Load {
    fn bytes(&self) -> u64 {
        let part = |count: usize, each: u64| (count as u64).saturating_mul(each);
        part(self.ring_bytes, COPIES)
            .saturating_add(part(self.sessions, SESSION))
            .saturating_add(part(self.allocations, ALLOCATION))
    }
}

/// Makes sure that there is room.
///
/// # Errors
/// How much is missing, in words for the log.
pub(super) fn check(load: &Load) -> Result<(), String> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    check_below(Path::new(ROOT), &groups, load.bytes())
}

fn check_below(root: &Path, groups: &str, bytes: u64) -> Result<(), String> {
    let Some(room) = room(root, groups) else {
        return Ok(());
    };
    if bytes <= room {
        return Ok(());
    }
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    Err(format!(
        "the snapshot takes about {} MiB of memory, and MemoryMax= leaves {} MiB: raise it \
         (`systemctl set-property --runtime callbox MemoryMax=…`), or stop and start the service",
        mebibytes(bytes),
        room >> 20
    ))
}

/// What the group of this process, and those around it, may take beyond what they have; `None` where
/// there is no limit.
fn room(root: &Path, groups: &str) -> Option<u64> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mut rooms = vec![];
    let mut folder = root.join(group);
    while folder.starts_with(root) {
        let number = |name: &str| -> Option<u64> {
            let text = fs::read_to_string(folder.join(name)).ok()?;
            text.trim().parse().ok()
        };
        if let (Some(limit), Some(current)) = (number("memory.max"), number("memory.current")) {
            // What files have in memory and nobody uses is given up first.
            let statistics = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
            let unused = statistics
                .lines()
                .find_map(|line| line.strip_prefix("inactive_file ")?.parse().ok());
            let used = current.saturating_sub(unused.unwrap_or(0));
            rooms.push(limit.saturating_sub(used));
        }
        if !folder.pop() {
            break;
        }
    }
    rooms.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_limit_around_the_process_counts() {
        let root = tempfile::tempdir().unwrap();
        let service = root.path().join("system.slice/callbox.service");
        fs::create_dir_all(&service).unwrap();
        let groups = "0::/system.slice/callbox.service\n";
        assert_eq!(room(root.path(), groups), None, "no limit at all");
        let set = |folder: &Path, name: &str, text: &str| {
            fs::write(folder.join(name), text).unwrap();
        };
        set(&service, "memory.max", "max\n");
        set(&service, "memory.current", "7\n");
        assert_eq!(room(root.path(), groups), None);
        set(&service, "memory.max", "1000\n");
        set(&service, "memory.current", "700\n");
        set(&service, "memory.stat", "anon 600\ninactive_file 100\n");
        assert_eq!(room(root.path(), groups), Some(400));
        let slice = root.path().join("system.slice");
        set(&slice, "memory.max", "5000\n");
        set(&slice, "memory.current", "4900\n");
        assert_eq!(room(root.path(), groups), Some(100));
        assert_eq!(room(root.path(), "0::/\n"), None);
        assert_eq!(check_below(root.path(), groups, 100), Ok(()));
        let refused = check_below(root.path(), groups, 3 << 20).unwrap_err();
        assert!(refused.contains("about 3 MiB") && refused.contains("leaves 0 MiB"));
    }

    #[test]
    fn rings_and_sessions_and_allocations_take_memory() {
        let load = Load {
            sessions: 50_000,
            ring_bytes: 256 << 20,
            allocations: 10_000,
        };
        assert!(load.bytes() > 1 << 30);
        assert_eq!(Load::default().bytes(), 0);
    }
}
