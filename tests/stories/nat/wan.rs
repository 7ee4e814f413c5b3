//! A virtual internet: a server in the open, and two hosts, each behind a NAT of its own.

use super::shell::SERVER;
use async_trait::async_trait;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc};
use webrtc_util::vnet::chunk::Chunk;
use webrtc_util::vnet::interface::Interface;
use webrtc_util::vnet::nat::{EndpointDependencyType, NatType};
use webrtc_util::vnet::net::{Net, NetConfig};
use webrtc_util::vnet::router::{Nic, Router, RouterConfig};

pub struct Wan {
    pub server: Arc<Net>,
    pub behind_nat: [Arc<Net>; 2],
    /// A network knows what it is made of by weak references only.
    _routers: Vec<Arc<Mutex<Router>>>,
    _ports: Vec<Arc<Mutex<Port>>>,
}

impl Wan {
    /// Both NATs map and filter alike.
    pub async fn new(nat: EndpointDependencyType) -> Self {
        let root = router(RouterConfig {
            cidr: "1.2.3.0/24".into(),
            ..RouterConfig::default()
        });
        let (server, port) = host(&root, vec![SERVER.ip().to_string()]).await;
        let mut behind_nat = vec![];
        let mut ports = vec![port];
        let mut routers = vec![Arc::clone(&root)];
        for side in 1..=2 {
            let lan = router(RouterConfig {
                cidr: format!("192.168.{side}.0/24"),
                static_ips: vec![format!("1.2.3.{}", 100 + side)],
                nat_type: Some(NatType {
                    mapping_behavior: nat,
                    filtering_behavior: nat,
                    ..NatType::default()
                }),
                ..RouterConfig::default()
            });
            let (net, port) = host(&lan, vec![]).await;
            behind_nat.push(net);
            ports.push(port);
            root.lock()
                .await
                .add_router(Arc::clone(&lan))
                .await
                .unwrap();
            let parent = Arc::clone(&root);
            lan.lock().await.set_router(parent).await.unwrap();
            routers.push(lan);
        }
        root.lock().await.start().await.unwrap();
        Self {
            server,
            behind_nat: behind_nat.try_into().ok().unwrap(),
            _routers: routers,
            _ports: ports,
        }
    }
}

fn router(config: RouterConfig) -> Arc<Mutex<Router>> {
    Arc::new(Mutex::new(Router::new(config).unwrap()))
}

/// A host of `router`'s network; without `static_ips` it gets an address.
async fn host(
    router: &Arc<Mutex<Router>>,
    static_ips: Vec<String>,
) -> (Arc<Net>, Arc<Mutex<Port>>) {
    let config = NetConfig {
        static_ips,
        ..NetConfig::default()
    };
    let net = Arc::new(Net::new(Some(config)));
    let port = Arc::new(Mutex::new(Port::new(net.get_nic().unwrap())));
    let nic = Arc::clone(&port) as NicRef;
    router.lock().await.add_net(nic).await.unwrap();
    let parent = Arc::clone(router);
    port.lock().await.set_router(parent).await.unwrap();
    (net, port)
}

type NicRef = Arc<Mutex<dyn Nic + Send + Sync>>;
type AnyChunk = Box<dyn Chunk + Send + Sync>;

/// Stands between a router and a host. In webrtc-util 0.17.2 a router delivers under its own lock,
/// which waits for the host's, which a sender holds that waits for the router: without a queue in
/// between, a busy network comes to a halt.
struct Port {
    host: NicRef,
    queue: mpsc::UnboundedSender<AnyChunk>,
}

impl Port {
    fn new(host: NicRef) -> Self {
        let (queue, mut queued) = mpsc::unbounded_channel();
        let to = Arc::clone(&host);
        tokio::spawn(async move {
            while let Some(chunk) = queued.recv().await {
                to.lock().await.on_inbound_chunk(chunk).await;
            }
        });
        Self { host, queue }
    }
}

#[async_trait]
impl Nic for Port {
    async fn get_interface(&self, name: &str) -> Option<Interface> {
        self.host.lock().await.get_interface(name).await
    }

    async fn add_addrs_to_interface(
        &mut self,
        name: &str,
        addresses: &[IpNet],
    ) -> webrtc_util::Result<()> {
        let mut host = self.host.lock().await;
        host.add_addrs_to_interface(name, addresses).await
    }

    async fn on_inbound_chunk(&self, chunk: AnyChunk) {
        let _ = self.queue.send(chunk);
    }

    async fn get_static_ips(&self) -> Vec<IpAddr> {
        self.host.lock().await.get_static_ips().await
    }

    async fn set_router(&self, router: Arc<Mutex<Router>>) -> webrtc_util::Result<()> {
        self.host.lock().await.set_router(router).await
    }
}
