//! Clients that publish and subscribe nothing.

use super::exchange::{OPEN, ask, ask_as, enter, publication, publish};
use super::harness::{World, ice};
use super::*;
use crate::auth::RoomScope;
use crate::protocol::ExchangeRequest;

#[test]
fn who_publishes_need_not_subscribe() {
    let settings = Settings {
        rate: 0,
        ..Settings::default()
    };
    let mut world = World::with(settings, ice(true));
    for dialect in [DialectKind::YWebrtc, DialectKind::Trystero] {
        let conn = enter(&mut world, dialect);
        for _ in 0..300 {
            publish(&mut world, conn, "doc", "x").unwrap();
        }
        for _ in 0..150 {
            ask(&mut world, conn, ExchangeRequest::Idle);
        }
        publish(&mut world, conn, "doc", "x").unwrap();
        for _ in 0..200 {
            ask(&mut world, conn, ExchangeRequest::Idle);
        }
        assert!(world.is_open(conn), "{dialect:?}");
        ask(&mut world, conn, ExchangeRequest::Idle);
        assert_eq!(world.closed.get(&conn), Some(&4001), "{dialect:?}");
        // What is refused is not published.
        let conn = world.open_as("192.0.2.1", dialect);
        let grant = Grant {
            rooms: RoomScope::Matching(vec![]),
            ..Grant::open()
        };
        ask_as(&mut world, conn, OPEN, Ok(grant));
        for _ in 0..201 {
            let publication = publication("doc", "x");
            ask(
                &mut world,
                conn,
                ExchangeRequest::Publish { id: 0, publication },
            );
        }
        assert_eq!(world.closed.get(&conn), Some(&4001), "{dialect:?}");
    }
}
