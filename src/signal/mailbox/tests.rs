use super::super::carrier::{Carrier, Detached, ParkedMailbox};
use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const IDLE: Duration = Duration::from_secs(30);
const PROBE: Probe = Probe {
    question: "2probe",
    answer: "3probe",
    moves: "5",
};

fn texts(fetched: &Fetched) -> Vec<&str> {
    let Fetched::Messages(messages) = fetched else {
        panic!("{fetched:?}");
    };
    messages
        .iter()
        .map(|message| match message {
            Message::Text(text) => text.as_str(),
            Message::Binary(_) => "binary",
        })
        .collect()
}

async fn write(carrier: &mut MailboxCarrier, texts: &[&str]) {
    let mut frames = vec![];
    for text in texts {
        websocket::write_frame(&mut frames, Opcode::Text, text.as_bytes());
    }
    carrier.write_all(&frames).await.unwrap();
}

/// The messages that the task would read.
async fn read(carrier: &mut MailboxCarrier) -> Vec<String> {
    let mut buffer = [0; 1024];
    let length = carrier.read(&mut buffer).await.unwrap();
    let mut said = vec![];
    let mut decoder = websocket::Decoder::default();
    decoder
        .feed(&mut buffer[..length], 1024, |event| {
            said.push(format!("{event:?}"));
            Ok::<_, websocket::Violation>(websocket::Next::Go)
        })
        .unwrap();
    said
}

#[tokio::test(start_paused = true)]
async fn requests_bring_and_fetch_messages_and_pings_are_answered() {
    let (mailbox, mut carrier) = Mailbox::new(IDLE, false);
    mailbox.put(Incoming::Text("one")).await.unwrap();
    mailbox.put(Incoming::Binary(b"two")).await.unwrap();
    assert_eq!(
        read(&mut carrier).await,
        ["Text(\"one\")", "Binary([116, 119, 111])"]
    );
    let mut frames = vec![];
    websocket::write_frame(&mut frames, Opcode::Ping, b"12345678");
    websocket::write_frame(&mut frames, Opcode::Text, b"a");
    websocket::write_frame(&mut frames, Opcode::Binary, &[7; 300]);
    // However the task cuts them.
    for part in frames.chunks(5) {
        carrier.write_all(part).await.unwrap();
    }
    assert!(read(&mut carrier).await[0].starts_with("Pong("));
    let mut fetch = mailbox.fetch(None).unwrap();
    assert_eq!(texts(&fetch.next().await), ["a", "binary"]);
    let waits = tokio::spawn(async move { fetch.next().await });
    tokio::task::yield_now().await;
    write(&mut carrier, &["b"]).await;
    assert_eq!(texts(&waits.await.unwrap()), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn without_requests_the_client_counts_as_gone() {
    let (mailbox, mut carrier) = Mailbox::new(IDLE, false);
    let began = Instant::now();
    let fetch = mailbox.fetch(None).unwrap();
    let reading = tokio::spawn(async move {
        let mut buffer = [0; 16];
        let read = carrier.read(&mut buffer).await;
        (read.unwrap(), carrier)
    });
    tokio::time::sleep(3 * IDLE).await;
    assert!(!reading.is_finished(), "a request is attached");
    drop(fetch);
    let (length, _carrier) = reading.await.unwrap();
    assert_eq!(length, 0);
    assert!(began.elapsed() >= 4 * IDLE, "{:?}", began.elapsed());
    assert_eq!(mailbox.put(Incoming::Text("x")).await, Err(Closed));
}

#[tokio::test]
async fn what_did_not_come_through_comes_again_while_it_is_kept() {
    let (mailbox, mut carrier) = Mailbox::new(IDLE, true);
    let frame =
        |seq: u64, filler: usize| format!("{{\"seq\":{seq},\"x\":\"{}\"}}", "y".repeat(filler));
    let frames: Vec<_> = (1..=4).map(|seq| frame(seq, 10)).collect();
    let all: Vec<_> = frames.iter().map(String::as_str).collect();
    write(&mut carrier, &all).await;
    assert_eq!(texts(&mailbox.fetch(None).unwrap().next().await), all);
    let again = mailbox.fetch(Some(2)).unwrap().next().await;
    assert_eq!(texts(&again), all[2..]);
    // Who does not say otherwise has got everything.
    drop(mailbox.fetch(None).unwrap());
    let large = frame(5, MAX_KEPT);
    write(&mut carrier, &[&large, &frame(6, 10)]).await;
    mailbox.fetch(None).unwrap().next().await;
    assert_eq!(mailbox.fetch(Some(4)).err(), Some(Gap));
    assert_eq!(
        texts(&mailbox.fetch(Some(5)).unwrap().next().await),
        [frame(6, 10)]
    );
}

#[tokio::test]
async fn a_later_request_takes_the_place_of_an_earlier_one() {
    let (mailbox, mut carrier) = Mailbox::new(IDLE, false);
    let mut first = mailbox.fetch(None).unwrap();
    let first = tokio::spawn(async move { first.next().await });
    tokio::task::yield_now().await;
    let mut second = mailbox.fetch(None).unwrap();
    assert_eq!(first.await.unwrap(), Fetched::Superseded);
    write(&mut carrier, &["a"]).await;
    assert_eq!(texts(&second.next().await), ["a"]);
}

#[tokio::test]
async fn a_client_that_fetches_nothing_leaves_no_room_to_write() {
    let (mailbox, mut carrier) = Mailbox::new(IDLE, false);
    let text = "x".repeat(CAPACITY);
    write(&mut carrier, &[&text]).await;
    let more = tokio::spawn(async move {
        write(&mut carrier, &["more"]).await;
        carrier
    });
    tokio::task::yield_now().await;
    assert!(!more.is_finished());
    let mut fetch = mailbox.fetch(None).unwrap();
    assert_eq!(texts(&fetch.next().await), [&text]);
    let _carrier = more.await.unwrap();
    assert_eq!(texts(&fetch.next().await), ["more"]);
}

#[tokio::test]
async fn requests_wait_while_too_much_is_unread() {
    let (mailbox, mut carrier) = Mailbox::new(IDLE, false);
    let text = "x".repeat(MAX_UNREAD);
    mailbox.put(Incoming::Text(&text)).await.unwrap();
    let putter = Arc::clone(&mailbox);
    let more = tokio::spawn(async move { putter.put(Incoming::Text("more")).await });
    tokio::task::yield_now().await;
    assert!(!more.is_finished());
    let mut buffer = vec![0; 2 * MAX_UNREAD];
    assert!(carrier.read(&mut buffer).await.unwrap() > MAX_UNREAD);
    assert_eq!(more.await.unwrap(), Ok(()));
    // The end frees those that wait.
    mailbox.put(Incoming::Text(&text)).await.unwrap();
    let putter = Arc::clone(&mailbox);
    let more = tokio::spawn(async move { putter.put(Incoming::Text("more")).await });
    tokio::task::yield_now().await;
    drop(carrier);
    assert_eq!(more.await.unwrap(), Err(Closed));
}

#[tokio::test]
async fn the_goodbye_reaches_the_client_and_the_task_need_not_wait() {
    let (mailbox, mut carrier) = Mailbox::new(IDLE, false);
    let mut frames = vec![];
    websocket::write_frame(&mut frames, Opcode::Text, b"last");
    websocket::write_frame(&mut frames, Opcode::Close, b"\x0f\xa2kicked");
    carrier.write_all(&frames).await.unwrap();
    assert_eq!(mailbox.put(Incoming::Text("x")).await, Err(Closed));
    let mut fetch = mailbox.fetch(None).unwrap();
    assert_eq!(texts(&fetch.next().await), ["last"]);
    let goodbye = Goodbye {
        code: Some(4002),
        reason: "kicked".into(),
    };
    assert_eq!(fetch.next().await, Fetched::Ended(goodbye));
    assert_eq!(read(&mut carrier).await, ["Close(Some(4002))"]);
}

#[tokio::test]
async fn a_socket_takes_over_and_nothing_is_lost_or_told_twice() {
    let (mailbox, mut carrier) = Mailbox::new(IDLE, false);
    mailbox.put(Incoming::Text("posted")).await.unwrap();
    write(&mut carrier, &["waits"]).await;
    let (mut client, socket) = tokio::io::duplex(1024);
    let mut said = vec![];
    for text in ["2probe", "5", "first"] {
        websocket::write_client_frame(&mut said, Opcode::Text, text.as_bytes());
    }
    client.write_all(&said).await.unwrap();
    let held = Box::new(());
    let adopted = mailbox.adopt(
        Box::new(socket),
        PROBE,
        || mailbox.slip(Message::Text("6".into())),
        held,
    );
    assert_eq!(adopted.await, Ok(()));
    assert!(mailbox.is_upgraded());
    assert_eq!(
        mailbox.fetch(None).unwrap().next().await,
        Fetched::Superseded
    );
    assert_eq!(
        read(&mut carrier).await,
        ["Text(\"posted\")", "Text(\"first\")"]
    );
    // What waited is out before anything else is written.
    let mut expected = vec![];
    for text in ["3probe", "waits", "6"] {
        websocket::write_frame(&mut expected, Opcode::Text, text.as_bytes());
    }
    let mut received = vec![0; expected.len()];
    client.read_exact(&mut received).await.unwrap();
    assert_eq!(received, expected);
    write(&mut carrier, &["later"]).await;
    carrier.flush().await.unwrap();
    let mut expected = vec![];
    websocket::write_frame(&mut expected, Opcode::Text, b"later");
    let mut received = vec![0; expected.len()];
    client.read_exact(&mut received).await.unwrap();
    assert_eq!(received, expected);
}

#[tokio::test]
async fn a_socket_that_says_something_else_changes_nothing() {
    let (mailbox, mut carrier) = Mailbox::new(IDLE, false);
    let (mut client, socket) = tokio::io::duplex(1024);
    let mut said = vec![];
    websocket::write_client_frame(&mut said, Opcode::Text, b"42[]");
    client.write_all(&said).await.unwrap();
    let adopted = mailbox
        .adopt(Box::new(socket), PROBE, || {}, Box::new(()))
        .await;
    assert_eq!(adopted, Err(Closed));
    write(&mut carrier, &["a"]).await;
    assert_eq!(texts(&mailbox.fetch(None).unwrap().next().await), ["a"]);
}

#[tokio::test]
async fn of_two_sockets_that_a_client_tries_the_first_one_stays() {
    let (mailbox, mut carrier) = Mailbox::new(IDLE, false);
    let (mut first, socket) = tokio::io::duplex(1024);
    let (mut second, other) = tokio::io::duplex(1024);
    let mut said = vec![];
    for text in ["2probe", "5"] {
        websocket::write_client_frame(&mut said, Opcode::Text, text.as_bytes());
    }
    first.write_all(&said).await.unwrap();
    second.write_all(&said).await.unwrap();
    let adopt = async |socket| {
        let adopted = mailbox.adopt(Box::new(socket), PROBE, || {}, Box::new(()));
        adopted.await
    };
    assert_eq!(adopt(socket).await, Ok(()));
    assert_eq!(adopt(other).await, Err(Closed));
    // The other one is closed, and does not wait for ever.
    let mut rest = vec![];
    second.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(&1008_u16.to_be_bytes()), "{rest:?}");
    let mut last = vec![];
    websocket::write_client_frame(&mut last, Opcode::Text, b"goes on");
    first.write_all(&last).await.unwrap();
    assert_eq!(read(&mut carrier).await, ["Text(\"goes on\")"]);
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_goes_on_in_another_process() {
    let (mailbox, mut carrier) = Mailbox::new(IDLE, false);
    assert!(!carrier.is_bare(), "nobody would find it");
    mailbox.set_label("m".into());
    mailbox.put(Incoming::Text("unread")).await.unwrap();
    write(&mut carrier, &["unfetched"]).await;
    carrier.write_all(&[0x81, 4, b'h', b'a']).await.unwrap();
    assert!(carrier.is_bare());
    let Some(Detached::Mailbox(parked)) = carrier.detach() else {
        panic!();
    };
    // A request that waits is let go, and one that brings something is not confirmed.
    let mut fetch = mailbox.fetch(None).unwrap();
    assert_eq!(fetch.next().await, Fetched::Superseded);
    let late = mailbox.put(Incoming::Text("late"));
    assert!(tokio::time::timeout(IDLE, late).await.is_err());
    drop(carrier);
    assert!(mailbox.is_parked() && !mailbox.is_closed());

    let text = serde_json::to_string(&parked).unwrap();
    let parked: ParkedMailbox = serde_json::from_str(&text).unwrap();
    assert_eq!(parked.label(), "m");
    let (mailbox, mut carrier) = Mailbox::of(parked);
    assert_eq!(read(&mut carrier).await, ["Text(\"unread\")"]);
    carrier.write_all(b"lf").await.unwrap();
    let mut fetch = mailbox.fetch(None).unwrap();
    assert_eq!(texts(&fetch.next().await), ["unfetched", "half"]);
    drop(fetch);
    let mut buffer = [0; 16];
    assert_eq!(carrier.read(&mut buffer).await.unwrap(), 0, "it is idle");
}
