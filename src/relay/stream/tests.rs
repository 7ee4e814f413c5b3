use super::waiting::MAX_OF_SOURCE;
use super::*;
use rustix::event::epoll::CreateFlags;
use std::io::Write;
use std::net::TcpListener;

struct World {
    streams: Streams,
    listener: TcpListener,
    buffers: ReadBuffers,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let epoll = Rc::new(epoll::create(CreateFlags::CLOEXEC).unwrap());
        Self {
            streams: Streams::new(epoll),
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            buffers: ReadBuffers::new(),
            now: Instant::now(),
        }
    }

    fn connect(&mut self, prefix: &[u8]) -> (TcpStream, FiveTuple, StreamKey) {
        let server = self.listener.local_addr().unwrap();
        let client = TcpStream::connect(server).unwrap();
        let (socket, peer) = self.listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let five_tuple = NewStream::five_tuple(false, peer, server);
        let new = NewStream {
            five_tuple,
            socket,
            tls: None,
            prefix: prefix.to_vec(),
        };
        let key = self.streams.insert(new, self.now, |_| 0).unwrap();
        (client, five_tuple, key)
    }
}

#[test]
fn a_connection_without_an_allocation_has_ten_seconds() {
    let mut world = World::new();
    let (_client, five_tuple, key) = world.connect(b"");
    let due = world.now + WITHOUT_ALLOCATION;
    assert_eq!(world.streams.next_deadline(), Some(due));
    assert_eq!(world.streams.overdue(world.now), None);
    assert_eq!(world.streams.overdue(due), Some(key));
    assert_eq!(world.streams.peer(key).unwrap().1, MAX_EARLY_MESSAGE);

    world.streams.set_allocation(&five_tuple, true, world.now);
    assert_eq!(world.streams.overdue(due), None);
    assert_eq!(world.streams.peer(key).unwrap().1, MAX_MESSAGE);

    world.streams.set_allocation(&five_tuple, false, due);
    assert_eq!(world.streams.overdue(due), None);
    assert_eq!(world.streams.overdue(due + WITHOUT_ALLOCATION), Some(key));
    world.streams.remove(key);
    assert_eq!(
        (world.streams.next_deadline(), world.streams.len()),
        (None, 0)
    );
}

#[test]
fn only_so_many_connections_go_without_an_allocation() {
    let mut world = World::new();
    let (_first, _, oldest) = world.connect(b"");
    let mut clients = vec![];
    world.now += Duration::from_millis(1);
    let here = "127.0.0.1".parse().unwrap();
    while world.streams.len() < MAX_OF_SOURCE {
        assert_eq!(world.streams.surplus(here), None);
        clients.push(world.connect(b""));
    }
    assert_eq!(world.streams.surplus(here), Some(oldest));
    let elsewhere = "192.0.2.1".parse().unwrap();
    assert_eq!(world.streams.surplus(elsewhere), None);
    let (_, five_tuple, _) = &clients[0];
    world.streams.set_allocation(five_tuple, true, world.now);
    assert_eq!(
        world.streams.surplus(here),
        None,
        "allocations have caps of their own"
    );
}

#[test]
fn what_was_read_before_and_what_was_left_over_come_first() {
    let mut world = World::new();
    let (mut client, _, key) = world.connect(b"pre");
    let input = world.streams.read(key, &mut world.buffers);
    assert_eq!((input.bytes, input.rest), (&b"pre"[..], Rest::Later));
    world.streams.keep(key, b"re");
    client.write_all(b"st").unwrap();
    let input = world.streams.read(key, &mut world.buffers);
    assert_eq!((input.bytes, input.rest), (&b"rest"[..], Rest::Later));
    world.streams.keep(key, b"");
    drop(client);
    let input = world.streams.read(key, &mut world.buffers);
    assert_eq!((input.bytes, input.rest), (&b""[..], Rest::Never));
}

#[test]
fn names_of_connections_that_are_gone_name_nothing() {
    let mut world = World::new();
    let (_client, five_tuple, key) = world.connect(b"");
    assert_eq!(world.streams.remove(key), Some(five_tuple));
    let (_other, _, next) = world.connect(b"");
    assert_eq!(next.slot, key.slot);
    assert_eq!(world.streams.remove(key), None);
    assert!(world.streams.peer(key).is_none());
    let input = world.streams.read(key, &mut world.buffers);
    assert_eq!(input.rest, Rest::Never);
    assert!(!world.streams.push(&five_tuple, b"lost", b"", 0, true));
}

#[test]
fn a_client_that_reads_no_replies_either_is_cut_off() {
    let mut world = World::new();
    let (_client, five_tuple, key) = world.connect(b"");
    let mut stats = IoStats::default();
    let reply = [0; 4096];
    // More than both kernel buffers and the outbox hold.
    for _ in 0..8192 {
        world.streams.push(&five_tuple, &reply, b"", 0, true);
        if let Some(ended) = world.streams.flush(&mut stats) {
            assert_eq!((ended, stats.streams_refused), (key, 1));
            return;
        }
    }
    panic!("32 MiB of replies found room");
}
