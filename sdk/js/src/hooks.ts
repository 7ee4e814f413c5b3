// For the application's backend, in Node, Deno, Bun and workers: an entry of its own, which needs nothing else of the library.

/** Settings of `verifyHook`. */
export interface VerifyHookOptions {
  /** Seconds by which the time of the signature may differ from the clock of this machine; 300 by default, `Infinity` for any. */
  tolerance?: number;
  /** The time now, in milliseconds since 1970; that of this machine by default. */
  now?: number;
}

const TOLERANCE = 300;

/**
 * Of `callbox-client/hooks`: whether `header`, the `Callbox-Signature` of a request, was made for `body` with `hooks.secret`,
 * and not long ago. The body is what came, bytes or text, and not JSON that was parsed and written again. Whatever the
 * header holds, the answer is true or false; only an empty secret rejects, with a `TypeError`.
 *
 * ```js
 * if (!(await verifyHook(secret, request.headers['callbox-signature'], body))) return response.writeHead(401).end();
 * ```
 */
export async function verifyHook(
  secret: string | Uint8Array,
  header: string | readonly string[] | null | undefined,
  body: string | Uint8Array | ArrayBuffer,
  { tolerance = TOLERANCE, now = Date.now() }: VerifyHookOptions = {},
): Promise<boolean> {
  if (!secret?.length) throw new TypeError('verifyHook needs hooks.secret of the configuration, and got nothing: who signs with nothing can be anybody');
  const signature = parse(header);
  // Written so that a tolerance that is not a number refuses.
  if (!signature || !(Math.abs(now / 1000 - Number(signature.time)) <= tolerance)) return false;
  const subtle = await webCrypto();
  const key = await subtle.importKey('raw', bytes(secret), { name: 'HMAC', hash: 'SHA-256' }, false, ['verify']);
  // The comparison of `verify` takes the same time wherever two digests differ.
  return subtle.verify('HMAC', key, signature.digest, join(bytes(`${signature.time}.`), bytes(body)));
}

/** The parts of `t=1700000000,v1=9d71…`; nothing where one of them is absent, twice there or malformed. */
function parse(header: string | readonly string[] | null | undefined): { time: string; digest: Uint8Array<ArrayBuffer> } | undefined {
  if (typeof header !== 'string') return undefined;
  const found = new Map<string, string>();
  for (const part of header.split(',')) {
    const [, name, value] = /^(\w+)=(.*)$/.exec(part.trim()) ?? [];
    if (name === undefined || value === undefined) continue;
    if (found.has(name)) return undefined;
    found.set(name, value);
  }
  const [time, digest] = [found.get('t'), found.get('v1')];
  if (!time || !digest || !/^\d{1,15}$/.test(time) || !/^[\da-f]{64}$/i.test(digest)) return undefined;
  return { time, digest: Uint8Array.from(digest.match(/../g)!, (byte) => parseInt(byte, 16)) };
}

function bytes(data: string | Uint8Array | ArrayBuffer): Uint8Array<ArrayBuffer> {
  return typeof data === 'string' ? new TextEncoder().encode(data) : new Uint8Array(data);
}

function join(first: Uint8Array, second: Uint8Array): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(first.length + second.length);
  all.set(first);
  all.set(second, first.length);
  return all;
}

/** Node 18 has Web Cryptography in a module alone. The name is made here, so that bundlers for browsers do not look for it. */
async function webCrypto(): Promise<SubtleCrypto> {
  if (globalThis.crypto?.subtle) return crypto.subtle;
  const module = ['node', 'crypto'].join(':');
  const node = (await import(/* @vite-ignore */ /* webpackIgnore: true */ module)) as { webcrypto: Crypto };
  return node.webcrypto.subtle;
}
