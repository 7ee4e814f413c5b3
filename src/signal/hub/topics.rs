//! Who has subscribed which topic.
//!
//! Three limits: topics of a connection, subscribers of a topic, and bytes, which are charged to
//! the network of the subscriber and in all. What is over a limit is refused and changes nothing.

use super::interface::ConnId;
use crate::network::NetworkCounts;
use crate::protocol::{Denied, DialectKind, SubscriptionOptions};
use crate::signal::id_map::IdMap;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// Topics of one connection.
pub(super) const MAX_TOPICS: usize = 1_000;
/// Bytes that a subscription takes up beside its topic: its places in two tables.
const OVERHEAD: usize = 128;
/// Bytes of subscriptions of one network ([`NetworkCounts`]): 20,000 topics with usual names.
const NETWORK_BYTES: u64 = 4 << 20;
/// Bytes of subscriptions in all.
const TOTAL_BYTES: usize = 256 << 20;

/// The table of subscriptions.
#[derive(Debug, Default)]
pub(super) struct Topics {
    /// Subscribers by topic, for each dialect: one dialect's topics are not another's.
    realms: BTreeMap<DialectKind, HashMap<Arc<str>, Vec<Subscriber>>>,
    holdings: IdMap<ConnId, Holding>,
    networks: NetworkCounts,
    bytes: usize,
    subscriptions: usize,
}

/// A subscriber of one topic; those of a topic are in the order of their connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subscriber {
    pub(super) conn: ConnId,
    pub(super) options: SubscriptionOptions,
}

/// What one connection has subscribed.
#[derive(Debug)]
struct Holding {
    realm: DialectKind,
    network: IpAddr,
    /// In order.
    topics: Vec<Arc<str>>,
}

impl Topics {
    /// How many topics a connection has subscribed.
    pub(super) fn count_of(&self, conn: ConnId) -> usize {
        self.holdings
            .get(&conn)
            .map_or(0, |holding| holding.topics.len())
    }

    /// Whether a connection has subscribed a topic.
    pub(super) fn has(&self, conn: ConnId, topic: &str) -> bool {
        let held = |holding: &Holding| {
            let found = holding.topics.binary_search_by(|held| (**held).cmp(topic));
            found.is_ok()
        };
        self.holdings.get(&conn).is_some_and(held)
    }

    /// Subscribes, or changes how; `max` subscribers of the topic at most.
    pub(super) fn subscribe(
        &mut self,
        (conn, realm, network): (ConnId, DialectKind, IpAddr),
        topic: &Arc<str>,
        options: SubscriptionOptions,
        max: usize,
    ) -> Result<(), Denied> {
        let new_holding = || Holding {
            realm,
            network,
            topics: vec![],
        };
        let held = self.holdings.get(&conn).map_or(0, |h| h.topics.len());
        let realm = self.realms.entry(realm).or_default();
        let known = realm.get_key_value(topic);
        let place = known.map_or(Err(0), |(_, subscribers)| place(subscribers, conn));
        let place = match place {
            Ok(place) => {
                if let Some(subscribers) = realm.get_mut(topic) {
                    subscribers[place].options = options;
                }
                return Ok(());
            }
            Err(place) => place,
        };
        let cost = topic.len() + OVERHEAD;
        if held >= MAX_TOPICS
            || known.is_some_and(|(_, subscribers)| subscribers.len() >= max)
            || self.bytes + cost > TOTAL_BYTES
            || !self
                .networks
                .take_many(network, cost as u64, NETWORK_BYTES, TOTAL_BYTES as u64 / 2)
        {
            return Err(Denied::Full);
        }
        // All subscribers share one text.
        let topic = known.map_or_else(|| Arc::clone(topic), |(topic, _)| Arc::clone(topic));
        let subscribers = realm.entry(Arc::clone(&topic)).or_default();
        subscribers.insert(place, Subscriber { conn, options });
        let topics = &mut self.holdings.entry(conn).or_insert_with(new_holding).topics;
        if let Err(place) = topics.binary_search(&topic) {
            topics.insert(place, topic);
        }
        self.bytes += cost;
        self.subscriptions += 1;
        Ok(())
    }

    /// Ends a subscription; returns whether there was one.
    pub(super) fn unsubscribe(&mut self, conn: ConnId, topic: &str) -> bool {
        let Some(holding) = self.holdings.get_mut(&conn) else {
            return false;
        };
        let Ok(place) = holding.topics.binary_search_by(|held| (**held).cmp(topic)) else {
            return false;
        };
        holding.topics.remove(place);
        let (realm, network) = (holding.realm, holding.network);
        if holding.topics.is_empty() {
            self.holdings.remove(&conn);
        }
        self.take_out(conn, realm, network, topic);
        true
    }

    /// Ends all subscriptions of a connection.
    pub(super) fn remove(&mut self, conn: ConnId) {
        if let Some(holding) = self.holdings.remove(&conn) {
            for topic in &holding.topics {
                self.take_out(conn, holding.realm, holding.network, topic);
            }
        }
    }

    fn take_out(&mut self, conn: ConnId, realm: DialectKind, network: IpAddr, topic: &str) {
        if let Some(topics) = self.realms.get_mut(&realm)
            && let Some(subscribers) = topics.get_mut(topic)
        {
            if let Ok(place) = place(subscribers, conn) {
                subscribers.remove(place);
            }
            if subscribers.is_empty() {
                topics.remove(topic);
            }
        }
        let cost = topic.len() + OVERHEAD;
        self.bytes -= cost;
        self.subscriptions -= 1;
        self.networks.give_back_many(network, cost as u64);
    }

    /// The subscribers of a topic.
    pub(super) fn subscribers(&self, realm: DialectKind, topic: &str) -> &[Subscriber] {
        let topics = self.realms.get(&realm);
        topics
            .and_then(|topics| topics.get(topic))
            .map_or(&[], Vec::as_slice)
    }

    /// What a connection has subscribed, in the order of the topics.
    pub(super) fn of(&self, conn: ConnId) -> Vec<(Arc<str>, SubscriptionOptions)> {
        let Some(holding) = self.holdings.get(&conn) else {
            return vec![];
        };
        let options = |topic: &Arc<str>| {
            let subscribers = self.subscribers(holding.realm, topic);
            let place = place(subscribers, conn).ok()?;
            Some((Arc::clone(topic), subscribers[place].options))
        };
        holding.topics.iter().filter_map(options).collect()
    }

    /// How many topics there are.
    pub(super) fn len(&self) -> usize {
        self.realms.values().map(HashMap::len).sum()
    }

    /// How many subscriptions there are.
    pub(super) fn subscriptions(&self) -> usize {
        self.subscriptions
    }
}

fn place(subscribers: &[Subscriber], conn: ConnId) -> Result<usize, usize> {
    subscribers.binary_search_by_key(&conn, |subscriber| subscriber.conn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn subscribe(topics: &mut Topics, conn: u64, topic: &str, max: usize) -> Result<(), Denied> {
        let who = (ConnId(conn), DialectKind::YWebrtc, HERE);
        topics.subscribe(who, &topic.into(), SubscriptionOptions::default(), max)
    }

    fn conns(topics: &Topics, topic: &str) -> Vec<u64> {
        let subscribers = topics.subscribers(DialectKind::YWebrtc, topic);
        subscribers.iter().map(|s| s.conn.0).collect()
    }

    #[test]
    fn one_dialects_topics_are_not_anothers() {
        let mut topics = Topics::default();
        subscribe(&mut topics, 1, "a", 9).unwrap();
        let who = (ConnId(2), DialectKind::Mqtt, HERE);
        let options = SubscriptionOptions::default();
        topics.subscribe(who, &"a".into(), options, 9).unwrap();
        assert_eq!(conns(&topics, "a"), [1]);
        let others = topics.subscribers(DialectKind::Mqtt, "a");
        assert_eq!(others.iter().map(|s| s.conn.0).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_full_topic_a_full_connection_and_a_full_network_refuse() {
        let mut topics = Topics::default();
        for conn in 0..3 {
            assert_eq!(subscribe(&mut topics, conn, "a", 3), Ok(()));
        }
        assert_eq!(subscribe(&mut topics, 3, "a", 3), Err(Denied::Full));
        assert_eq!(
            subscribe(&mut topics, 2, "a", 3),
            Ok(()),
            "again changes nothing"
        );
        for n in 1..MAX_TOPICS {
            subscribe(&mut topics, 0, &format!("t{n}"), 3).unwrap();
        }
        assert_eq!(subscribe(&mut topics, 0, "one more", 3), Err(Denied::Full));
        // Long names fill a network's share before the connections' own limits.
        let long = "x".repeat(500);
        let mut conn = 10;
        let refused = loop {
            conn += 1;
            let all = (0..MAX_TOPICS)
                .try_for_each(|n| subscribe(&mut topics, conn, &format!("{long}{n}"), 99));
            if let Err(refused) = all {
                break refused;
            }
            assert!(conn < 30, "a network has a limit");
        };
        assert_eq!(refused, Denied::Full);
        let elsewhere = (
            ConnId(99),
            DialectKind::YWebrtc,
            "192.0.2.2".parse().unwrap(),
        );
        let options = SubscriptionOptions::default();
        assert_eq!(topics.subscribe(elsewhere, &"b".into(), options, 9), Ok(()));
        for conn in 0..100 {
            topics.remove(ConnId(conn));
        }
        assert_eq!(
            (topics.bytes, topics.len(), topics.subscriptions),
            (0, 0, 0)
        );
        assert!(topics.networks.is_empty() && topics.holdings.is_empty());
    }

    proptest! {
        /// Against a set of pairs.
        #[test]
        fn subscriptions_are_a_set_of_pairs(
            steps in prop::collection::vec((0u8..4, 0u64..5, 0u8..6), 0..200),
        ) {
            let mut topics = Topics::default();
            let mut model: BTreeSet<(String, u64)> = BTreeSet::new();
            for (step, conn, topic) in steps {
                let topic = format!("topic {topic}");
                match step {
                    0 | 1 => {
                        subscribe(&mut topics, conn, &topic, 99).unwrap();
                        model.insert((topic, conn));
                    }
                    2 => {
                        let found = topics.unsubscribe(ConnId(conn), &topic);
                        prop_assert_eq!(found, model.remove(&(topic, conn)));
                    }
                    _ => {
                        topics.remove(ConnId(conn));
                        model.retain(|(_, other)| *other != conn);
                    }
                }
                prop_assert_eq!(topics.subscriptions(), model.len());
                let bytes: usize = model.iter().map(|(topic, _)| topic.len() + OVERHEAD).sum();
                prop_assert_eq!(topics.bytes, bytes);
                prop_assert_eq!(topics.networks.held(HERE), bytes as u64);
                for n in 0..6 {
                    let topic = format!("topic {n}");
                    let all: Vec<_> = model
                        .iter()
                        .filter(|(t, _)| *t == topic)
                        .map(|(_, conn)| *conn)
                        .collect();
                    prop_assert_eq!(conns(&topics, &topic), all);
                }
            }
        }
    }
}
