/** SFrame (RFC 9605) with AES-128-GCM: what a frame, or a message, looks like on its way between two who share a key. */

/** AES_128_GCM_SHA256_128. */
const SUITE = 0x0004;
const TAG_BITS = 128;
/** Bytes of a sender's key id: random, so that no two senders ever use a counter under one key. */
const KID_BYTES = 7;
/** Keys of senders that are kept derived. */
const MAX_SENDERS = 256;
/** Senders whose counters are remembered, and how far back each goes. */
const MAX_SEEN = 1024;
const SEEN_BACK = 1024;

interface SenderKey {
  key: CryptoKey;
  salt: Uint8Array;
}

/** Seals under this side's own key id and opens what others sealed. All of them know the same base key. */
export class SFrame {
  #bases: Promise<CryptoKey>[] = [];
  #kid = crypto.getRandomValues(new Uint8Array(KID_BYTES));
  #counter = 0;
  #keys = new Map<string, Promise<SenderKey>>();

  /** Seals with this key from now on; what others still seal with the one before is opened too. */
  setKey(raw: BufferSource): void {
    this.#bases = [crypto.subtle.importKey('raw', raw, 'HKDF', false, ['deriveBits', 'deriveKey']), ...this.#bases.slice(0, 1)];
    this.#kid = crypto.getRandomValues(new Uint8Array(KID_BYTES));
    this.#counter = 0;
    this.#keys.clear();
  }

  /** `clear` stays readable in front of what is sealed; what both sides know (`bound`) is not sent, and has to be the same for both. */
  async seal(data: Uint8Array<ArrayBuffer>, clear = new Uint8Array(), bound = new Uint8Array()): Promise<Uint8Array<ArrayBuffer>> {
    const base = this.#bases[0];
    if (!base) throw new Error('no key');
    const counter = this.#counter++;
    const header = writeHeader(this.#kid, counter);
    const { key, salt } = await this.#derive(base, this.#kid, 0);
    const iv = nonce(salt, counter);
    const sealed = new Uint8Array(await crypto.subtle.encrypt({ name: 'AES-GCM', iv, additionalData: join(header, clear, bound), tagLength: TAG_BITS }, key, data));
    return join(clear, header, sealed);
  }

  /** Opens what `seal` made, `clear` bytes of which were left as they are; rejects what no key opens, and what `fresh` refuses. */
  async open(data: Uint8Array<ArrayBuffer>, clear = 0, bound = new Uint8Array(), fresh?: (kid: string, counter: number) => boolean): Promise<Uint8Array<ArrayBuffer>> {
    const { kid, counter, length } = readHeader(data.subarray(clear));
    const prefix = data.subarray(0, clear);
    const header = data.subarray(clear, clear + length);
    let failure: unknown = new Error('no key');
    for (const [index, base] of this.#bases.entries()) {
      try {
        const { key, salt } = await this.#derive(base, kid, index);
        const parameters = { name: 'AES-GCM', iv: nonce(salt, counter), additionalData: join(header, prefix, bound), tagLength: TAG_BITS };
        const opened = new Uint8Array(await crypto.subtle.decrypt(parameters, key, data.subarray(clear + length)));
        if (fresh?.(kid.join(), counter) === false) throw new Error('a repetition');
        return join(prefix, opened);
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  /** RFC 9605, section 4.4.2. */
  #derive(base: Promise<CryptoKey>, kid: Uint8Array, index: number): Promise<SenderKey> {
    const name = `${index}/${kid.join()}`;
    let derived = this.#keys.get(name);
    if (!derived) {
      if (this.#keys.size >= MAX_SENDERS) this.#keys.delete(this.#keys.keys().next().value!);
      const info = (label: string) => {
        const id = new Uint8Array(10);
        id.set(kid, 8 - kid.length);
        new DataView(id.buffer).setUint16(8, SUITE);
        return join(new TextEncoder().encode(`SFrame 1.0 Secret ${label} `), id);
      };
      const hkdf = (label: string) => ({ name: 'HKDF', hash: 'SHA-256', salt: new Uint8Array(), info: info(label) });
      derived = base.then(async (from) => ({
        key: await crypto.subtle.deriveKey(hkdf('key'), from, { name: 'AES-GCM', length: 128 }, false, ['encrypt', 'decrypt']),
        salt: new Uint8Array(await crypto.subtle.deriveBits(hkdf('salt'), from, 96)),
      }));
      this.#keys.set(name, derived);
    }
    return derived;
  }
}

/** The counters that came of each sender: nothing is opened twice. */
export class Seen {
  #senders = new Map<string, { highest: number; counters: Set<number> }>();

  /** False where this counter came before, or is too old to be known. */
  take(name: string, counter: number): boolean {
    const sender = this.#senders.get(name) ?? { highest: -1, counters: new Set() };
    const { counters } = sender;
    if (counter <= sender.highest - SEEN_BACK || counters.has(counter)) return false;
    counters.add(counter);
    sender.highest = Math.max(sender.highest, counter);
    if (counters.size > 2 * SEEN_BACK) for (const old of counters) if (old <= sender.highest - SEEN_BACK) counters.delete(old);
    // The sender that was silent for longest is forgotten first.
    this.#senders.delete(name);
    this.#senders.set(name, sender);
    if (this.#senders.size > MAX_SEEN) this.#senders.delete(this.#senders.keys().next().value!);
    return true;
  }
}

/** RFC 9605, section 4.3: small numbers are in the first byte, others follow it with their length in the first byte. */
function writeHeader(kid: Uint8Array, counter: number): Uint8Array<ArrayBuffer> {
  const bytes: number[] = [];
  for (let rest = counter; rest > 0; rest = Math.floor(rest / 256)) bytes.unshift(rest % 256);
  const small = counter < 8;
  const first = 0x80 | ((kid.length - 1) << 4) | (small ? counter : 0x08 | (bytes.length - 1));
  return Uint8Array.of(first, ...kid, ...(small ? [] : bytes));
}

function readHeader(data: Uint8Array): { kid: Uint8Array; counter: number; length: number } {
  const first = data[0] ?? 0;
  const [k, c] = [(first >> 4) & 7, first & 7];
  const kidBytes = first & 0x80 ? k + 1 : 0;
  const counterBytes = first & 0x08 ? c + 1 : 0;
  const length = 1 + kidBytes + counterBytes;
  if (data.length < length) throw new Error('truncated');
  const kid = kidBytes ? data.slice(1, 1 + kidBytes) : Uint8Array.of(k);
  const counter = counterBytes ? data.slice(1 + kidBytes, length).reduce((sum, byte) => sum * 256 + byte, 0) : c;
  return { kid, counter, length };
}

function nonce(salt: Uint8Array, counter: number): Uint8Array<ArrayBuffer> {
  const iv = new Uint8Array(salt);
  for (let at = iv.length - 1, rest = counter; rest > 0; at--, rest = Math.floor(rest / 256)) iv[at]! ^= rest % 256;
  return iv;
}

function join(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
