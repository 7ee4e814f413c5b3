//! What one relayed workload consists of, and the sequence of bursts it sends. Pure.

use super::client::Transport;

/// Packets that a saturating run keeps outstanding: enough that the server never waits, few
/// enough that they fit in 212,992 bytes of default receive buffer (a 1200 B packet takes 2,304).
const WINDOW: usize = 64;
/// Largest payload of a video frame's packets, as WebRTC stacks cut them.
const FRAME_PACKET: u16 = 1200;

/// Where packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Client → relay → peer → relay → client; a peer answers a whole burst with a burst.
    Echo,
    /// Client → relay → peer.
    Up,
    /// Peer → relay → client.
    Down,
    /// Client → relay → relay → another client: both sides are relayed by this server.
    Pair,
}

/// The bursts a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// So many packets of one size; one packet is the isolated case.
    Bursts { packets: u16, size: u16 },
    /// Video frames: 1 to 12 packets, all of 1200 B but the last, whose size varies.
    Frames,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As fast as the server relays, a fixed number of packets outstanding.
    Saturated,
    /// So many relayed packets a second, at even intervals.
    PacketsPerSecond(u32),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) transport: Transport,
    pub(crate) indications: bool,
    pub(crate) flow: Flow,
    pub(crate) shape: Shape,
    /// The generator and its peer send bursts by UDP_SEGMENT and receive with UDP_GRO.
    pub(crate) offload: bool,
    /// Clients with an allocation.
    pub(crate) clients: usize,
    /// Those among them that send.
    pub(crate) active: usize,
    pub(crate) pace: Pace,
}

impl Load {
    /// Isolated packets of `size` bytes over UDP and channels, echoed, from 100 clients.
    pub(crate) const fn isolated(size: u16) -> Self {
        Self {
            transport: Transport::Udp,
            indications: false,
            flow: Flow::Echo,
            shape: Shape::Bursts { packets: 1, size },
            offload: false,
            clients: 100,
            active: 100,
            pace: Pace::Saturated,
        }
    }

    pub(crate) const fn shape(self, shape: Shape) -> Self {
        Self { shape, ..self }
    }

    pub(crate) const fn offload(self) -> Self {
        Self {
            offload: true,
            ..self
        }
    }

    pub(crate) const fn flow(self, flow: Flow) -> Self {
        Self { flow, ..self }
    }

    pub(crate) const fn over(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    pub(crate) const fn indications(self) -> Self {
        Self {
            indications: true,
            ..self
        }
    }

    pub(crate) const fn clients(self, clients: usize, active: usize) -> Self {
        Self {
            clients,
            active,
            ..self
        }
    }

    pub(crate) const fn paced(self, packets_per_second: u32) -> Self {
        Self {
            pace: Pace::PacketsPerSecond(packets_per_second),
            ..self
        }
    }

    /// How often each sent packet crosses the server.
    pub(crate) fn crossings(&self) -> u32 {
        if self.flow == Flow::Echo { 2 } else { 1 }
    }

    /// Packets that may be outstanding.
    pub(crate) fn window(&self) -> usize {
        match self.pace {
            Pace::Saturated => WINDOW,
            Pace::PacketsPerSecond(_) => usize::MAX,
        }
    }
}

/// One burst: how many packets, of what size, and the size of the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Burst {
    pub(crate) packets: u16,
    pub(crate) size: u16,
    pub(crate) last: u16,
}

/// The bursts of a shape, one after the other; the same sequence in every run.
pub(crate) struct Bursts {
    shape: Shape,
    state: u64,
    pub(crate) next: Burst,
}

impl Bursts {
    pub(crate) fn new(shape: Shape) -> Self {
        let next = Burst {
            packets: 0,
            size: 0,
            last: 0,
        };
        let mut bursts = Self {
            shape,
            state: 1,
            next,
        };
        bursts.advance();
        bursts
    }

    pub(crate) fn advance(&mut self) {
        self.next = match self.shape {
            Shape::Bursts { packets, size } => Burst {
                packets,
                size,
                last: size,
            },
            Shape::Frames => {
                let packets = 1 + self.draw(12);
                let last = 100 + self.draw(FRAME_PACKET - 100);
                let size = if packets == 1 { last } else { FRAME_PACKET };
                Burst {
                    packets,
                    size,
                    last,
                }
            }
        };
    }

    /// Knuth's MMIX generator: reproducible, and good enough to vary sizes.
    fn draw(&mut self, below: u16) -> u16 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.state >> 33) % u64::from(below)) as u16
    }
}
