//! What is measured of a signaling server, one function a scenario.

use super::dialect::Dialect;
use super::pool::Pool;
use super::socket::Door;
use crate::common::process::ServerProcess;
use crate::common::report::quantile_us;
use anyhow::Result;
use std::time::{Duration, Instant};

/// Connections whose memory is measured, after `WARM` that fill the server's heap.
const IDLE: usize = 10_000;
const WARM: usize = 200;
/// Sockets opened at once: what a listen queue holds.
const GROUP: usize = 100;
/// A session description with its candidates.
const EXCHANGE: usize = 3_000;
/// Longer than any server's interval of pings (callbox: 25 s), so that all buffers came to rest.
const HEARTBEAT: Duration = Duration::from_secs(32);
/// Clients that talk at the same time, in rooms of two.
const TALKING: usize = 200;
/// Messages that a saturating run keeps outstanding.
const WINDOW: usize = 64;
/// Messages a second for comparing latencies: about a fifth of what the Node servers carry.
const EQUAL_LOAD: u32 = 15_000;
/// How long it is measured what a server carries.
const SATURATION: Duration = Duration::from_millis(700);
/// Pairs that join one after the other.
const PAIRS: usize = 200;
/// Members of the room whose fan-out is measured.
const CROWD: usize = 200;
/// Sessions that come and go at the same time.
const COMING: usize = 64;
/// Bytes sent to a consumer that has stopped reading.
const FLOOD: usize = 50_000_000;
/// What its kernel takes in for it.
const STALLED_BUFFER: usize = 65_536;
/// A server that takes nothing for so long holds the sender back, and the flood ends.
const HELD_BACK: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_millis(300);

/// A server as the scenarios see it.
pub(crate) struct Subject {
    pub(crate) process: ServerProcess,
    pub(crate) door: Door,
    pub(crate) dialect: Dialect,
}

/// Resident KiB a connection: joined in rooms of two, then after an exchange and a heartbeat.
pub(crate) fn idle(subject: &Subject) -> Result<[f64; 2]> {
    let mut warm = Pool::new(&subject.door, subject.dialect, 0)?;
    warm.join(WARM, 2, GROUP)?;
    let before = subject.process.resident_kib()?;
    let mut pool = Pool::new(&subject.door, subject.dialect, WARM)?;
    pool.join(IDLE, 2, GROUP)?;
    let growth = || -> Result<f64> {
        Ok(subject.process.resident_kib()?.saturating_sub(before) as f64 / IDLE as f64)
    };
    let joined = growth()?;
    for group in (0..IDLE).step_by(GROUP) {
        exchange(&mut pool, group..group + GROUP, EXCHANGE)?;
    }
    let started = Instant::now();
    while started.elapsed() < HEARTBEAT {
        pool.turn(Duration::from_millis(20), |_| {})?;
        warm.turn(Duration::ZERO, |_| {})?;
    }
    Ok([joined, growth()?])
}

/// CPU µs per relayed message of `size` bytes, saturated.
pub(crate) fn relay(subject: &Subject, size: usize, length: Duration) -> Result<f64> {
    let mut pool = talking(subject)?;
    let mut run = Run::default();
    run.saturate(&mut pool, size, WARM_UP)?;
    let cpu = subject.process.cpu_time()?;
    let before = run.arrived;
    run.saturate(&mut pool, size, length)?;
    Ok((subject.process.cpu_time()? - cpu).as_secs_f64() * 1e6 / (run.arrived - before) as f64)
}

/// p99 in µs of messages of 200 B from sending to arrival: at a fifth of what this server carries,
/// and at a load that is the same for all.
pub(crate) fn latency(subject: &Subject, length: Duration) -> Result<[f64; 2]> {
    let mut pool = talking(subject)?;
    let mut run = Run::default();
    run.saturate(&mut pool, 200, WARM_UP)?;
    let carried = run.arrived;
    run.saturate(&mut pool, 200, SATURATION)?;
    let per_second = (run.arrived - carried) as f64 / SATURATION.as_secs_f64();
    let mut p99_at = |rate: u32| -> Result<f64> {
        run.pace(&mut pool, 200, rate, WARM_UP)?;
        run.latencies.clear();
        run.pace(&mut pool, 200, rate, length)?;
        Ok(quantile_us(&mut run.latencies, 0.99))
    };
    Ok([p99_at((per_second / 5.0) as u32)?, p99_at(EQUAL_LOAD)?])
}

/// Median µs from connecting to having joined, where pairs come one after the other.
pub(crate) fn joining(subject: &Subject) -> Result<f64> {
    let mut took = vec![];
    for pair in 0..PAIRS {
        let mut pool = Pool::new(&subject.door, subject.dialect, 2 * pair)?;
        pool.join(2, 2, 2)?;
        took.extend(
            pool.members
                .iter()
                .filter_map(|member| member.joining)
                .map(nanos),
        );
    }
    Ok(quantile_us(&mut took, 0.5))
}

/// CPU µs per session that connects, joins, sends and receives one message, and leaves.
pub(crate) fn sessions(subject: &Subject, length: Duration) -> Result<f64> {
    let mut first = 0;
    let mut cycle = || -> Result<()> {
        let mut pool = Pool::new(&subject.door, subject.dialect, first)?;
        first += COMING;
        pool.join(COMING, 2, COMING)?;
        exchange(&mut pool, 0..COMING, 1_000)?;
        for member in &mut pool.members {
            if let Some(leave) = subject.dialect.leave() {
                member.socket.send(leave)?;
            }
            member.socket.close()?;
        }
        // A server that owes no closing frame is not waited for.
        let started = Instant::now();
        while started.elapsed() < HELD_BACK && pool.members.iter().any(|m| m.closed.is_none()) {
            pool.turn(Duration::ZERO, |_| {})?;
        }
        Ok(())
    };
    cycle()?;
    let (started, cpu) = (Instant::now(), subject.process.cpu_time()?);
    let mut count = 0;
    while started.elapsed() < length {
        cycle()?;
        count += COMING;
    }
    Ok((subject.process.cpu_time()? - cpu).as_secs_f64() * 1e6 / count as f64)
}

/// CPU µs per delivery in a room of 200 where one speaks to all.
pub(crate) fn fan_out(subject: &Subject, length: Duration) -> Result<f64> {
    let mut pool = Pool::new(&subject.door, subject.dialect, 0)?;
    pool.join(CROWD, CROWD, 20)?;
    settle(&mut pool)?;
    let mut deliveries = 0_usize;
    let mut speak_for = |length: Duration| -> Result<usize> {
        let (started, mut arrived) = (Instant::now(), 0);
        while started.elapsed() < length {
            pool.send(deliveries % CROWD, 200)?;
            let mut waiting = CROWD - 1;
            let sent = Instant::now();
            while waiting > 0 && sent.elapsed() < HELD_BACK {
                pool.turn(Duration::ZERO, |_| waiting -= 1)?;
            }
            anyhow::ensure!(waiting == 0, "{waiting} members did not get a message");
            deliveries += 1;
            arrived += CROWD - 1;
        }
        Ok(arrived)
    };
    speak_for(WARM_UP)?;
    let cpu = subject.process.cpu_time()?;
    let arrived = speak_for(length)?;
    Ok((subject.process.cpu_time()? - cpu).as_secs_f64() * 1e6 / arrived as f64)
}

/// MB that the server grows by when one consumer stops reading and 50 MB are sent to it, and what
/// became of them.
pub(crate) fn stalled(subject: &Subject) -> Result<(f64, String)> {
    let mut warm = Pool::new(&subject.door, subject.dialect, 0)?;
    warm.join(WARM, 2, GROUP)?;
    for _ in 0..10 {
        exchange(&mut warm, 0..WARM, EXCHANGE)?;
    }
    let mut pool = Pool::new(&subject.door, subject.dialect, WARM)?;
    pool.open(0, None)?;
    pool.open(0, Some(STALLED_BUFFER))?;
    pool.wait(|pool| pool.members.iter().all(|member| member.standing.joined))?;
    settle(&mut pool)?;
    let before = subject.process.resident_kib()?;
    let (mut sent, mut peak, mut progress) = (0, before, Instant::now());
    while sent < FLOOD && progress.elapsed() < HELD_BACK {
        let speaker = &pool.members[0];
        let message = pool.dialect.message(&speaker.standing, EXCHANGE, 0);
        let socket = &mut pool.members[0].socket;
        if socket.offer(&message)? {
            sent += EXCHANGE;
            progress = Instant::now();
        }
        socket.receive(|_| {})?;
        if sent % (1_000 * EXCHANGE) == 0 {
            peak = peak.max(subject.process.resident_kib()?);
        }
    }
    peak = peak.max(subject.process.resident_kib()?);
    let (mut got, started) = (0, Instant::now());
    while pool.members[1].closed.is_none() && started.elapsed() < HELD_BACK {
        pool.turn(Duration::ZERO, |arrival| {
            got += usize::from(arrival.member == 1) * EXCHANGE
        })?;
    }
    let end = match pool.members[1].closed {
        Some(Some(code)) => format!("closed with {code}"),
        Some(None) => "cut off".to_owned(),
        None => "still open".to_owned(),
    };
    let fate = format!(
        "{end}; {} of {} MB arrived",
        got / 1_000_000,
        sent / 1_000_000
    );
    Ok(((peak - before) as f64 / 1024.0, fate))
}

#[derive(Default)]
struct Run {
    sent: usize,
    arrived: usize,
    latencies: Vec<u32>,
}

impl Run {
    fn saturate(&mut self, pool: &mut Pool, size: usize, length: Duration) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < length {
            while self.sent - self.arrived < WINDOW {
                pool.send(self.sent % TALKING, size)?;
                self.sent += 1;
            }
            self.take_in(pool)?;
        }
        Ok(())
    }

    fn pace(&mut self, pool: &mut Pool, size: usize, rate: u32, length: Duration) -> Result<()> {
        let started = Instant::now();
        let mut due = started;
        while started.elapsed() < length {
            if Instant::now() >= due {
                // A generator that was off its core skips ahead, it does not catch up.
                due = due.max(Instant::now() - Duration::from_micros(500));
                due += Duration::from_secs(1) / rate;
                pool.send(self.sent % TALKING, size)?;
                self.sent += 1;
            }
            self.take_in(pool)?;
        }
        Ok(())
    }

    fn take_in(&mut self, pool: &mut Pool) -> Result<()> {
        pool.turn(Duration::ZERO, |arrival| {
            self.arrived += 1;
            self.latencies.push(nanos(arrival.took));
        })
        .map(drop)
    }
}

fn nanos(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos()).unwrap_or(u32::MAX)
}

fn talking(subject: &Subject) -> Result<Pool> {
    let mut pool = Pool::new(&subject.door, subject.dialect, 0)?;
    pool.join(TALKING, 2, GROUP)?;
    settle(&mut pool)?;
    Ok(pool)
}

/// Takes in what joining set off: others are told of each newcomer.
fn settle(pool: &mut Pool) -> Result<()> {
    let quiet = Duration::from_millis(200);
    while pool.turn(quiet, |_| {})? > 0 {}
    Ok(())
}

/// Each of `members` sends a message of `size` bytes and gets its partner's.
fn exchange(pool: &mut Pool, members: std::ops::Range<usize>, size: usize) -> Result<()> {
    let mut missing = members.len();
    for member in members {
        pool.send(member, size)?;
    }
    let started = Instant::now();
    while missing > 0 {
        pool.turn(Duration::ZERO, |_| missing -= 1)?;
        anyhow::ensure!(
            started.elapsed() < Duration::from_secs(10),
            "{missing} messages missing"
        );
    }
    Ok(())
}
