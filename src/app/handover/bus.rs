//! As much of D-Bus as it takes to ask for a property: a call, its answer, and a connection for them.
//!
//! A library of D-Bus would be a runtime and a code generator for three questions in the life of a
//! process. Answers come from the system's own bus; whatever they are, nothing panics.

use rustix::process::getuid;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the bus is, unless the environment names another place.
const ADDRESS: &str = "/run/dbus/system_bus_socket";
/// No answer that is wanted here is as long.
const MAX_MESSAGE: usize = 64 << 10;
/// A line of the handshake.
const MAX_LINE: usize = 512;

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;

/// The parts of a property, its structures flattened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Number(u32),
    /// Also an object's path.
    Text(String),
}

/// Where the system's bus listens.
pub(super) fn address() -> PathBuf {
    let named = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_default();
    let path = named.strip_prefix("unix:path=");
    let path = path.and_then(|path| path.split([',', ';']).next());
    path.unwrap_or(ADDRESS).into()
}

/// A connection to the bus, for a short time.
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    deadline: Instant,
}

impl Bus {
    /// Connects and says who asks; everything has to happen within `patience`.
    ///
    /// # Errors
    /// There is no bus, or it does not take this user.
    pub(super) fn connect(address: &Path, patience: Duration) -> io::Result<Self> {
        let mut bus = Self {
            stream: UnixStream::connect(address)?,
            serial: 0,
            deadline: Instant::now() + patience,
        };
        let user = getuid().as_raw().to_string();
        let user: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
        bus.write(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes())?;
        let answer = bus.line()?;
        if !answer.starts_with("OK ") {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, answer));
        }
        bus.write(b"BEGIN\r\n")?;
        let name = "org.freedesktop.DBus";
        bus.call(name, "/org/freedesktop/DBus", name, "Hello", &[])?;
        Ok(bus)
    }

    /// Asks `service` for a property of an object.
    ///
    /// # Errors
    /// There is no such property, or no answer in time.
    pub(super) fn property(
        &mut self,
        service: &str,
        path: &str,
        interface: &str,
        name: &str,
    ) -> io::Result<Vec<Part>> {
        let (properties, get) = ("org.freedesktop.DBus.Properties", "Get");
        let body = self.call(service, path, properties, get, &[interface, name])?;
        variant(&body).ok_or_else(|| invalid("the property has another type"))
    }

    fn call(
        &mut self,
        destination: &str,
        path: &str,
        interface: &str,
        member: &str,
        arguments: &[&str],
    ) -> io::Result<Vec<u8>> {
        self.serial += 1;
        let call = call(self.serial, destination, path, interface, member, arguments);
        self.write(&call)?;
        loop {
            let message = self.message()?;
            if message.answers != Some(self.serial) {
                continue;
            }
            match message.kind {
                RETURN => return Ok(message.body),
                ERROR => {
                    let said = Fields::of(&message.body).text().unwrap_or_default();
                    return Err(io::Error::other(said));
                }
                _ => {}
            }
        }
    }

    fn message(&mut self) -> io::Result<Message> {
        let mut head = [0; 16];
        self.read(&mut head)?;
        let rest = length_after(&head).ok_or_else(|| invalid("the bus does not speak D-Bus 1"))?;
        let mut bytes = head.to_vec();
        bytes.resize(head.len() + rest, 0);
        self.read(&mut bytes[16..])?;
        Message::parse(&bytes).ok_or_else(|| invalid("a damaged message"))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = vec![];
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.read(&mut byte)?;
            line.push(byte[0]);
            if line.len() > MAX_LINE {
                return Err(invalid("a long line"));
            }
        }
        Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned())
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(left),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < into.len() {
            self.stream.set_read_timeout(Some(self.left()?))?;
            filled += match self.stream.read(&mut into[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(bytes)
    }
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    pad(bytes, 4);
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

fn put_signature(bytes: &mut Vec<u8>, signature: &str) {
    bytes.push(signature.len() as u8);
    bytes.extend(signature.as_bytes());
    bytes.push(0);
}

fn call(
    serial: u32,
    destination: &str,
    path: &str,
    interface: &str,
    member: &str,
    arguments: &[&str],
) -> Vec<u8> {
    let mut fields = vec![];
    for (code, kind, value) in [
        (1, "o", path),
        (2, "s", interface),
        (3, "s", member),
        (6, "s", destination),
    ] {
        pad(&mut fields, 8);
        fields.push(code);
        put_signature(&mut fields, kind);
        put_text(&mut fields, value);
    }
    if !arguments.is_empty() {
        pad(&mut fields, 8);
        fields.push(8);
        put_signature(&mut fields, "g");
        put_signature(&mut fields, &"s".repeat(arguments.len()));
    }
    let mut body = vec![];
    for argument in arguments {
        put_text(&mut body, argument);
    }
    // Little-endian; no flags; the version of the protocol.
    let mut message = vec![b'l', CALL, 0, 1];
    message.extend((body.len() as u32).to_le_bytes());
    message.extend(serial.to_le_bytes());
    message.extend((fields.len() as u32).to_le_bytes());
    message.extend(fields);
    pad(&mut message, 8);
    message.extend(body);
    message
}

/// How many bytes follow the first 16 of a message.
fn length_after(head: &[u8; 16]) -> Option<usize> {
    if head[0] != b'l' || head[3] != 1 {
        return None;
    }
    let body = u32::from_le_bytes(*head[4..].first_chunk()?) as usize;
    let fields = u32::from_le_bytes(*head[12..].first_chunk()?) as usize;
    let rest = fields.checked_next_multiple_of(8)?.checked_add(body)?;
    (rest <= MAX_MESSAGE).then_some(rest)
}

#[derive(Debug, PartialEq, Eq)]
struct Message {
    kind: u8,
    /// The serial of the call.
    answers: Option<u32>,
    body: Vec<u8>,
}

impl Message {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let body = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?) as usize;
        let fields = u32::from_le_bytes(*bytes.get(12..)?.first_chunk()?) as usize;
        let body = bytes.get(bytes.len().checked_sub(body)?..)?.to_vec();
        let mut rest = Fields::of(bytes.get(..16_usize.checked_add(fields)?)?);
        rest.at = 16;
        let mut answers = None;
        while rest.at < rest.bytes.len() {
            rest.align(8);
            let code = rest.byte()?;
            let signature = rest.signature()?;
            match rest.value(&signature)?.pop() {
                Some(Part::Number(serial)) if code == 5 => answers = Some(serial),
                _ => {}
            }
        }
        Some(Self {
            kind: *bytes.get(1)?,
            answers,
            body,
        })
    }
}

/// The value of a variant.
fn variant(body: &[u8]) -> Option<Vec<Part>> {
    let mut fields = Fields::of(body);
    let signature = fields.signature()?;
    fields.value(&signature)
}

/// Reads one value after the other.
struct Fields<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Fields<'b> {
    fn of(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_le_bytes(*self.take(4)?.first_chunk()?))
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        let text = self.take(length)?;
        self.take(1)?;
        String::from_utf8(text.to_vec()).ok()
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()?.into();
        let text = self.take(length)?;
        self.take(1)?;
        String::from_utf8(text.to_vec()).ok()
    }

    fn value(&mut self, signature: &str) -> Option<Vec<Part>> {
        let mut parts = vec![];
        for kind in signature.chars() {
            match kind {
                '(' => self.align(8),
                ')' => {}
                'u' => parts.push(Part::Number(self.number()?)),
                's' | 'o' => parts.push(Part::Text(self.text()?)),
                'g' => parts.push(Part::Text(self.signature()?)),
                _ => return None,
            }
        }
        Some(parts)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread;

    /// A bus that answers each question for a property with what `answer` makes of its interface and
    /// name: a signature, and the value as bytes.
    pub(in crate::app::handover) fn bus(
        answer: impl Fn(&str, &str) -> Option<(&'static str, Vec<u8>)> + Send + 'static,
    ) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bus");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let mut bus = Bus {
                stream: listener.accept().unwrap().0,
                serial: 0,
                deadline: Instant::now() + Duration::from_secs(20),
            };
            assert!(bus.line().unwrap().starts_with("\0AUTH EXTERNAL "));
            bus.write(b"OK 1234\r\n").unwrap();
            assert_eq!(bus.line().unwrap(), "BEGIN");
            let hello = bus.message().unwrap();
            assert!(hello.body.is_empty());
            bus.write(&reply(1, RETURN, "s", b"\x04\0\0\0:1.1\0"))
                .unwrap();
            // A signal that nobody waits for comes in between.
            bus.write(&reply(9, 4, "s", b"\x01\0\0\0x\0")).unwrap();
            let mut serial = 1;
            while let Ok(message) = bus.message() {
                serial += 1;
                let mut asked = Fields::of(&message.body);
                let (interface, name) = (asked.text().unwrap(), asked.text().unwrap());
                let reply = match answer(&interface, &name) {
                    Some((signature, value)) => {
                        let mut body = vec![];
                        put_signature(&mut body, signature);
                        let first = signature.chars().next().unwrap();
                        pad(&mut body, if first == '(' { 8 } else { 4 });
                        body.extend(value);
                        reply(serial, RETURN, "v", &body)
                    }
                    None => reply(serial, ERROR, "s", b"\x02\0\0\0no\0"),
                };
                bus.write(&reply).unwrap();
            }
        });
        (folder, path)
    }

    fn reply(to: u32, kind: u8, signature: &str, body: &[u8]) -> Vec<u8> {
        let mut fields = vec![5, 1, b'u', 0];
        fields.extend(to.to_le_bytes());
        pad(&mut fields, 8);
        fields.push(8);
        put_signature(&mut fields, "g");
        put_signature(&mut fields, signature);
        let mut message = vec![b'l', kind, 0, 1];
        message.extend((body.len() as u32).to_le_bytes());
        message.extend(7_u32.to_le_bytes());
        message.extend((fields.len() as u32).to_le_bytes());
        message.extend(fields);
        pad(&mut message, 8);
        message.extend(body);
        message
    }

    #[test]
    fn a_property_comes_back_with_its_parts() {
        let (_folder, path) = bus(|_, name| match name {
            "Job" => Some(("(uo)", b"\x07\0\0\0\x02\0\0\0/7\0".to_vec())),
            "Size" => Some(("u", 64_u32.to_le_bytes().to_vec())),
            "Odd" => Some(("d", vec![0; 8])),
            _ => None,
        });
        let mut bus = Bus::connect(&path, Duration::from_secs(20)).unwrap();
        let mut get = |name| bus.property("org.x", "/x", "org.x.Y", name);
        let job = [Part::Number(7), Part::Text("/7".into())];
        assert_eq!(get("Job").unwrap(), job);
        assert_eq!(get("Size").unwrap(), [Part::Number(64)]);
        assert_eq!(get("Odd").unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(get("None").unwrap_err().to_string(), "no");
    }

    #[test]
    fn a_bus_that_says_nothing_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bus");
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(Bus::connect(&path, Duration::from_millis(50)).is_err());
        assert!(Bus::connect(&folder.path().join("none"), Duration::from_millis(50)).is_err());
    }

    #[test]
    fn no_shortened_or_damaged_message_is_a_panic() {
        let whole = reply(3, RETURN, "v", b"\x04(uo)\0\0\0\x07\0\0\0\x02\0\0\0/7\0");
        let parsed = Message::parse(&whole).unwrap();
        assert_eq!((parsed.kind, parsed.answers), (RETURN, Some(3)));
        assert_eq!(variant(&parsed.body).unwrap().len(), 2);
        for at in 0..whole.len() {
            let _ = Message::parse(&whole[..at]);
            for value in [0, 1, 0x7F, 0xFF] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                let _ = damaged.first_chunk().and_then(length_after);
                let _ = Message::parse(&damaged).map(|message| variant(&message.body));
            }
        }
    }
}
