//! Descriptors that outlive an `execve`: which stay, how the successor takes them, and the call
//! itself. With `relay/io/udp` the only place with unsafe code.

#![allow(unsafe_code)]

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;

/// Takes over descriptor `number`, which the process that was here before has left open for this one.
/// To be called once for each number, before anything else opens descriptors.
///
/// # Errors
/// It is not open.
pub(super) fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: borrowed for a question that fails where the descriptor is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_getfd(borrowed)?;
    // SAFETY: it is open, and nothing else in this process knows of it.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&owned, FdFlags::CLOEXEC)?;
    Ok(owned)
}

/// Closes every descriptor but the first three: what an earlier process has left, where it is not
/// known which of them are. To be called before anything opens descriptors.
pub(super) fn close_all() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let numbers: Vec<RawFd> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers {
        // Of the folder itself nothing is left by now.
        drop(adopt(number));
    }
}

/// Has `fds` stay open, or not, in the program that this one becomes.
///
/// # Errors
/// What the kernel says of the first that it refuses.
pub(super) fn keep_open<'f>(
    fds: impl IntoIterator<Item = BorrowedFd<'f>>,
    keep: bool,
) -> io::Result<()> {
    let flags = match keep {
        true => FdFlags::empty(),
        false => FdFlags::CLOEXEC,
    };
    for fd in fds {
        fcntl_setfd(fd, flags)?;
    }
    Ok(())
}

/// The signals that a box takes: one that comes while nobody takes them would end the process.
const SIGNALS: [i32; 5] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// Has signals wait, on this thread and in the program that it becomes.
pub fn hold_signals() {
    mask_signals(libc::SIG_BLOCK);
}

/// Has signals come that waited; to be called on the thread that [`hold_signals`] was called on, once
/// there are handlers.
pub fn release_signals() {
    mask_signals(libc::SIG_UNBLOCK);
}

/// Has a signal wait as if it came now; to be called after [`hold_signals`].
pub(super) fn repeat_signal(signal: i32) {
    // SAFETY: without a precondition; the signal is held, so that nothing handles it here.
    unsafe { libc::raise(signal) };
}

fn mask_signals(how: i32) {
    // SAFETY: the set is made by `sigemptyset` before it is read, and lives through the call.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in SIGNALS {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut());
    }
}

/// Becomes the program at `path`. Comes back only if that fails, and nothing has changed then.
pub(super) fn become_program(
    path: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
) -> io::Error {
    let text = |text: OsString| CString::new(text.into_vec());
    let variables = environment.into_iter().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    let prepared = (|| {
        let arguments: Vec<_> = arguments.into_iter().map(text).collect::<Result<_, _>>()?;
        let variables: Vec<_> = variables.map(text).collect::<Result<_, _>>()?;
        Ok::<_, std::ffi::NulError>((text(path)?, arguments, variables))
    })();
    let (path, arguments, variables) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return error.into(),
    };
    let pointers = |texts: &[CString]| -> Vec<_> {
        let pointers = texts.iter().map(|text| text.as_ptr());
        pointers.chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(&arguments), pointers(&variables));
    // SAFETY: both lists end with a null pointer and point to texts that live until the call is over.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, IntoRawFd};

    #[test]
    fn a_descriptor_that_was_left_is_adopted_and_closed_on_exec() {
        let file = tempfile::tempfile().unwrap();
        keep_open([file.as_fd()], true).unwrap();
        let number = file.into_raw_fd();
        let adopted = adopt(number).unwrap();
        assert_eq!(fcntl_getfd(&adopted).unwrap(), FdFlags::CLOEXEC);
        assert!(adopt(1).is_err());
        assert!(adopt(1 << 20).is_err());
    }

    #[test]
    fn a_program_that_is_not_there_leaves_everything_as_it_was() {
        let error = become_program("/nowhere/callbox".into(), vec!["callbox".into()], vec![]);
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
