//! What the relay is for: peers behind NATs of a virtual internet, where the engine is a host.

mod shell;
mod wan;

use crate::connection::{Connection, News, Outcome};
use crate::harness::TIMEOUT;
use callbox::relay::engine::Stats;
use shell::{SERVER, VirtualBox};
use std::sync::Arc;
use tokio::time::timeout;
use wan::Wan;
use webrtc::api::setting_engine::SettingEngine;
use webrtc::ice::mdns::MulticastDnsMode;
use webrtc::ice_transport::ice_candidate_type::RTCIceCandidateType::Relay;
use webrtc::ice_transport::ice_server::RTCIceServer;
use webrtc::peer_connection::configuration::RTCConfiguration;
use webrtc::peer_connection::policy::ice_transport_policy::RTCIceTransportPolicy;
use webrtc::peer_connection::sdp::session_description::RTCSessionDescription;
use webrtc_util::vnet::nat::EndpointDependencyType::{
    self, EndpointAddrPortDependent as Symmetric, EndpointIndependent as Cone,
};
use webrtc_util::vnet::net::Net;

/// What a peer is given.
#[derive(Clone, Copy)]
enum Given {
    Stun,
    StunAndTurn,
    TurnOnly,
}

/// Two peers, each behind a NAT of its own, after they have tried to connect.
struct Meeting {
    alice: Connection,
    bob: Connection,
    outcomes: [Outcome; 2],
    callbox: VirtualBox,
    _wan: Wan,
}

impl Meeting {
    async fn hold(nat: EndpointDependencyType, alice: Given, bob: Given) -> Self {
        let wan = Wan::new(nat).await;
        let callbox = VirtualBox::start(Arc::clone(&wan.server)).await;
        let [at_alice, at_bob] = &wan.behind_nat;
        let mut alice = peer(at_alice, alice, &callbox).await;
        let mut bob = peer(at_bob, bob, &callbox).await;
        alice.offer().await;
        let offer = described(&mut alice).await;
        bob.rtc.set_remote_description(offer).await.unwrap();
        bob.answer().await;
        let answer = described(&mut bob).await;
        alice.rtc.set_remote_description(answer).await.unwrap();
        let both = async { tokio::join!(ended(&mut alice), ended(&mut bob)) };
        let (a, b) = timeout(TIMEOUT, both).await.expect("an attempt ends");
        Self {
            alice,
            bob,
            outcomes: [a, b],
            callbox,
            _wan: wan,
        }
    }

    /// Says something both ways, and tells what the box had to do with it.
    async fn talk(&mut self) -> Stats {
        assert_eq!(self.outcomes, [Outcome::Connected; 2]);
        let (to_alice, to_bob) =
            tokio::join!(self.alice.exchange(b"hello"), self.bob.exchange(b"howdy"));
        assert_eq!((&to_bob[..], &to_alice[..]), (&b"hello"[..], &b"howdy"[..]));
        self.callbox.stats().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_cone_nats_stun_is_enough() {
    let mut meeting = Meeting::hold(Cone, Given::Stun, Given::Stun).await;
    let stats = meeting.talk().await;
    assert!(stats.bindings >= 2);
    assert_eq!(stats.allocations_opened, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_symmetric_nats_stun_is_not() {
    let meeting = Meeting::hold(Symmetric, Given::Stun, Given::Stun).await;
    assert_eq!(meeting.outcomes, [Outcome::Failed; 2]);
    // They did learn their addresses; it is the NATs that let nothing in.
    assert!(meeting.callbox.stats().await.bindings >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_relayed_side_is_reached_from_behind_a_symmetric_nat() {
    let mut meeting = Meeting::hold(Symmetric, Given::StunAndTurn, Given::Stun).await;
    let stats = meeting.talk().await;
    assert_eq!(meeting.alice.selected().await.0, Relay);
    assert_eq!(meeting.bob.selected().await.1, Relay);
    assert!(stats.to_peers.packets > 0 && stats.to_clients.packets > 0);
    assert_eq!(stats.allocations_opened, 1);
    assert_eq!(stats.hairpinned.packets, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_relayed_sides_meet_inside_the_box() {
    let mut meeting = Meeting::hold(Symmetric, Given::TurnOnly, Given::TurnOnly).await;
    let stats = meeting.talk().await;
    assert_eq!(meeting.alice.selected().await, (Relay, Relay));
    assert_eq!(meeting.bob.selected().await, (Relay, Relay));
    assert!(stats.hairpinned.packets > 0 && stats.to_clients.packets > 0);
    assert_eq!(stats.to_peers.packets, 0, "nothing left the box on the way");
    assert_eq!(stats.allocations_opened, 2);
}

async fn peer(net: &Arc<Net>, given: Given, callbox: &VirtualBox) -> Connection {
    let mut settings = SettingEngine::default();
    settings.set_vnet(Some(Arc::clone(net)));
    // That would leave the virtual internet.
    settings.set_ice_multicast_dns_mode(MulticastDnsMode::Disabled);
    let stun = RTCIceServer {
        urls: vec![format!("stun:{SERVER}")],
        ..RTCIceServer::default()
    };
    let credential = callbox.credential();
    let turn = RTCIceServer {
        urls: vec![format!("turn:{SERVER}?transport=udp")],
        username: credential.username,
        credential: credential.password,
    };
    let (ice_servers, ice_transport_policy) = match given {
        Given::Stun => (vec![stun], RTCIceTransportPolicy::All),
        Given::StunAndTurn => (vec![stun, turn], RTCIceTransportPolicy::All),
        Given::TurnOnly => (vec![turn], RTCIceTransportPolicy::Relay),
    };
    let configuration = RTCConfiguration {
        ice_servers,
        ice_transport_policy,
        ..RTCConfiguration::default()
    };
    Connection::new(settings, configuration).await
}

/// The local description with all candidates.
async fn described(peer: &mut Connection) -> RTCSessionDescription {
    let gathered = async { while !matches!(peer.news().await, News::Candidate(None)) {} };
    timeout(TIMEOUT, gathered).await.expect("gathering ends");
    peer.rtc.local_description().await.unwrap()
}

async fn ended(peer: &mut Connection) -> Outcome {
    loop {
        if let News::Ended(outcome) = peer.news().await {
            return outcome;
        }
    }
}
