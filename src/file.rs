//! Files that take the place of others whole.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Makes an empty file for this user alone, named `path` with the extension `new`: the caller writes it and renames it to
/// `path`, so that nobody reads half of it. What stands at that name, a symbolic link included, is removed and never written to.
pub fn beside(path: &Path) -> io::Result<(File, PathBuf)> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.append(true).create_new(true).mode(0o600);
    Ok((options.open(&beside)?, beside))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn nothing_is_written_through_a_link_and_nobody_else_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join("state"), folder.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, folder.path().join("state.new")).unwrap();
        let (mut file, fresh) = beside(&path).unwrap();
        file.write_all(b"fresh").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        let made = fs::symlink_metadata(&fresh).unwrap();
        assert!(made.is_file());
        assert_eq!(made.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(fresh).unwrap(), "fresh");
    }
}
