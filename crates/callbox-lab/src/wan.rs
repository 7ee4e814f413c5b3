//! The Internet of the lab: one public address for each network, and packets handed from one
//! network's router to another's over sockets in a folder that root alone can read.
//!
//! Nothing of it is in the kernel's routing tables or firewall: no interface, rule or setting of
//! the machine's own network is touched, and all that can outlive a crash is a file.

use crate::nat::Public;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::path::{Path, PathBuf};
use tokio::net::UnixDatagram;
use tokio::runtime::Handle;

/// Where claimed addresses are kept; gone after a restart of the machine.
pub const FOLDER: &str = "/run/callbox-lab";
/// What a network keeps there; the lock is the last to go.
const FILES: [&str; 6] = ["sock", "resolv", "toml", "cert", "key", "lock"];
/// Networks that can exist at once on a machine.
const MAX_SLOTS: u8 = 250;
/// Packets that wait for a router.
const QUEUE: &str = "2048";
/// The first sixteen bits of 198.18.0.0/15, kept for tests of networks (RFC 2544).
const PUBLIC_V4: [u8; 2] = [198, 18];
/// And 2001:2::/48 (RFC 5180).
const PUBLIC_V6: [u16; 3] = [0x2001, 2, 0];
/// The addresses of hosts inside: 10.199.SLOT.0/24, fd00:cb:SLOT::/64.
const INSIDE_V4: [u8; 2] = [10, 199];
const INSIDE_V6: [u16; 2] = [0xfd00, 0xcb];

/// The addresses of one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    slot: u8,
}

impl Plan {
    /// Whether it is the plan of that network.
    #[must_use]
    pub fn is(self, slot: u8) -> bool {
        self.slot == slot
    }

    /// The public IPv4 address; `second` is the other one.
    #[must_use]
    pub fn public_v4(self, second: bool) -> Ipv4Addr {
        Ipv4Addr::new(PUBLIC_V4[0], PUBLIC_V4[1], second.into(), self.slot)
    }

    /// The public IPv6 address; `second` is the other one.
    #[must_use]
    pub fn public_v6(self, second: bool) -> Ipv6Addr {
        let [a, b, c] = PUBLIC_V6;
        Ipv6Addr::new(a, b, c, 0, 0, 0, second.into(), self.slot.into())
    }

    /// Both families' public addresses.
    #[must_use]
    pub fn public(self, second: bool) -> Public {
        let v4 = self.public_v4(second).into();
        let addresses = vec![v4, self.public_v6(second).into()];
        Public { addresses }
    }

    /// The address of the host behind a NAT.
    #[must_use]
    pub fn inside_v4(self) -> Ipv4Addr {
        Ipv4Addr::new(INSIDE_V4[0], INSIDE_V4[1], self.slot, 2)
    }

    /// The address of the host behind a NAT.
    #[must_use]
    pub fn inside_v6(self) -> Ipv6Addr {
        let [a, b] = INSIDE_V6;
        Ipv6Addr::new(a, b, self.slot.into(), 0, 0, 0, 0, 2)
    }

    /// A file of this network that a crash may leave behind, and [`clean`] removes: one of
    /// [`FILES`].
    #[must_use]
    pub fn file(self, name: &str) -> PathBuf {
        Path::new(FOLDER).join(format!("{}.{name}", self.slot))
    }

    /// The router's own addresses inside, where it answers DNS.
    #[must_use]
    pub fn router(self) -> [IpAddr; 2] {
        let [a, b] = INSIDE_V6;
        [
            Ipv4Addr::new(INSIDE_V4[0], INSIDE_V4[1], self.slot, 1).into(),
            Ipv6Addr::new(a, b, self.slot.into(), 0, 0, 0, 0, 1).into(),
        ]
    }
}

/// Where the probes of a NAT go: two addresses of a family, which every router answers itself.
#[must_use]
pub fn probe_address(v6: bool, second: bool) -> IpAddr {
    let last = 1 + u8::from(second);
    let [a, b, c] = PUBLIC_V6;
    match v6 {
        false => Ipv4Addr::new(198, 19, 255, last).into(),
        true => Ipv6Addr::new(a, b, c, 0xffff, 0, 0, 0, last.into()).into(),
    }
}

/// Whose address it is, of another network of the lab.
#[must_use]
pub fn slot_of(ip: IpAddr) -> Option<u8> {
    let slot = match ip {
        IpAddr::V4(ip) => match ip.octets() {
            [a, b, 0 | 1, slot] if [a, b] == PUBLIC_V4 => slot,
            _ => return None,
        },
        IpAddr::V6(ip) => match ip.segments() {
            [a, b, c, 0, 0, 0, 0 | 1, slot] if [a, b, c] == PUBLIC_V6 => u8::try_from(slot).ok()?,
            _ => return None,
        },
    };
    (1..=MAX_SLOTS).contains(&slot).then_some(slot)
}

/// Whether an address belongs to the lab, and so is never looked for on the machine's network.
#[must_use]
pub fn is_of_the_lab(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            (a, b & 0xfe) == (198, 18) || [a, b] == INSIDE_V4
        }
        IpAddr::V6(ip) => {
            let segments = ip.segments();
            segments[..3] == PUBLIC_V6 || segments[..2] == INSIDE_V6
        }
    }
}

/// A network's place on the Internet of the lab; given back when dropped or when the process ends.
pub struct Place {
    /// Its addresses.
    pub plan: Plan,
    socket: UnixDatagram,
    /// Sends at once; the reader would first wait for readiness.
    sender: StdDatagram,
    folder: PathBuf,
    _lock: File,
}

impl Place {
    /// Claims a free one, on a thread of `runtime` or one that is in a namespace. Only in the
    /// latter is the queue of packets long enough for bursts.
    ///
    /// # Errors
    /// A sentence: the folder cannot be made, or all places are taken.
    pub fn claim(runtime: &Handle) -> Result<Self, String> {
        let _entered = runtime.enter();
        // A setting of the namespace, for sockets that are made in it.
        let _ = fs::write("/proc/sys/net/unix/max_dgram_qlen", QUEUE);
        let folder = Path::new(FOLDER);
        make_folder(folder)?;
        for slot in 1..=MAX_SLOTS {
            let broken = |error| format!("{FOLDER}/{slot}: {error}");
            let Some(lock) = lock(folder, slot).map_err(broken)? else {
                continue;
            };
            let path = socket_path(folder, slot);
            let _ = fs::remove_file(&path);
            let socket = UnixDatagram::bind(&path).map_err(broken)?;
            let sender = StdDatagram::unbound().map_err(broken)?;
            sender.set_nonblocking(true).map_err(broken)?;
            return Ok(Self {
                plan: Plan { slot },
                socket,
                sender,
                folder: folder.to_owned(),
                _lock: lock,
            });
        }
        Err(format!(
            "{MAX_SLOTS} networks run at once already: end some of them first"
        ))
    }

    /// A packet for this network.
    ///
    /// # Errors
    /// The socket is broken.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.recv(buffer).await
    }

    /// Hands a packet to another network; a full queue drops it, as a router's does.
    pub fn send(&self, slot: u8, packet: &[u8]) {
        let _ = self.sender.send_to(packet, socket_path(&self.folder, slot));
    }

    /// A file of this network.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.plan.file(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        remove_all(&self.folder, self.plan.slot);
    }
}

/// Removes what crashed runs left, and says what it did.
///
/// # Errors
/// A sentence.
pub fn clean() -> Result<String, String> {
    let folder = Path::new(FOLDER);
    if !folder.exists() {
        return Ok("nothing was left behind\n".into());
    }
    let (mut removed, mut running) = (0, 0);
    for slot in 1..=MAX_SLOTS {
        if !lock_path(folder, slot).exists() {
            continue;
        }
        match lock(folder, slot) {
            Ok(Some(_lock)) => {
                remove_all(folder, slot);
                removed += 1;
            }
            Ok(None) => running += 1,
            Err(error) => return Err(format!("{FOLDER}/{slot}: {error}")),
        }
    }
    if running == 0 {
        let _ = fs::remove_dir(folder);
    }
    Ok(format!(
        "removed what {removed} ended networks left; {running} networks are in use\n"
    ))
}

fn make_folder(folder: &Path) -> Result<(), String> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(format!("{FOLDER} cannot be made: {error}"))
        }
        _ => Ok(()),
    }
}

/// `None` if another process has it. The lock goes with the process, however that ends.
fn lock(folder: &Path, slot: u8) -> io::Result<Option<File>> {
    let path = lock_path(folder, slot);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)?;
    match file.try_lock() {
        // Another process may have removed the file between the two steps: then it is locked in
        // vain.
        Ok(())
            if fs::metadata(&path).map(|there| there.ino()).ok()
                != Some(file.metadata()?.ino()) =>
        {
            Ok(None)
        }
        Ok(()) => {
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())?;
            Ok(Some(file))
        }
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

fn remove_all(folder: &Path, slot: u8) {
    // The lock goes last: while it is there, nobody else takes the place.
    for name in FILES {
        let _ = fs::remove_file(folder.join(format!("{slot}.{name}")));
    }
}

fn lock_path(folder: &Path, slot: u8) -> PathBuf {
    folder.join(format!("{slot}.lock"))
}

fn socket_path(folder: &Path, slot: u8) -> PathBuf {
    folder.join(format!("{slot}.sock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_say_whose_they_are() {
        let plan = Plan { slot: 7 };
        for second in [false, true] {
            assert_eq!(slot_of(plan.public_v4(second).into()), Some(7));
            assert_eq!(slot_of(plan.public_v6(second).into()), Some(7));
            for v6 in [false, true] {
                let probe = probe_address(v6, second);
                assert_eq!(slot_of(probe), None);
                assert!(is_of_the_lab(probe));
            }
        }
        assert_eq!(slot_of("198.18.2.7".parse().unwrap()), None);
        assert!(is_of_the_lab(plan.inside_v4().into()));
        assert!(is_of_the_lab(plan.inside_v6().into()));
        assert!(!is_of_the_lab("192.0.2.1".parse().unwrap()));
    }
}
