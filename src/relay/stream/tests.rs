use super::waiting::MAX_OF_SOURCE;
use super::*;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::CreateFlags;
use std::io::Write;
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
            streams: Streams::new(Rc::clone(&epoll)),
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

#[test]
fn what_one_read_leaves_is_come_back_to() {
    let mut world = World::new();
    let (mut client, _, key) = world.connect(b"");
    let sent: Vec<u8> = (0..READ + 10).map(|index| index as u8).collect();
    let (mut heard, mut rest) = (vec![], Rest::Later);
    client.write_all(&sent).unwrap();
    while heard.len() < sent.len() {
        let input = world.streams.read(key, &mut world.buffers);
        heard.extend_from_slice(input.bytes);
        assert_eq!(input.rest == Rest::Now, input.bytes.len() == READ);
        rest = input.rest;
    }
    assert_eq!((heard, rest), (sent, Rest::Later));

    world.streams.come_back(key);
    world.streams.come_back(key);
    assert!(world.streams.has_unread());
    assert_eq!(world.streams.unread(), [key]);
    assert!(!world.streams.has_unread());
    world.streams.come_back(key);
    assert_eq!(world.streams.unread(), [key]);
    world.streams.remove(key);
    world.streams.come_back(key);
    assert!(!world.streams.has_unread());
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
    let mut events = Vec::with_capacity(8);
    let mut heard = 0;
    let mut buffer = vec![0; 1 << 16];
    while heard < sent {
        let read = client.read(&mut buffer).unwrap();
        assert!(read > 0 && buffer[..read].iter().all(|byte| *byte == 7));
        heard += read;
        events.clear();
        // Whoever has read everything waits for the rest; epoll tells when that can be written.
        let unread = heard < sent && rustix::io::ioctl_fionread(&client).unwrap() == 0;
        let patience = rustix::event::Timespec {
            tv_sec: if unread { 10 } else { 0 },
            tv_nsec: 0,
        };
        epoll::wait(&*world.epoll, spare_capacity(&mut events), Some(&patience)).unwrap();
        if events
            .iter()
            .any(|e: &epoll::Event| { e.flags }.contains(EventFlags::OUT))
        {
            world.streams.writable(key);
            assert_eq!(world.streams.flush(&mut stats), None);
        }
    }
}
