//! Core pinning, CPU clocks of other processes and the limit on open files, straight from libc.
#![allow(unsafe_code)]

use std::io;
use std::time::Duration;

/// Binds the calling thread, and what it spawns from then on, to one core.
pub(crate) fn pin_to_core(core: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set, and CPU_SET checks the index.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        set
    };
    // SAFETY: pid 0 is the caller; the set outlives the call and its size is given.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) })
}

/// Lets the calling thread, and what it spawns from then on, run on every core.
#[allow(dead_code, reason = "not every benchmark has use for it")]
pub(crate) fn unpin() -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set; CPU_SET checks the index.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for core in 0..libc::CPU_SETSIZE as usize {
            libc::CPU_SET(core, &mut set);
        }
        set
    };
    // SAFETY: as in `pin_to_core`; the kernel leaves out cores that there are not.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) })
}

/// User and system time of all threads of a process, living and ended, in nanoseconds' precision.
pub(crate) fn cpu_time(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the pointer is to a live clockid_t.
    let errno = unsafe { libc::clock_getcpuclockid(pid, &mut clock) };
    if errno != 0 {
        return Err(io::Error::from_raw_os_error(errno));
    }
    let mut spent = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live timespec.
    check(unsafe { libc::clock_gettime(clock, &mut spent) })?;
    let nanos = u32::try_from(spent.tv_nsec).map_err(io::Error::other)?;
    Ok(Duration::new(spent.tv_sec.unsigned_abs(), nanos))
}

/// Lets this process and its children open as many files as they may: 10,000 clients take as many
/// sockets here, and the server as many again.
pub(crate) fn raise_open_files() -> io::Result<()> {
    let mut limit = limit_of_open_files()?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to a live rlimit.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })
}

/// As many files as this process may open.
#[allow(dead_code, reason = "not every benchmark has use for it")]
pub(crate) fn open_files() -> io::Result<u64> {
    Ok(limit_of_open_files()?.rlim_cur)
}

fn limit_of_open_files() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live rlimit.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    Ok(limit)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
