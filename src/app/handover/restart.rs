//! Whether systemd ends this process in order to start the service again.
//!
//! The process gets the same signal for `systemctl stop` and for `systemctl restart`. What it is of
//! the two is the type of the job that the unit has meanwhile, which systemd says over D-Bus.

use super::bus::{self, Bus, Part};
use super::unit;
use std::io;
use std::path::Path;
use std::time::Duration;

/// How long the bus may take. Calls go on meanwhile.
const TIMEOUT: Duration = Duration::from_secs(1);

const SYSTEMD: &str = "org.freedesktop.systemd1";

/// A restart of the service, and how many descriptors systemd keeps for the next process.
pub(super) struct Restart {
    pub(super) store: usize,
}

/// Asks systemd; `None` where this is the end of the service, or where there is no systemd.
///
/// # Errors
/// It cannot be asked, in words for the log.
pub(super) fn ask() -> Result<Option<Restart>, String> {
    let Some(unit) = unit::name() else {
        return Ok(None);
    };
    let asked = ask_bus(&bus::address(), &unit);
    asked.map_err(|error| format!("systemd cannot be asked over D-Bus ({error}): install dbus"))
}

fn ask_bus(address: &Path, unit: &str) -> io::Result<Option<Restart>> {
    let mut bus = Bus::connect(address, TIMEOUT)?;
    let path = object(unit);
    let job = bus.property(SYSTEMD, &path, "org.freedesktop.systemd1.Unit", "Job")?;
    let job = match &job[..] {
        [Part::Number(number), Part::Text(job)] if *number > 0 => job,
        _ => return Ok(None),
    };
    let kind = bus.property(SYSTEMD, job, "org.freedesktop.systemd1.Job", "JobType")?;
    if kind != [Part::Text("restart".into())] {
        return Ok(None);
    }
    let service = "org.freedesktop.systemd1.Service";
    let store = bus.property(SYSTEMD, &path, service, "FileDescriptorStoreMax")?;
    let store = match store[..] {
        [Part::Number(store)] => store as usize,
        _ => 0,
    };
    Ok(Some(Restart { store }))
}

/// The path of a unit's object: all but letters and digits as hexadecimal numbers.
fn object(unit: &str) -> String {
    let mut path = "/org/freedesktop/systemd1/unit/".to_owned();
    for byte in unit.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => path.push(byte.into()),
            _ => path.push_str(&format!("_{byte:02x}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::super::bus::tests::bus;
    use super::*;

    fn asked(number: u32, kind: &'static str) -> Option<usize> {
        let text = |text: &str| {
            let mut bytes = (text.len() as u32).to_le_bytes().to_vec();
            bytes.extend(text.as_bytes());
            bytes.push(0);
            bytes
        };
        let (_folder, path) = bus(move |_, name| match name {
            "Job" => {
                let mut job = number.to_le_bytes().to_vec();
                job.extend(text("/job"));
                Some(("(uo)", job))
            }
            "JobType" => Some(("s", text(kind))),
            "FileDescriptorStoreMax" => Some(("u", 64_u32.to_le_bytes().to_vec())),
            _ => None,
        });
        ask_bus(&path, "callbox.service")
            .unwrap()
            .map(|restart| restart.store)
    }

    #[test]
    fn a_restart_is_told_from_a_stop_and_from_a_signal_of_somebody() {
        assert_eq!(asked(7, "restart"), Some(64));
        assert_eq!(asked(7, "stop"), None);
        assert_eq!(asked(0, "restart"), None);
    }

    #[test]
    fn a_unit_has_its_object() {
        let unit = "/org/freedesktop/systemd1/unit/";
        assert_eq!(
            object("callbox.service"),
            format!("{unit}callbox_2eservice")
        );
    }
}
