//! The calls, side by side where they share no network: each is set up, talks, is disturbed if
//! asked for, talks again, and is judged.

use super::ground::Ground;
use super::matrix::{Call, Pair, Path};
use super::peer::{News, Order, Spec};
use super::real::Running;
use super::session::Room;
use super::verdict::{After, Row, Seen, Unconnected, direct_ends, path};
use crate::kind::Kind;
use futures_util::StreamExt as _;
use futures_util::future::{join_all, try_join_all};
use futures_util::stream::FuturesUnordered;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Each side joins and tries the relays; it may wait for an answer of the box, and then for a relay that is
/// silent.
const BEGINS_WITHIN: Duration = Duration::from_secs(20);
/// A call that is to connect may take so long.
const CONNECTS_WITHIN: Duration = Duration::from_secs(20);
/// A call that is to find no path is watched for so long, from when both sides look for one.
const FAILS_WITHIN: Duration = Duration::from_secs(7);
/// All that is said takes half a second; what was lost is sent again after longer and longer
/// pauses.
const TALKS_WITHIN: Duration = Duration::from_secs(15);
/// How often a call is tried where webrtc-rs took a relay by chance.
const TRIES: u32 = 3;
/// Calls at once, for each of the machine's cores.
const PER_CORE: usize = 2;
const MAX_AT_ONCE: usize = 7;

/// What holds for every call.
#[derive(Debug, Clone)]
pub struct Options {
    /// Lets peers in where the box asks for it.
    pub token: Option<String>,
    /// What happens in the middle.
    pub disturbance: Option<Disturbance>,
    /// Links lose packets.
    pub is_lossy: bool,
}

/// What happens in the middle of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbance {
    /// The box is killed and started again.
    Restart,
    /// The first side gets another public address.
    Move,
}

/// A call in its middle.
struct Begun {
    call: Call,
    row: Row,
    /// None if it did not connect.
    sides: Option<[Running; 2]>,
}

/// Makes all calls; `show` is given each line in the order of `calls`.
///
/// # Errors
/// A sentence: the lab itself failed.
pub async fn all(
    ground: &Ground,
    calls: &[Call],
    options: &Options,
    show: impl FnMut(&Row),
) -> Result<Vec<Row>, String> {
    let mut shown = Shown {
        show,
        done: BTreeMap::new(),
        rows: vec![],
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let at_once = (PER_CORE * cores).min(MAX_AT_ONCE);
    let mut left: Vec<(usize, Call)> = calls.iter().copied().enumerate().collect();
    if options.disturbance == Some(Disturbance::Restart) {
        // The box is everybody's: calls are in their middle together when it goes.
        while !left.is_empty() {
            let wave = take_disjoint(&mut left, &[], at_once);
            let begun = wave.iter().map(|(_, call)| begin(ground, *call, options));
            let begun = join_all(begun).await;
            let killed = Instant::now();
            ground.restart_box().await?;
            let ended = begun.into_iter().map(|begun| async {
                let begun = disturb(ground, begun, Disturbance::Restart, killed, options).await;
                finish(begun).await
            });
            for ((index, _), row) in wave.into_iter().zip(join_all(ended).await) {
                shown.add(index, row);
            }
        }
        return Ok(shown.rows);
    }
    let mut running = FuturesUnordered::new();
    let mut busy: Vec<(usize, Call)> = vec![];
    loop {
        let room = at_once - busy.len();
        for (index, call) in take_disjoint(&mut left, &busy, room) {
            busy.push((index, call));
            running.push(async move { (index, whole(ground, call, options).await) });
        }
        let Some((index, row)) = running.next().await else {
            return Ok(shown.rows);
        };
        busy.retain(|(busy, _)| *busy != index);
        shown.add(index, row);
    }
}

/// Keeps lines back until those before them are there.
struct Shown<F> {
    show: F,
    done: BTreeMap<usize, Row>,
    rows: Vec<Row>,
}

impl<F: FnMut(&Row)> Shown<F> {
    fn add(&mut self, index: usize, row: Row) {
        self.done.insert(index, row);
        while let Some(row) = self.done.remove(&self.rows.len()) {
            (self.show)(&row);
            self.rows.push(row);
        }
    }
}

/// Takes up to `room` calls that use no network of each other's or of `busy`.
fn take_disjoint(
    left: &mut Vec<(usize, Call)>,
    busy: &[(usize, Call)],
    room: usize,
) -> Vec<(usize, Call)> {
    let mut taken: Vec<(usize, Call)> = vec![];
    let shares = |a: &Call, b: &Call| a.pair.0 == b.pair.0 || a.pair.1 == b.pair.1;
    left.retain(|(index, call)| {
        let is_free = taken.len() < room
            && !busy
                .iter()
                .chain(&taken)
                .any(|(_, other)| shares(call, other));
        if is_free {
            taken.push((*index, *call));
        }
        !is_free
    });
    taken
}

async fn whole(ground: &Ground, call: Call, options: &Options) -> Row {
    let begun = begin(ground, call, options).await;
    if options.disturbance != Some(Disturbance::Move) {
        return finish(begun).await;
    }
    let Pair(first, _) = call.pair;
    let moved = ground.move_to(first, 0, true).await;
    let begun = match moved {
        Ok(()) => disturb(ground, begun, Disturbance::Move, Instant::now(), options).await,
        Err(why) => Begun {
            row: Row {
                fault: Some(why),
                ..begun.row
            },
            ..begun
        },
    };
    let row = finish(begun).await;
    let back = ground.move_to(first, 0, false).await;
    match back {
        Ok(()) => row,
        Err(why) => Row {
            fault: row.fault.or(Some(why)),
            ..row
        },
    }
}

/// Connects and talks.
async fn begin(ground: &Ground, call: Call, options: &Options) -> Begun {
    let mut tries = 0;
    loop {
        tries += 1;
        let row = Row {
            tries,
            ..Row::new(call)
        };
        match connect(ground, call, options).await {
            Ok((sides, _, seen)) if tries < TRIES && is_chance(call, &seen) => leave(&sides).await,
            Ok((sides, after, seen)) => {
                return Begun {
                    call,
                    row: row.connected(call, after, &seen),
                    sides: Some(sides),
                };
            }
            // webrtc-rs sends its question to a STUN server once. Where the question or the answer is lost, the
            // side has no address that others reach.
            Err(_) if tries < TRIES && options.is_lossy && call.expected() != Path::None => {}
            Err(why) => {
                return Begun {
                    call,
                    row: row.unconnected(&why),
                    sides: None,
                };
            }
        }
    }
}

/// Whether webrtc-rs may have taken a relay although a direct path works. It gives every peer-reflexive
/// candidate the same priority in place of the one that the check names (RFC 8445 §7.3.1.3). Where a
/// check comes through a relay before the message with the relay's candidate, the two paths are equal to
/// it, and it takes the one that came first. On a busy machine that is about one call in twenty.
fn is_chance(call: Call, seen: &Seen) -> bool {
    call.expected() == Path::Direct && path(seen) == Path::Relay
}

async fn leave(sides: &[Running; 2]) {
    for side in sides {
        let _ = side.orders.send(Order::Leave).await;
    }
}

async fn finish(begun: Begun) -> Row {
    if let Some(sides) = &begun.sides {
        leave(sides).await;
    }
    begun.row
}

async fn connect(
    ground: &Ground,
    call: Call,
    options: &Options,
) -> Result<([Running; 2], Duration, Seen), Unconnected> {
    let room = format!("natlab-{:016x}", rand::random::<u64>());
    let start = |kind: Kind, side: usize| {
        let room = Room {
            url: ground.url().clone(),
            address: ground.address(),
            name: room.clone(),
            token: options.token.clone(),
            identity: ["first", "second"][side],
        };
        ground.start(
            kind,
            side,
            Spec {
                room,
                net: None,
                only: call.only,
                relay_only: call.relay_only,
                stun: ground.stun(),
                slack: ground.slack(),
                relays: None,
            },
        )
    };
    let Pair(a, b) = call.pair;
    let (first, second) = tokio::try_join!(start(a, 0), start(b, 1))?;
    let mut sides = [first, second];
    let both = try_join_all(sides.iter_mut().map(begun));
    let both = timeout(BEGINS_WITHIN + 24 * ground.slack(), both).await;
    both.map_err(|_| "a side did not begin in time".to_owned())??;
    let patience = match call.expected() {
        Path::None => FAILS_WITHIN,
        _ if options.is_lossy => 2 * CONNECTS_WITHIN,
        _ => CONNECTS_WITHIN,
    };
    let both = try_join_all(sides.iter_mut().map(connected));
    let both = timeout(patience + 24 * ground.slack(), both).await;
    let both = both.map_err(|_| no_path(call, &sides))??;
    let after = both.into_iter().max().unwrap_or_default();
    let seen = talk(ground, call.pair, &mut sides, options).await?;
    Ok((sides, after, seen))
}

fn no_path(call: Call, sides: &[Running; 2]) -> Unconnected {
    let mut why = "no path was found in time".to_owned();
    let Pair(a, b) = call.pair;
    for (kind, side) in [a, b].into_iter().zip(sides) {
        if side.begun == Some(false) {
            let over = call
                .only
                .map_or(String::new(), |via| format!(" over {via}"));
            why += &format!("; the side behind {kind} reaches no relay{over}");
        }
    }
    Unconnected::NoPath(why)
}

async fn begun(side: &mut Running) -> Result<(), Unconnected> {
    while side.begun.is_none() {
        next(side).await?;
    }
    Ok(())
}

async fn connected(side: &mut Running) -> Result<Duration, Unconnected> {
    loop {
        if let News::Connected { after } = next(side).await? {
            return Ok(after);
        }
    }
}

async fn next(side: &mut Running) -> Result<News, Unconnected> {
    match side.news.recv().await {
        Some(News::Failed(why)) => Err(Unconnected::Fault(why)),
        Some(News::NoPath) => Err(Unconnected::NoPath("ICE found no path".into())),
        Some(News::Begun { has_relay }) => {
            side.begun = Some(has_relay);
            Ok(News::Begun { has_relay })
        }
        Some(news) => Ok(news),
        None => Err(Unconnected::Fault("a peer ended".into())),
    }
}

/// Lets both sides say all that they have to say, and counts.
async fn talk(
    ground: &Ground,
    pair: Pair,
    sides: &mut [Running; 2],
    options: &Options,
) -> Result<Seen, String> {
    ground.reset_counts(pair).await;
    for side in sides.iter() {
        let sent = side.orders.send(Order::Talk).await;
        sent.map_err(|_| "a peer ended".to_owned())?;
    }
    let both = join_all(sides.iter_mut().map(|side| async {
        loop {
            if let News::Talked(selected) = next(side).await? {
                return Ok::<_, String>(selected);
            }
        }
    }));
    let patience = if options.is_lossy { 3 } else { 1 } * TALKS_WITHIN;
    let both = timeout(patience + 24 * ground.slack(), both).await;
    let both = both.map_err(|_| "connected, but data or media did not arrive".to_owned())?;
    let [first, second] = both
        .try_into()
        .map_err(|_| "a side is missing".to_owned())?;
    let selected = [first?, second?];
    let packets = ground.packets(pair, direct_ends(&selected)).await?;
    Ok(Seen { selected, packets })
}

/// Sees how a connected call goes on after what happened at `since`.
async fn disturb(
    ground: &Ground,
    mut begun: Begun,
    what: Disturbance,
    since: Instant,
    options: &Options,
) -> Begun {
    if let Some(sides) = &mut begun.sides {
        let after = recover(ground, begun.call, &begun.row, sides, what, since, options).await;
        begun.row = begun.row.disturbed(begun.call, after);
    }
    begun
}

async fn recover(
    ground: &Ground,
    call: Call,
    row: &Row,
    sides: &mut [Running; 2],
    what: Disturbance,
    since: Instant,
    options: &Options,
) -> Result<(After, Seen), String> {
    let name = match what {
        Disturbance::Restart => "restart",
        Disturbance::Move => "move",
    };
    let failed = |why: String| format!("after the {name}: {why}");
    // A direct path needs no box.
    let goes_on = what == Disturbance::Restart && row.actual == Path::Direct;
    let mut seen = None;
    if goes_on {
        seen = Some(
            talk(ground, call.pair, sides, options)
                .await
                .map_err(failed)?,
        );
    }
    let [first, second] = sides;
    if what == Disturbance::Restart {
        reconnect(second, false).await.map_err(failed)?;
    }
    reconnect(first, !goes_on).await.map_err(failed)?;
    let mut tries = 0;
    let seen = loop {
        if let Some(seen) = seen.take() {
            break seen;
        }
        // Not before: webrtc-rs gives a data channel up whose packets it cannot send.
        paths(ground, sides, options).await.map_err(failed)?;
        let talked = talk(ground, call.pair, sides, options).await;
        let talked = talked.map_err(failed)?;
        tries += 1;
        if tries == TRIES || !is_chance(call, &talked) {
            break talked;
        }
        reconnect(&mut sides[0], true).await.map_err(failed)?;
    };
    let after = After {
        what: name,
        actual: path(&seen),
        tries,
        uninterrupted: goes_on,
        recover_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    Ok((after, seen))
}

/// Waits until both sides have a path again.
async fn paths(ground: &Ground, sides: &mut [Running; 2], options: &Options) -> Result<(), String> {
    let both = join_all(sides.iter_mut().map(|side| async {
        while next(side).await? != News::Path {}
        Ok::<_, String>(())
    }));
    let patience = if options.is_lossy { 2 } else { 1 } * CONNECTS_WITHIN;
    let both = timeout(patience + 24 * ground.slack(), both).await;
    let both = both.map_err(|_| "no path was found again in time".to_owned())?;
    both.into_iter().collect()
}

async fn reconnect(side: &mut Running, offers: bool) -> Result<(), String> {
    let sent = side.orders.send(Order::Reconnect { offers }).await;
    sent.map_err(|_| "a peer ended".to_owned())?;
    let wait = async {
        loop {
            if next(side).await? == News::Reconnected {
                return Ok(());
            }
        }
    };
    let waited = timeout(CONNECTS_WITHIN, wait).await;
    waited.unwrap_or_else(|_| Err("the box is not reached again".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_at_once_share_no_network() {
        let calls = super::super::matrix::calls(&super::super::matrix::all_pairs(), &[], false);
        let mut left: Vec<(usize, Call)> = calls.into_iter().enumerate().collect();
        let all = left.len();
        let busy = take_disjoint(&mut left, &[], 2);
        let more = take_disjoint(&mut left, &busy, 5);
        assert_eq!((busy.len(), more.len()), (2, 5));
        let at_once: Vec<Call> = busy.iter().chain(&more).map(|(_, call)| *call).collect();
        for (n, a) in at_once.iter().enumerate() {
            for b in &at_once[n + 1..] {
                assert!(a.pair.0 != b.pair.0 && a.pair.1 != b.pair.1);
            }
        }
        assert_eq!(left.len() + 7, all);
        assert!(
            take_disjoint(
                &mut left,
                &at_once.iter().copied().enumerate().collect::<Vec<_>>(),
                5
            )
            .is_empty()
        );
    }
}
