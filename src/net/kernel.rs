//! What the kernel says of addresses and routes as they come and go (rtnetlink(7)).
//!
//! Messages are not read: any of them is a reason to look at the interfaces again.

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use std::future::pending;
use std::io;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

/// RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE of
/// linux/rtnetlink.h.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// How long it has to be quiet before anybody looks: an address comes with its routes.
const SETTLE: Duration = Duration::from_millis(250);
/// How often the interfaces are looked at all the same where changes go on and on.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often interfaces are looked at where the kernel does not say.
const POLL: Duration = Duration::from_secs(5);

/// Where changes of addresses and routes are heard.
pub enum AddressChanges {
    /// From the kernel.
    Told(UdpSocket),
    /// The kernel does not say, as in some sandboxes: it is time to look every few seconds.
    Polled,
    /// There are none.
    Never,
}

impl AddressChanges {
    /// Asks the kernel to tell of changes; called inside the runtime.
    pub fn subscribe() -> Self {
        match open() {
            Ok(socket) => Self::Told(socket),
            Err(error) => {
                tracing::debug!("the kernel does not tell of addresses: {error}");
                Self::Polled
            }
        }
    }

    /// Comes back once something may have changed.
    pub async fn changed(&mut self) {
        match self {
            Self::Never => pending().await,
            Self::Polled => sleep(POLL).await,
            Self::Told(socket) => {
                heard(socket).await;
                let settled = async { while timeout(SETTLE, heard(socket)).await.is_ok() {} };
                let _ = timeout(PATIENCE, settled).await;
            }
        }
    }
}

fn open() -> io::Result<UdpSocket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0 is NETLINK_ROUTE, rtnetlink's.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    // The runtime has no netlink sockets; of one of datagrams it asks readiness and recv(2) alone.
    UdpSocket::from_std(socket.into())
}

/// Takes what waits. Messages that were lost (ENOBUFS) are a change as well.
async fn heard(socket: &UdpSocket) {
    let _ = socket.recv(&mut [0; 8192]).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_tells_and_nothing_is_told_for_nothing() {
        let mut changes = AddressChanges::subscribe();
        assert!(matches!(changes, AddressChanges::Told(_)));
        let never = timeout(SETTLE / 10, AddressChanges::Never.changed()).await;
        assert!(never.is_err());
        // Other programs may change something meanwhile; whatever it is, it comes back.
        let _ = timeout(SETTLE / 10, changes.changed()).await;
    }
}
