use super::*;
use crate::auth::credential::TurnSecrets;
use crate::relay::io::listener;
use std::net::{SocketAddr, UdpSocket};

/// A worker that a test turns by hand, and a client's socket.
fn worker() -> (Worker, UdpSocket, SocketAddr) {
    let now = Instant::now();
    let bound = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = bound.local_addr().unwrap();
    let offload = Offload::probe();
    let mut groups = listener::group(vec![bound], 1, offload).unwrap();
    let plan = WorkerConfig {
        id: WorkerId(0),
        settings: Settings::new("callbox", TurnSecrets::new(vec!["s".into()]).unwrap()).into(),
        shared: SharedState::new(vec![], 10_000..=10_001, [0; 32], now),
        listeners: groups.pop().unwrap(),
        inboxes: Arc::new([Inbox::new().unwrap()]),
        offload,
        coalesce: Duration::ZERO,
        seed: [0; 32],
        ended: Arc::default(),
        inherits: None,
    };
    let epoll = Rc::new(epoll::create(CreateFlags::CLOEXEC).unwrap());
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    (Worker::new(plan, epoll).unwrap(), client, address)
}

#[test]
fn what_passes_the_listeners_is_counted_in_and_out() {
    let (mut worker, client, server) = worker();
    let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
    let request = b"\0\x01\0\0\x21\x12\xa4\x42who am I....";
    for listener_datagrams in [0, 2, 4] {
        assert_eq!(worker.egress.listener_datagrams, listener_datagrams);
        client.send_to(request, server).unwrap();
        let listeners = Rc::clone(&worker.egress.listeners);
        let mut poller = Poller::new(&epoll, &listeners);
        let ready = poller.wait(0, None).unwrap();
        assert!(worker.turn(read_clocks(), ready));
        client.recv(&mut [0; 64]).unwrap();
    }
}

/// One that slept would do so for an hour.
#[test]
fn what_has_come_meanwhile_does_not_wait_for_the_end_of_a_pause() {
    let (mut worker, client, server) = worker();
    let (epoll, listeners) = (
        Rc::clone(&worker.epoll),
        Rc::clone(&worker.egress.listeners),
    );
    let mut poller = Poller::new(&epoll, &listeners);
    client
        .send_to(b"\0\x01\0\0\x21\x12\xa4\x42who am I....", server)
        .unwrap();
    let mut arriving = [rustix::event::PollFd::new(
        &listeners[0],
        rustix::event::PollFlags::IN,
    )];
    rustix::event::poll(&mut arriving, None).unwrap();
    worker.pause = Some(Duration::from_secs(3600));
    assert!(worker.step(&mut poller));
    client.recv(&mut [0; 64]).unwrap();
    assert_eq!((worker.egress.stats.pauses, worker.pause), (0, None));
    // Nothing has come: the pause is made, once.
    worker.pause = Some(Duration::from_micros(1));
    assert!(worker.step(&mut poller));
    assert_eq!((worker.egress.stats.pauses, worker.pause), (1, None));
    assert!(worker.paused);
}
