//! Users with a fixed password, beside those with REST credentials.

use super::harness::*;
use crate::credential::REVOKED_FOR_GOOD;
use crate::engine::*;
use crate::users::TurnUsers;
use stun::message::METHOD_ALLOCATE;

const CLIENT: &str = "198.51.100.7:5000";
const OTHER: &str = "198.51.100.8:5000";

fn with(users: &[(&str, &str)], per_user: u32) -> Settings {
    let users = users.iter().map(|(n, p)| ((*n).into(), (*p).into()));
    Settings {
        users: TurnUsers::new(users.collect()),
        quotas: Quotas {
            user: per_user,
            ip: 99,
            total: 99,
        },
        ..settings()
    }
}

fn camera(boxed: &mut TestBox, address: &str, name: &str, password: &str) -> Client {
    let mut client = Client::new(address, name);
    client.username = name.to_owned();
    client.password = password.to_owned();
    client.challenge(boxed);
    client
}

fn code(boxed: &mut TestBox, client: &mut Client) -> u16 {
    let request = client.request(METHOD_ALLOCATE).udp();
    client.ask(boxed, request).code()
}

#[test]
fn a_fixed_password_relays_whatever_the_time_and_a_wrong_one_does_not() {
    let mut boxed = TestBox::with_settings(with(&[("cam", "sesame")], 9));
    let mut client = camera(&mut boxed, CLIENT, "cam", "sesame");
    client.allocate(&mut boxed);
    client.permit(&mut boxed, PEER).success();
    client.refresh(&mut boxed, 600).success();
    for (name, password) in [("cam", "sesamf"), ("nobody", "sesame"), ("nobody", "\0")] {
        let mut wrong = camera(&mut boxed, OTHER, name, password);
        assert_eq!(code(&mut boxed, &mut wrong), 401, "{name}");
    }
    let (mut rest, _) = Client::allocated(&mut boxed, OTHER, "a");
    rest.permit(&mut boxed, PEER).success();
}

#[test]
fn who_is_removed_fails_and_loses_its_relay_and_nobody_else_does() {
    let mut boxed = TestBox::with_settings(with(&[("cam", "sesame"), ("door", "x")], 9));
    let mut cam = camera(&mut boxed, CLIENT, "cam", "sesame");
    cam.allocate(&mut boxed);
    let mut door = camera(&mut boxed, "198.51.100.9:1", "door", "x");
    door.allocate(&mut boxed);
    // A REST credential for a user of the same name is another matter.
    let (mut rest, _) = Client::allocated(&mut boxed, OTHER, "cam");
    boxed.reload(with(&[("door", "x")], 9));
    assert_eq!(boxed.shared.allocations(), 2);
    assert_eq!(code(&mut boxed, &mut cam), 401);
    door.refresh(&mut boxed, 600).success();
    rest.refresh(&mut boxed, 600).success();

    boxed.reload(with(&[("door", "another")], 9));
    assert_eq!(boxed.shared.allocations(), 1);
    assert_eq!(code(&mut boxed, &mut door), 401);
    let mut door = camera(&mut boxed, "198.51.100.9:1", "door", "another");
    door.allocate(&mut boxed);
}

#[test]
fn quotas_go_by_name_and_a_revocation_ends_what_lives() {
    let mut boxed = TestBox::with_settings(with(&[("cam", "sesame")], 1));
    camera(&mut boxed, CLIENT, "cam", "sesame").allocate(&mut boxed);
    let mut second = camera(&mut boxed, OTHER, "cam", "sesame");
    assert_eq!(code(&mut boxed, &mut second), 486);
    boxed.shared.revoke("cam", UNIX + 3_600, UNIX);
    boxed.revoke("cam");
    assert_eq!(boxed.shared.allocations(), 0);
    assert_eq!(boxed.shared.revoked_until("cam"), Some(UNIX + 3_600));
    // That was for credentials that expire. A fixed password is revoked by itself, until there is another.
    second.allocate(&mut boxed);
    let password = boxed.engines[0].settings.users.revocable("cam").unwrap();
    boxed.shared.revoke(&password, REVOKED_FOR_GOOD, UNIX);
    boxed.revoke("cam");
    assert_eq!(boxed.shared.allocations(), 0);
    assert_eq!(code(&mut boxed, &mut second), 401);
    boxed.reload(with(&[("cam", "sesame")], 2));
    assert_eq!(code(&mut boxed, &mut second), 401);
    boxed.reload(with(&[("cam", "another")], 1));
    camera(&mut boxed, OTHER, "cam", "another").allocate(&mut boxed);
}
