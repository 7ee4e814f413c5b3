//! What was relayed in a month: by user and by secret, over a restart, and against a budget.

use crate::harness::Process;
use crate::http::{json, send};
use crate::turn_client;
use callbox::auth::credential::{Credential, TurnSecrets};
use serde_json::{Value, json as value};
use std::net::{SocketAddr, UdpSocket};

const TOKEN: &str = "Authorization: Bearer sesame\r\n";
const FAR: u64 = 4_000_000_000;

fn start(state: &str, more: &[(&str, &str)]) -> Process {
    let mut env = vec![
        ("STATE_DIRECTORY", state),
        ("CALLBOX_TURN__SECRETS", "north,south"),
        ("CALLBOX_TURN__USERS", "cam:sesame of 16 bytes"),
        ("CALLBOX_TURN__ALLOWED_PEERS", "127.0.0.0/8"),
        ("CALLBOX_AUTH__ADMIN_TOKEN", "sesame"),
        ("CALLBOX_DRAIN__GRACE", "0s"),
    ];
    env.extend(more);
    Process::start(&env)
}

fn signed_by(secret: &str, user: &str) -> Credential {
    let secrets = TurnSecrets::new(vec![secret.into()]).unwrap();
    secrets.mint(user, FAR)
}

fn id_of(secret: &str) -> String {
    let secrets = TurnSecrets::new(vec![secret.into()]).unwrap();
    secrets.ids().next().unwrap().to_string()
}

fn cam() -> Credential {
    Credential {
        username: "cam".into(),
        password: "sesame of 16 bytes".into(),
    }
}

/// Relays 1,000 bytes to a client, which then ends its allocation.
async fn relay(server: SocketAddr, credential: Credential) -> Result<(), u16> {
    let relay = move || {
        let mut turn = turn_client::udp(server, credential);
        let relayed = turn.allocate()?;
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        turn.bind(0x4000, peer.local_addr().unwrap())?;
        peer.send_to(&[7; 1_000], relayed).unwrap();
        assert_eq!(turn.receive_channel(), (0x4000, vec![7; 1_000]));
        turn.release()
    };
    tokio::task::spawn_blocking(relay).await.unwrap()
}

async fn usage(process: &Process) -> Value {
    json(&send(process, "GET", "/v1/usage", TOKEN, "").await.2)
}

#[tokio::test]
async fn usage_by_user_and_secret_outlives_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path().display().to_string();
    let mut process = start(&state, &[]);
    for credential in [
        signed_by("north", "tenant"),
        signed_by("south", "tenant"),
        signed_by("south", "other"),
        cam(),
    ] {
        relay(process.turn(), credential).await.unwrap();
    }
    let secrets = value!({id_of("north"): 1_000, id_of("south"): 2_000});
    let users = value!({"tenant": 2_000, "other": 1_000, "cam": 1_000});
    let before = usage(&process).await;
    assert_eq!(
        (&before["total"], &before["users"], &before["secrets"]),
        (&value!(4_000), &users, &secrets)
    );
    process.signal("TERM");
    let ended = tokio::task::spawn_blocking(move || process.exit_code());
    assert_eq!(ended.await.unwrap(), Some(0));

    let again = start(&state, &[]);
    assert_eq!(usage(&again).await, before);
    relay(again.turn(), cam()).await.unwrap();
    assert_eq!(usage(&again).await["users"]["cam"], 2_000);
}

#[tokio::test]
async fn who_has_used_up_its_budget_gets_no_new_relay() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path().display().to_string();
    let refuse = ("CALLBOX_TURN__BUDGET__THEN", "refuse");
    let by = |what: &'static str| start(&state, &[(what, "2KiB"), refuse]);

    let process = by("CALLBOX_TURN__BUDGET__SECRET");
    for user in ["a", "b", "c"] {
        relay(process.turn(), signed_by("south", user))
            .await
            .unwrap();
    }
    // It is looked at now and then, and whenever somebody asks.
    usage(&process).await;
    let south = signed_by("south", "newcomer");
    assert_eq!(relay(process.turn(), south).await, Err(486));
    relay(process.turn(), signed_by("north", "newcomer"))
        .await
        .unwrap();
    relay(process.turn(), cam()).await.unwrap();
    let mut process = process;
    process.signal("TERM");
    let ended = tokio::task::spawn_blocking(move || process.exit_code());
    assert_eq!(ended.await.unwrap(), Some(0));

    // The month goes on after a restart: 1,000 bytes are on its account.
    let process = by("CALLBOX_TURN__BUDGET__USER");
    for _ in 0..2 {
        relay(process.turn(), cam()).await.unwrap();
    }
    usage(&process).await;
    assert_eq!(relay(process.turn(), cam()).await, Err(486));
    relay(process.turn(), signed_by("south", "a"))
        .await
        .unwrap();
    drop(process);

    let process = by("CALLBOX_TURN__BUDGET__TOTAL");
    usage(&process).await;
    let anybody = signed_by("north", "anybody");
    assert_eq!(relay(process.turn(), anybody).await, Err(486));
}
