//! One process of a fleet's clients: each joins a room, allocates, and comes back with back-off when its connection ends,
//! as the client library does.

use super::super::herd::{Socket, connect, relay};
use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use rand::RngExt;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message as Frame;

/// The waits of the client library: the first, and the longest by the time since the loss.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const CAPS: [(Duration, Duration); 2] = [
    (Duration::from_secs(10), Duration::from_secs(1)),
    (Duration::from_secs(30), Duration::from_millis(2_500)),
];
const LONGEST: Duration = Duration::from_secs(10);
/// The longest that one attempt takes.
const ATTEMPT: Duration = Duration::from_secs(20);
/// Clients that come at once at first; when they come back, nobody is held back.
const AT_ONCE: usize = 50;

/// What a process of clients is started with, as JSON.
#[derive(Serialize, Deserialize)]
pub(super) struct Arguments {
    /// The number of the first client.
    pub(super) first: usize,
    pub(super) count: usize,
    /// Addresses that clients take in turn.
    pub(super) sources: Vec<Ipv4Addr>,
    pub(super) nodes: Vec<SocketAddrV4>,
    /// What nodes are verified by.
    pub(super) certificate: PathBuf,
}

/// What became of attempts until all clients were there.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct Tally {
    /// Clients that have a relay.
    there: usize,
    pub(super) resumed: usize,
    /// Told to come later: 1012, 1013.
    pub(super) later: usize,
    /// No node was there to answer.
    unreached: usize,
    /// What else kept an attempt from its relay, and how often.
    failed: BTreeMap<String, usize>,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.there += other.there;
        self.resumed += other.resumed;
        self.later += other.later;
        self.unreached += other.unreached;
        for (reason, count) in &other.failed {
            *self.failed.entry(reason.clone()).or_default() += count;
        }
    }

    /// Clients that have a relay.
    pub(super) fn there(&self) -> usize {
        self.there
    }

    #[allow(
        clippy::print_stdout,
        reason = "it is read by the process that has started this one"
    )]
    fn say(&self) {
        println!("{}", serde_json::to_string(self).unwrap_or_default());
    }

    /// Attempts that a node has refused.
    pub(super) fn refused(&self) -> usize {
        self.failed.values().sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            there,
            resumed,
            later,
            unreached,
            ..
        } = self;
        write!(
            f,
            "{there} are there, {resumed} resumed, {later} told to come later, {unreached} attempts without a node"
        )?;
        for (reason, count) in &self.failed {
            write!(f, ", {count}: {reason}")?;
        }
        Ok(())
    }
}

/// A process of clients, as the one that has started it sees it.
pub(super) struct Part(Child);

impl Part {
    /// Starts it; it says a tally every second until all of its clients are there, and once then.
    pub(super) fn start(
        mut command: Command,
        arguments: &Arguments,
        tallies: Sender<(usize, Tally)>,
    ) -> Result<Self> {
        command.args(["part", &serde_json::to_string(arguments)?]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let index = arguments.first / arguments.count.max(1);
        let mut child = command.spawn().context("starting clients")?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(tally) => drop(tallies.send((index, tally))),
                    Err(_) => eprintln!("{line}"),
                }
            }
        });
        Ok(Self(child))
    }

    /// Has it count anew: the nodes are about to die.
    pub(super) fn again(&mut self) -> Result<()> {
        let input = self.0.stdin.as_mut().context("no input")?;
        Ok(input.write_all(b"again\n")?)
    }

    pub(super) fn end(mut self) {
        // It ends with its input.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the clients of a process share.
struct Shared {
    arguments: Arguments,
    tls: Arc<ClientConfig>,
    turns: Semaphore,
    tally: RefCell<Tally>,
}

impl Shared {
    fn arrived(&self, resumed: bool) {
        let mut count = self.tally.borrow_mut();
        count.there += 1;
        count.resumed += usize::from(resumed);
        if count.there == self.arguments.count {
            count.say();
        }
    }
}

/// Runs the clients until the input ends.
pub(crate) fn run(arguments: &str) -> Result<()> {
    crate::common::sched::raise_open_files()?;
    let arguments: Arguments = serde_json::from_str(arguments)?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&arguments.certificate)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let shared = Rc::new(Shared {
        arguments,
        tls: Arc::new(tls),
        turns: Semaphore::new(AT_ONCE),
        tally: RefCell::default(),
    });
    let (said, mut saying) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let _ = said.send(line);
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        for index in 0..shared.arguments.count {
            tokio::task::spawn_local(client(Rc::clone(&shared), index));
        }
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                said = saying.recv() => match said {
                    Some(_) => *shared.tally.borrow_mut() = Tally::default(),
                    None => return,
                },
                _ = seconds.tick() => {
                    let tally = shared.tally.borrow();
                    if tally.there < shared.arguments.count {
                        tally.say();
                    }
                }
            }
        }
    });
    Ok(())
}

/// One client of a fleet.
struct Client {
    number: usize,
    source: Ipv4Addr,
    node: SocketAddrV4,
    token: Option<String>,
    seq: u64,
}

/// Why an attempt has ended.
enum Ended {
    /// A node has closed the connection, with 1012 or 1013.
    Later(u16),
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Ended {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

async fn client(shared: Rc<Shared>, index: usize) {
    let Arguments {
        first,
        sources,
        nodes,
        ..
    } = &shared.arguments;
    let number = first + index;
    // A room's relays are at its home: each node has as many of them as connections.
    let node = [0, 0, 1, 1][number % 4];
    let mut client = Client {
        number,
        source: sources[index % sources.len()],
        node: nodes[node],
        token: None,
        seq: 1,
    };
    let (mut lost, mut attempts) = (Instant::now(), 0);
    let mut turn = shared.turns.acquire().await.ok();
    loop {
        let began = timeout(ATTEMPT, client.attempt(&shared)).await;
        let code = match began {
            Ok(Ok((mut socket, relayed, resumed))) => {
                shared.arrived(resumed);
                drop(turn.take());
                client.stay(&mut socket).await;
                drop(relayed);
                (lost, attempts) = (Instant::now(), 0);
                None
            }
            Ok(Err(Ended::Later(code))) => {
                shared.tally.borrow_mut().later += 1;
                Some(code)
            }
            Ok(Err(Ended::Failed(error))) => {
                failed(&shared, &error);
                None
            }
            Err(_) => {
                failed(&shared, &anyhow::anyhow!("an attempt took too long"));
                None
            }
        };
        sleep(pause(lost.elapsed(), attempts, code)).await;
        attempts += 1;
    }
}

fn failed(shared: &Shared, error: &anyhow::Error) {
    let tally = &mut shared.tally.borrow_mut();
    let kind = |kind| {
        let mut causes = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<std::io::Error>());
        causes.any(|cause| cause.kind() == kind)
    };
    // Nobody listens, or who did has died.
    match [
        std::io::ErrorKind::ConnectionRefused,
        std::io::ErrorKind::ConnectionReset,
    ]
    .map(kind)
    {
        [false, false] => *tally.failed.entry(format!("{error:#}")).or_default() += 1,
        _ => tally.unreached += 1,
    }
}

fn pause(since: Duration, attempts: u32, code: Option<u16>) -> Duration {
    if code == Some(1012) && attempts == 0 {
        return Duration::ZERO;
    }
    let cap = CAPS.iter().find(|(within, _)| since < *within);
    let most = cap.map_or(LONGEST, |(_, cap)| *cap);
    let wait = FIRST_RETRY * 2_u32.pow(attempts.min(10));
    wait.min(most).mul_f64(rand::rng().random_range(0.5..1.0))
}

impl Client {
    /// Comes in and gets a relay.
    async fn attempt(&mut self, shared: &Shared) -> Result<(Socket, UdpSocket, bool), Ended> {
        let mut socket = connect(self.source, self.node.into(), Arc::clone(&shared.tls)).await?;
        let text = match &self.token {
            Some(token) => format!(
                r#"{{"type":"resume","id":"r","resumeToken":"{token}","seq":{}}}"#,
                self.seq
            ),
            None => format!(
                r#"{{"type":"join","id":"j","roomId":"fleet-{}"}}"#,
                self.number / 2
            ),
        };
        let sent = socket.send(Frame::text(text)).await;
        sent.context("entering")?;
        let entered = loop {
            let text = match socket.next().await.transpose().context("entering")? {
                Some(Frame::Text(text)) => text,
                Some(Frame::Close(frame)) => match frame.map(|frame| frame.code.into()) {
                    Some(code @ (1012 | 1013)) => return Err(Ended::Later(code)),
                    code => return Err(anyhow::anyhow!("closed with {code:?}").into()),
                },
                Some(_) => continue,
                None => return Err(anyhow::anyhow!("cut off").into()),
            };
            let message: Value = serde_json::from_str(&text).context("reading")?;
            match message["type"].as_str() {
                Some("joined" | "resumed") => break message,
                Some("error") => {
                    if message["code"] == "resume-failed" {
                        self.token = None;
                    }
                    return Err(anyhow::anyhow!("refused with {}", message["code"]).into());
                }
                _ => {}
            }
        };
        let resumed = entered["type"] == "resumed";
        if !resumed {
            self.seq = 1;
        }
        self.token = entered["resumeToken"].as_str().map(str::to_owned);
        let relayed = relay(self.source, &entered).await?;
        Ok((socket, relayed, resumed))
    }

    /// Reads, and answers pings, until the connection ends.
    async fn stay(&mut self, socket: &mut Socket) {
        while let Some(Ok(frame)) = socket.next().await {
            if let Frame::Text(text) = frame
                && let Ok(seq) = number(&text)
            {
                self.seq = seq;
            }
        }
    }
}

fn number(text: &str) -> Result<u64> {
    let message: Value = serde_json::from_str(text)?;
    match message["seq"].as_u64() {
        Some(seq) => Ok(seq),
        None => bail!("not numbered"),
    }
}
