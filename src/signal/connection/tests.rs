//! Sessions over pipes of any width, with a library's client at the other end.

use super::super::dialect::Native;
use super::super::driver::ConnectionLimits;
use super::super::hub::{Gauges, Settings};
use super::*;
use crate::auth::credential::{IceIssuer, TurnSecrets};
use crate::protocol::DialectKind;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, protocol::Role};

mod consult;
mod parking;

/// Everything of a client in flight, as if the network were free.
const WIDE: usize = 1 << 20;
/// Less than any frame.
const NARROW: usize = 64;

impl Carrier for DuplexStream {}

struct Callbox {
    driver: Arc<Driver>,
}

impl Callbox {
    fn new(outbox: usize) -> Self {
        let ice = IceIssuer {
            stun_urls: vec![],
            turn_urls: vec![],
            secrets: TurnSecrets::new(vec!["north".into()]).unwrap(),
            ttl: Duration::from_secs(3600),
        };
        let settings = Settings {
            rate: 0,
            ..Settings::default()
        };
        let limits = ConnectionLimits {
            per_ip: 100,
            total: 100,
            outbox,
        };
        let driver = Driver::new(settings, ice, limits, Box::new(|_, _, _| {}));
        Self {
            driver: Arc::new(driver),
        }
    }

    /// Connects over a pipe that holds `width` bytes; the task ends with the connection.
    fn socket(&self, width: usize) -> (DuplexStream, JoinHandle<()>) {
        let (client, server) = duplex(width);
        let admission = self
            .driver
            .admit([192, 0, 2, 1].into(), DialectKind::Native)
            .unwrap();
        let task = tokio::spawn(run(server, Native, admission, None, settings()));
        (client, task)
    }

    async fn join(&self, width: usize, metadata: &str) -> (Client, Value) {
        let (stream, task) = self.socket(width);
        let socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        let mut client = Client { socket, task };
        let metadata = json!({"about": metadata});
        client
            .say(json!({"type": "join", "roomId": "r", "metadata": metadata}))
            .await;
        let joined = client.until("joined").await;
        (client, joined)
    }

    fn gauges(&self) -> Gauges {
        self.driver.with_hub(|hub, _, _| hub.gauges())
    }
}

fn settings() -> ConnectionSettings {
    ConnectionSettings {
        heartbeat: Duration::from_secs(25),
        timeout: Duration::from_secs(10),
        max_frame: 1 << 16,
        authorize: Arc::new(|_| Ok(Grant::open())),
        consult: None,
        fetch_key: None,
    }
}

struct Client {
    socket: WebSocketStream<DuplexStream>,
    task: JoinHandle<()>,
}

impl Client {
    async fn say(&mut self, message: Value) {
        let message = Message::text(message.to_string());
        self.socket.send(message).await.unwrap();
    }

    /// The next message of that type; others are passed over.
    async fn until(&mut self, kind: &str) -> Value {
        loop {
            match self.socket.next().await.unwrap().unwrap() {
                Message::Text(text) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if message["type"] == kind {
                        return message;
                    }
                }
                Message::Close(frame) => panic!("closed with {frame:?} before {kind}"),
                _ => {}
            }
        }
    }

    /// Answers pings for a moment.
    async fn until_quiet(&mut self) {
        let quiet = Duration::from_millis(10);
        while let Ok(Some(_)) = timeout(quiet, self.socket.next()).await {}
    }

    /// The code that it is closed with; what comes before is passed over.
    async fn closed(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.socket.next().await.unwrap().unwrap() {
                return frame.unwrap().code.into();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_narrow_pipe_carries_everything_in_order() {
    let callbox = Callbox::new(1 << 18);
    let (mut ann, _) = callbox.join(WIDE, "").await;
    let (mut ben, _) = callbox.join(NARROW, "").await;
    for n in 0..50 {
        let content = json!({"n": n, "padding": "x".repeat(1000)});
        ann.say(json!({"type": "message", "content": content}))
            .await;
    }
    let mut seq = None;
    for n in 0..50 {
        let message = ben.until("message").await;
        assert_eq!(message["content"]["n"], n);
        let number = message["seq"].as_u64();
        assert!(seq.is_none_or(|seq: u64| number == Some(seq + 1)));
        seq = number;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipe_that_moves_is_not_given_up() {
    let callbox = Callbox::new(1 << 18);
    let (mut ann, _) = callbox.join(WIDE, "").await;
    let (mut ben, _) = callbox.join(NARROW, "").await;
    for n in 0..3 {
        let content = "x".repeat(60_000);
        ann.say(json!({"type": "message", "content": content, "id": n.to_string()}))
            .await;
        ann.until("ack").await;
    }
    let began = Instant::now();
    // 4 KB a second: each message takes longer than the timeout.
    let stream = ben.socket.get_mut();
    let (mut read, mut piece) = (0, [0; NARROW]);
    while read < 180_000 {
        read += stream.read(&mut piece).await.unwrap();
        assert!(
            !ben.task.is_finished(),
            "after {read} bytes, {:?}",
            began.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(16)).await;
    }
    assert_eq!(callbox.driver.stats().slow_consumers.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pipe_that_stands_still_is_given_up() {
    let callbox = Callbox::new(1 << 18);
    let (mut ann, _) = callbox.join(WIDE, "").await;
    let (mut ben, _) = callbox.join(NARROW, "").await;
    let began = Instant::now();
    ann.say(json!({"type": "message", "content": "x".repeat(1000)}))
        .await;
    while callbox.driver.stats().slow_consumers.get() == 0 {
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(began.elapsed() <= Duration::from_secs(11));
    assert_eq!(ben.closed().await, CloseCode::SlowConsumer as u16);
    assert_eq!(callbox.gauges().away, 1, "it may resume");
}

#[tokio::test(start_paused = true)]
async fn who_is_kicked_while_it_does_not_read_gets_the_kick() {
    let callbox = Callbox::new(1 << 18);
    let (mut ann, _) = callbox.join(WIDE, "").await;
    let (mut ben, joined) = callbox.join(NARROW, "").await;
    ann.say(json!({"type": "message", "content": "x".repeat(1000)}))
        .await;
    ann.say(json!({"type": "kick", "peerId": joined["peerId"], "id": "1"}))
        .await;
    ann.until("ack").await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(ben.closed().await, CloseCode::Kicked as u16);
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_whose_pong_is_behind_is_not_dead() {
    let callbox = Callbox::new(1 << 16);
    let (mut ann, _) = callbox.join(WIDE, "").await;
    let (mut ben, _) = callbox.join(NARROW, "").await;
    // The ping comes first; then more than half of an outbox, and only then the pong.
    tokio::time::sleep(Duration::from_secs(26)).await;
    let content = "x".repeat(50_000);
    ann.until_quiet().await;
    ann.say(json!({"type": "message", "content": content, "id": "1"}))
        .await;
    ann.until("ack").await;
    ben.say(json!({"type": "ping"})).await;
    let stream = ben.socket.get_mut();
    let (mut read, mut piece) = (0, [0; NARROW]);
    while read < 45_000 {
        read += stream.read(&mut piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert!(!ben.task.is_finished());
    assert_eq!(callbox.gauges().away, 0);
}

#[tokio::test(start_paused = true)]
async fn long_answers_to_many_requests_wait_for_their_reader() {
    let callbox = Callbox::new(1 << 16);
    let long = "x".repeat(7_000);
    let (mut ann, _) = callbox.join(WIDE, &long).await;
    let mut others = vec![];
    for _ in 0..5 {
        others.push(callbox.join(WIDE, &long).await);
    }
    // All in one read, and forty kilobytes of answer to each.
    for n in 0..40 {
        let message = json!({"type": "list", "id": n.to_string()});
        ann.socket
            .feed(Message::text(message.to_string()))
            .await
            .unwrap();
    }
    ann.socket.flush().await.unwrap();
    for n in 0..40 {
        assert_eq!(ann.until("peers").await["id"], n.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn a_resume_replays_more_than_the_outbox_holds() {
    let callbox = Callbox::new(1 << 14);
    let (mut ann, _) = callbox.join(WIDE, "").await;
    let (ben, joined) = callbox.join(WIDE, "").await;
    drop(ben.socket);
    ben.task.await.unwrap();
    for n in 0..40 {
        let content = json!({"n": n, "padding": "x".repeat(1000)});
        ann.say(json!({"type": "message", "content": content, "id": n.to_string()}))
            .await;
        ann.until("ack").await;
    }
    let (stream, task) = callbox.socket(WIDE);
    let socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    let mut back = Client { socket, task };
    let token = &joined["resumeToken"];
    back.say(json!({"type": "resume", "resumeToken": token, "seq": 1}))
        .await;
    assert_eq!(back.until("resumed").await["gap"], false);
    for n in 0..40 {
        assert_eq!(back.until("message").await["content"]["n"], n);
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_cut_off_leaves_its_session_away() {
    let callbox = Callbox::new(1 << 16);
    let (client, _) = callbox.join(WIDE, "").await;
    client.task.abort();
    assert!(client.task.await.unwrap_err().is_cancelled());
    let gauges = callbox.gauges();
    assert_eq!((gauges.connections, gauges.away), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_end_is_given_up() {
    let callbox = Callbox::new(1 << 16);
    let (mut client, _) = callbox.join(WIDE, "").await;
    // The first fragment of a text, masked with zero.
    let stream = client.socket.get_mut();
    stream
        .write_all(&[0x01, 0x81, 0, 0, 0, 0, b'a'])
        .await
        .unwrap();
    // The library answers pings meanwhile.
    let closed = timeout(Duration::from_secs(51), client.closed()).await;
    assert_eq!(closed, Ok(CloseCode::ProtocolError as u16));
}

/// A protocol of lines, to see that a connection does what a dialect asks.
#[derive(Default)]
struct Lines {
    remind_at: Option<std::time::Instant>,
}

impl Dialect for Lines {
    fn opened(&mut self, _: std::time::Instant, out: &mut Output<'_>) {
        out.text("hello");
    }

    fn decode(&mut self, message: Incoming<'_>, now: std::time::Instant, out: &mut Output<'_>) {
        match message {
            Incoming::Binary(bytes) => out.binary(bytes),
            Incoming::Text("remind") => self.remind_at = Some(now + Duration::from_secs(3)),
            Incoming::Text("bye") => out.close(CloseCode::Normal, "as asked"),
            Incoming::Text(text) => {
                let frame = match text.split_once(' ') {
                    Some(("join", room)) => json!({"type": "join", "roomId": room}),
                    _ => json!({"type": "message", "content": text}),
                };
                out.request(crate::protocol::parse(&frame.to_string()));
            }
        }
    }

    fn encode(&mut self, outgoing: &Outgoing, _: std::time::Instant, out: &mut Output<'_>) {
        let crate::signal::hub::Event::Native(body) = &outgoing.event else {
            return;
        };
        if let Some(seq) = outgoing.seq {
            assert_eq!(seq, 1, "only a session's first frame has a number");
        }
        out.text(body.kind().as_str());
    }

    fn next_timeout(&self) -> Option<std::time::Instant> {
        self.remind_at
    }

    fn timed_out(&mut self, now: std::time::Instant, out: &mut Output<'_>) {
        assert!(self.remind_at.take().is_some_and(|at| at <= now));
        out.text("ding");
    }

    fn closing(&mut self, _: &Closing, out: &mut Output<'_>) -> u16 {
        out.text("goodbye");
        4999
    }
}

impl Callbox {
    async fn lines(&self) -> Client {
        let (client, server) = duplex(WIDE);
        let admission = self
            .driver
            .admit([192, 0, 2, 1].into(), DialectKind::Tutorial)
            .unwrap();
        let task = tokio::spawn(run(server, Lines::default(), admission, None, settings()));
        let socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        Client { socket, task }
    }
}

impl Client {
    async fn line(&mut self, line: &str) {
        self.socket.send(Message::text(line)).await.unwrap();
    }

    async fn next(&mut self) -> Message {
        loop {
            match self.socket.next().await.unwrap().unwrap() {
                Message::Ping(_) => {}
                message => return message,
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dialect_speaks_for_its_client() {
    let callbox = Callbox::new(1 << 16);
    let (mut ann, _) = callbox.join(WIDE, "").await;
    let mut ben = callbox.lines().await;
    for expected in ["hello", "welcome"] {
        assert_eq!(ben.next().await, Message::text(expected));
    }
    ben.socket
        .send(Message::binary(vec![1, 2, 3]))
        .await
        .unwrap();
    assert_eq!(ben.next().await, Message::binary(vec![1, 2, 3]));
    ben.line("join r").await;
    assert_eq!(ben.next().await, Message::text("joined"));
    let newcomer = ann.until("peer-joined").await;
    assert_eq!(newcomer["peer"]["dialect"], "tutorial");
    ben.line("what others may read").await;
    let message = ann.until("message").await;
    assert_eq!(message["content"], "what others may read");
    ann.say(json!({"type": "message", "content": 1})).await;
    assert_eq!(ben.next().await, Message::text("message"));
    let counted = callbox.driver.stats().of(DialectKind::Tutorial);
    assert_eq!(counted.connections.get(), 1);
    // All that it sent, and all that it received: its own greeting and echo, too.
    assert_eq!((counted.received.get(), counted.sent.get()), (3, 5));
}

#[tokio::test(start_paused = true)]
async fn a_dialect_has_its_own_timer_and_its_own_way_to_end() {
    let callbox = Callbox::new(1 << 16);
    let mut ben = callbox.lines().await;
    ben.line("remind").await;
    for expected in ["hello", "welcome", "ding"] {
        assert_eq!(ben.next().await, Message::text(expected));
    }
    ben.line("bye").await;
    assert_eq!(ben.next().await, Message::text("goodbye"));
    assert_eq!(ben.closed().await, 4999);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_resume_is_gone_with_its_connection_and_waits_without_a_deadline() {
    let callbox = Callbox::new(1 << 16);
    let (mut ann, _) = callbox.join(WIDE, "").await;
    let mut ben = callbox.lines().await;
    // Twice as long as a native connection may go without a session.
    let quiet = timeout(Duration::from_secs(20), async {
        while ben.next().await != Message::text("error") {}
    });
    assert!(quiet.await.is_err());
    ben.line("join r").await;
    ann.until("peer-joined").await;
    drop(ben.socket);
    let left = timeout(Duration::from_secs(1), ann.until("peer-left")).await;
    assert_eq!(left.unwrap()["reason"], "disconnected");
    assert_eq!(callbox.gauges().away, 0);
}

#[tokio::test(start_paused = true)]
async fn where_a_token_cannot_come_later_it_is_judged_at_once() {
    let callbox = Callbox::new(1 << 16);
    let (client, server) = duplex(WIDE);
    let admission = callbox
        .driver
        .admit([192, 0, 2, 1].into(), DialectKind::Tutorial)
        .unwrap();
    let settings = ConnectionSettings {
        authorize: Arc::new(|_| {
            let code = crate::protocol::ErrorCode::Unauthorized;
            Err(RequestError::new(code, "a token is needed"))
        }),
        ..settings()
    };
    tokio::spawn(run(server, Native, admission, None, settings));
    let mut socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    loop {
        if let Message::Close(frame) = socket.next().await.unwrap().unwrap() {
            assert_eq!(u16::from(frame.unwrap().code), 4001);
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_sends_much_waits_for_a_link_that_is_slower_than_the_rate() {
    let callbox = Callbox::new(1 << 18);
    // 60 kB each 400 ms: half of a megabit for each megabit of the rate.
    let (mut slow, _) = callbox.join(1 << 12, "").await;
    let (mut ann, _) = callbox.join(1 << 12, "").await;
    let attack = async {
        for n in 0..100 {
            let content = "x".repeat(60_000);
            ann.say(json!({"type": "message", "content": content, "id": n.to_string()}))
                .await;
            ann.until("ack").await;
        }
    };
    let read = async {
        for n in 0..100 {
            tokio::time::sleep(Duration::from_millis(400)).await;
            let message = slow.until("message").await;
            assert_eq!(
                message["content"].as_str().map(str::len),
                Some(60_000),
                "{n}"
            );
        }
    };
    tokio::join!(attack, read);
    assert_eq!(callbox.driver.stats().slow_consumers.get(), 0);
}
