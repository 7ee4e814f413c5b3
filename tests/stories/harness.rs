//! A box on free ports, and a signaling client that says what it waited for.

use callbox::app::App;
use callbox::config::Config;
use futures_util::{SinkExt, StreamExt};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::ops::Deref;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async, connect_async};

/// Far beyond what anything here takes; only a broken box reaches it.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Something to connect to.
pub trait Reachable {
    /// Where HTTP and WebSocket listen.
    fn http(&self) -> SocketAddr;
}

/// A box inside this process.
pub struct Callbox(App);

impl Reachable for Callbox {
    fn http(&self) -> SocketAddr {
        self.0.http[0]
    }
}

/// A box as a process of its own: where memory is measured, or signals are sent.
pub struct Process {
    child: Child,
    http: SocketAddr,
    /// The line of the banner that lists ICE URLs.
    ice: String,
}

impl Process {
    /// Starts the program with `env` over free loopback ports, and reads its banner.
    pub fn start(env: &[(&str, &str)]) -> Self {
        Self::start_with(env, Stdio::null())
    }

    /// As [`Self::start`]; what it logs is to be read while it runs.
    pub fn start_logging(env: &[(&str, &str)]) -> (Self, ChildStderr) {
        let mut process = Self::start_with(env, Stdio::piped());
        let log = process.child.stderr.take().unwrap();
        (process, log)
    }

    fn start_with(env: &[(&str, &str)], log: Stdio) -> Self {
        // With the few descriptors that an interactive shell gives.
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -S -n 1024; exec \"$0\""])
            .arg(env!("CARGO_BIN_EXE_callbox"))
            .env("CALLBOX_HTTP__LISTEN", "127.0.0.1:0")
            .env("CALLBOX_TURN__UDP", "127.0.0.1:0")
            .env("CALLBOX_TURN__TCP", "127.0.0.1:0")
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let banner = BufReader::new(child.stdout.take().unwrap());
        let mut lines = banner.lines().map_while(Result::ok);
        let http = lines.find_map(|line| {
            let url = line.split("http://").nth(1)?;
            url.trim_end_matches('/').parse::<SocketAddr>().ok()
        });
        let ice = lines.find(|line| line.trim_start().starts_with("ice "));
        let http = http.expect("the banner names the page");
        let ice = ice.unwrap_or_default();
        Self { child, http, ice }
    }

    /// As [`Self::start`], on one core.
    pub fn start_on_one_core(env: &[(&str, &str)]) -> Self {
        // A child has the cores of the thread that starts it.
        let cores = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|&core| cores.is_set(core));
        let mut one = CpuSet::new();
        one.set(first.expect("this thread runs on a core"));
        sched_setaffinity(None, &one).unwrap();
        let process = Self::start(env);
        sched_setaffinity(None, &cores).unwrap();
        process
    }

    /// Where TURN listens over UDP.
    pub fn turn(&self) -> SocketAddr {
        let urls = self.ice.split_whitespace();
        let udp = urls.filter_map(|url| url.strip_prefix("turn:")?.strip_suffix("?transport=udp"));
        udp.map(|address| address.parse().unwrap()).next().unwrap()
    }

    /// Sends a signal, named as kill(1) does.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// The exit code, if it has ended.
    pub fn exit_code_so_far(&mut self) -> Option<i32> {
        self.child.try_wait().unwrap()?.code()
    }

    /// Waits for its end.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Resident memory, KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Reachable for Process {
    fn http(&self) -> SocketAddr {
        self.http
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Callbox {
    /// Starts with `toml` over free loopback ports.
    pub async fn start(toml: &str) -> Self {
        let free = "127.0.0.1:0";
        Self::start_on(toml, free, free).await
    }

    /// Starts with `toml`, HTTP on `http` and TURN over TCP on `tcp`.
    pub async fn start_on(toml: &str, http: &str, tcp: &str) -> Self {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(toml.as_bytes()).unwrap();
        let ports = [
            ("CALLBOX_HTTP__LISTEN", http),
            ("CALLBOX_TURN__UDP", "127.0.0.1:0"),
            ("CALLBOX_TURN__TCP", tcp),
        ];
        let env = ports.map(|(k, v)| (k.to_owned(), v.to_owned()));
        let config = Config::load(Some(file.path()), env.into_iter()).unwrap();
        Self(App::start(config).await.unwrap())
    }
}

impl Deref for Callbox {
    type Target = App;

    fn deref(&self) -> &App {
        &self.0
    }
}

/// One signaling connection.
pub struct Client<S = MaybeTlsStream<TcpStream>> {
    socket: WebSocketStream<S>,
    next_id: u32,
    /// From `welcome`, then from `joined`.
    pub peer_id: String,
}

impl Client {
    /// Connects and reads `welcome`.
    pub async fn connect(callbox: &impl Reachable) -> Self {
        Self::connect_with(callbox, "", &[]).await.unwrap()
    }

    /// Connects with a query and headers, unless the upgrade is refused: then its status.
    pub async fn connect_with(
        callbox: &impl Reachable,
        query: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, u16> {
        Self::connect_to(callbox, &format!("/ws{query}"), headers).await
    }

    /// Connects to a path of a protocol whose first message is `welcome` too.
    pub async fn connect_to(
        callbox: &impl Reachable,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, u16> {
        let url = format!("ws://{}{path}", callbox.http());
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let (socket, _) = connect_async(request).await.map_err(|error| match error {
            tungstenite::Error::Http(response) => response.status().as_u16(),
            other => panic!("{other}"),
        })?;
        Ok(Self::welcomed(socket).await)
    }

    /// Connects and joins `room` as `identity`.
    pub async fn join(callbox: &impl Reachable, room: &str, identity: &str) -> (Self, Value) {
        let mut client = Self::connect(callbox).await;
        let message = json!({"type": "join", "roomId": room, "identity": identity});
        let joined = client.request(message).await;
        assert_eq!(joined["type"], "joined", "{joined}");
        client.peer_id = joined["peerId"].as_str().unwrap().to_owned();
        (client, joined)
    }

    /// Registers a new connection as `identity`.
    pub async fn register(callbox: &impl Reachable, identity: &str) -> (Self, Value) {
        let mut client = Self::connect(callbox).await;
        let registered = client
            .request(json!({"type": "register", "identity": identity}))
            .await;
        assert_eq!(registered["type"], "registered", "{registered}");
        (client, registered)
    }

    /// The raw connection below the WebSocket.
    pub fn tcp(&mut self) -> &mut TcpStream {
        match self.socket.get_mut() {
            MaybeTlsStream::Plain(stream) => stream,
            _ => panic!("stories speak plain TCP"),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Asks for a WebSocket over `stream`, and reads `welcome`.
    pub async fn over(stream: S, url: &str) -> Result<Self, tungstenite::Error> {
        let (socket, _) = client_async(url, stream).await?;
        Ok(Self::welcomed(socket).await)
    }

    async fn welcomed(socket: WebSocketStream<S>) -> Self {
        let mut client = Self {
            socket,
            next_id: 0,
            peer_id: String::new(),
        };
        let welcome = client.recv().await;
        assert_eq!(welcome["type"], "welcome");
        assert_eq!(welcome["protocol"], 1);
        client.peer_id = welcome["peerId"].as_str().unwrap().to_owned();
        client
    }

    /// Sends one message.
    pub async fn send(&mut self, message: Value) {
        self.send_raw(Message::text(message.to_string())).await;
    }

    /// Sends one frame of any kind.
    pub async fn send_raw(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// Sends with a fresh id and waits for the answer to it; what comes before is dropped.
    pub async fn request(&mut self, mut message: Value) -> Value {
        self.next_id += 1;
        let id = format!("r{}", self.next_id);
        message["id"] = json!(id);
        self.send(message).await;
        loop {
            let reply = self.recv().await;
            if reply["id"] == json!(id) {
                return reply;
            }
        }
    }

    /// Sends with a fresh id and returns the code of the error that comes back.
    pub async fn refused(&mut self, message: Value) -> String {
        let reply = self.request(message).await;
        assert_eq!(reply["type"], "error", "{reply}");
        reply["code"].as_str().unwrap().to_owned()
    }

    /// Waits for a message of type `kind`; what comes before is dropped.
    pub async fn until(&mut self, kind: &str) -> Value {
        loop {
            let message = self.recv().await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// The next message.
    pub async fn recv(&mut self) -> Value {
        match self.next().await {
            Ok(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("wanted a message, got {other:?}"),
        }
    }

    /// The next message as text: not all that clients may send is a `Value`.
    pub async fn recv_text(&mut self) -> String {
        match self.next().await {
            Ok(Message::Text(text)) => text.to_string(),
            other => panic!("wanted a message, got {other:?}"),
        }
    }

    /// The next message, which has to be of type `kind`.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let message = self.recv().await;
        assert_eq!(message["type"], kind, "{message}");
        message
    }

    /// Reads until the connection is closed, and returns its close code.
    pub async fn closed(&mut self) -> CloseCode {
        loop {
            match self.next().await {
                Ok(Message::Close(Some(frame))) => return frame.code,
                Ok(Message::Close(None)) => panic!("closed without a code"),
                Ok(_) => {}
                Err(error) => panic!("wanted a close frame, got {error}"),
            }
        }
    }

    async fn next(&mut self) -> Result<Message, tungstenite::Error> {
        loop {
            let message = timeout(TIMEOUT, self.socket.next())
                .await
                .expect("the box answers in time")
                .unwrap_or(Err(tungstenite::Error::ConnectionClosed))?;
            if !matches!(message, Message::Ping(_) | Message::Pong(_)) {
                return Ok(message);
            }
        }
    }
}
