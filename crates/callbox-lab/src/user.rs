//! Who called the lab: with `sudo`, COMMAND runs as the user who typed it, on their desktop.

use nix::unistd::{Gid, Uid, User, geteuid, initgroups, setgid, setuid};
use serde::{Deserialize, Serialize};
use std::env;
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// A user and their surroundings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    uid: u32,
    gid: u32,
    name: String,
    home: PathBuf,
    shell: PathBuf,
    /// The lab runs as another user.
    is_other: bool,
}

impl Caller {
    /// Whom `SUDO_UID` names, or who runs this.
    ///
    /// # Errors
    /// `SUDO_UID` names nobody.
    pub fn find() -> Result<Self, String> {
        let named = env::var("SUDO_UID").ok().filter(|uid| uid != "0");
        let own = geteuid();
        let uid = match &named {
            Some(uid) => Uid::from_raw(
                uid.parse()
                    .map_err(|_| format!("SUDO_UID={uid:?} is not a user id"))?,
            ),
            None => own,
        };
        Self::new(uid)
    }

    fn new(uid: Uid) -> Result<Self, String> {
        let user = User::from_uid(uid)
            .ok()
            .flatten()
            .ok_or_else(|| format!("no user has the id {uid}"))?;
        Ok(Self {
            uid: uid.as_raw(),
            gid: user.gid.as_raw(),
            name: user.name,
            home: user.dir,
            shell: user.shell,
            is_other: uid != geteuid(),
        })
    }

    /// Who runs this, and not who called.
    ///
    /// # Errors
    /// The user id has no name.
    pub fn own() -> Result<Self, String> {
        Self::new(geteuid())
    }

    /// Becomes this user for good.
    ///
    /// # Errors
    /// A sentence.
    pub fn become_it(&self) -> Result<(), String> {
        if !self.is_other {
            return Ok(());
        }
        let broken =
            |error: &dyn std::fmt::Display| format!("cannot become {}: {error}", self.name);
        let name = CString::new(self.name.as_str()).map_err(|error| broken(&error))?;
        let gid = Gid::from_raw(self.gid);
        initgroups(&name, gid)
            .and_then(|()| setgid(gid))
            .and_then(|()| setuid(Uid::from_raw(self.uid)))
            .map_err(|errno| broken(&errno))
    }

    /// What to change in the environment: `sudo` has made it root's.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, Option<String>)> {
        if !self.is_other {
            return vec![];
        }
        let text = |path: &Path| Some(path.to_string_lossy().into_owned());
        let mut changes = vec![
            ("HOME", text(&self.home)),
            ("USER", Some(self.name.clone())),
            ("LOGNAME", Some(self.name.clone())),
            ("SHELL", text(&self.shell)),
            ("MAIL", None),
            ("SUDO_COMMAND", None),
            ("SUDO_USER", None),
            ("SUDO_UID", None),
            ("SUDO_GID", None),
        ];
        let desktop = Desktop {
            runtime: &PathBuf::from(format!("/run/user/{}", self.uid)),
            displays: Path::new("/tmp/.X11-unix"),
            home: &self.home,
        };
        changes.extend(desktop.environment(|key| env::var_os(key).is_some()));
        changes
    }
}

/// Where the sockets of a desktop are.
struct Desktop<'a> {
    /// Of the user: those of D-Bus and Wayland.
    runtime: &'a Path,
    /// Of X servers, `X0` and so on.
    displays: &'a Path,
    home: &'a Path,
}

impl Desktop<'_> {
    /// What a program needs to reach it. What `sudo` has let through stays.
    fn environment(&self, is_set: impl Fn(&str) -> bool) -> Vec<(&'static str, Option<String>)> {
        let text = |path: &Path| Some(path.to_string_lossy().into_owned());
        let mut changes = vec![];
        if self.runtime.is_dir() {
            changes.push(("XDG_RUNTIME_DIR", text(self.runtime)));
        }
        let bus = self.runtime.join("bus");
        if !is_set("DBUS_SESSION_BUS_ADDRESS") && bus.exists() {
            let address = format!("unix:path={}", bus.display());
            changes.push(("DBUS_SESSION_BUS_ADDRESS", Some(address)));
        }
        if !is_set("WAYLAND_DISPLAY")
            && let Some(number) = lowest(self.runtime, "wayland-")
        {
            changes.push(("WAYLAND_DISPLAY", Some(format!("wayland-{number}"))));
        }
        if !is_set("DISPLAY")
            && let Some(number) = lowest(self.displays, "X")
        {
            changes.push(("DISPLAY", Some(format!(":{number}"))));
        }
        let authority = self.home.join(".Xauthority");
        if !is_set("XAUTHORITY") && authority.exists() {
            changes.push(("XAUTHORITY", text(&authority)));
        }
        changes
    }
}

/// The lowest number that stands behind `prefix` in the name of a file of `folder`.
fn lowest(folder: &Path, prefix: &str) -> Option<u32> {
    let files = std::fs::read_dir(folder).ok()?;
    let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
    let numbers = names.filter_map(|name| name.strip_prefix(prefix)?.parse().ok());
    numbers.min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_desktop_is_reached_by_the_sockets_that_there_are() {
        let folder = env::temp_dir().join(format!("callbox-lab-desktop-{}", std::process::id()));
        let [runtime, displays, home] = ["run", "x11", "home"].map(|name| folder.join(name));
        let desktop = Desktop {
            runtime: &runtime,
            displays: &displays,
            home: &home,
        };
        let nothing: Vec<(&str, Option<String>)> = vec![];
        assert_eq!(desktop.environment(|_| false), nothing);
        for path in [&runtime, &displays, &home] {
            fs::create_dir_all(path).unwrap();
        }
        let files = [
            "run/bus",
            "run/wayland-1",
            "run/wayland-1.lock",
            "run/wayland-7",
        ];
        for name in files
            .into_iter()
            .chain(["x11/X11", "x11/X2", "home/.Xauthority"])
        {
            fs::write(folder.join(name), "").unwrap();
        }
        let found = desktop.environment(|_| false);
        let shown = |path: &str| Some(folder.join(path).to_string_lossy().into_owned());
        let bus = format!("unix:path={}", folder.join("run/bus").display());
        assert_eq!(
            found,
            [
                ("XDG_RUNTIME_DIR", shown("run")),
                ("DBUS_SESSION_BUS_ADDRESS", Some(bus)),
                ("WAYLAND_DISPLAY", Some("wayland-1".into())),
                ("DISPLAY", Some(":2".into())),
                ("XAUTHORITY", shown("home/.Xauthority")),
            ]
        );
        // What was let through is the user's own choice.
        let kept = desktop.environment(|key| key != "XAUTHORITY");
        let keys: Vec<_> = kept.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, ["XDG_RUNTIME_DIR", "XAUTHORITY"]);
        fs::remove_dir_all(&folder).unwrap();
    }
}
