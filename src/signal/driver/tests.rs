//! Who is admitted, and what is left of those who are gone.

pub(crate) mod socket;

use super::*;
use crate::auth::credential::TurnSecrets;
use std::time::Duration;

pub(super) fn driver(per_ip: u32, total: u32) -> Arc<Driver> {
    let ice = IceIssuer {
        stun_urls: vec![],
        turn_urls: vec![],
        secrets: TurnSecrets::new(vec!["s".into()]).unwrap(),
        ttl: Duration::from_secs(60),
    };
    let limits = ConnectionLimits {
        per_ip,
        total,
        outbox: 1 << 16,
    };
    Arc::new(Driver::new(
        Settings::default(),
        ice,
        limits,
        Box::new(|_, _, _| {}),
    ))
}

#[test]
fn connections_are_counted_by_source_and_given_back() {
    let driver = driver(2, 3);
    let admit = |ip: &str| driver.admit(ip.parse().unwrap(), DialectKind::Native);
    let first = admit("2001:db8::1").unwrap();
    let _second = admit("2001:db8::ffff").unwrap();
    assert_eq!(admit("2001:db8::2").err(), Some(ConnectError::PerIp));
    let _other = admit("2001:db8:1::1").unwrap();
    assert_eq!(admit("192.0.2.1").err(), Some(ConnectError::Total));
    drop(first);
    assert!(admit("2001:db8::2").is_ok());
    drop((_second, _other));
    assert!(driver.lock().waiting_of.is_empty());
    assert!(
        driver.lock().networks.is_empty(),
        "nothing is left of clients that are gone"
    );
}

#[test]
fn a_draining_box_admits_nobody() {
    let driver = driver(2, 3);
    driver.drain(Instant::now(), false);
    let refused = driver
        .admit(IpAddr::from([192, 0, 2, 1]), DialectKind::Native)
        .err();
    assert_eq!(refused, Some(ConnectError::Draining));
}
