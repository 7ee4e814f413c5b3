//! Many clients of one server, brought to where a workload begins. Requests go out to a group of
//! clients at once, so that ten thousand allocations take seconds.

use super::client::{Client, Transport};
use super::turn::{self, Challenge, Credential};
use super::wire::Framing;
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddrV4};
use stun::message::Message;

/// Clients that have a request outstanding at once.
const GROUP: usize = 32;
/// What a client of the forwarder registers before its peer is known.
const NOWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);

/// How to reach a server, and as whom.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) udp: SocketAddrV4,
    pub(crate) tcp: SocketAddrV4,
    pub(crate) tls: SocketAddrV4,
    pub(crate) locals: Vec<Ipv4Addr>,
    pub(crate) credential: Credential,
}

impl Target {
    /// Connects the client of this index.
    pub(crate) fn connect(&self, transport: Transport, index: usize, gro: bool) -> Result<Client> {
        let server = match transport {
            Transport::Udp => self.udp,
            Transport::Tcp => self.tcp,
            Transport::Tls => self.tls,
        };
        Client::connect(
            transport,
            self.locals[index % self.locals.len()],
            server,
            gro,
        )
    }
}

#[derive(Default)]
pub(crate) struct Fleet {
    pub(crate) clients: Vec<Client>,
    /// Relayed addresses, client by client, once allocated.
    pub(crate) relayed: Vec<SocketAddrV4>,
    challenges: Vec<Challenge>,
}

impl Fleet {
    pub(crate) fn connect(
        target: &Target,
        transport: Transport,
        count: usize,
        gro: bool,
    ) -> Result<Self> {
        let clients: Result<_> = (0..count)
            .map(|index| target.connect(transport, index, gro))
            .collect();
        Ok(Self {
            clients: clients?,
            ..Self::default()
        })
    }

    /// Gives every client its relayed address.
    pub(crate) fn allocate(&mut self, framing: Framing, credential: &Credential) -> Result<()> {
        if framing == Framing::Raw {
            let relayed: Result<_> = self
                .clients
                .iter_mut()
                .map(|c| c.register(NOWHERE))
                .collect();
            self.relayed = relayed?;
            return Ok(());
        }
        self.challenge(credential)?;
        let answers = self.exchange(|_, challenge| turn::allocate(Some(challenge)))?;
        self.relayed = answers
            .iter()
            .map(turn::relayed_address)
            .collect::<Result<_>>()?;
        Ok(())
    }

    /// Has the server refuse an unauthenticated Allocate of each client: a half-open allocation.
    pub(crate) fn challenge(&mut self, credential: &Credential) -> Result<()> {
        self.challenges.clear();
        let answers = exchange(&mut self.clients, |_| turn::allocate(None))?;
        for answer in &answers {
            let challenge = Challenge::read(answer, credential, self.challenges.last())?;
            self.challenges.push(challenge);
        }
        Ok(())
    }

    /// Opens the way from each client to its peer, by channel, permission or registration.
    pub(crate) fn open(
        &mut self,
        framing: Framing,
        peer: impl Fn(usize) -> SocketAddrV4,
    ) -> Result<()> {
        match framing {
            Framing::Raw => {
                for (index, client) in self.clients.iter_mut().enumerate() {
                    client.register(peer(index))?;
                }
                Ok(())
            }
            Framing::Channel => self
                .exchange(|i, challenge| turn::bind_channel(peer(i), challenge))
                .map(drop),
            Framing::Indication => self
                .exchange(|i, challenge| turn::create_permission(peer(i), challenge))
                .map(drop),
        }
    }

    /// Ends every allocation.
    pub(crate) fn release(&mut self) -> Result<()> {
        self.exchange(|_, challenge| turn::release(challenge))
            .map(drop)
    }

    fn exchange(
        &mut self,
        request: impl Fn(usize, &Challenge) -> Result<Message>,
    ) -> Result<Vec<Message>> {
        let challenges = &self.challenges;
        let answers = exchange(&mut self.clients, |index| {
            request(index, &challenges[index])
        })?;
        for (index, answer) in answers.iter().enumerate() {
            turn::expect_success(answer).with_context(|| format!("client {index}"))?;
        }
        Ok(answers)
    }
}

/// Sends one request of each client, a group at a time, and collects the answers in order.
pub(crate) fn exchange(
    clients: &mut [Client],
    request: impl Fn(usize) -> Result<Message>,
) -> Result<Vec<Message>> {
    let mut answers = Vec::with_capacity(clients.len());
    for (group_index, group) in clients.chunks_mut(GROUP).enumerate() {
        let mut requests = Vec::with_capacity(group.len());
        for (index, client) in group.iter_mut().enumerate() {
            let message = request(group_index * GROUP + index)?;
            client.request(&message)?;
            requests.push(message);
        }
        for (client, request) in group.iter_mut().zip(&requests) {
            answers.push(client.await_response(request)?);
        }
    }
    Ok(answers)
}
