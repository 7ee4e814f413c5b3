//! The catalogue of workloads, each with the ratio to coturn that the project holds itself to.

use super::client::Transport;
use super::kind::Kind;
use super::load::{Flow, Load, Shape};

pub(crate) enum Task {
    Relay(Load),
    Binding,
    Allocation,
    IdleMemory,
    HalfOpen(Transport),
}

pub(crate) struct Workload {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) task: Task,
    /// At most this, callbox to coturn.
    pub(crate) goal: Option<f64>,
    pub(crate) veth: bool,
}

impl Workload {
    pub(crate) fn unit(&self) -> &'static str {
        match self.task {
            Task::Relay(_) => "µs/packet",
            Task::Binding => "µs/request",
            Task::Allocation => "µs/allocation",
            Task::IdleMemory => "MiB/1,000",
            Task::HalfOpen(_) => "KiB/client",
        }
    }

    pub(crate) fn suits(&self, kind: Kind) -> bool {
        // One that runs already is in no namespace of ours.
        if self.veth && kind == Kind::Other {
            return false;
        }
        match &self.task {
            Task::Relay(load) => {
                kind.speaks(load.transport) && !(load.indications && kind.is_floor())
            }
            Task::HalfOpen(transport) => kind.speaks(*transport) && !kind.is_floor(),
            Task::Binding | Task::Allocation | Task::IdleMemory => !kind.is_floor(),
        }
    }
}

const BURST: Shape = Shape::Bursts {
    packets: 8,
    size: 1200,
};
const ISOLATED: Load = Load::isolated(160);
const LARGE: Load = Load::isolated(1200);
const BURSTS: Load = LARGE.shape(BURST).offload();
const FRAMES: Load = LARGE.shape(Shape::Frames).offload();

pub(crate) fn catalogue() -> Vec<Workload> {
    let relay = |key, title, load, goal| Workload {
        key,
        title,
        task: Task::Relay(load),
        goal,
        veth: false,
    };
    let veth = |key, title, load, goal| Workload {
        veth: true,
        ..relay(key, title, load, goal)
    };
    let other = |key, title, task, goal| Workload {
        key,
        title,
        task,
        goal,
        veth: false,
    };
    vec![
        relay(
            "echo-160",
            "isolated, 160 B, saturated",
            ISOLATED,
            Some(0.85),
        ),
        relay(
            "echo-1200",
            "isolated, 1200 B, saturated",
            LARGE,
            Some(0.85),
        ),
        relay(
            "up-1200",
            "one way to the peer, 1200 B",
            LARGE.flow(Flow::Up),
            None,
        ),
        relay(
            "down-1200",
            "one way to the client, 1200 B",
            LARGE.flow(Flow::Down),
            None,
        ),
        relay(
            "paced-40k",
            "isolated, 160 B, 40,000 packets/s",
            ISOLATED.paced(40_000),
            Some(0.60),
        ),
        relay(
            "paced-100k",
            "isolated, 160 B, 100,000 packets/s",
            ISOLATED.paced(100_000),
            None,
        ),
        // Half of what coturn and callbox carry lies here, as fast as the machine is.
        relay(
            "paced-134k",
            "isolated, 160 B, 134,000 packets/s",
            ISOLATED.paced(134_000),
            None,
        ),
        relay(
            "paced-175k",
            "isolated, 160 B, 175,000 packets/s",
            ISOLATED.paced(175_000),
            None,
        ),
        relay(
            "clients-5000",
            "5,000 clients, 160 B",
            ISOLATED.clients(5_000, 5_000),
            Some(0.75),
        ),
        relay(
            "clients-10000",
            "10,000 clients, 160 B",
            ISOLATED.clients(10_000, 10_000),
            None,
        ),
        relay(
            "active-100",
            "100 of 10,000 clients, 160 B",
            ISOLATED.clients(10_000, 100),
            None,
        ),
        relay("burst", "bursts of 8 × 1200 B, offload", BURSTS, Some(0.20)),
        relay(
            "burst-plain",
            "bursts of 8 × 1200 B, no offload",
            LARGE.shape(BURST),
            None,
        ),
        relay(
            "frames",
            "video frames of 1–12 packets, offload",
            FRAMES,
            None,
        ),
        relay(
            "frames-40k",
            "video frames, 5,000 clients, 40,000 packets/s",
            FRAMES.clients(5_000, 5_000).paced(40_000),
            None,
        ),
        veth(
            "echo-160-veth",
            "isolated, 160 B, over veth",
            ISOLATED,
            None,
        ),
        veth(
            "burst-veth",
            "bursts of 8 × 1200 B, over veth with GRO",
            BURSTS,
            Some(0.33),
        ),
        veth(
            "frames-veth",
            "video frames, over veth with GRO",
            FRAMES,
            None,
        ),
        relay(
            "pair",
            "both relayed here, isolated, 160 B",
            ISOLATED.flow(Flow::Pair),
            Some(0.40),
        ),
        relay(
            "pair-burst",
            "both relayed here, bursts",
            BURSTS.flow(Flow::Pair),
            Some(0.12),
        ),
        relay(
            "indications",
            "Send and Data, 160 B",
            ISOLATED.indications(),
            Some(0.85),
        ),
        relay(
            "tcp",
            "TCP clients, 1200 B",
            LARGE.over(Transport::Tcp),
            Some(0.70),
        ),
        relay(
            "tls",
            "TLS clients, 1200 B",
            LARGE.over(Transport::Tls),
            Some(0.70),
        ),
        relay(
            "tcp-burst",
            "TCP clients, bursts",
            BURSTS.over(Transport::Tcp),
            None,
        ),
        relay(
            "tls-burst",
            "TLS clients, bursts",
            BURSTS.over(Transport::Tls),
            None,
        ),
        other("binding", "STUN Binding", Task::Binding, Some(0.65)),
        other(
            "allocation",
            "allocation with one channel",
            Task::Allocation,
            Some(0.45),
        ),
        other(
            "idle",
            "idle allocations with a channel",
            Task::IdleMemory,
            Some(0.09),
        ),
        other(
            "half-open-udp",
            "challenged, then silent",
            Task::HalfOpen(Transport::Udp),
            None,
        ),
        other(
            "half-open-tcp",
            "connected, then silent",
            Task::HalfOpen(Transport::Tcp),
            None,
        ),
    ]
}
