//! What systemd keeps from one process of the service to the next one.
//!
//! systemd compares a new descriptor with all that it keeps: thousands of sockets would take it
//! seconds. So the sockets are put into the queue of a Unix socket, where they stay although nobody
//! has the other end. systemd keeps the snapshot and that socket, or a few such sockets where the
//! queue of one is too small.

use super::{Adopted, fds};
use crate::clock;
use crate::net::KEPT_PREFIX;
use crate::service;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

/// Descriptors in one message: the kernel takes 253.
const AT_ONCE: usize = 250;
/// The first descriptor that systemd passes.
const FIRST: RawFd = 3;

fn snapshot_name() -> String {
    format!("{KEPT_PREFIX}snapshot")
}

/// systemd passes what it keeps in an order of its own.
fn bundle_name(number: usize) -> String {
    format!("{KEPT_PREFIX}sockets-{number}")
}

/// Has systemd keep everything, no more than `most` descriptors.
///
/// # Errors
/// Why it does not; it keeps nothing then.
pub(super) fn leave(
    snapshot: BorrowedFd<'_>,
    sockets: &[OwnedFd],
    most: usize,
) -> Result<(), String> {
    let bundles = pack(sockets).map_err(|error| format!("sockets cannot be bundled: {error}"))?;
    if bundles.len() >= most {
        return Err(format!(
            "{} sockets take {} places in systemd's store, and FileDescriptorStoreMax= is {most}",
            sockets.len(),
            bundles.len() + 1
        ));
    }
    let names: Vec<_> = (0..bundles.len()).map(bundle_name).collect();
    let kept = (|| {
        for (name, bundle) in names.iter().zip(&bundles) {
            service::keep(name, bundle.as_fd())?;
        }
        service::keep(&snapshot_name(), snapshot)?;
        service::settle()
    })();
    kept.map_err(|error: io::Error| {
        forget(&names);
        format!("systemd does not keep the sockets: {error}")
    })
}

/// Has systemd close what it keeps under `names`, and the snapshot.
fn forget(names: &[String]) {
    let snapshot = snapshot_name();
    for name in names.iter().chain([&snapshot]) {
        if let Err(error) = service::forget(name) {
            tracing::debug!("systemd is not reached: {error}");
        }
    }
}

/// Takes over what systemd has kept for this process, if anything.
pub(super) fn take() -> Option<Result<Adopted, String>> {
    let began = clock::monotonic();
    let variable = |name| std::env::var(name).unwrap_or_default();
    if variable("LISTEN_PID").parse() != Ok(std::process::id()) {
        return None;
    }
    let count: RawFd = variable("LISTEN_FDS").parse().ok()?;
    let names = variable("LISTEN_FDNAMES");
    let mut kept: Vec<(&str, RawFd)> = names
        .split(':')
        .zip(FIRST..FIRST.saturating_add(count))
        .filter(|(name, _)| name.starts_with(KEPT_PREFIX))
        .collect();
    if kept.is_empty() {
        return None;
    }
    let index = |name: &str| -> usize {
        let number = name.rsplit_once('-').map(|(_, number)| number.parse());
        number.and_then(Result::ok).unwrap_or_default()
    };
    kept.sort_by_key(|(name, _)| index(name));
    let (mut snapshot, mut bundles, mut failure) = (None, vec![], None);
    for (name, number) in &kept {
        match fds::adopt(*number) {
            Ok(fd) if *name == snapshot_name() => snapshot = Some(fd),
            Ok(fd) => bundles.push(fd),
            Err(error) => failure = Some(format!("{name}: {error}")),
        }
    }
    let mut sockets = vec![];
    for bundle in bundles {
        match unpack(&bundle) {
            Ok(more) => sockets.extend(more),
            Err(error) => failure = Some(format!("a bundle of sockets: {error}")),
        }
    }
    // From here on systemd holds no port, whatever becomes of this process.
    let names: Vec<_> = kept.iter().map(|(name, _)| (*name).to_owned()).collect();
    forget(&names);
    Some(match (failure, snapshot) {
        (Some(failure), _) => Err(failure),
        (None, None) => Err("systemd has kept sockets and no snapshot".into()),
        (None, Some(snapshot)) => Adopted::from_store(snapshot, sockets, began),
    })
}

/// Puts `fds` into the queues of as many sockets as it takes, in order.
fn pack(fds: &[OwnedFd]) -> io::Result<Vec<OwnedFd>> {
    let mut bundles = vec![];
    let mut left = fds.chunks(AT_ONCE).peekable();
    while left.peek().is_some() {
        let (into, bundle) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        let mut is_empty = true;
        while let Some(chunk) = left.peek() {
            match send(&into, chunk) {
                Ok(()) => is_empty = false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !is_empty => break,
                Err(error) => return Err(error),
            }
            left.next();
        }
        bundles.push(bundle);
    }
    Ok(bundles)
}

fn send(into: &OwnedFd, chunk: &[OwnedFd]) -> io::Result<()> {
    let borrowed: Vec<_> = chunk.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut passed = SendAncillaryBuffer::new(&mut space);
    if !passed.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(
        into,
        &[IoSlice::new(b"f")],
        &mut passed,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Takes everything out again.
fn unpack(bundle: &OwnedFd) -> io::Result<Vec<OwnedFd>> {
    let mut found = vec![];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE + 3))];
        let mut passed = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let read = recvmsg(
            bundle,
            &mut [IoSliceMut::new(&mut byte)],
            &mut passed,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        )?;
        for message in passed.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                found.extend(fds);
            }
        }
        if read.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("the limit of open descriptors is too low"));
        }
        if read.bytes == 0 {
            return Ok(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::fstat;
    use rustix::io::{FdFlags, fcntl_getfd};
    use std::fs::File;

    #[test]
    fn a_bundle_holds_descriptors_in_order_although_its_sender_is_gone() {
        let files: Vec<File> = (0..5).map(|_| tempfile::tempfile().unwrap()).collect();
        let inode = |fd: BorrowedFd<'_>| fstat(fd).unwrap().st_ino;
        let sent: Vec<OwnedFd> = (0..620)
            .map(|number| files[number * 7 % 5].try_clone().unwrap().into())
            .collect();
        let expected: Vec<_> = sent.iter().map(|fd| inode(fd.as_fd())).collect();
        let bundles = pack(&sent).unwrap();
        drop(sent);
        assert_eq!(bundles.len(), 1);
        let taken = unpack(&bundles[0]).unwrap();
        let inodes: Vec<_> = taken.iter().map(|fd| inode(fd.as_fd())).collect();
        assert_eq!(inodes, expected);
        assert!(
            taken
                .iter()
                .all(|fd| fcntl_getfd(fd).unwrap() == FdFlags::CLOEXEC)
        );
        assert!(unpack(&bundles[0]).unwrap().is_empty(), "once");
        assert!(pack(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_queue_that_is_full_is_followed_by_another_one() {
        let file = tempfile::tempfile().unwrap();
        // Messages of one descriptor fill a queue sooner.
        let (into, from) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .unwrap();
        let one: [OwnedFd; 1] = [file.into()];
        let mut held = 0;
        let full = loop {
            match send(&into, &one) {
                Ok(()) => held += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop(into);
        assert_eq!(unpack(&from).unwrap().len(), held);
    }
}
