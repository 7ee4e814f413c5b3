//! Against Debian's redis-server, which `tests/cluster/run` installs: each test starts one of its own,
//! on a socket of its own, and ends it.

use super::super::store::model::Model;
use super::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;

/// A server that ends with the test.
struct Server {
    child: Child,
    folder: TempDir,
    extra: Vec<String>,
}

impl Server {
    async fn start(extra: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let extra: Vec<_> = extra.iter().map(|word| (*word).to_owned()).collect();
        let child = spawn(folder.path(), &extra);
        let server = Self {
            child,
            folder,
            extra,
        };
        server.ready().await;
        server
    }

    fn path(&self) -> String {
        format!("{}/redis.sock", self.folder.path().display())
    }

    fn redis(&self) -> Redis {
        self.redis_as("")
    }

    fn redis_as(&self, query: &str) -> Redis {
        let address = Address::parse(&format!("unix:{}{query}", self.path())).unwrap();
        Redis::new(address, Names::new("cluster"))
    }

    async fn ready(&self) {
        eventually(async || tokio::net::UnixStream::connect(self.path()).await.is_ok()).await;
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn restart(&mut self) {
        self.kill();
        let _ = std::fs::remove_file(self.path());
        self.child = spawn(self.folder.path(), &self.extra);
        self.ready().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &Path, extra: &[String]) -> Child {
    let socket = folder.join("redis.sock");
    Command::new("redis-server")
        .args([
            "--port",
            "0",
            "--save",
            "",
            "--appendonly",
            "no",
            "--daemonize",
            "no",
        ])
        .arg("--dir")
        .arg(folder)
        .arg("--unixsocket")
        .arg(socket)
        .args(extra)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}

async fn eventually(is_so: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "it never came to be"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const A: Incarnation = Incarnation::from_bits(1);
const B: Incarnation = Incarnation::from_bits(0xffff_ffff_ffff_ffff);

/// Four nodes and three rooms, whatever they do.
#[tokio::test]
#[ignore = "needs redis-server: tests/cluster/run"]
async fn the_scripts_do_what_the_model_does() {
    let server = Server::start(&[]).await;
    let redis = server.redis();
    let mut model = Model::default();
    let rng = &mut StdRng::seed_from_u64(17);
    let nodes: Vec<_> = (1..5)
        .map(|n| Incarnation::from_bits(n * 0x0123_4567_89ab_cdef))
        .collect();
    for step in 0..3_000 {
        let node = nodes[rng.random_range(0..nodes.len())];
        let other = nodes[rng.random_range(0..nodes.len())];
        let room: Key = ["red", "green", "blue"][rng.random_range(0..3)].into();
        let epoch = rng.random_range(1..4);
        match rng.random_range(0..6) {
            0 => {
                let known = [None, Some(&b"mark"[..]), Some(b"other")][rng.random_range(0..3)];
                let (beat, _) = redis.beat(node, known, b"mark").await.unwrap();
                assert_eq!(beat, model.beat(node, known, b"mark"), "{step}");
            }
            1 => {
                let count = rng.random_range(1..6);
                let mark = [&b"mark"[..], b"other"][rng.random_range(0..2)];
                let buried = redis.bury(node, count, mark).await.unwrap();
                assert_eq!(buried, model.bury(node, count, mark), "{step}");
            }
            2 | 3 => {
                let expected = rng.random::<bool>().then_some(other);
                let claimed = redis.claim(&room, node, expected, 1).await.unwrap();
                assert_eq!(claimed, model.claim(&room, node, expected), "{step}");
            }
            _ => {
                let value: [u8; 9] = rng.random();
                let fields = ["s", "m:ann", "m:bob"];
                let set = Fields::from([(fields[rng.random_range(0..3)].to_owned(), value.into())]);
                let removed = vec![fields[rng.random_range(0..3)].to_owned()];
                let fate = [Fate::Keep, Fate::Keep, Fate::Give, Fate::End][rng.random_range(0..4)];
                let save = Save {
                    room: room.clone(),
                    epoch,
                    fate,
                    set: set.clone(),
                    removed: removed.clone(),
                };
                let saved = redis.save(node, &[save]).await.unwrap();
                let expected = match fate {
                    Fate::End => model.end(&room, node, epoch),
                    _ => model.save(&room, node, epoch, set, &removed),
                };
                if fate == Fate::Give {
                    model.give(&room, node, epoch);
                }
                assert_eq!(saved, [expected], "{step}");
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs redis-server: tests/cluster/run"]
async fn batches_reach_the_inbox_and_a_killed_server_is_noticed_and_found_again() {
    let mut server = Server::start(&[]).await;
    let redis = server.redis();
    assert_eq!(redis.publish(A, b"nobody").await.unwrap(), 0);
    let mut inbox = redis.listen(A).await.unwrap();
    for n in 0..100u8 {
        assert_eq!(redis.publish(A, &[n, 0, 255]).await.unwrap(), 1);
    }
    assert_eq!(redis.publish(B, b"to another").await.unwrap(), 0);
    for n in 0..100u8 {
        assert_eq!(inbox.next().await.unwrap(), [n, 0, 255]);
    }
    let (_, connection) = redis.beat(A, None, b"first").await.unwrap();
    assert_eq!(connection, 1);
    server.kill();
    assert_eq!(inbox.next().await, None, "the subscription has ended");
    assert!(redis.publish(A, b"lost").await.is_err());
    server.restart().await;
    eventually(async || redis.publish(A, b"again").await.is_ok()).await;
    let room: Key = "room".into();
    // A claim of before the restart is not made: the room's home may be about to make its own.
    let late = redis.claim(&room, A, None, connection).await;
    assert!(matches!(late, Err(StoreError::Replaced)), "{late:?}");
    assert_eq!(redis.owner(&room).await.unwrap(), None);
    // It has forgotten everything, its scripts included.
    let (beat, connection) = redis.beat(A, Some(b"first"), b"second").await.unwrap();
    assert_eq!((beat.mark, beat.count), (b"second".to_vec(), 1));
    assert_eq!((connection, redis.connections()), (2, 2));
    redis.claim(&room, A, None, connection).await.unwrap();
    let save = Save {
        room,
        epoch: 1,
        fate: Fate::Keep,
        set: Fields::new(),
        removed: vec![],
    };
    assert_eq!(
        redis.save(A, &[save.clone(), save]).await.unwrap(),
        [true, true]
    );
    let mut inbox = redis.listen(A).await.unwrap();
    redis.publish(A, b"received").await.unwrap();
    assert_eq!(inbox.next().await.unwrap(), b"received");
}

#[tokio::test]
#[ignore = "needs redis-server: tests/cluster/run"]
async fn the_line_for_the_acl_allows_what_is_needed_and_no_more() {
    let line = Names::new("cluster").acl("callbox");
    let mut words: Vec<_> = line.split_whitespace().collect();
    words[0] = "--user";
    words.push(">secret");
    let server = Server::start(&words).await;
    let redis = server.redis_as("?user=callbox&pass=secret");
    assert_eq!(redis.beat(A, None, b"mark").await.unwrap().0.count, 1);
    assert!(matches!(
        redis.claim("room", A, None, 1).await.unwrap(),
        Claimed::Mine { .. }
    ));
    let save = Save {
        room: "room".into(),
        epoch: 1,
        fate: Fate::Give,
        set: Fields::from([("s".to_owned(), vec![1])]),
        removed: vec!["m".to_owned()],
    };
    assert_eq!(redis.save(A, &[save]).await.unwrap(), [true]);
    assert!(matches!(
        redis.claim("room", B, None, 1).await.unwrap(),
        Claimed::Mine { epoch: 2, .. }
    ));
    redis.describe(A, b"a node").await.unwrap();
    assert_eq!(redis.description(A).await.unwrap().unwrap(), b"a node");
    let images: Vec<_> = (0..300)
        .map(|n| (format!("room{n}").into(), vec![b'i']))
        .collect();
    redis.keep_images(&images).await.unwrap();
    for room in ["room0", "room299"] {
        assert_eq!(redis.image(room).await.unwrap().unwrap(), b"i");
        assert_eq!(redis.image(room).await.unwrap(), None);
    }
    let mut inbox = redis.listen(A).await.unwrap();
    assert_eq!(redis.publish(A, b"batch").await.unwrap(), 1);
    assert_eq!(inbox.next().await.unwrap(), b"batch");
    assert!(redis.bury(A, 1, b"mark").await.unwrap());
    redis.leave(A).await.unwrap();
    assert!(redis.ask(&redis::cmd("FLUSHALL")).await.is_err());
    let address = Address::parse(&format!("unix:{}?user=callbox&pass=secret", server.path()));
    let other = Redis::new(address.unwrap(), Names::new("elsewhere"));
    assert!(
        other.claim("room", A, None, 1).await.is_err(),
        "another prefix"
    );
    let stranger = server.redis_as("?user=callbox&pass=wrong");
    assert!(stranger.beat(A, None, b"mark").await.is_err());
}

#[tokio::test]
#[ignore = "needs redis-server: tests/cluster/run"]
async fn a_frozen_server_is_an_error_in_time_and_answers_again() {
    let server = Server::start(&[]).await;
    let redis = server.redis();
    redis.beat(A, None, b"mark").await.unwrap();
    let pid = server.child.id().cast_signed();
    let signal = |signal| {
        // SAFETY is the kernel's: a signal to a child of this test.
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    };
    signal(rustix::process::Signal::STOP);
    let began = Instant::now();
    let answer = redis.beat(A, Some(b"mark"), b"mark").await;
    assert!(answer.is_err());
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "it does not hang"
    );
    signal(rustix::process::Signal::CONT);
    eventually(async || redis.beat(A, Some(b"mark"), b"mark").await.is_ok()).await;
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn redis_at(text: &str, certificates: Certificates) -> Redis {
    let address = Address::parse(text)
        .unwrap()
        .with_certificates(certificates);
    Redis::new(address, Names::new("cluster"))
}

#[tokio::test]
#[ignore = "needs redis-server: tests/cluster/run"]
async fn tls_asks_for_the_right_authority_and_shows_its_own_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let params = || rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let (ca_key, key) = (
        rcgen::KeyPair::generate().unwrap(),
        rcgen::KeyPair::generate().unwrap(),
    );
    let mut authority = params();
    let name = rcgen::DnType::CommonName;
    authority.distinguished_name.push(name, "an authority");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = authority.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, ca_key);
    let certificate = params().signed_by(&key, &issuer).unwrap().pem();
    let port = free_port().to_string();
    let files = [
        file("ca.pem", &ca),
        file("cert.pem", &certificate),
        file("key.pem", &key.serialize_pem()),
    ];
    let [ca_file, cert_file, key_file] = &files;
    let _server = Server::start(&[
        "--tls-port",
        &port,
        "--tls-ca-cert-file",
        ca_file,
        "--tls-cert-file",
        cert_file,
        "--tls-key-file",
        key_file,
    ])
    .await;
    let url = format!("rediss://localhost:{port}");
    let client = Some((certificate.into_bytes(), key.serialize_pem().into_bytes()));
    let ca = Some(ca.into_bytes());
    let redis = redis_at(
        &url,
        Certificates {
            ca: ca.clone(),
            client: client.clone(),
        },
    );
    redis.beat(A, None, b"mark").await.unwrap();
    let mut inbox = redis.listen(A).await.unwrap();
    assert_eq!(redis.publish(A, b"sealed twice").await.unwrap(), 1);
    assert_eq!(inbox.next().await.unwrap(), b"sealed twice");
    let unknown = redis_at(&url, Certificates { ca: None, client });
    assert!(
        unknown.beat(A, None, b"mark").await.is_err(),
        "an authority of its own"
    );
    let nobody = redis_at(&url, Certificates { ca, client: None });
    assert!(
        nobody.beat(A, None, b"mark").await.is_err(),
        "no certificate"
    );
}

#[tokio::test]
#[ignore = "needs redis-server: tests/cluster/run"]
async fn sentinels_lead_to_the_primary() {
    let (port, sentinel_port) = (free_port().to_string(), free_port());
    let server = Server::start(&["--port", &port, "--bind", "127.0.0.1"]).await;
    let config = server.folder.path().join("sentinel.conf");
    let text =
        format!("port {sentinel_port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {port} 1\n");
    std::fs::write(&config, text).unwrap();
    let folder = server.folder.path();
    let mut sentinel = Command::new("redis-server")
        .arg(&config)
        .arg("--sentinel")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // The first is not there: the next is asked.
    let url = format!(
        "redis+sentinel://127.0.0.1:{},127.0.0.1:{sentinel_port}/main",
        free_port()
    );
    let redis = redis_at(&url, Certificates::default());
    eventually(async || redis.beat(A, None, b"mark").await.is_ok()).await;
    let mut inbox = redis.listen(A).await.unwrap();
    assert_eq!(redis.publish(A, b"through").await.unwrap(), 1);
    assert_eq!(inbox.next().await.unwrap(), b"through");
    let other = redis_at(&url.replace("/main", "/other"), Certificates::default());
    assert!(other.beat(A, None, b"mark").await.is_err());
    sentinel.kill().unwrap();
    sentinel.wait().unwrap();
}

#[test]
fn pauses_double_up_to_two_seconds_and_differ() {
    let mut backoff = Backoff::default();
    let longest: Vec<_> = (0..8).map(|_| backoff.pause(1023).as_millis()).collect();
    assert_eq!(longest[..3], [49, 99, 199]);
    assert!(longest.iter().all(|pause| *pause < 2_000) && longest[7] > 1_900);
    backoff.reset();
    assert_eq!(backoff.pause(0), FIRST_PAUSE / 2);
}
