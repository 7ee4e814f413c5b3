/** How media travels: `direct`, `direct-nat` (through at least one NAT), `relay-udp`, `relay-tcp`, `relay-tls` (this side's leg to the relay), or `relay-remote` (only the peer is relayed). */
export type PathKind = 'direct' | 'direct-nat' | 'relay-udp' | 'relay-tcp' | 'relay-tls' | 'relay-remote';

/** The path to a peer, as it was measured last. */
export interface Path {
  kind: PathKind;
  /** What carries this side's packets, to the relay or to the peer; empty where the browser does not say. */
  transport: 'udp' | 'tcp' | 'tls' | '';
  /** Round-trip time in milliseconds, or null while it is unknown. */
  rtt: number | null;
  /** The part of the peer's packets that did not arrive since the measurement before, from 0 to 1; null without media. */
  loss: number | null;
  /** Bits a second sent and received since the measurement before. */
  up: number;
  down: number;
}

type Stats = Record<string, any>;

/** Reads the selected candidate pair out of a statistics report; null while there is none. */
export function selectedPair(report: RTCStatsReport): { pair: Stats; local: Stats; remote: Stats } | null {
  const get = (id: string | undefined) => (id === undefined ? undefined : (report as unknown as Map<string, Stats>).get(id));
  const all: Stats[] = [];
  report.forEach((stats: Stats) => all.push(stats));
  const transport = all.find(({ type, selectedCandidatePairId }) => type === 'transport' && selectedCandidatePairId);
  // Firefox has no transport statistics; it marks the pair itself.
  const pair = transport
    ? get(transport.selectedCandidatePairId)
    : all.find(({ type, selected, nominated, state }) => type === 'candidate-pair' && (selected ?? (nominated && state === 'succeeded')));
  const local = get(pair?.localCandidateId);
  const remote = get(pair?.remoteCandidateId);
  return pair && local && remote ? { pair, local, remote } : null;
}

/** Names the path of a pair in one word. */
export function kindOf(local: Stats, remote: Stats): PathKind {
  if (local.candidateType === 'relay') return `relay-${(local.relayProtocol ?? 'udp') as 'udp'}`;
  if (remote.candidateType === 'relay') return 'relay-remote';
  return local.candidateType === 'host' && remote.candidateType === 'host' ? 'direct' : 'direct-nat';
}

/** Turns two reports of one connection into figures. */
export class PathMeter {
  #last: { at: number; sent: number; received: number; lost: number; got: number } | null = null;

  measure(report: RTCStatsReport): Path | null {
    const selected = selectedPair(report);
    if (!selected) return null;
    const { pair, local, remote } = selected;
    let [lost, got] = [0, 0];
    report.forEach((stats: Stats) => {
      if (stats.type !== 'inbound-rtp') return;
      lost += stats.packetsLost ?? 0;
      got += stats.packetsReceived ?? 0;
    });
    const now = { at: performance.now(), sent: pair.bytesSent ?? 0, received: pair.bytesReceived ?? 0, lost, got };
    const last = this.#last ?? now;
    this.#last = now;
    const seconds = (now.at - last.at) / 1000;
    // Another pair counts from zero.
    const rate = (to: number, from: number) => (seconds > 0 && to >= from ? Math.round(((to - from) * 8) / seconds) : 0);
    const missing = Math.max(0, now.lost - last.lost);
    const expected = missing + Math.max(0, now.got - last.got);
    return {
      kind: kindOf(local, remote),
      transport: (local.candidateType === 'relay' ? local.relayProtocol : undefined) ?? local.protocol ?? '',
      rtt: pair.currentRoundTripTime === undefined ? null : Math.round(pair.currentRoundTripTime * 1000),
      loss: expected ? missing / expected : null,
      up: rate(now.sent, last.sent),
      down: rate(now.received, last.received),
    };
  }
}
