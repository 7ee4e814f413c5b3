//! What the lab needs of a machine, looked for before anything is set up.

use crate::netns::search_path;
use nix::unistd::geteuid;
use std::path::Path;

/// Everything.
///
/// # Errors
/// A sentence that names what is missing and how to get it.
pub fn all(command: &str) -> Result<(), String> {
    root(command)?;
    if !has_capabilities() {
        return Err(format!(
            "{command} may not set up networks here, although it runs as root: in a container, \
             give it CAP_SYS_ADMIN and CAP_NET_ADMIN (docker run --cap-add SYS_ADMIN --cap-add \
             NET_ADMIN --device /dev/net/tun)"
        ));
    }
    for (tool, package) in [("nft", "nftables"), ("ip", "iproute2")] {
        let found = search_path()
            .split(':')
            .any(|folder| !folder.is_empty() && Path::new(folder).join(tool).is_file());
        if !found {
            return Err(format!(
                "{tool} is not installed: install the package {package}"
            ));
        }
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err(
            "/dev/net/tun does not exist: load the kernel module tun (modprobe tun); in a \
             container, give it --device /dev/net/tun"
                .into(),
        );
    }
    Ok(())
}

/// That this is root.
///
/// # Errors
/// A sentence.
pub fn root(command: &str) -> Result<(), String> {
    match geteuid().is_root() {
        true => Ok(()),
        false => Err(format!(
            "{command} makes network namespaces, which takes root: run it with sudo (what it runs \
             is still run as you)"
        )),
    }
}

/// `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`, by their numbers in capabilities(7).
fn has_capabilities() -> bool {
    const WANTED: u64 = (1 << 12) | (1 << 21);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    // A kernel that does not say is asked by trying.
    effective.is_none_or(|bits| bits & WANTED == WANTED)
}
