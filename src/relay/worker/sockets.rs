//! The sockets of relayed addresses, waited for by the worker's epoll set.

use super::watch;
use crate::relay::engine::{OpenError, RelaySockets, RelayedKey};
use crate::relay::io::token::Token;
use crate::relay::io::udp::{Offload, RelaySocket};
use rustix::event::epoll::EventFlags;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Opens relay sockets that are waited for together with everything else.
pub(super) struct EpollRelaySockets {
    pub(super) epoll: Rc<OwnedFd>,
    pub(super) offload: Offload,
    /// Sockets that an earlier process opened.
    pub(super) inherited: InheritedSockets,
}

impl RelaySockets for EpollRelaySockets {
    type Socket = Rc<RelaySocket>;

    fn open(&mut self, address: SocketAddr, key: RelayedKey) -> Result<Rc<RelaySocket>, OpenError> {
        let socket = RelaySocket::bind(address, self.offload).map_err(open_error)?;
        watch(&self.epoll, &socket, Token::Relay(key), EventFlags::IN).map_err(open_error)?;
        Ok(Rc::new(socket))
    }

    fn adopt(&mut self, key: RelayedKey, announced: SocketAddr) -> Option<Rc<RelaySocket>> {
        let socket = self.inherited.take(key)?;
        let socket = RelaySocket::adopt(socket, announced.port())?;
        watch(&self.epoll, &socket, Token::Relay(key), EventFlags::IN).ok()?;
        Some(Rc::new(socket))
    }
}

fn open_error(error: io::Error) -> OpenError {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => OpenError::PortHeld,
        Some(libc::EMFILE | libc::ENFILE) => OpenError::NoDescriptor,
        _ => OpenError::Other(error),
    }
}

/// Relay sockets of an earlier process, by the keys of their relays.
#[derive(Default)]
pub(super) struct InheritedSockets(HashMap<RelayedKey, OwnedFd>);

impl InheritedSockets {
    pub(super) fn of(sockets: impl Iterator<Item = (RelayedKey, OwnedFd)>) -> Self {
        Self(sockets.collect())
    }

    fn take(&mut self, key: RelayedKey) -> Option<OwnedFd> {
        self.0.remove(&key)
    }
}
