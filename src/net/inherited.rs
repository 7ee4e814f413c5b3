//! TCP listeners that systemd bound beforehand (`callbox.socket`): clients that arrive during a
//! restart wait in their queue.

use super::listen::{self, BindError};
use listenfd::ListenFd;
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Listeners by the `FileDescriptorName=` of their socket unit.
#[derive(Debug, Default)]
pub struct Inherited(HashMap<String, Vec<TcpListener>>);

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
        Ok(Self(by_name))
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
        let is_it = |listener: &TcpListener| listener.local_addr().is_ok_and(|a| a == address);
        let passed = self.0.get_mut(name).and_then(|listeners| {
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
        for (name, listeners) in self.0 {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(name: &str) -> (Inherited, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let inherited = Inherited(HashMap::from([(name.to_owned(), vec![listener])]));
        (inherited, address)
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
