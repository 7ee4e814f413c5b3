/**
 * What a browser's candidates say about the network between it and the box. No page, no connection: the check page gathers,
 * this judges.
 */

/** Reflexive candidates by the port that they stand for; browsers that hide local addresses give no such port. */
function mappings(candidates) {
  const ports = new Map();
  for (const { type, address, port, relatedAddress, relatedPort } of candidates) {
    if (type !== 'srflx') continue;
    // The same public address, seen from the same port of this machine.
    const key = relatedPort ? `${relatedAddress}:${relatedPort}` : address;
    ports.set(key, new Set(ports.get(key)).add(`${address}:${port}`));
  }
  return [...ports.values()];
}

/**
 * Judges the NAT from candidates that were gathered by asking two ports of one STUN server from one port of this machine:
 * `none` · `same` (one port for every destination: direct calls work) · `symmetric` (another port for each destination) ·
 * `blocked` (no answer over UDP) · `unknown` (there is a NAT, but only one of the ports answered).
 * `answered` is how many of the ports answered, `null` where the browser does not say.
 */
export function natOf({ answered, candidates }) {
  const mapped = mappings(candidates);
  const hosts = new Set(candidates.filter(({ type }) => type === 'host').map(({ address, port }) => `${address}:${port}`));
  if (!mapped.length) return answered ? 'none' : answered === 0 ? 'blocked' : 'unknown';
  if (mapped.some((ports) => ports.size > 1)) return 'symmetric';
  if (mapped.every((ports) => [...ports].every((port) => hosts.has(port)))) return 'none';
  return answered !== null && answered < 2 ? 'unknown' : 'same';
}

/**
 * The one verdict over everything that was tried: `{result, key}`. `socket` and `http` say what carries signaling. `relays` are the relay URLs' results by transport, as
 * `{udp: 'ok', tls: 'bad'}`.
 */
export function verdictOf({ socket, http, servers, nat, relays }) {
  if (!servers) return { result: 'warn', key: 'verdict.token' };
  if (!socket && !http) return { result: 'bad', key: 'verdict.signaling' };
  const media = mediaVerdict({ nat, relays });
  return socket || media.result !== 'ok' ? media : { result: 'warn', key: 'verdict.http' };
}

function mediaVerdict({ nat, relays }) {
  const works = Object.entries(relays).filter(([, result]) => result === 'ok').map(([transport]) => transport);
  const relayed = works.length > 0;
  if (nat === 'blocked' && !works.includes('udp')) {
    return relayed ? { result: 'warn', key: 'verdict.blocked' } : { result: 'bad', key: 'verdict.nothing' };
  }
  if (nat === 'symmetric') return relayed ? { result: 'ok', key: 'verdict.symmetric' } : { result: 'bad', key: 'verdict.symmetricAlone' };
  const key = { none: 'verdict.none', same: 'verdict.same' }[nat] ?? 'verdict.unknown';
  if (!Object.keys(relays).length) return { result: 'warn', key: `${key}Alone` };
  return relayed ? { result: 'ok', key } : { result: 'warn', key: `${key}Alone` };
}

/**
 * The families of addresses apart, `{family, result, address?}` each: `ok` where an answer came, `bad` where questions had none
 * while the other family got answers. A family that nothing is known of is left out. `errors` have the address that was asked from.
 */
export function familiesOf({ candidates, errors }) {
  const seen = (family) => candidates.find(({ type, address }) => type === 'srflx' && address && familyOf(address) === family)?.address;
  const silent = (family) => errors.some(({ address }) => address && familyOf(address) === family);
  const all = ['IPv4', 'IPv6'].map((family) => ({ family, address: seen(family) }));
  const answered = all.some(({ address }) => address);
  return all.flatMap(({ family, address }) => (address ? { family, result: 'ok', address } : answered && silent(family) ? { family, result: 'bad' } : []));
}

/** Loss from 0 to 1 and jitter in ms of echoes: `times` are the round trips in ms in the order of sending, `null` for a lost one. */
export function echoFigures(times) {
  const got = times.filter((ms) => ms !== null);
  let jitter = 0;
  for (let n = 1; n < got.length; n++) jitter += (Math.abs(got[n] - got[n - 1]) - jitter) / 16;
  const sorted = [...got].sort((a, b) => a - b);
  return {
    loss: times.length ? 1 - got.length / times.length : null,
    jitter: got.length > 1 ? jitter : null,
    rtt: sorted.length ? sorted[Math.floor(sorted.length / 2)] : null,
  };
}

/** IPv4 or IPv6. */
export const familyOf = (address) => (address.includes(':') ? 'IPv6' : 'IPv4');
