//! TCP listeners that systemd bound beforehand (`callbox.socket`): clients that arrive during a
//! restart wait in their queue.

use super::listen::{self, BindError};
use listenfd::ListenFd;
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};

/// How names begin of descriptors that systemd keeps from one process to the next: they are not
/// listeners of socket units.
pub const KEPT_PREFIX: &str = "handover-";

/// Listeners by the `FileDescriptorName=` of their socket unit.
#[derive(Debug, Default)]
pub struct Inherited {
    by_name: HashMap<String, Vec<TcpListener>>,
    /// From the process that this one goes on from: with the names that socket units would have.
    handed_over: Vec<(String, Listener)>,
    /// Whether this process goes on from another one: then it serves what it can.
    is_successor: bool,
}

/// Why what systemd passed cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritedError {
    /// A descriptor that is not a TCP listener.
    #[error(
        "socket {0:?} passed by systemd is not a TCP listener: use ListenStream= with an address"
    )]
    NoListener(String),
    /// A listener that the configuration does not name: nobody has judged whether it may be open.
    #[error(
        "systemd passes {address} as {name:?}, which {key} does not name: make ListenStream= of \
         the socket unit and {key} agree"
    )]
    Unnamed {
        /// Its `FileDescriptorName=`.
        name: String,
        /// Its address.
        address: SocketAddr,
        /// The configuration key that goes with the name.
        key: String,
    },
    /// A name that stands for nothing.
    #[error("systemd passes a socket named {0:?}: FileDescriptorName= is \"http\" or \"tls\"")]
    UnknownName(String),
}

/// A listener, and whether systemd holds it too.
#[derive(Debug)]
pub struct Listener {
    /// Bound and non-blocking.
    pub socket: TcpListener,
    /// It outlives this process: what waits in its queue is not lost by a restart.
    pub inherited: bool,
}

impl Inherited {
    /// Takes over what systemd passed (sd_listen_fds(3)). To be called once, before any thread
    /// starts: the variables are taken out of the environment.
    ///
    /// # Errors
    /// A descriptor is not a TCP listener.
    pub fn from_env() -> Result<Self, InheritedError> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = ListenFd::from_env();
        let mut by_name: HashMap<String, Vec<TcpListener>> = HashMap::new();
        for index in 0..passed.len() {
            let name = names.next().unwrap_or_default().to_owned();
            if name.starts_with(KEPT_PREFIX) {
                continue;
            }
            let listener = passed
                .take_tcp_listener(index)
                .ok()
                .flatten()
                .filter(|listener| listener.set_nonblocking(true).is_ok());
            match listener {
                Some(listener) => by_name.entry(name).or_default().push(listener),
                None => return Err(InheritedError::NoListener(name)),
            }
        }
        Ok(Self {
            by_name,
            ..Self::default()
        })
    }

    /// Listeners that an earlier process had; those that no key names are closed.
    pub fn handed_over(listeners: Vec<(String, Listener)>) -> Self {
        Self {
            handed_over: listeners,
            is_successor: true,
            ..Self::default()
        }
    }

    /// Adds listeners that an earlier process had. Those that systemd has passed as well are the same
    /// sockets.
    #[must_use]
    pub fn and_handed_over(mut self, listeners: Vec<(String, Listener)>) -> Self {
        let mut handed_over = Self::handed_over(listeners);
        for (name, listener) in &mut handed_over.handed_over {
            let Ok(address) = listener.socket.local_addr() else {
                continue;
            };
            let Some(passed) = self.by_name.get_mut(name) else {
                continue;
            };
            let before = passed.len();
            passed.retain(|passed| passed.local_addr().ok() != Some(address));
            listener.inherited |= passed.len() < before;
        }
        handed_over.by_name = self.by_name;
        handed_over
    }

    /// Whether this process goes on from another one, which cannot be gone back to: a listener
    /// that it cannot bind is not a reason to serve nothing.
    pub fn is_successor(&self) -> bool {
        self.is_successor
    }

    /// Closes the handed over listeners of `name` that none of `addresses` names: they may be in the
    /// way of those that are bound next.
    pub fn close_unnamed(&mut self, name: &str, addresses: &[SocketAddr]) {
        self.handed_over.retain(|(of, listener)| {
            let bound = listener.socket.local_addr();
            let is_named = |bound| addresses.iter().any(|address| means(*address, bound));
            of != name || bound.is_ok_and(is_named)
        });
    }

    /// The handed over listener that `address` of the configuration names; any port where that is 0.
    fn take_over(&mut self, name: &str, address: SocketAddr) -> Option<Listener> {
        let is_it = |(of, listener): &(String, Listener)| {
            let bound = listener.socket.local_addr();
            of == name && bound.is_ok_and(|bound| means(address, bound))
        };
        let index = self.handed_over.iter().position(is_it)?;
        Some(self.handed_over.remove(index).1)
    }

    /// The listener of `address` passed as `name`, or else a fresh one for the key `key`.
    ///
    /// # Errors
    /// As [`listen::tcp`].
    pub fn tcp(
        &mut self,
        name: &str,
        address: SocketAddr,
        key: &str,
    ) -> Result<Listener, BindError> {
        if let Some(listener) = self.take_over(name, address) {
            return Ok(listener);
        }
        let is_it = |listener: &TcpListener| listener.local_addr().is_ok_and(|a| a == address);
        let passed = self.by_name.get_mut(name).and_then(|listeners| {
            let index = listeners.iter().position(is_it)?;
            Some(listeners.swap_remove(index))
        });
        Ok(match passed {
            Some(socket) => Listener {
                socket,
                inherited: true,
            },
            None => Listener {
                socket: listen::tcp(address, key)?,
                inherited: false,
            },
        })
    }

    /// Makes sure that everything was taken; `keys` are the names there are, each with its
    /// configuration key.
    ///
    /// # Errors
    /// The first listener that nobody took.
    pub fn finish(self, keys: &[(&str, &str)]) -> Result<(), InheritedError> {
        for (name, listeners) in self.by_name {
            let Some(listener) = listeners.first() else {
                continue;
            };
            let Some((_, key)) = keys.iter().find(|(known, _)| *known == name) else {
                return Err(InheritedError::UnknownName(name));
            };
            let unspecified = || SocketAddr::from(([0, 0, 0, 0], 0));
            return Err(InheritedError::Unnamed {
                name,
                address: listener
                    .local_addr()
                    .unwrap_or_else(|_: io::Error| unspecified()),
                key: (*key).to_owned(),
            });
        }
        Ok(())
    }
}

/// Whether `address` of the configuration means what is bound to `bound`.
fn means(address: SocketAddr, bound: SocketAddr) -> bool {
    bound == address || address.port() == 0 && bound.ip() == address.ip()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(name: &str) -> (Inherited, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let inherited = Inherited {
            by_name: HashMap::from([(name.to_owned(), vec![listener])]),
            ..Inherited::default()
        };
        (inherited, address)
    }

    #[test]
    fn a_handed_over_listener_is_taken_by_its_address_and_the_rest_is_closed() {
        let listener = |inherited| {
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            (socket.local_addr().unwrap(), Listener { socket, inherited })
        };
        let ((kept, one), (dropped, other)) = (listener(true), listener(false));
        let list = vec![("http".to_owned(), one), ("tls".to_owned(), other)];
        let mut inherited = Inherited::handed_over(list);
        assert!(inherited.is_successor());
        let taken = inherited.tcp("http", kept, "http.listen").unwrap();
        assert!(taken.inherited, "systemd holds it still");
        assert_eq!(taken.socket.local_addr().unwrap(), kept);
        inherited.finish(KEYS).unwrap();
        assert!(TcpListener::bind(dropped).is_ok());
    }

    #[test]
    fn a_listener_that_is_not_named_any_more_is_in_nobodys_way() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let inherited = false;
        let list = vec![("http".to_owned(), Listener { socket, inherited })];
        let mut inherited = Inherited::handed_over(list);
        let wide = SocketAddr::from(([0, 0, 0, 0], port));
        inherited.close_unnamed("tls", &[]);
        assert!(inherited.tcp("http", wide, "http.listen").is_err());
        inherited.close_unnamed("http", &[wide]);
        assert!(inherited.tcp("http", wide, "http.listen").is_ok());
    }

    #[test]
    fn a_listener_that_was_handed_over_and_passed_is_one() {
        let (passed, address) = passed("http");
        let (other, at) = (TcpListener::bind("127.0.0.1:0").unwrap(), "127.0.0.1:0");
        let socket = passed.by_name["http"][0].try_clone().unwrap();
        let one = Listener {
            socket,
            inherited: false,
        };
        let mut passed = passed;
        let fresh = other.local_addr().unwrap();
        passed.by_name.get_mut("http").unwrap().push(other);
        let mut both = passed.and_handed_over(vec![("http".into(), one)]);
        assert!(both.is_successor());
        assert!(both.tcp("http", address, "http.listen").unwrap().inherited);
        assert!(both.tcp("http", fresh, "http.listen").unwrap().inherited);
        let own = both.tcp("http", at.parse().unwrap(), "http.listen");
        assert!(!own.unwrap().inherited);
        both.finish(KEYS).unwrap();
    }

    const KEYS: &[(&str, &str)] = &[("http", "http.listen")];

    #[test]
    fn a_passed_listener_stands_in_for_its_address() {
        let (mut inherited, address) = passed("http");
        let taken = inherited.tcp("http", address, "http.listen").unwrap();
        assert!(taken.inherited);
        let fresh = inherited.tcp("http", "127.0.0.1:0".parse().unwrap(), "http.listen");
        assert!(!fresh.unwrap().inherited);
        inherited.finish(KEYS).unwrap();
    }

    #[test]
    fn a_listener_that_the_configuration_does_not_name_is_refused() {
        let (inherited, address) = passed("http");
        let error = inherited.finish(KEYS).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("http.listen"));
        let (inherited, _) = passed("htpp");
        let error = inherited.finish(KEYS).unwrap_err().to_string();
        assert!(error.contains("\"htpp\""), "{error}");
    }
}
