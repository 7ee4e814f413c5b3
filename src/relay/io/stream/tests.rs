use super::input::READ;
use super::waiting::MAX_OF_SOURCE;
use super::*;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::CreateFlags;
use std::io::{Read, Write};
use std::net::TcpListener;

struct World {
    epoll: Rc<OwnedFd>,
    streams: Streams,
    listener: TcpListener,
    buffers: ReadBuffers,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let epoll = Rc::new(epoll::create(CreateFlags::CLOEXEC).unwrap());
        Self {
            streams: Streams::new(Rc::clone(&epoll), |_| 0),
            epoll,
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
            place: None,
            five_tuple,
            socket,
            tls: None,
            prefix: prefix.to_vec(),
        };
        let key = self.streams.insert(new, self.now).unwrap();
        (client, five_tuple, key)
    }
}

impl World {
    /// Whether epoll tells at the moment that a socket has room.
    fn is_told_of_room(&self) -> bool {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(8);
        let at_once = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        epoll::wait(&*self.epoll, spare_capacity(&mut events), Some(&at_once)).unwrap();
        events
            .iter()
            .any(|event| { event.flags }.contains(EventFlags::OUT))
    }
}

#[test]
fn a_connection_without_an_allocation_has_ten_seconds() {
    let mut world = World::new();
    let (_client, five_tuple, key) = world.connect(b"");
    let due = world.now + ALLOCATION_DEADLINE;
    assert_eq!(world.streams.next_deadline(), Some(due));
    assert_eq!(world.streams.overdue(world.now), None);
    assert_eq!(world.streams.overdue(due), Some(key));
    assert_eq!(world.streams.peer(key).unwrap().1, MAX_EARLY_MESSAGE);

    world.streams.set_allocation(&five_tuple, true, world.now);
    assert_eq!(world.streams.overdue(due), None);
    assert_eq!(world.streams.peer(key).unwrap().1, MAX_MESSAGE);

    world.streams.set_allocation(&five_tuple, false, due);
    assert_eq!(world.streams.overdue(due), None);
    assert_eq!(world.streams.overdue(due + ALLOCATION_DEADLINE), Some(key));
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
    assert_eq!((input.bytes, input.rest), (&b"pre"[..], ReadState::Blocked));
    world.streams.keep(key, b"re");
    client.write_all(b"st").unwrap();
    let input = world.streams.read(key, &mut world.buffers);
    assert_eq!(
        (input.bytes, input.rest),
        (&b"rest"[..], ReadState::Blocked)
    );
    world.streams.keep(key, b"");
    drop(client);
    let input = world.streams.read(key, &mut world.buffers);
    assert_eq!((input.bytes, input.rest), (&b""[..], ReadState::Eof));
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
    assert_eq!(input.rest, ReadState::Eof);
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

/// Waits until so much has arrived on the other side of `client`.
fn arrived(world: &World, key: StreamKey, bytes: usize) {
    let socket = &world.streams.slots[key.slot as usize]
        .stream
        .as_ref()
        .unwrap()
        .socket;
    let deadline = Instant::now() + Duration::from_secs(10);
    while socket.peek(&mut vec![0; bytes]).unwrap_or(0) < bytes {
        assert!(Instant::now() < deadline, "{bytes} bytes do not arrive");
        std::thread::yield_now();
    }
}

#[test]
fn a_read_tells_whether_it_was_the_last_for_now() {
    let mut world = World::new();
    let (mut client, _, key) = world.connect(b"");
    client.write_all(&[7; READ + 10]).unwrap();
    arrived(&world, key, READ + 10);
    let read = |world: &mut World| {
        let input = world.streams.read(key, &mut world.buffers);
        (input.bytes.len(), input.rest)
    };
    assert_eq!(read(&mut world), (READ, ReadState::MoreAvailable));
    assert_eq!(read(&mut world), (10, ReadState::Blocked));
    client.write_all(b"goodbye").unwrap();
    arrived(&world, key, 7);
    world.streams.hung_up(key);
    assert_eq!(read(&mut world), (7, ReadState::MoreAvailable));
}

#[test]
fn connections_are_read_in_turn() {
    let mut world = World::new();
    let (_client, _, first) = world.connect(b"");
    let (_client, _, second) = world.connect(b"");
    for key in [first, second, first] {
        world.streams.readable(key);
    }
    assert_eq!(world.streams.to_read(), 2);
    assert_eq!(world.streams.next_to_read(), Some(first));
    world.streams.readable(first);
    assert_eq!(world.streams.next_to_read(), Some(second));
    assert_eq!(world.streams.next_to_read(), Some(first));
    world.streams.remove(first);
    world.streams.readable(first);
    assert_eq!(world.streams.next_to_read(), None);
}

#[test]
fn the_last_replies_are_given_before_the_end() {
    let mut world = World::new();
    let (mut client, five_tuple, key) = world.connect(b"");
    world.streams.push(&five_tuple, b"so be it", b"", 0, true);
    world.streams.remove(key);
    assert_eq!(world.streams.pool.waiting(), 0);
    let mut received = String::new();
    client.read_to_string(&mut received).unwrap();
    assert_eq!(received, "so be it");
}

#[test]
fn what_found_no_room_is_written_when_there_is_some() {
    let mut world = World::new();
    let (mut client, five_tuple, key) = world.connect(b"");
    let mut stats = IoStats::default();
    // Until the kernel's buffers are full, and the outbox as well.
    let mut sent = 0;
    while world.streams.push(&five_tuple, &[7; 4096], b"", 0, false) {
        sent += 4096;
        assert_eq!(world.streams.flush(&mut stats), None);
    }
    client.set_nonblocking(true).unwrap();
    let (mut received, mut told) = (0, 0);
    let mut buffer = vec![0; 1 << 16];
    let deadline = Instant::now() + Duration::from_secs(10);
    while received < sent {
        match client.read(&mut buffer) {
            Ok(read) => received += read,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        if world.is_told_of_room() {
            told += 1;
            world.streams.writable(key);
            assert_eq!(world.streams.flush(&mut stats), None);
        }
        assert!(Instant::now() < deadline, "{received} of {sent} bytes");
    }
    assert!(told > 0);
}
