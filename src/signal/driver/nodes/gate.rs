//! What waited while no inputs were taken.

use super::super::{Driver, State};
use super::Route;
use crate::protocol::CloseCode;
use crate::signal::hub::{ConnId, Input, Loss};
use std::collections::BTreeSet;

impl Driver {
    /// The gate has opened: what waited is taken, and clients are read again.
    pub fn gate_opened(&self) {
        let newcomers = self.newcomers();
        while self.is_open() {
            let next = {
                let mut state = self.lock();
                (state.links.as_mut()).and_then(|links| links.gated.pop_front())
            };
            match next {
                Some(given) => self.input(given),
                None => break,
            }
        }
        for conn in newcomers {
            let mut state = self.lock();
            if let Some(links) = state.links.as_mut() {
                links.forget_route(conn, Loss::Disconnected);
                links.flush();
            }
            let why = "this node was without the others: try again";
            self.close_here(state, conn, CloseCode::TryLater, why);
        }
        for outbox in self.lock().outboxes.values() {
            outbox.wake_reader();
        }
        self.rearm.notify_one();
    }

    /// Connections without a session whose client may have given up waiting, and may have resumed at
    /// another node since: what such a client has said would take its session away from it. So what they
    /// have said is dropped.
    fn newcomers(&self) -> BTreeSet<ConnId> {
        let mut state = self.lock();
        let State {
            hub,
            links,
            outboxes,
            ..
        } = &mut *state;
        let Some(links) = links.as_mut() else {
            return BTreeSet::new();
        };
        let is_new = |conn: ConnId| {
            let is_native = (hub.client_of(conn)).is_none_or(|(_, dialect)| dialect.is_resumable());
            let is_elsewhere = match links.routes.get(&conn) {
                Some(Route::There { .. }) => true,
                Some(Route::Moving(moving)) => moving.from.is_some(),
                None => false,
            };
            is_native && !is_elsewhere && !hub.has_session(conn)
        };
        let newcomers: BTreeSet<_> = outboxes.keys().copied().filter(|c| is_new(*c)).collect();
        let is_void =
            |given: &Input| matches!(given, Input::Frame { conn, .. } if newcomers.contains(conn));
        links.gated.retain(|given| !is_void(given));
        newcomers
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::super::Admission;
    use super::super::super::tests::driver;
    use crate::protocol::{CloseCode, DialectKind, PeerId, parse};
    use crate::signal::Driver;
    use crate::signal::hub::{ConnId, Event, Input};
    use crate::signal::nodes::{Frame, NodeId, Nodes, Sought, Word};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    /// A node without others, that notes what is asked of it.
    #[derive(Debug, Default)]
    pub(in super::super) struct Alone {
        is_open: AtomicBool,
        pub(in super::super) has_handed: AtomicBool,
        sought: Mutex<Vec<ConnId>>,
        pub(in super::super) said: Mutex<Vec<Word>>,
    }

    impl Nodes for Alone {
        fn is_open(&self) -> bool {
            self.is_open.load(Ordering::Relaxed)
        }
        fn has_handed(&self) -> bool {
            self.has_handed.load(Ordering::Relaxed)
        }
        fn seek(&self, conn: ConnId, _: &Sought) {
            self.sought.lock().unwrap().push(conn);
        }
        fn unsought(&self, conn: ConnId) {
            self.sought.lock().unwrap().retain(|other| *other != conn);
        }
        fn say(&self, _: NodeId, word: Word) {
            self.said.lock().unwrap().push(word);
        }
        fn is_light(&self, _: NodeId) -> bool {
            true
        }
        fn changed(&self) {}
    }

    pub(in super::super) fn start(is_open: bool) -> (Arc<Driver>, Arc<Alone>, Admission) {
        let (driver, nodes) = (driver(9, 9), Arc::new(Alone::default()));
        driver.join_cluster(Arc::clone(&nodes) as Arc<dyn Nodes>);
        nodes.is_open.store(is_open, Ordering::Relaxed);
        let admission = connect(&driver);
        (driver, nodes, admission)
    }

    pub(in super::super) fn connect(driver: &Arc<Driver>) -> Admission {
        let admission = driver.admit([192, 0, 2, 1].into(), DialectKind::Native);
        let admission = admission.unwrap();
        driver.input(Input::Connected {
            conn: admission.conn,
            client: admission.client,
            dialect: DialectKind::Native,
            lobby: None,
        });
        admission
    }

    pub(in super::super) fn says(driver: &Driver, conn: ConnId, text: &str) {
        driver.input(Input::Frame {
            conn,
            message: parse(text),
            grant: None,
        });
    }

    #[test]
    fn who_waited_for_the_gate_without_a_session_comes_again() {
        let (driver, nodes, admission) = start(false);
        let token = "A".repeat(44);
        let resume = format!(r#"{{"type":"resume","resumeToken":"{token}","seq":1}}"#);
        says(&driver, admission.conn, &resume);
        nodes.is_open.store(true, Ordering::Relaxed);
        driver.gate_opened();
        assert!(nodes.sought.lock().unwrap().is_empty(), "its word is void");
        let closing = admission.outbox.take_all(|_| {}).expect("it is closed");
        assert_eq!(closing.code, CloseCode::TryLater);
        assert!(driver.with_hub(|hub, _, _| hub.client_of(admission.conn).is_none()));
    }

    #[test]
    fn what_a_connection_sought_is_given_up_with_it() {
        let (driver, nodes, admission) = start(true);
        says(&driver, admission.conn, r#"{"type":"join","roomId":"r"}"#);
        assert_eq!(*nodes.sought.lock().unwrap(), [admission.conn]);
        let loss = crate::signal::hub::Loss::Disconnected;
        let conn = admission.conn;
        driver.input(Input::Closed { conn, loss });
        assert!(nodes.sought.lock().unwrap().is_empty());
        // One whose room nobody finds in time is closed, and waits no more.
        let (driver, nodes, admission) = start(true);
        says(&driver, admission.conn, r#"{"type":"join","roomId":"r"}"#);
        driver.refuse_move(driver.lock(), admission.conn);
        assert!(nodes.sought.lock().unwrap().is_empty());
    }

    #[test]
    fn a_late_resume_of_another_node_takes_no_session_from_a_living_connection() {
        let (driver, nodes, admission) = start(true);
        says(&driver, admission.conn, r#"{"type":"join","roomId":"r"}"#);
        driver.found(admission.conn, crate::signal::Found::Here);
        let mut token = None;
        let closing = admission.outbox.take_all(|frame| {
            if let Event::Native(body) = &frame.event {
                let body: serde_json::Value = serde_json::from_str(&body.shared()).unwrap();
                token = token
                    .take()
                    .or(body["resumeToken"].as_str().map(str::to_owned));
            }
        });
        assert!(closing.is_none());
        let token = token.expect("it has joined");
        let enter = || Word::Enter {
            vconn: 7,
            peer: PeerId::from_bits(5),
            client: [192, 0, 2, 2].into(),
            dialect: DialectKind::Native,
            revoked_until: None,
            place: [1; 16],
            frame: Frame {
                text: format!(r#"{{"type":"resume","resumeToken":"{token}","seq":1}}"#),
                room: None,
                dialect: None,
                grant: None,
            },
        };
        let is_here = || driver.with_hub(|hub, _, _| hub.has_session(admission.conn));
        let node = NodeId(9);
        driver.received(node, enter());
        let asked = |word: &Word| matches!(word, Word::Astray { vconn: 7, .. });
        assert!(nodes.said.lock().unwrap().iter().any(asked));
        assert!(is_here(), "it is asked whether anybody is there");
        // Nobody is.
        let loss = crate::signal::hub::Loss::Disconnected;
        driver.received(node, Word::Closed { vconn: 7, loss });
        driver.received(node, enter());
        assert!(is_here(), "it is asked anew");
        // Somebody is.
        driver.received(node, enter());
        assert!(!is_here(), "the newcomer wins");
    }
}
