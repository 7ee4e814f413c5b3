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
/// How long no notice may come before the interfaces are looked at: an address comes with its routes.
const SETTLE: Duration = Duration::from_millis(250);
/// How often the interfaces are looked at all the same where changes go on and on.
const MAX_SETTLE: Duration = Duration::from_secs(2);
/// How often interfaces are looked at where no notices come.
const POLL: Duration = Duration::from_secs(5);

/// Where notices of changed addresses and routes come from.
pub enum AddressChanges {
    /// From the kernel.
    Netlink(UdpSocket),
    /// From nowhere, as in some sandboxes: the interfaces are looked at every few seconds.
    Polled,
    /// There are none.
    Never,
}

impl AddressChanges {
    /// Subscribes to the kernel's notices; called inside the runtime.
    pub fn subscribe() -> Self {
        match open() {
            Ok(socket) => Self::Netlink(socket),
            Err(error) => {
                tracing::debug!("no notices of addresses come from the kernel: {error}");
                Self::Polled
            }
        }
    }

    /// Comes back once something may have changed.
    pub async fn changed(&mut self) {
        match self {
            Self::Never => pending().await,
            Self::Polled => sleep(POLL).await,
            Self::Netlink(socket) => {
                next_notice(socket).await;
                let settled = async { while timeout(SETTLE, next_notice(socket)).await.is_ok() {} };
                let _ = timeout(MAX_SETTLE, settled).await;
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
async fn next_notice(socket: &UdpSocket) {
    let _ = socket.recv(&mut [0; 8192]).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_sends_notices_and_none_without_a_change() {
        let mut changes = AddressChanges::subscribe();
        assert!(matches!(changes, AddressChanges::Netlink(_)));
        let never = timeout(SETTLE / 10, AddressChanges::Never.changed()).await;
        assert!(never.is_err());
        // Other programs may change something meanwhile; whatever it is, it comes back.
        let _ = timeout(SETTLE / 10, changes.changed()).await;
    }
}
