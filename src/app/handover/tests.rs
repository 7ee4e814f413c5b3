use super::container::Reader;
use super::state::BoxState;
use super::*;
use crate::auth::credential::{IceIssuer, TurnSecrets};
use crate::net::Inherited;
use crate::relay::engine::Settings;
use crate::relay::{Listeners, RelayConfig, RelayHandle, Takeover, WorkerState};
use crate::signal::{ConnectionLimits, Driver, ParkedConnection, SignalSnapshot, hub, panics};
use futures_util::{SinkExt, StreamExt};
use proptest::prelude::*;
use secrecy::SecretString;
use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

fn recorded(format: u32) -> Reader {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/handover/recorded");
    let file = File::open(folder.join(format!("format-{format}"))).unwrap();
    Reader::open(file, &KNOWN).unwrap()
}

fn secrets() -> TurnSecrets {
    TurnSecrets::new(vec![SecretString::from(
        "a secret that only this test knows",
    )])
    .unwrap()
}

/// Each format that is read has its recording, made by the first release that wrote it: two
/// allocations and a room of two (`tests/handover/record.py`).
#[tokio::test]
async fn recordings_of_every_format_that_is_read_are_restored() {
    for format in (1..=container::FORMAT).filter(|format| container::reads(*format)) {
        let reader = recorded(format);
        let state: BoxState = serde_json::from_slice(&reader.one(BOX).unwrap()).unwrap();
        let data = reader.all(WORKER).unwrap();
        assert_eq!(state.workers.len(), data.len());

        let shared = serde_json::from_slice(&reader.one(SHARED).unwrap()).unwrap();
        let workers = data
            .into_iter()
            .map(|data| WorkerState { data, fds: vec![] });
        let state = RelayState {
            stopped: clock::monotonic(),
            taken: clock::monotonic(),
            shared,
            udp: vec![],
            workers: workers.collect(),
        };
        let config = RelayConfig {
            settings: Settings::new("callbox", secrets()),
            addresses: vec![],
            ports: 1..=1,
            workers: 1,
            coalesce: Duration::ZERO,
        };
        let takeover = Takeover {
            state,
            keep: vec![],
        };
        let (relay, restored) =
            RelayHandle::restore(config, Listeners::default(), takeover).unwrap();
        // Its sockets are not recorded: both allocations are understood, and lost.
        assert_eq!((restored.allocations, restored.lost), (0, 2));
        assert_eq!(relay.shared().ports(), 2 * 64);

        let rooms: SignalSnapshot = serde_json::from_slice(&reader.one(HUB).unwrap()).unwrap();
        let ice = IceIssuer {
            stun_urls: vec![],
            turn_urls: vec![],
            secrets: secrets(),
            ttl: Duration::from_secs(60),
        };
        let limits = ConnectionLimits {
            per_ip: 9,
            total: 9,
            outbox: 1 << 16,
        };
        let (settings, on_revoke) = (hub::Settings::default(), Box::new(|_: &str, _, _| {}));
        let driver =
            Driver::restored(rooms, Instant::now(), settings, ice, limits, on_revoke).unwrap();
        let driver = Arc::new(driver);
        if format >= CONNECTIONS_SINCE {
            let parked = reader.one(CONNECTIONS).unwrap();
            let parked: Vec<ParkedConnection> = serde_json::from_slice(&parked).unwrap();
            let adopted = parked.iter().filter_map(|it| driver.adopt_parked(it));
            assert_eq!(adopted.count(), 2);
        }
        driver.cut_missing();
        let gauges = driver.with_hub(|hub, _, _| hub.gauges());
        assert_eq!((gauges.sessions, gauges.away, gauges.rooms), (2, 2, 1));
    }
}

#[test]
fn a_snapshot_of_another_boot_or_with_other_sockets_is_refused() {
    let adopt = |change: &dyn Fn(&mut serde_json::Value), fds: usize| {
        let reader = recorded(1);
        let mut state: serde_json::Value =
            serde_json::from_slice(&reader.one(BOX).unwrap()).unwrap();
        change(&mut state);
        let mut writer = Writer::new();
        writer.add(BOX, text(&state));
        let sealed = writer.seal(container::FORMAT);
        let fds = (0..fds).map(|_| tempfile::tempfile().unwrap().into());
        Adopted::of(sealed.reader, fds.collect()).map(drop)
    };
    let refused = adopt(&|state| state["boot"] = "another".into(), 0).unwrap_err();
    assert!(refused.contains("another boot"), "{refused}");
    let here = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let refused = adopt(&|state| state["boot"] = here.clone().into(), 1).unwrap_err();
    assert!(refused.contains("another number of sockets"), "{refused}");
}

#[test]
fn regressions_stay_fixed() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions/handover");
    let mut inputs = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        fuzz::read(&std::fs::read(entry.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0);
}

/// A box with a room of one, as it leaves itself, and the client.
async fn left() -> (Adopted, WebSocketStream<MaybeTlsStream<TcpStream>>) {
    let app = App::on_free_ports().await;
    let url = format!("ws://{}/ws", app.http[0]);
    let (mut client, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let join = r#"{"type":"join","id":"1","roomId":"r"}"#;
    client.send(Message::text(join)).await.unwrap();
    while !(client.next().await.unwrap().unwrap())
        .to_text()
        .unwrap()
        .contains(r#""joined""#)
    {}
    let origin = Origin::of_process(None, None);
    let prepared = app.hand_over(container::FORMAT, &origin).await;
    assert_eq!(prepared.failure, None);
    let adopted = Adopted::of(prepared.reader, prepared.fds);
    (adopted.unwrap(), client)
}

/// Whether TURN answers at that address.
fn answers(server: SocketAddr) -> bool {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let request = b"\0\x01\0\0\x21\x12\xa4\x42is it there?";
    client.send_to(request, server).unwrap();
    client.recv(&mut [0; 256]).is_ok()
}

#[tokio::test]
async fn a_part_whose_reading_panics_starts_anew_and_the_others_go_on() {
    // Hand-overs that are counted, sessions, and those of them that are away.
    for (place, expected) in [
        ("", (1, 1, 0)),
        ("relay", (0, 1, 0)),
        ("rooms", (1, 0, 0)),
        ("connection", (1, 1, 1)),
    ] {
        let (adopted, mut client) = left().await;
        panics::panic_at(place);
        let config = App::config_on_free_ports();
        let app = App::start_with(config, Inherited::default(), Some(adopted)).await;
        let app = app.unwrap();
        let gauges = app.driver.with_hub(|hub, _, _| hub.gauges());
        let found = (app.blackouts.handovers, gauges.sessions, gauges.away);
        assert_eq!(found, expected, "{place}");
        assert!(answers(app.udp[0]), "{place}");
        let goes_on = matches!(place, "" | "relay");
        let ping = r#"{"type":"ping","id":"2"}"#;
        let said = client.send(Message::text(ping)).await;
        let pong = timeout(Duration::from_secs(10), client.next()).await;
        let pong = pong.unwrap().and_then(Result::ok);
        let pong = pong.filter(|message| said.is_ok() && message.is_text());
        assert_eq!(pong.is_some(), goes_on, "{place}");
        app.stop().await;
    }
}

proptest! {
    /// A byte changed anywhere in a recorded section is refused or taken, and never a panic.
    #[test]
    fn a_damaged_text_is_no_panic(at: prop::sample::Index, byte: u8) {
        let reader = recorded(container::FORMAT);
        let worker = reader.all(WORKER).unwrap().remove(0);
        let worker: serde_json::Value = serde_json::from_slice(&worker).unwrap();
        let shared: serde_json::Value =
            serde_json::from_slice(&reader.one(SHARED).unwrap()).unwrap();
        let relay = serde_json::json!({ "shared": shared, "engine": worker["engine"] });
        for (which, mut text) in [
            (1, reader.one(BOX).unwrap()),
            (2, serde_json::to_vec(&relay).unwrap()),
            (3, reader.one(HUB).unwrap()),
            (4, reader.one(CONNECTIONS).unwrap()),
        ] {
            let at = at.index(text.len());
            text[at] = byte;
            text.insert(0, which);
            fuzz::read(&text);
        }
    }
}
