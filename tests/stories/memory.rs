//! What relays cost: resident memory of a box of its own, from outside.

use crate::harness::{Client, Process};
use crate::turn_client;
use callbox::auth::credential::{Credential, TurnSecrets};
use secrecy::SecretString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Per thousand idle allocations with a channel each; a tenth of what coturn 4.17 takes.
const KIB_PER_THOUSAND: u64 = 2 * 1024;
/// Pages that come and go by themselves.
const NOISE_KIB: u64 = 256;

/// A box of which the secret and the UDP port are known.
struct Measured {
    process: Process,
    turn: SocketAddr,
    secrets: TurnSecrets,
}

impl Measured {
    async fn start() -> Self {
        let process = Process::start(&[
            ("CALLBOX_TURN__SECRETS", r#"["north"]"#),
            ("CALLBOX_TURN__RELAY_PORTS", "10000-32000"),
        ]);
        let (_, joined) = Client::join(&process, "room", "asks").await;
        let urls = joined["iceServers"][1]["urls"].as_array().unwrap();
        let turn = urls.iter().find_map(|url| {
            let host = url.as_str().unwrap().strip_prefix("turn:")?;
            host.strip_suffix("?transport=udp")?.parse().ok()
        });
        Self {
            process,
            turn: turn.expect("the box serves TURN over UDP"),
            secrets: TurnSecrets::new(vec![SecretString::from("north")]).unwrap(),
        }
    }

    /// Each of `numbers` is a client with an address and a user of its own, who binds a channel and
    /// falls silent.
    fn allocate(&self, numbers: std::ops::Range<u16>) {
        for number in numbers {
            let expiry = callbox::clock::unix_now() + 3_600;
            let credential = self.secrets.mint(&format!("user{number}"), expiry);
            let mut client = turn_client::udp_from(own_address(number), self.turn, credential);
            client.allocate().unwrap();
            client
                .bind(0x4000, "8.8.8.8:4000".parse().unwrap())
                .unwrap();
        }
    }

    fn knock(&self, numbers: std::ops::Range<u16>) {
        for number in numbers {
            let credential = Credential {
                username: "9999999999:nobody".into(),
                password: "unknown".into(),
            };
            let mut client = turn_client::udp_from(own_address(number), self.turn, credential);
            assert_eq!(client.allocate(), Err(401));
        }
    }

    fn grown_kib(&self, since: u64) -> u64 {
        self.process.resident_kib().saturating_sub(since)
    }
}

#[tokio::test]
async fn a_thousand_idle_allocations_take_two_mebibytes() {
    let measured = Measured::start().await;
    // Code and buffers that the first ones bring in.
    measured.allocate(0..100);
    let before = measured.process.resident_kib();
    measured.allocate(100..1_100);
    let thousand = measured.grown_kib(before);
    measured.allocate(1_100..3_100);
    let three_thousand = measured.grown_kib(before);
    assert!(thousand <= KIB_PER_THOUSAND + NOISE_KIB, "{thousand} KiB");
    assert!(
        three_thousand <= 3 * KIB_PER_THOUSAND,
        "{three_thousand} KiB"
    );
}

#[tokio::test]
async fn half_open_clients_cost_nothing() {
    let measured = Measured::start().await;
    measured.knock(0..100);
    let before = measured.process.resident_kib();
    measured.knock(100..1_100);
    let grown = measured.grown_kib(before);
    assert!(grown <= NOISE_KIB, "{grown} KiB");
}

/// Of 127.1.0.0/16.
fn own_address(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 1, high, low).into()
}
