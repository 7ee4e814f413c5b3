use super::*;
use crate::protocol::{Body, FrameType, PeerId};
use crate::signal::hub::Event;

impl Outbox {
    fn poll_take(
        &self,
        cx: &Context<'_>,
        limit: usize,
        each: impl FnMut(Outgoing),
    ) -> Poll<Result<usize, Closing>> {
        self.poll_next(cx, 0, limit, each)
    }
}

fn frame(bytes: usize) -> Outgoing {
    let body = Body::from_object(
        FrameType::Message,
        format!("{{\"x\":\"{}\"}}", "a".repeat(bytes - 8)),
    );
    assert_eq!(body.len(), bytes);
    let peer = PeerId::from_bits(1);
    Outgoing {
        peer,
        seq: None,
        event: Event::Native(body),
    }
}

/// How many frames wait, or why there will be no more.
fn take(outbox: &Outbox) -> Poll<Result<usize, CloseCode>> {
    let mut frames = 0;
    let cx = Context::from_waker(Waker::noop());
    let taken = outbox.poll_take(&cx, usize::MAX, |_| frames += 1);
    taken.map(|taken| taken.map(|_| frames).map_err(|closing| closing.code))
}

impl Shares {
    fn of_nobody() -> Self {
        let network = Arc::new(NetworkShare::new(1, None));
        Self {
            network,
            total: Arc::default(),
        }
    }
}

#[test]
fn frames_being_written_count_until_they_are_out() {
    let outbox = Outbox::new(100, Shares::of_nobody());
    outbox.push(1, frame(60));
    assert_eq!(take(&outbox), Poll::Ready(Ok(1)));
    outbox.written(60);
    outbox.push(2, frame(60));
    assert_eq!(take(&outbox), Poll::Ready(Ok(1)));
    let cx = Context::from_waker(Waker::noop());
    assert!(outbox.poll_overflowed(&cx).is_pending());
    assert_eq!(outbox.push(3, frame(60)), Pushed::Overflowed);
    assert!(outbox.poll_overflowed(&cx).is_ready());
    let end = Poll::Ready(Err(CloseCode::SlowConsumer));
    assert_eq!(take(&outbox), end, "what waited is not kept");
}

#[test]
fn what_one_input_leads_to_reaches_a_consumer_that_keeps_up() {
    let outbox = Outbox::new(100, Shares::of_nobody());
    outbox.push(1, frame(50));
    for size in [500, 30, 400] {
        assert!(matches!(outbox.push(2, frame(size)), Pushed::Waits(_)));
    }
    assert_eq!(
        outbox.push(3, frame(50)),
        Pushed::Waits(1030),
        "as if it were not there"
    );
    assert!(!outbox.is_light(Instant::now));
    assert_eq!(take(&outbox), Poll::Ready(Ok(5)));
    outbox.written(980);
    assert_eq!(
        outbox.push(4, frame(150)),
        Pushed::Waits(200),
        "the room is free again"
    );
    assert_eq!(
        outbox.push(5, frame(500)),
        Pushed::Overflowed,
        "one at a time"
    );
}

#[test]
fn who_is_behind_gets_no_spare_room() {
    let outbox = Outbox::new(100, Shares::of_nobody());
    outbox.push(1, frame(51));
    assert_eq!(outbox.push(2, frame(500)), Pushed::Overflowed);
}

#[test]
fn a_batch_ends_behind_the_frame_that_reaches_its_limit() {
    let outbox = Outbox::new(100, Shares::of_nobody());
    for input in 0..4 {
        outbox.push(input, frame(20));
    }
    let cx = Context::from_waker(Waker::noop());
    let batch = outbox.poll_take(&cx, 30, drop);
    assert_eq!(batch, Poll::Ready(Ok(40)));
    assert_eq!(take(&outbox), Poll::Ready(Ok(2)));
    assert_eq!(take(&outbox), Poll::Pending);
}

#[test]
fn the_first_reason_to_close_stands_and_frames_before_it_go_out() {
    let outbox = Outbox::new(100, Shares::of_nobody());
    outbox.push(1, frame(10));
    for code in [CloseCode::Kicked, CloseCode::Normal] {
        outbox.close(Closing { code, reason: "" });
    }
    outbox.push(2, frame(10));
    assert_eq!(outbox.closing().map(|c| c.code), Some(CloseCode::Kicked));
    assert_eq!(take(&outbox), Poll::Ready(Ok(1)));
    assert_eq!(take(&outbox), Poll::Ready(Err(CloseCode::Kicked)));
}

#[test]
fn a_held_client_is_read_again_later() {
    let outbox = Outbox::new(100, Shares::of_nobody());
    let now = Instant::now();
    outbox.hold(now + Duration::from_secs(1));
    assert!(!outbox.is_light(|| now));
    assert!(outbox.is_light(|| now + Duration::from_secs(1)));
    assert_eq!(outbox.held_until(), None);
}

#[test]
fn one_network_holds_no_more_than_its_share_and_others_go_on() {
    let (total, network) = (
        Arc::<AtomicUsize>::default(),
        Arc::new(NetworkShare::new(1, None)),
    );
    let outbox = |network: &Arc<NetworkShare>| {
        let shares = Shares {
            network: Arc::clone(network),
            total: Arc::clone(&total),
        };
        Outbox::new(256 << 10, shares)
    };
    let mut held = vec![];
    loop {
        let slow = outbox(&network);
        let last = (0..4).map(|_| slow.push(1, frame(60 << 10))).last();
        held.push(slow);
        if last != Some(Pushed::Waits(240 << 10)) {
            break;
        }
    }
    assert!(
        held.len() <= (MAX_OF_NETWORK >> 10) / 240 + 2,
        "{}",
        held.len()
    );
    // A light consumer of that network, and any of another one, are as before.
    assert!(matches!(
        outbox(&network).push(1, frame(30 << 10)),
        Pushed::Waits(_)
    ));
    let elsewhere = outbox(&Arc::new(NetworkShare::new(1, None)));
    for _ in 0..4 {
        assert!(matches!(
            elsewhere.push(1, frame(60 << 10)),
            Pushed::Waits(_)
        ));
    }
    drop((held, elsewhere));
    assert_eq!(
        (
            network.bytes.load(Ordering::Relaxed),
            total.load(Ordering::Relaxed)
        ),
        (0, 0)
    );
}

#[test]
fn many_networks_of_one_site_hold_no_more_than_the_site_may() {
    let site = Arc::new(NetworkShare::new(64, None));
    assert_eq!(site.limit, MAX_IN_ALL / 2);
    let outbox = || {
        let network = NetworkShare::new(1, Some(Arc::clone(&site)));
        let (network, total) = (Arc::new(network), Arc::default());
        Outbox::new(256 << 10, Shares { network, total })
    };
    let mut held = vec![];
    loop {
        let slow = outbox();
        let last = (0..4).map(|_| slow.push(1, frame(60 << 10))).last();
        held.push(slow);
        if last != Some(Pushed::Waits(240 << 10)) {
            break;
        }
    }
    assert!(held.len() <= (MAX_IN_ALL >> 11) / 240 + 2, "{}", held.len());
    drop(held);
    assert_eq!(site.bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn very_many_connections_hold_no_more_than_twice_the_whole_and_little_each() {
    let total = Arc::<AtomicUsize>::default();
    let outbox = || {
        let (network, total) = (Arc::new(NetworkShare::new(1, None)), Arc::clone(&total));
        Outbox::new(256 << 10, Shares { network, total })
    };
    // As 100,000 connections, each with what is its share.
    total.store(2 * MAX_IN_ALL, Ordering::Relaxed);
    let last = outbox();
    assert!(matches!(last.push(1, frame(1 << 10)), Pushed::Waits(_)));
    assert!(matches!(last.push(2, frame(2 << 10)), Pushed::Overflowed));
    drop(last);
    total.store(MAX_IN_ALL / 2 * 3, Ordering::Relaxed);
    let half = outbox();
    assert!(matches!(half.push(1, frame(16 << 10)), Pushed::Waits(_)));
    assert!(matches!(half.push(2, frame(4 << 10)), Pushed::Overflowed));
}

/// A task that counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A task, and how often it was woken since it was last asked.
fn task() -> (Waker, impl Fn() -> usize) {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    (waker, move || woken.0.swap(0, Ordering::Relaxed))
}

fn takes(outbox: &Outbox, task: &Waker) -> Option<usize> {
    let mut frames = 0;
    let taken = outbox.poll_take(&Context::from_waker(task), usize::MAX, |_| frames += 1);
    taken.is_ready().then_some(frames)
}

#[test]
fn a_task_that_looks_twice_is_woken_by_whatever_comes() {
    let outbox = Outbox::new(1000, Shares::of_nobody());
    let (waker, woken) = task();
    let closing = Closing {
        code: CloseCode::Draining,
        reason: "",
    };
    let steps: [&dyn Fn(); 5] = [
        &|| assert_eq!(outbox.push(1, frame(60)), Pushed::Waits(60)),
        &|| outbox.release(),
        &|| outbox.wake_reader(),
        &|| outbox.park(),
        &|| outbox.close(closing.clone()),
    ];
    for (n, step) in steps.iter().enumerate() {
        // The second look finds the task where the first one left it.
        assert_eq!(
            (takes(&outbox, &waker), takes(&outbox, &waker)),
            (None, None)
        );
        assert_eq!(woken(), 0, "{n}");
        step();
        assert_eq!(woken(), 1, "{n}");
        if n == 0 {
            assert_eq!(takes(&outbox, &waker), Some(1));
            outbox.written(60);
        }
        outbox.is_asked_to_park();
    }
    assert_eq!(takes(&outbox, &waker), Some(0), "it ends");
}

#[test]
fn the_task_that_looked_last_is_the_one_that_is_woken() {
    let outbox = Outbox::new(1000, Shares::of_nobody());
    let ((first, first_woken), (second, second_woken)) = (task(), task());
    for task in [&first, &second, &first, &second] {
        assert_eq!(takes(&outbox, task), None);
    }
    outbox.push(1, frame(60));
    assert_eq!((first_woken(), second_woken()), (0, 1));
}

/// What is looked at without the lock is what is so under it.
#[test]
fn a_client_that_is_held_is_not_read_until_its_time_has_come() {
    let outbox = Outbox::new(100, Shares::of_nobody());
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    assert!(outbox.is_light(|| now));
    outbox.hold(later);
    assert_eq!(outbox.held_until(), Some(later));
    assert!(!outbox.is_light(|| now));
    assert!(outbox.is_light(|| later));
    assert_eq!(outbox.held_until(), None, "its time has come");
    outbox.hold(later);
    outbox.push(1, frame(60));
    assert!(!outbox.is_light(|| later), "too much waits");
    assert_eq!(outbox.held_until(), None, "and would wake nobody again");
    outbox.hold(later);
    outbox.release();
    assert_eq!(outbox.held_until(), None);
    assert_eq!(takes(&outbox, Waker::noop()), Some(1));
    outbox.written(60);
    assert!(outbox.is_light(|| now));
}

/// A waker of the thread, as a runtime without tasks has it.
#[test]
fn nothing_is_missed_while_others_push() {
    const FRAMES: usize = 20_000;
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let outbox = Outbox::new(usize::MAX / 4, Shares::of_nobody());
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let deadline = Instant::now() + Duration::from_secs(60);
    std::thread::scope(|scope| {
        for pusher in 0..2 {
            let outbox = &outbox;
            scope.spawn(move || {
                for _ in 0..FRAMES {
                    outbox.push(pusher, frame(20));
                }
            });
        }
        let mut taken = 0;
        while taken < 2 * FRAMES {
            match takes(&outbox, &waker) {
                Some(frames) => {
                    taken += frames;
                    outbox.written(20 * frames);
                }
                None => {
                    // One that was missed would leave the thread here.
                    std::thread::park_timeout(Duration::from_secs(70));
                    assert!(Instant::now() < deadline, "{taken}");
                }
            }
        }
        assert_eq!(takes(&outbox, &waker), None);
    });
}
