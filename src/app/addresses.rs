//! The public addresses of the box, found at its start and followed from there on.

use crate::config::Config;
use crate::net::{self, AddressChanges, Announced, Names};
use crate::relay::engine::is_public;
use tokio::sync::watch;

/// Finds them.
pub(super) async fn announced(config: &Config, names: &mut Names) -> Vec<Announced> {
    net::discover(&config.public, names, config.loopback, is_public).await
}

/// Keeps `announced` at the addresses that this machine has and that names lead to; those that an
/// earlier process has `handed_over` are looked at at once.
pub(super) fn follow_addresses(
    config: &Config,
    mut names: Names,
    announced: watch::Sender<Vec<Announced>>,
    handed_over: bool,
) -> impl Future<Output = ()> + use<> {
    let (public, loopback) = (config.public.clone(), config.loopback);
    async move {
        if loopback {
            return;
        }
        if handed_over {
            // What was announced may be of an earlier configuration.
            let found = net::discover(&public, &mut names, loopback, is_public).await;
            announced.send_if_modified(|announced| {
                let is_new = *announced != found;
                *announced = found;
                is_new
            });
        }
        let find: net::Find = Box::new(move |names, before| {
            let public = public.clone();
            Box::pin(async move { net::rediscover(&public, names, before, is_public).await })
        });
        let changes = AddressChanges::subscribe();
        names.follow(announced, changes, find).await;
    }
}
