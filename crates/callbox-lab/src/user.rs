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
            is_other: uid != own,
        })
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
        let runtime = PathBuf::from(format!("/run/user/{}", self.uid));
        if !runtime.is_dir() {
            return changes;
        }
        let unset = |key: &str| env::var_os(key).is_none();
        changes.push(("XDG_RUNTIME_DIR", text(&runtime)));
        if unset("DBUS_SESSION_BUS_ADDRESS") && runtime.join("bus").exists() {
            let address = format!("unix:path={}", runtime.join("bus").display());
            changes.push(("DBUS_SESSION_BUS_ADDRESS", Some(address)));
        }
        if unset("WAYLAND_DISPLAY") && runtime.join("wayland-0").exists() {
            changes.push(("WAYLAND_DISPLAY", Some("wayland-0".into())));
        }
        if unset("DISPLAY") && Path::new("/tmp/.X11-unix/X0").exists() {
            changes.push(("DISPLAY", Some(":0".into())));
        }
        if unset("XAUTHORITY") && self.home.join(".Xauthority").exists() {
            changes.push(("XAUTHORITY", text(&self.home.join(".Xauthority"))));
        }
        changes
    }
}
