//! Connections that stop in one box and go on in another one, over the same pipe.

use super::*;
use crate::signal::{Detached, ParkedConnection, SignalSnapshot};
use std::sync::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A pipe that stays where it is when its connection stops.
#[derive(Clone)]
pub(super) struct Bare(Arc<Mutex<Option<DuplexStream>>>);

impl Bare {
    pub(super) fn of(stream: DuplexStream) -> Self {
        Self(Arc::new(Mutex::new(Some(stream))))
    }

    /// For the next connection.
    fn again(&self) -> Self {
        Self::of(self.0.lock().unwrap().take().unwrap())
    }

    fn poll<T>(&self, poll: impl FnOnce(Pin<&mut DuplexStream>) -> Poll<T>) -> Poll<T> {
        poll(Pin::new(self.0.lock().unwrap().as_mut().unwrap()))
    }
}

impl AsyncRead for Bare {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.poll(|stream| stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Bare {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.poll(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.poll(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.poll(|stream| stream.poll_shutdown(cx))
    }
}

impl Carrier for Bare {
    fn is_bare(&self) -> bool {
        true
    }

    fn detach(&mut self) -> Option<Detached> {
        let stands_in = std::io::pipe().unwrap().0;
        Some(Detached::Socket {
            socket: stands_in.into(),
            ahead: vec![],
            unwritten: vec![],
        })
    }
}

impl Callbox {
    /// Joins over a pipe that another box can go on with.
    async fn join_bare(&self, width: usize) -> (Client, Bare) {
        let (client, server) = duplex(width);
        let server = Bare::of(server);
        let client_address = [192, 0, 2, 1].into();
        let admission = self.driver.admit(client_address, DialectKind::Native);
        let carrier = server.clone();
        let task = tokio::spawn(run(carrier, Native, admission.unwrap(), None, settings()));
        let socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let mut client = Client { socket, task };
        client.say(json!({"type": "join", "roomId": "r"})).await;
        client.until("joined").await;
        (client, server)
    }

    fn successor(&self, snapshot: SignalSnapshot) -> Self {
        let text = serde_json::to_string(&snapshot).unwrap();
        let ice = IceIssuer {
            stun_urls: vec![],
            turn_urls: vec![],
            secrets: TurnSecrets::new(vec!["north".into()]).unwrap(),
            ttl: Duration::from_secs(3600),
        };
        let limits = ConnectionLimits {
            per_ip: 100,
            total: 100,
            outbox: 1 << 18,
        };
        let driver = Driver::restored(
            serde_json::from_str(&text).unwrap(),
            Instant::now().into_std(),
            Settings::default(),
            ice,
            limits,
            Box::new(|_, _, _| {}),
        );
        Self {
            driver: Arc::new(driver.unwrap()),
        }
    }

    fn goes_on(&self, parked: ParkedConnection, carrier: Bare) -> JoinHandle<()> {
        let text = serde_json::to_string(&parked).unwrap();
        let parked: ParkedConnection = serde_json::from_str(&text).unwrap();
        let admission = self.driver.adopt_parked(&parked).unwrap();
        tokio::spawn(resume(carrier, Native, admission, parked, settings()))
    }
}

/// A masked text frame, whose mask is nothing.
fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    frame.extend(text.bytes());
    frame
}

#[tokio::test(start_paused = true)]
async fn a_bare_connection_goes_on_in_another_box_and_others_are_told_to_resume() {
    let old = Callbox::new(1 << 18);
    let (mut ann, ann_server) = old.join_bare(WIDE).await;
    let (mut ben, ben_server) = old.join_bare(NARROW).await;
    let (mut eve, _) = old.join(WIDE, "").await;
    ann.until("peer-joined").await;
    // Half a frame has come, and ben has yet to read what would fill its pipe many times.
    let said = frame(r#"{"type":"message","id":"1","content":"whole"}"#);
    ann.socket.get_mut().write_all(&said[..20]).await.unwrap();
    for n in 0..20 {
        let content = json!({"n": n, "padding": "x".repeat(500)});
        eve.say(json!({"type": "message", "id": n.to_string(), "content": content}))
            .await;
        eve.until("ack").await;
    }
    old.driver.park(Duration::from_secs(60)).await;
    // What is said while they are at rest waits for them.
    eve.say(json!({"type": "message", "id": "late", "content": {"n": 20}}))
        .await;
    eve.until("ack").await;
    let snapshot = old.driver.hand_over();
    let mut parked = old.driver.take_parked();
    assert_eq!(parked.len(), 2, "a pipe that is not bare stays");
    old.driver.leave_to_successor();
    assert_eq!(eve.closed().await, CloseCode::Restart as u16);
    drop(eve);
    old.driver.empty().await;
    assert!((&mut ann.task).await.is_ok() && (&mut ben.task).await.is_ok());

    let new = old.successor(snapshot);
    parked.sort_by_key(|(parked, _)| parked.conn);
    let mut tasks = vec![];
    for ((parked, _), server) in parked.into_iter().zip([&ann_server, &ben_server]) {
        let twice = parked.clone();
        tasks.push(new.goes_on(parked, server.again()));
        assert!(new.driver.adopt_parked(&twice).is_none(), "once");
    }
    new.driver.cut_missing();
    assert_eq!((new.gauges().sessions, new.gauges().away), (3, 1));
    ann.socket.get_mut().write_all(&said[20..]).await.unwrap();
    let mut seq = None;
    for n in 0..21 {
        let message = ben.until("message").await;
        assert_eq!(message["content"]["n"], n);
        seq = message["seq"].as_u64();
    }
    let mut whole = ben.until("message").await;
    assert_eq!(whole["content"], "whole");
    // Between the two is what ben gets of eve, who is away.
    assert!(whole["seq"].take().as_u64() > seq);
    ann.until("ack").await;
    drop(ann);
    assert!(tasks.remove(0).await.is_ok());
}

/// A dialect that numbers what it says.
struct Numbers(u32);

impl Dialect for Numbers {
    fn decode(&mut self, message: Incoming<'_>, _: std::time::Instant, out: &mut Output<'_>) {
        if let Incoming::Text(text) = message {
            out.request(crate::protocol::parse(text));
        }
    }

    fn encode(&mut self, outgoing: &Outgoing, _: std::time::Instant, out: &mut Output<'_>) {
        if let hub::Event::Native(body) = &outgoing.event {
            self.0 += 1;
            out.text(&format!("[{},{}]", self.0, body.as_str()));
        }
    }

    fn memory(&self, _: std::time::Instant) -> Option<String> {
        (self.0 > 0).then(|| self.0.to_string())
    }
}

#[tokio::test(start_paused = true)]
async fn a_translator_goes_on_with_what_it_remembers_and_has_yet_to_say() {
    let old = Callbox::new(1 << 18);
    let (mut eve, _) = old.join(WIDE, "").await;
    let (client, server) = duplex(WIDE);
    let server = Bare::of(server);
    let kind = DialectKind::SocketIo;
    let admission = old.driver.admit([192, 0, 2, 1].into(), kind).unwrap();
    let task = tokio::spawn(run(server.clone(), Numbers(0), admission, None, settings()));
    let socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    let mut ann = Client { socket, task };
    ann.say(json!({"type": "join", "roomId": "r"})).await;
    eve.until("peer-joined").await;
    old.driver.park(Duration::from_secs(60)).await;
    for n in 0..3 {
        eve.say(json!({"type": "message", "id": n.to_string(), "content": n}))
            .await;
        eve.until("ack").await;
    }
    let snapshot = old.driver.hand_over();
    let mut parked = old.driver.take_parked();
    let (parked, _) = parked.pop().unwrap();
    assert!((&mut ann.task).await.is_ok());
    assert_eq!(parked.dialect(), kind);

    let new = old.successor(snapshot);
    let text = serde_json::to_string(&parked).unwrap();
    let parked: ParkedConnection = serde_json::from_str(&text).unwrap();
    let admission = new.driver.adopt_parked(&parked).unwrap();
    let dialect = Numbers(parked.memory().unwrap().parse().unwrap());
    tokio::spawn(resume(
        server.again(),
        dialect,
        admission,
        parked,
        settings(),
    ));
    new.driver.cut_missing();
    let (mut numbers, mut contents) = (vec![], vec![]);
    while contents.len() < 3 {
        let message = ann.socket.next().await.unwrap().unwrap();
        let [number, body]: [Value; 2] = serde_json::from_str(message.to_text().unwrap()).unwrap();
        numbers.push(number.as_u64().unwrap());
        contents.extend(body["content"].as_u64());
    }
    assert_eq!(contents, [0, 1, 2]);
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    drop(ann);
    // It is gone for good: nobody resumes in that dialect.
    while new.gauges().connections > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(new.gauges().sessions, 1);
}

#[tokio::test(start_paused = true)]
async fn who_is_kicked_while_at_rest_is_told() {
    let old = Callbox::new(1 << 18);
    let (mut ann, _server) = old.join_bare(WIDE).await;
    old.driver.park(Duration::from_secs(60)).await;
    old.driver.end();
    let _ = old.driver.hand_over();
    assert!(old.driver.take_parked().is_empty());
    assert!((&mut ann.task).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_does_not_stop_in_time_stays() {
    let old = Callbox::new(1 << 18);
    let admission = old
        .driver
        .admit([192, 0, 2, 1].into(), DialectKind::Native)
        .unwrap();
    // Its handshake is not over yet.
    old.driver.park(Duration::from_millis(200)).await;
    let _ = old.driver.hand_over();
    assert!(old.driver.take_parked().is_empty());
    let (mut client, server) = duplex(WIDE);
    let late = tokio::spawn(run(Bare::of(server), Native, admission, None, settings()));
    old.driver.leave_to_successor();
    tokio::task::yield_now().await;
    client.shutdown().await.unwrap();
    drop(client);
    assert!(late.await.is_ok());
}
