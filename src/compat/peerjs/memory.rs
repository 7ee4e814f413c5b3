//! What is remembered of a client, for the process that goes on with it.

use super::super::memory;
use super::{Hello, PeerJs, State};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Serialize, Deserialize)]
enum Memory {
    Waits {
        id: String,
        /// The halves of the proof, as JSON knows no numbers of 128 bits.
        proof: (u64, u64),
        token: Option<String>,
        payload: Option<String>,
    },
    Open(Arc<str>),
    Ended,
}

impl PeerJs {
    pub(super) fn to_memory(&self) -> Option<String> {
        memory::write(&match &self.state {
            // It ends before anything else.
            State::Refused(_) => return None,
            State::Waits(hello) => Memory::Waits {
                id: hello.id.clone(),
                proof: ((hello.proof >> 64) as u64, hello.proof as u64),
                token: (hello.token.as_ref()).map(|token| token.expose_secret().to_owned()),
                payload: hello.payload.clone(),
            },
            State::Open(name) => Memory::Open(Arc::clone(name)),
            State::Ended => Memory::Ended,
        })
    }

    /// The translator of an earlier process.
    ///
    /// # Errors
    /// The memory is not one.
    pub(in crate::compat) fn remembered(text: &str, relay_only: bool) -> Result<Self, String> {
        let state = match memory::read(text)? {
            Memory::Waits {
                id,
                proof: (high, low),
                token,
                payload,
            } => State::Waits(Box::new(Hello {
                id,
                proof: u128::from(high) << 64 | u128::from(low),
                token: token.map(SecretString::from),
                payload,
            })),
            Memory::Open(name) => State::Open(name),
            Memory::Ended => State::Ended,
        };
        Ok(Self { state, relay_only })
    }
}
