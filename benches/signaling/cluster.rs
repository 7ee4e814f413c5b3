//! What it costs that callbox is several nodes over a Redis: two nodes and a Redis on the servers' core.

use super::pool::Pool;
use super::scenarios::Subject;
use super::servers::{Kind, Launcher};
use super::socket::{Event, WebSocket};
use crate::common::epoll::Epoll;
use crate::common::process::ServerProcess;
use crate::common::report::{Table, figure, machine, quantile_us};
use anyhow::{Context, Result, bail, ensure};
use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Pairs that talk, and messages a second: a few, and many.
const PAIRS: usize = 200;
const FEW: u32 = 200;
const MANY: u32 = 20_000;
const BODY: usize = 400;
/// Clients that join one after the other, two a room.
const JOINS: usize = 2_000;
const GROUP: usize = 100;
/// How long idle nodes are watched.
const QUIET: Duration = Duration::from_secs(20);
/// Resumes on the way at once, after a home has died.
const COMING: usize = 500;
/// How long after the death of a node its clients connect to the other one.
const BEFORE_BURIAL: Duration = Duration::from_secs(6);
/// Lease, burial and a slow machine.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Commands that only scripts use: what a node sends is counted without them.
const INNER: [&str; 10] = [
    "hget", "hset", "hdel", "hkeys", "hexists", "hincrby", "hgetall", "pexpire", "del", "info",
];

/// A Redis of the bench's own.
pub(super) struct Redis {
    process: ServerProcess,
    asked: RefCell<BufReader<UnixStream>>,
    socket: PathBuf,
}

impl Redis {
    pub(super) fn start(launcher: &Launcher) -> Result<Self> {
        let socket = launcher.folder().join("redis.sock");
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no"]);
        command.arg("--unixsocket").arg(&socket);
        command.arg("--dir").arg(launcher.folder());
        let process = launcher.spawn(&mut command, "redis")?;
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(50));
            if let Ok(stream) = UnixStream::connect(&socket) {
                let asked = RefCell::new(BufReader::new(stream));
                return Ok(Self {
                    process,
                    asked,
                    socket,
                });
            }
        }
        bail!("redis-server does not listen: apt-get install redis-server")
    }

    /// What `cluster.redis` names it by.
    pub(super) fn url(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    /// The answer to a command: a number or a text.
    fn ask(&self, command: &str) -> Result<String> {
        let mut asked = self.asked.borrow_mut();
        asked
            .get_mut()
            .write_all(format!("{command}\r\n").as_bytes())?;
        let mut line = String::new();
        asked.read_line(&mut line)?;
        let Some(length) = line.strip_prefix('$') else {
            return Ok(line.trim_start_matches(':').trim().to_owned());
        };
        let mut text = vec![0; length.trim().parse::<usize>()? + 2];
        asked.read_exact(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Commands that clients have sent so far.
    fn commands(&self) -> Result<u64> {
        let stats = self.ask("INFO commandstats")?;
        let calls = stats.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let calls = rest.split(',').next()?.parse::<u64>().ok()?;
            (!INNER.contains(&name)).then_some(calls)
        });
        Ok(calls.sum())
    }

    fn nodes(&self) -> Result<usize> {
        Ok(self.ask("HLEN callbox:{n}:nodes")?.parse()?)
    }
}

struct Cluster {
    redis: Redis,
    a: Subject,
    b: Subject,
}

impl Cluster {
    fn start(launcher: &Launcher) -> Result<Self> {
        let redis = Redis::start(launcher)?;
        let node = |name: &str| -> Result<Subject> {
            let settings = [
                ("CLUSTER__REDIS", redis.url()),
                ("CLUSTER__SECRET", "s".repeat(32)),
                ("CLUSTER__NODE", name.to_owned()),
                (
                    "TURN__SECRETS",
                    "0123456789abcdef0123456789abcdef".to_owned(),
                ),
                ("SIGNAL__RESUME_WINDOW", "120s".to_owned()),
            ];
            let subject = launcher.start_with(Kind::Callbox, &settings)?;
            let started = Instant::now();
            while !is_ready(subject.door.address) {
                ensure!(started.elapsed() < TIMEOUT, "a node does not get ready");
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(subject)
        };
        let (a, b) = (node("a")?, node("b")?);
        Ok(Self { redis, a, b })
    }

    fn cpu(&self) -> Result<[f64; 2]> {
        let nodes = self.a.process.cpu_time()? + self.b.process.cpu_time()?;
        Ok([self.redis.process.cpu_time()?, nodes].map(|time| time.as_secs_f64()))
    }
}

pub(super) fn is_ready(address: SocketAddrV4) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        let request =
            format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// Pairs whose one side is at one node and whose other side is at another, or at the same.
struct Talk {
    sides: [Pool; 2],
    sent: usize,
    arrived: usize,
    latencies: Vec<u32>,
}

impl Talk {
    fn new(home: &Subject, other: &Subject, first: usize) -> Result<Self> {
        let mut here = Pool::new(&home.door, home.dialect, first)?;
        here.join(PAIRS, 1, GROUP)?;
        let mut there = here.beside(&other.door)?;
        there.join(PAIRS, 1, GROUP)?;
        let mut talk = Self {
            sides: [here, there],
            sent: 0,
            arrived: 0,
            latencies: vec![],
        };
        talk.settle(Duration::from_millis(500))?;
        Ok(talk)
    }

    fn take_in(&mut self) -> Result<usize> {
        let mut ready = 0;
        for side in &mut self.sides {
            ready += side.turn(Duration::ZERO, |arrival| {
                self.arrived += 1;
                let took = u32::try_from(arrival.took.as_nanos());
                self.latencies.push(took.unwrap_or(u32::MAX));
            })?;
        }
        Ok(ready)
    }

    /// Takes in until nothing has come for so long.
    fn settle(&mut self, quiet: Duration) -> Result<()> {
        let mut last = Instant::now();
        while last.elapsed() < quiet {
            if self.take_in()? > 0 {
                last = Instant::now();
            }
        }
        Ok(())
    }

    fn pace(&mut self, rate: u32, length: Duration) -> Result<()> {
        let started = Instant::now();
        let mut due = started;
        while started.elapsed() < length {
            if Instant::now() >= due {
                due = due.max(Instant::now() - Duration::from_millis(2));
                due += Duration::from_secs(1) / rate;
                self.sides[self.sent % 2].send(self.sent / 2 % PAIRS, BODY)?;
                self.sent += 1;
            }
            self.take_in()?;
        }
        Ok(())
    }
}

/// Every row with what it is and its goal.
#[allow(
    clippy::print_stdout,
    reason = "the figures are what the program is run for"
)]
pub(crate) fn measure(launcher: &Launcher, length: Duration, rooms: usize) -> Result<()> {
    let mut table = Table::new(&["a cluster of two nodes", "measured", "goal"]);
    let mut row = |title: &str, value: f64, goal: &str| {
        println!("{title} | {} | {goal}", figure(value));
        table.row(vec![title.to_owned(), figure(value), goal.to_owned()]);
    };
    let cluster = Cluster::start(launcher)?;
    let p50 = |talk: &mut Talk| -> Result<f64> {
        talk.pace(FEW, length / 2)?;
        talk.latencies.clear();
        talk.pace(FEW, length * 2)?;
        Ok(quantile_us(&mut talk.latencies, 0.5))
    };
    let mut same = Talk::new(&cluster.a, &cluster.a, 0)?;
    let home = p50(&mut same)?;
    drop(same);
    let mut across = Talk::new(&cluster.a, &cluster.b, 10_000)?;
    let hop = p50(&mut across)?;
    row("p50 µs at home, 200 messages/s", home, "");
    row("p50 µs that a hop adds", hop - home, "≤ 500");

    across.pace(MANY, length / 2)?;
    across.settle(Duration::from_secs(1))?;
    (across.arrived, across.sent) = (0, 0);
    across.latencies.clear();
    let before = cluster.cpu()?;
    let commands = cluster.redis.commands()?;
    let started = Instant::now();
    across.pace(MANY, length * 2)?;
    let took = started.elapsed().as_secs_f64();
    let sent = Instant::now();
    while across.arrived < across.sent && sent.elapsed() < TIMEOUT / 4 {
        across.take_in()?;
    }
    let after = cluster.cpu()?;
    let frames = across.arrived as f64;
    let missing = across.sent - across.arrived;
    ensure!(
        missing == 0,
        "{missing} of {} messages are missing",
        across.sent
    );
    row("frames/s across", frames / took, "20,000");
    row(
        "µs of Redis a frame",
        (after[0] - before[0]) * 1e6 / frames,
        "≤ 4",
    );
    row(
        "µs of both nodes a frame",
        (after[1] - before[1]) * 1e6 / frames,
        "≤ 15",
    );
    let commands = (cluster.redis.commands()? - commands) as f64;
    row("frames in a command", frames / commands, "");
    row(
        "p99 µs at that rate",
        quantile_us(&mut across.latencies, 0.99),
        "",
    );
    drop(across);

    std::thread::sleep(Duration::from_secs(3));
    let commands = cluster.redis.commands()?;
    std::thread::sleep(QUIET);
    let idle = (cluster.redis.commands()? - commands) as f64 / QUIET.as_secs_f64();
    row("Redis commands a node and second, idle", idle / 2.0, "≤ 3");

    let commands = cluster.redis.commands()?;
    let started = Instant::now();
    let mut joining = Pool::new(&cluster.a.door, cluster.a.dialect, 20_000)?;
    joining.join(JOINS, 2, 1)?;
    std::thread::sleep(Duration::from_secs(1));
    let by_itself = idle * started.elapsed().as_secs_f64();
    let joins = (cluster.redis.commands()? - commands) as f64 - by_itself;
    row("Redis commands a join at home", joins / JOINS as f64, "≤ 3");
    drop(joining);
    drop(cluster);

    let (buried, taken) = take_over(Cluster::start(launcher)?, rooms)?;
    row("s from the death of a node to its burial", buried, "≤ 12");
    let title = format!("s from there to {rooms} rooms taken over and resumed");
    row(&title, taken, "≤ 3");
    println!("\n{}.\n", machine());
    table.print();
    Ok(())
}

/// The home of that many rooms dies, and a member of each resumes at the other node once it is buried.
fn take_over(mut cluster: Cluster, rooms: usize) -> Result<(f64, f64)> {
    let mut pool = Pool::new(&cluster.a.door, cluster.a.dialect, 0)?;
    pool.join(rooms, 1, GROUP)?;
    let tokens = pool
        .members
        .iter()
        .map(|member| member.standing.token.clone());
    let tokens: Vec<String> = tokens.collect::<Option<_>>().context("no resume token")?;
    // What was saved last is on its way.
    std::thread::sleep(Duration::from_secs(2));
    cluster.a.process.kill()?;
    let died = Instant::now();
    drop(pool);
    // A connection without a session lasts for 10 s, and the node is buried within 12 s.
    std::thread::sleep(BEFORE_BURIAL);
    let mut comers = Comers::open(&cluster.b, rooms)?;
    while cluster.redis.nodes()? > 1 {
        ensure!(died.elapsed() < TIMEOUT, "the node is not buried");
        std::thread::sleep(Duration::from_millis(5));
    }
    let buried = died.elapsed();
    comers.resume(&tokens)?;
    Ok((
        buried.as_secs_f64(),
        (died.elapsed() - buried).as_secs_f64(),
    ))
}

/// Connections that resume.
struct Comers {
    sockets: Vec<WebSocket>,
    epoll: Epoll,
    ready: usize,
    resumed: usize,
    refused: Option<String>,
}

impl Comers {
    fn open(at: &Subject, count: usize) -> Result<Self> {
        let mut comers = Self {
            sockets: vec![],
            epoll: Epoll::new(256)?,
            ready: 0,
            resumed: 0,
            refused: None,
        };
        for index in 0..count {
            let local = Ipv4Addr::new(127, 0, 2, (index % 200) as u8 + 1);
            let socket = WebSocket::open(&at.door, local, "/ws", None)?;
            comers.epoll.add(socket.fd(), index)?;
            comers.sockets.push(socket);
            while comers.ready + GROUP <= index {
                comers.turn()?;
            }
        }
        while comers.ready < count {
            comers.turn()?;
        }
        Ok(comers)
    }

    fn turn(&mut self) -> Result<()> {
        let count = self.epoll.wait(Some(Duration::from_millis(10)))?;
        for index in 0..count {
            let socket = &mut self.sockets[self.epoll.token(index)];
            socket.receive(|event| match event {
                Event::Upgraded => self.ready += 1,
                Event::Text(text) if text.contains(r#""type":"resumed""#) => self.resumed += 1,
                Event::Text(text) if text.contains(r#""type":"error""#) => {
                    self.refused = Some(text.to_owned());
                }
                Event::Text(_) => {}
                Event::Closed(code) => self.refused = Some(format!("closed with {code:?}")),
            })?;
        }
        if let Some(why) = &self.refused {
            bail!("a resume is refused: {why}");
        }
        Ok(())
    }

    fn resume(&mut self, tokens: &[String]) -> Result<()> {
        for (sent, token) in tokens.iter().enumerate() {
            let text = format!(r#"{{"type":"resume","resumeToken":"{token}","seq":1}}"#);
            self.sockets[sent].send(&text)?;
            while self.resumed + COMING <= sent {
                self.turn()?;
            }
        }
        let started = Instant::now();
        while self.resumed < tokens.len() {
            self.turn()?;
            ensure!(started.elapsed() < TIMEOUT, "not all resume");
        }
        Ok(())
    }
}
