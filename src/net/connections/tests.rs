//! Bounds, and who makes room.

use super::*;
use tokio::task::JoinHandle;

#[test]
fn bodies_and_files_count_for_their_network_and_in_all() {
    let connections = connections(1_000, 1_000);
    let now = Instant::now();
    let enter = |client: &str| {
        connections
            .enter(Some(client.parse().unwrap()), now)
            .unwrap()
    };
    let (one, other) = (enter("192.0.2.1"), enter("192.0.2.2"));
    let mut leases = vec![];
    while let Some(lease) = one.lease_body(64 << 10) {
        leases.push(lease);
    }
    assert_eq!(leases.len(), 128);
    assert!(other.lease_body(64 << 10).is_some());
    leases.pop();
    assert!(one.lease_body(64 << 10).is_some());
    let mut files = vec![];
    while let Some(file) = one.open_file() {
        files.push(file);
    }
    assert_eq!(files.len() as u64, MAX_FILES.0);
    assert!(other.open_file().is_some());
    // Proxies are many clients.
    let proxy = connections.enter(None, now).unwrap();
    while let Some(file) = proxy.open_file() {
        files.push(file);
    }
    assert_eq!(files.len() as u64, MAX_FILES.1);
    assert!(other.open_file().is_none());
    files.clear();
    assert!(other.open_file().is_some());
}

fn connections(per_network: u32, total: u32) -> Arc<Connections> {
    Connections::new(ConnectionCaps { per_network, total })
}

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

fn silent(
    connections: &Arc<Connections>,
    client: Option<IpAddr>,
    now: Instant,
) -> (Place, SilentNote, JoinHandle<()>) {
    let place = connections.enter(client, now).unwrap();
    let task = tokio::spawn(std::future::pending());
    let note = connections.note_silent(client, now);
    connections.may_abort(note.key(), task.abort_handle());
    (place, note, task)
}

#[test]
fn a_network_is_told_that_it_is_full_and_then_no_more() {
    let (connections, now) = (connections(2, 1000), Instant::now());
    let enter = |client| connections.enter(ip(client), now);
    let places: Vec<_> = (0..2).map(|_| enter("192.0.2.1").unwrap()).collect();
    assert!(places.iter().all(|place| !place.is_turned_away()));
    let mut told: Vec<_> = (0..TURNED_AWAY)
        .map(|_| enter("192.0.2.1").unwrap())
        .collect();
    assert!(told.iter().all(Place::is_turned_away));
    assert_eq!(enter("192.0.2.1").err(), Some(Full::Network));
    assert_eq!(connections.refused(Full::Network), 1);
    assert!(!enter("192.0.2.2").unwrap().is_turned_away());
    drop(places);
    assert!(!told.remove(0).is_turned_away(), "there is room again");
    drop(told);
    let counts = connections.lock();
    assert!(counts.networks.is_empty() && counts.turned_away.is_empty() && counts.total == 0);
}

#[test]
fn clients_behind_a_trusted_proxy_count_once_they_are_known() {
    let (connections, now) = (connections(2, 5), Instant::now());
    let places: Vec<_> = (0..5)
        .map(|_| connections.enter(None, now).unwrap())
        .collect();
    assert_eq!(connections.enter(None, now).err(), Some(Full::Total));
    let client = "2001:db8::1".parse().unwrap();
    places[0].belongs_to(client).unwrap();
    let asked = places[1].charge(client).unwrap();
    assert_eq!(places[2].charge(client).err(), Some(Full::Network));
    places[3].belongs_to(client).unwrap();
    assert!(places[3].is_turned_away() && !places[0].is_turned_away());
    drop((places, asked));
    assert!(connections.lock().networks.is_empty());
}

#[tokio::test]
async fn the_longest_silent_one_of_the_largest_network_makes_room_past_an_age() {
    let (connections, start) = (connections(100, 4), Instant::now());
    let (_lone, _note, lone) = silent(&connections, ip("192.0.2.9"), start);
    let crowd: Vec<_> = (0..3)
        .map(|_| silent(&connections, ip("192.0.2.1"), start))
        .collect();
    let newcomer = |after| connections.enter(ip("192.0.2.2"), start + after);
    assert_eq!(newcomer(Duration::ZERO).err(), Some(Full::Total));
    let _late = newcomer(MIN_SILENCE).unwrap();
    tokio::task::yield_now().await;
    let ended: Vec<_> = crowd
        .iter()
        .map(|(_, _, task)| task.is_finished())
        .collect();
    assert_eq!(ended, [true, false, false]);
    assert!(!lone.is_finished());
    assert_eq!(connections.made_room(), 1);
}

#[tokio::test]
async fn who_is_silent_makes_room_for_its_own_network_and_for_no_other() {
    let (connections, start) = (connections(1, 100), Instant::now());
    let (place, note, task) = silent(&connections, ip("192.0.2.1"), start);
    let (_other, _other_note, other) = silent(&connections, ip("192.0.2.2"), start);
    let second = connections
        .enter(ip("192.0.2.1"), start + MIN_SILENCE)
        .unwrap();
    tokio::task::yield_now().await;
    assert!(task.is_finished() && !other.is_finished());
    drop((place, note));
    assert!(!second.is_turned_away());
    assert_eq!(
        connections
            .lock()
            .networks
            .held("192.0.2.1".parse().unwrap()),
        1
    );
}

#[tokio::test]
async fn a_crowd_behind_a_proxy_is_not_taken_for_one_greedy_client() {
    let (connections, start) = (connections(100, 5), Instant::now());
    let proxied: Vec<_> = (0..3).map(|_| silent(&connections, None, start)).collect();
    let pair: Vec<_> = (0..2)
        .map(|_| silent(&connections, ip("192.0.2.1"), start))
        .collect();
    let _late = connections.enter(None, start + MIN_SILENCE).unwrap();
    tokio::task::yield_now().await;
    assert!(pair[0].2.is_finished());
    assert!(proxied.iter().all(|(_, _, task)| !task.is_finished()));
}
