//! The operator's API.

use crate::harness::{Callbox, Client, Process};
use crate::http::{json, send};
use crate::turn_client;
use callbox::auth::credential::TurnSecrets;
use callbox::clock::unix_now;
use serde_json::json as value;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

const ADMIN: &str = "[auth]\nadmin_token = \"sesame\"";
const TOKEN: &str = "Authorization: Bearer sesame\r\n";

#[tokio::test]
async fn without_a_token_the_api_does_not_exist_and_with_one_it_is_asked_for() {
    let without = Callbox::start("").await;
    let with = Callbox::start(ADMIN).await;
    for path in ["/v1/rooms", "/v1/rooms/r", "/v1/relays", "/metrics"] {
        assert_eq!(
            send(&without, "GET", path, TOKEN, "").await.0,
            404,
            "{path}"
        );
        assert_eq!(send(&with, "GET", path, "", "").await.0, 401, "{path}");
        let wrong = "Authorization: Bearer sesam\r\n";
        assert_eq!(send(&with, "GET", path, wrong, "").await.0, 401, "{path}");
        let query = format!("{path}?token=sesame");
        assert_eq!(send(&with, "GET", &query, "", "").await.0, 401, "{path}");
    }
}

#[tokio::test]
async fn rooms_are_listed_notified_changed_and_closed() {
    let callbox = Callbox::start(ADMIN).await;
    let (mut alice, _) = Client::join(&callbox, "r 1", "alice").await;
    let (mut bob, _) = Client::join(&callbox, "r 1", "bob").await;
    let rooms = json(&send(&callbox, "GET", "/v1/rooms", TOKEN, "").await.2);
    assert_eq!(rooms["rooms"][0]["roomId"], "r 1");
    let room = json(&send(&callbox, "GET", "/v1/rooms/r%201", TOKEN, "").await.2);
    assert_eq!(room["members"].as_array().unwrap().len(), 2);
    assert_eq!(
        send(&callbox, "GET", "/v1/rooms/none", TOKEN, "").await.0,
        404
    );

    let path = "/v1/rooms/r%201/notify";
    assert_eq!(
        send(&callbox, "POST", path, TOKEN, "{\"n\": 1}").await.0,
        200
    );
    assert_eq!(bob.until("notify").await["content"], value!({"n": 1}));
    assert_eq!(send(&callbox, "POST", path, TOKEN, "{nope").await.0, 400);
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    for (levels, status) in [(64, 400), (63, 200)] {
        let sent = send(&callbox, "POST", path, TOKEN, &nested(levels)).await;
        assert_eq!(sent.0, status, "{levels} levels: {}", sent.2);
    }
    assert_eq!(bob.until("notify").await["content"], json(&nested(63)));

    let patch = "{\"locked\": true, \"metadata\": {\"t\": 1}}";
    let (status, _, body) = send(&callbox, "PATCH", "/v1/rooms/r%201", TOKEN, patch).await;
    assert_eq!((status, &json(&body)["locked"]), (200, &value!(true)));
    assert_eq!(
        bob.until("room-updated").await["room"]["metadata"],
        value!({"t": 1})
    );
    let bad = "{\"locked\": 7}";
    assert_eq!(
        send(&callbox, "PATCH", "/v1/rooms/r%201", TOKEN, bad)
            .await
            .0,
        400
    );

    let peer = format!("/v1/rooms/r%201/peers/{}", bob.peer_id);
    assert_eq!(send(&callbox, "DELETE", &peer, TOKEN, "").await.0, 204);
    assert_eq!(bob.closed().await, CloseCode::Library(4002));
    assert_eq!(send(&callbox, "DELETE", &peer, TOKEN, "").await.0, 404);
    assert_eq!(alice.until("peer-left").await["reason"], "kicked");

    assert_eq!(
        send(&callbox, "DELETE", "/v1/rooms/r%201", TOKEN, "")
            .await
            .0,
        204
    );
    assert_eq!(alice.closed().await, CloseCode::Library(4007));
    let rooms = json(&send(&callbox, "GET", "/v1/rooms", TOKEN, "").await.2);
    assert_eq!(rooms["rooms"], value!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lists_go_on_from_a_room_and_from_a_user() {
    let toml = format!("{ADMIN}\n[turn]\nsecrets = [\"north-0123456789abcdef\"]");
    let callbox = Callbox::start(&toml).await;
    let mut members = vec![];
    for room in ["a", "b b", "c"] {
        members.push(Client::join(&callbox, room, "x").await);
    }
    let names = async |path: &str, list: &str, name: &str| -> Vec<String> {
        let (status, _, body) = send(&callbox, "GET", path, TOKEN, "").await;
        assert_eq!(status, 200, "{body}");
        let body = json(&body);
        assert!(body.get("next").is_none(), "all fits: {body}");
        let rows = body[list].as_array().unwrap().iter();
        rows.map(|row| row[name].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        names("/v1/rooms", "rooms", "roomId").await,
        ["a", "b b", "c"]
    );
    assert_eq!(
        names("/v1/rooms?from=b%20b", "rooms", "roomId").await,
        ["b b", "c"]
    );
    assert_eq!(names("/v1/rooms?from=d", "rooms", "roomId").await, [""; 0]);

    let secrets = TurnSecrets::new(vec!["north-0123456789abcdef".into()]).unwrap();
    let users = ["ann", "bob", "cyd"];
    let mut relayed = vec![];
    for user in users {
        let credential = secrets.mint(user, unix_now() + 3_600);
        let mut client = turn_client::udp(callbox.udp[0], credential);
        client.allocate().unwrap();
        relayed.push(client);
    }
    assert_eq!(names("/v1/relays", "relays", "user").await, users);
    assert_eq!(
        names("/v1/relays?from=bob", "relays", "user").await,
        users[1..]
    );
    assert_eq!(names("/v1/relays?from=~", "relays", "user").await, [""; 0]);
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let callbox = Callbox::start(ADMIN).await;
    let (mut client, _) = Client::join(&callbox, "r", "alice").await;
    client.request(value!({"type": "ping"})).await;
    client
        .refused(value!({"type": "kick", "peerId": "x"}))
        .await;
    let (_, head, text) = send(&callbox, "GET", "/metrics", TOKEN, "").await;
    assert!(head.contains("openmetrics-text"));
    for line in [
        "callbox_signal_connections 1",
        "callbox_signal_rooms 1",
        "callbox_signal_messages_total{direction=\"received\",type=\"ping\"} 1",
        "callbox_signal_messages_total{direction=\"sent\",type=\"pong\"} 1",
        "callbox_signal_errors_total{code=\"no-such-peer\"} 1",
        "callbox_signal_join_latency_seconds_count 1",
    ] {
        assert!(
            text.lines().any(|l| l == line),
            "{line} is missing:\n{text}"
        );
    }
}

#[tokio::test]
async fn the_openapi_document_names_every_path() {
    let callbox = Callbox::start("").await;
    let document = json(&send(&callbox, "GET", "/v1/openapi.json", "", "").await.2);
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    for (path, methods) in [
        ("/v1/ice-servers", vec!["get"]),
        ("/v1/rooms", vec!["get"]),
        ("/v1/rooms/{id}", vec!["get", "patch", "delete"]),
        ("/v1/rooms/{id}/notify", vec!["post"]),
        ("/v1/rooms/{id}/peers/{peerId}", vec!["delete"]),
        ("/v1/relays", vec!["get"]),
        ("/v1/relays/{user}", vec!["delete"]),
        ("/v1/usage", vec!["get"]),
        ("/v1/denied", vec!["get"]),
        ("/v1/denied/{cidr}", vec!["put", "delete"]),
        ("/metrics", vec!["get"]),
        ("/healthz", vec!["get"]),
        ("/readyz", vec!["get"]),
    ] {
        for method in methods {
            assert!(
                document["paths"][path][method].is_object(),
                "{method} {path}"
            );
        }
    }
}

#[tokio::test]
async fn metadata_that_only_a_client_can_read_harms_nobody() {
    let callbox = Callbox::start(ADMIN).await;
    let deep = format!("{}1{}", "[".repeat(60), "]".repeat(60));
    for (n, metadata) in ["\"\\ud800\"", "1e999", &deep].into_iter().enumerate() {
        let mut client = Client::connect(&callbox).await;
        let join = format!(
            "{{\"type\":\"join\",\"roomId\":\"r{n}\",\"create\":{{\"metadata\":{metadata}}}}}"
        );
        client.send_raw(Message::text(join)).await;
        client.recv_text().await;
        let (status, _, body) = send(&callbox, "GET", "/v1/rooms", TOKEN, "").await;
        assert_eq!(status, 200);
        let room = format!("/v1/rooms/r{n}");
        assert_eq!(
            send(&callbox, "GET", &room, TOKEN, "").await.0,
            200,
            "{body}"
        );
    }
}

#[tokio::test]
async fn every_refusal_is_problem_json() {
    let callbox = Callbox::start(ADMIN).await;
    let large = "x".repeat(70 * 1024);
    for (method, path, body, status) in [
        ("POST", "/v1/rooms/r/notify", large.as_str(), 413),
        ("GET", "/v1/rooms/%ff", "", 400),
        ("PUT", "/v1/rooms", "", 405),
        ("GET", "/v1/rooms/none", "", 404),
    ] {
        let (got, head, text) = send(&callbox, method, path, TOKEN, body).await;
        assert_eq!(got, status, "{path}");
        assert!(head.contains("application/problem+json"), "{path}: {head}");
        assert_eq!(json(&text)["status"], status);
    }
    let without = Callbox::start("").await;
    for (method, path) in [("PUT", "/v1/rooms"), ("POST", "/metrics")] {
        assert_eq!(
            send(&without, method, path, "", "").await.0,
            404,
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn tokens_credentials_and_invitations_are_minted_and_open_what_they_say() {
    let secret = "auth.secret-of-at-least-32-bytes";
    let config = format!(
        "[auth]\nadmin_token = \"sesame\"\nmode = \"jwt\"\nsecret = \"{secret}\"\n\
         [turn]\nsecrets = [\"north\"]"
    );
    let callbox = Callbox::start(&config).await;
    let asked = "{\"identity\": \"ann\", \"room\": \"r\", \"role\": \"host\", \"ttl\": 60}";
    assert_eq!(send(&callbox, "POST", "/v1/tokens", "", asked).await.0, 401);
    let (status, _, body) = send(&callbox, "POST", "/v1/tokens", TOKEN, asked).await;
    let minted = json(&body);
    assert_eq!(status, 200, "{body}");
    let url = minted["url"].as_str().unwrap();
    assert!(url.contains("/#room=r&token="), "{url}");

    let mut ann = Client::connect(&callbox).await;
    let join = value!({"type": "join", "roomId": "r", "token": minted["token"]});
    ann.send(join).await;
    assert_eq!(ann.until("joined").await["role"], "host");
    ann.send(value!({"type": "invite", "uses": 1})).await;
    let invited = ann.until("invited").await;
    let ice = format!(
        "/v1/ice-servers?token={}",
        invited["token"].as_str().unwrap()
    );
    assert_eq!(send(&callbox, "GET", &ice, "", "").await.0, 200);
    let join = value!({"type": "join", "roomId": "r", "token": invited["token"]});
    let mut guest = Client::connect(&callbox).await;
    guest.send(join.clone()).await;
    assert_eq!(guest.until("joined").await["role"], "member");
    let mut second = Client::connect(&callbox).await;
    second.send(join).await;
    assert_eq!(second.until("error").await["code"], "unauthorized");
    assert_eq!(send(&callbox, "GET", &ice, "", "").await.0, 401, "used up");

    guest.send(value!({"type": "report", "to": ann.peer_id, "path": "relay", "connectMs": 900, "id": "r"})).await;
    guest.until("ack").await;
    let metrics = send(&callbox, "GET", "/metrics", TOKEN, "").await.2;
    let reported = "callbox_signal_reports_total{path=\"relay\",transport=\"unknown\"} 1";
    assert!(metrics.contains(reported), "{metrics}");
    assert!(metrics.contains("callbox_signal_report_connect_seconds_count 1"));

    let asked = "{\"user\": \"camera\", \"ttl\": 60}";
    let (status, _, body) = send(&callbox, "POST", "/v1/credentials", TOKEN, asked).await;
    let minted = json(&body);
    assert_eq!((status, &minted["ttl"]), (200, &value!(60)));
    assert!(minted["username"].as_str().unwrap().ends_with(":camera"));
    for (path, bad) in [
        ("/v1/tokens", "[]"),
        ("/v1/tokens", "[\"ann\", \"r\"]"),
        ("/v1/credentials", "[]"),
        ("/v1/tokens", "{\"role\": \"king\"}"),
        ("/v1/tokens", "{\"rooms\": \"r\"}"),
        ("/v1/credentials", "{\"ttl\": 0}"),
    ] {
        assert_eq!(
            send(&callbox, "POST", path, TOKEN, bad).await.0,
            400,
            "{bad}"
        );
    }
    let open = Callbox::start(ADMIN).await;
    assert_eq!(send(&open, "POST", "/v1/tokens", TOKEN, "").await.0, 409);
    let none = Callbox::start("").await;
    assert_eq!(send(&none, "POST", "/v1/drain", TOKEN, "").await.0, 404);
    assert_eq!(send(&none, "GET", "/v1/drain", TOKEN, "").await.0, 404);
}

#[tokio::test]
async fn a_drain_that_was_asked_for_ends_the_process() {
    let mut callbox = Process::start(&[("CALLBOX_AUTH__ADMIN_TOKEN", "sesame")]);
    assert_eq!(send(&callbox, "POST", "/v1/drain", "", "").await.0, 401);
    assert_eq!(callbox.exit_code_so_far(), None);
    assert_eq!(send(&callbox, "POST", "/v1/drain", TOKEN, "").await.0, 202);
    assert_eq!(callbox.exit_code(), Some(0));
}
