//! What listens on the box's own addresses is out of the relay's reach.

use crate::harness::Callbox;
use crate::turn_client;
use callbox::auth::credential::TurnSecrets;
use std::net::UdpSocket;
use std::time::{SystemTime, UNIX_EPOCH};

#[tokio::test(flavor = "multi_thread")]
async fn a_service_beside_the_box_sees_nothing_and_cannot_reach_a_client() {
    let callbox = Callbox::start("[turn]\nsecrets = [\"north\"]\nworkers = 1").await;
    let secrets = TurnSecrets::new(vec!["north".into()]).unwrap();
    let expiry = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        + 60;
    let mut client = turn_client::udp(callbox.udp[0], secrets.mint("a", expiry));
    let mut other = turn_client::udp(callbox.udp[0], secrets.mint("b", expiry));
    let (relayed, beyond) = (client.allocate().unwrap(), other.allocate().unwrap());
    let service = UdpSocket::bind("127.0.0.1:0").unwrap();
    service.set_nonblocking(true).unwrap();

    // Relays live on this address, so a permission is granted; only they are reached by it.
    client.bind(0x4000, service.local_addr().unwrap()).unwrap();
    client.bind(0x4001, beyond).unwrap();
    other.bind(0x4000, relayed).unwrap();
    client.send_channel(0x4000, b"to the service");
    client.send_channel(0x4001, b"to the other relay");
    // What came second has arrived: the first was dropped on the way.
    assert_eq!(
        other.receive_channel(),
        (0x4000, b"to the other relay".to_vec())
    );
    assert!(
        service.recv(&mut [0; 64]).is_err(),
        "the service saw a datagram"
    );

    service.send_to(b"from the service", relayed).unwrap();
    other.send_channel(0x4000, b"from the other relay");
    assert_eq!(
        client.receive_channel(),
        (0x4001, b"from the other relay".to_vec())
    );
}
