//! Whether the systemd unit is the one that this process was started by: its sandbox, limits and
//! capabilities stay through an `execve`, so that a changed unit takes a restart.

use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// Where units are, those that win first.
const FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// The service that this process belongs to; `None` outside of one.
pub(super) fn name() -> Option<String> {
    std::env::var_os("NOTIFY_SOCKET")?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    unit_of(&groups).map(str::to_owned)
}

/// A hash of the files of the unit that this process belongs to; `None` outside of one.
pub(super) fn fingerprint() -> Option<String> {
    of_files(&FOLDERS.map(Path::new), &name()?)
}

/// The service of a process, from its control group.
fn unit_of(groups: &str) -> Option<&str> {
    let unified = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let name = unified
        .rsplit('/')
        .find(|part| part.ends_with(".service"))?;
    Some(name)
}

fn of_files(folders: &[&Path], unit: &str) -> Option<String> {
    let main = folders.iter().map(|folder| folder.join(unit));
    let main = main.into_iter().find(|path| path.exists())?;
    let mut files = vec![main];
    for folder in folders {
        let dropins = fs::read_dir(folder.join(format!("{unit}.d")));
        let mut found: Vec<PathBuf> = dropins
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "conf"))
            .collect();
        found.sort();
        files.extend(found);
    }
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update(fs::read(&file).ok()?);
        hash.update([0]);
    }
    let bytes = hash.finalize();
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_of_a_control_group_is_found() {
        let groups = "1:name=systemd:/x\n0::/system.slice/callbox.service\n";
        assert_eq!(unit_of(groups), Some("callbox.service"));
        assert_eq!(unit_of("0::/user.slice/session-3.scope\n"), None);
    }

    #[test]
    fn a_changed_unit_or_drop_in_is_another_unit() {
        let folder = tempfile::tempdir().unwrap();
        let of = || of_files(&[folder.path()], "callbox.service");
        assert_eq!(of(), None);
        fs::write(folder.path().join("callbox.service"), "[Service]\n").unwrap();
        let first = of().unwrap();
        assert_eq!(of(), Some(first.clone()));
        let dropins = folder.path().join("callbox.service.d");
        fs::create_dir(&dropins).unwrap();
        fs::write(dropins.join("limits.conf"), "[Service]\nLimitNOFILE=9\n").unwrap();
        assert_ne!(of().unwrap(), first);
        fs::remove_dir_all(&dropins).unwrap();
        assert_eq!(of().unwrap(), first);
    }
}
