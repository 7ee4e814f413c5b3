//! Clients on their way to another node.

use super::super::gate::tests::{Alone, connect, says, start};
use crate::protocol::{CloseCode, FrameType, Locator, PeerId};
use crate::signal::driver::Admission;
use crate::signal::hub::{Event, Locate};
use crate::signal::nodes::{Found, NodeId, Word};
use crate::signal::{Driver, hub::ConnId};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const HOME: NodeId = NodeId(9);
const THERE: Found = Found::There(HOME);

fn node() -> (Arc<Driver>, Arc<Alone>, Admission) {
    let (driver, nodes, admission) = start(true);
    driver.locate(Locate::new(|_| Locator::default()));
    (driver, nodes, admission)
}

fn said(nodes: &Alone) -> Vec<Word> {
    std::mem::take(&mut nodes.said.lock().unwrap())
}

fn taken(admission: &Admission) -> (Vec<FrameType>, Option<CloseCode>) {
    let mut kinds = vec![];
    let closing = admission.outbox.take_all(|frame| {
        if let Event::Native(body) = &frame.event {
            kinds.push(body.kind());
        }
    });
    (kinds, closing.map(|closing| closing.code))
}

fn join(driver: &Driver, conn: ConnId, room: &str) {
    says(
        driver,
        conn,
        &format!(r#"{{"type":"join","roomId":"{room}"}}"#),
    );
    driver.found(conn, THERE);
}

fn entered(driver: &Driver, conn: ConnId, room: &str) {
    let word = Word::Entered {
        vconn: conn.0,
        peer: PeerId::from_bits(5),
        identity: None,
        room: Some(room.into()),
    };
    driver.received(HOME, word);
}

#[test]
fn a_move_that_is_given_up_leaves_no_session_behind() {
    let (driver, nodes, admission) = node();
    join(&driver, admission.conn, "r");
    assert!(matches!(said(&nodes)[..], [Word::Enter { .. }]));
    driver.link_reset(HOME, 2);
    let vconn = admission.conn.0;
    let words = said(&nodes);
    // Before its home closes what was not named: then a session would wait for its client.
    assert_eq!(
        words[..2],
        [Word::Cancel { vconn }, Word::AllNamed { generation: 2 }]
    );
    assert_eq!(taken(&admission).1, Some(CloseCode::TryLater));

    let (driver, nodes, admission) = node();
    join(&driver, admission.conn, "r");
    driver.refuse_move(driver.lock(), admission.conn);
    let vconn = admission.conn.0;
    assert_eq!(said(&nodes)[1..], [Word::Cancel { vconn }]);
}

#[tokio::test(start_paused = true)]
async fn a_move_between_rooms_of_one_home_waits_for_its_answer() {
    let (driver, nodes, admission) = node();
    let conn = admission.conn;
    join(&driver, conn, "r");
    entered(&driver, conn, "r");
    join(&driver, conn, "s");
    taken(&admission);
    said(&nodes);
    for _ in 0..4 {
        tokio::time::advance(Duration::from_secs(2)).await;
        driver.tick();
    }
    // Its home may have moved it already: an error would be a lie.
    assert_eq!(taken(&admission), (vec![], None));
    assert_eq!(said(&nodes), []);
    entered(&driver, conn, "s");
    says(&driver, conn, r#"{"type":"list"}"#);
    assert!(matches!(said(&nodes)[..], [Word::Frame { .. }]));
}

#[test]
fn a_session_whose_image_is_taken_gets_no_numbers_any_more() {
    let (driver, nodes, one) = node();
    let two = connect(&driver);
    for admission in [&one, &two] {
        says(&driver, admission.conn, r#"{"type":"join","roomId":"r"}"#);
        driver.found(admission.conn, Found::Here);
    }
    taken(&one);
    nodes.has_handed.store(true, Ordering::Relaxed);
    driver.close_some(usize::MAX, CloseCode::Restart, "this node leaves");
    let code = Some(CloseCode::Restart);
    assert_eq!(
        taken(&one),
        (vec![], code),
        "that the other one is away has no number here"
    );
    assert_eq!(taken(&two).1, code);
}
