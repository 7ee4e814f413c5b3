//! A connection over a link that is reset at any time: what the client sees has no hole and nothing
//! twice, or the connection ends; and it ends only where something was on the way.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

/// What an end says to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Frame(u64),
    Attach(Position),
    AllNamed(u32),
    /// A number of the session, or none with what the frame is.
    Send(Option<u64>, u64),
    Attached,
    Detached,
}

/// Both ends, the session behind one and the client behind the other.
struct Pair {
    edge: EdgeEnd,
    home: HomeEnd<u64>,
    /// The number of the session's next frame; all of them are in its ring.
    next: u64,
    replies: u64,
    /// What is on the way, and whether an end has not noticed a reset yet.
    outward: VecDeque<Said>,
    inward: VecDeque<Said>,
    edge_learns: bool,
    home_learns: bool,
    seen: Vec<u64>,
    seen_replies: Vec<u64>,
    taken: Vec<u64>,
    spoken: u64,
    is_closed: bool,
    /// The home has forgotten the connection, and says so whenever it is named.
    is_forgotten: bool,
    generation: u32,
    /// Whether a reset has found something on the way that is in no ring.
    was_in_flight: bool,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    ClientSpeaks,
    SessionSends,
    SessionReplies,
    ToHome,
    ToEdge,
    Reset,
    EdgeNotices,
    HomeNotices,
}

impl Pair {
    fn new() -> Self {
        Self {
            edge: EdgeEnd::new(1),
            home: HomeEnd::new(),
            next: 2,
            replies: 0,
            outward: VecDeque::new(),
            inward: VecDeque::new(),
            edge_learns: false,
            home_learns: false,
            seen: vec![],
            seen_replies: vec![],
            taken: vec![],
            spoken: 0,
            is_closed: false,
            is_forgotten: false,
            generation: 1,
            was_in_flight: false,
        }
    }

    fn send(&mut self, seq: Option<u64>, what: u64) {
        if !self.is_forgotten && self.home.sends(seq, || what) {
            self.inward.push_back(Said::Send(seq, what));
        }
    }

    fn edge_notices(&mut self) {
        if std::mem::take(&mut self.edge_learns) {
            let at = self.edge.reset(self.generation);
            let words = [Said::Attach(at), Said::AllNamed(self.generation)];
            // Another reset may come between the two.
            self.outward.extend(words);
        }
    }

    fn home_notices(&mut self) {
        if std::mem::take(&mut self.home_learns) {
            self.home.reset(self.generation);
        }
    }

    fn is_unkept(said: &Said) -> bool {
        matches!(said, Said::Frame(_) | Said::Send(None, _))
    }

    fn step(&mut self, step: Step) {
        if self.is_closed {
            return;
        }
        match step {
            Step::ClientSpeaks => {
                self.spoken += 1;
                let number = self.edge.says();
                self.outward.push_back(Said::Frame(number));
                // It may go before the edge knows, and is on the way then.
                self.was_in_flight |= self.edge_learns || self.home_learns;
            }
            Step::SessionSends => {
                let seq = self.next;
                self.next += 1;
                self.send(Some(seq), seq);
            }
            Step::SessionReplies => {
                self.was_in_flight |= self.home_learns || self.edge_learns;
                self.replies += 1;
                self.send(None, self.replies);
            }
            Step::ToHome => {
                let Some(said) = self.outward.pop_front() else {
                    return;
                };
                // Nothing of a new generation comes before the end knows of it.
                self.home_notices();
                match said {
                    _ if self.is_forgotten => self.inward.push_back(Said::Detached),
                    Said::Frame(number) => {
                        if self.home.takes(number) {
                            self.taken.push(number);
                        }
                    }
                    Said::Attach(at) if self.home.is_stale(at) => {}
                    Said::AllNamed(generation) => {
                        assert!(!self.home.is_detached_since(generation), "it was named");
                    }
                    Said::Attach(at) => match (at.seq < self.next, self.home.attach(at)) {
                        (true, Some(held)) => {
                            self.inward.push_back(Said::Attached);
                            for seq in at.seq + 1..self.next {
                                self.send(Some(seq), seq);
                            }
                            for what in held {
                                self.send(None, what);
                            }
                        }
                        _ => {
                            self.is_forgotten = true;
                            self.inward.push_back(Said::Detached);
                        }
                    },
                    other => panic!("{other:?} to a home"),
                }
            }
            Step::ToEdge => {
                let Some(said) = self.inward.pop_front() else {
                    return;
                };
                self.edge_notices();
                match said {
                    Said::Send(seq, what) => {
                        if self.edge.takes(seq) {
                            match seq {
                                Some(seq) => self.seen.push(seq),
                                None => self.seen_replies.push(what),
                            }
                        }
                    }
                    Said::Attached => self.edge.attached(),
                    Said::Detached => self.is_closed = true,
                    other => panic!("{other:?} to an edge"),
                }
            }
            Step::Reset => {
                self.was_in_flight |= self.outward.iter().any(Self::is_unkept);
                self.was_in_flight |= self.inward.iter().any(Self::is_unkept);
                // What an end has said last may go with the new generation.
                let late = self
                    .outward
                    .iter()
                    .position(|said| matches!(said, Said::AllNamed(_)));
                let late = late.map(|at| self.outward.split_off(at));
                self.outward.clear();
                self.inward.clear();
                self.outward.extend(late.into_iter().flatten());
                self.generation += 1;
                (self.edge_learns, self.home_learns) = (true, true);
            }
            Step::EdgeNotices => self.edge_notices(),
            Step::HomeNotices => self.home_notices(),
        }
    }

    fn settle(&mut self) {
        self.edge_notices();
        self.home_notices();
        while !(self.is_closed || self.outward.is_empty() && self.inward.is_empty()) {
            self.step(Step::ToHome);
            self.step(Step::ToEdge);
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::ClientSpeaks),
        4 => Just(Step::SessionSends),
        2 => Just(Step::SessionReplies),
        6 => Just(Step::ToHome),
        6 => Just(Step::ToEdge),
        1 => Just(Step::Reset),
        2 => Just(Step::EdgeNotices),
        2 => Just(Step::HomeNotices),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #[test]
    fn a_reset_is_silent_or_ends_the_connection(steps in steps()) {
        let mut pair = Pair::new();
        for step in steps {
            pair.step(step);
            // Whatever happens, nothing comes twice and nothing out of its order.
            let expected: Vec<_> = (2..).take(pair.seen.len()).collect();
            prop_assert_eq!(&pair.seen, &expected);
            prop_assert!(pair.seen_replies.is_sorted_by(|a, b| a < b));
            let expected: Vec<_> = (1..).take(pair.taken.len()).collect();
            prop_assert_eq!(&pair.taken, &expected);
        }
        pair.settle();
        prop_assert!(!pair.is_closed || pair.was_in_flight, "closed without a reason");
        if !pair.is_closed {
            prop_assert_eq!(pair.seen.last().copied().unwrap_or(1) + 1, pair.next);
            prop_assert_eq!(pair.seen_replies, (1..=pair.replies).collect::<Vec<_>>());
            prop_assert_eq!(pair.taken, (1..=pair.spoken).collect::<Vec<_>>());
        }
    }
}

#[test]
fn numbered_frames_that_were_lost_come_again() {
    let mut pair = Pair::new();
    for step in [
        Step::SessionSends,
        Step::ToEdge,
        Step::SessionSends,
        Step::Reset,
        Step::SessionSends,
        Step::EdgeNotices,
        Step::HomeNotices,
        Step::SessionSends,
        Step::SessionReplies,
    ] {
        pair.step(step);
    }
    pair.settle();
    assert!(!pair.is_closed);
    assert_eq!((pair.seen, pair.seen_replies), (vec![2, 3, 4, 5], vec![1]));
}

#[test]
fn what_the_client_said_on_the_way_ends_the_connection() {
    let mut pair = Pair::new();
    pair.step(Step::ClientSpeaks);
    pair.step(Step::Reset);
    pair.settle();
    assert!(pair.is_closed);
}

#[test]
fn a_home_holds_so_much_and_no_more() {
    let mut home = HomeEnd::new();
    home.reset(1);
    for what in 0..=MAX_HELD {
        assert!(!home.sends(None, || what));
    }
    let at = Position {
        generation: 1,
        seq: 0,
        received: 0,
        said: 0,
    };
    assert_eq!(home.attach(at), None);
}
