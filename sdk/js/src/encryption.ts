import { CallboxError } from './errors.ts';
import type { Peer } from './peer.ts';
import { SFrame } from './sframe.ts';

/** Rounds of PBKDF2 that make a key of a passphrase. */
const ROUNDS = 600_000;

/** A key that everybody in the call knows, and the server does not. */
export interface EncryptionOptions {
  /** At least 16 random bytes. */
  key?: BufferSource;
  /** Words that people agreed on; the key is made of them and the room's name. */
  passphrase?: string;
  /** Where the worker is served, for pages whose content security policy forbids `blob:` workers. */
  worker?: string | URL;
}

interface Transformed {
  transform: unknown;
}

/** What the frames' worker reports. */
interface Report {
  peer: string;
  ok: boolean;
}

type TransformConstructor = new (worker: Worker, options: unknown) => unknown;

/** End-to-end encryption of one room: media frames in a worker, messages here. */
export class Encryption {
  /** Frames of other codecs cannot be cut into packets once they are sealed. */
  readonly codecs = ['video/VP8'];
  #worker: Worker;
  #messages = new SFrame();
  #ready: Promise<void>;
  #peers = new Map<string, Peer>();
  #prepared = new WeakSet<object>();

  /** @internal */
  constructor(room: string, options: EncryptionOptions) {
    if (!transformConstructor()) throw new CallboxError('unsupported', 'this browser has no RTCRtpScriptTransform, which end-to-end encryption needs');
    const url = options.worker ?? URL.createObjectURL(new Blob([CALLBOX_WORKER], { type: 'text/javascript' }));
    this.#worker = new Worker(url, { type: 'module' });
    this.#worker.onmessage = ({ data }: MessageEvent<Report>) => this.#peers.get(data.peer)?.setEncrypted(data.ok);
    this.#ready = this.setKey(room, options);
    this.#ready.catch(() => {});
  }

  /** @internal Rejects where the key is none. */
  get ready(): Promise<void> {
    return this.#ready;
  }

  /** @internal */
  async setKey(room: string, { key, passphrase }: EncryptionOptions): Promise<void> {
    const raw = key ?? (await derive(room, passphrase ?? ''));
    if (raw.byteLength < 16) throw new CallboxError('unsupported', 'encryption.key needs at least 16 bytes');
    this.#messages.setKey(raw);
    this.#worker.postMessage({ key: raw });
  }

  /** @internal */
  prepare(end: RTCRtpSender | RTCRtpReceiver, kind: string, peer: Peer): void {
    if (this.#prepared.has(end)) return;
    this.#prepared.add(end);
    this.#peers.set(peer.id, peer);
    const seals = 'replaceTrack' in end;
    const Transform = transformConstructor()!;
    (end as unknown as Transformed).transform = new Transform(this.#worker, { seals, kind, peer: peer.id });
  }

  /** @internal */
  forget(peer: Peer): void {
    this.#peers.delete(peer.id);
  }

  /** @internal */
  async seal(content: unknown): Promise<unknown> {
    await this.#ready;
    const bytes = await this.#messages.seal(new TextEncoder().encode(JSON.stringify(content ?? null)));
    return { callbox: { sframe: btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join('')) } };
  }

  /** @internal */
  async open(content: unknown): Promise<unknown> {
    await this.#ready;
    const sealed = (content as { callbox?: { sframe?: unknown } } | null)?.callbox?.sframe;
    if (typeof sealed !== 'string') throw new Error('not encrypted');
    const bytes = Uint8Array.from(atob(sealed), (letter) => letter.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(await this.#messages.open(bytes)));
  }

  /** @internal */
  close(): void {
    this.#worker.terminate();
  }
}

function transformConstructor(): TransformConstructor | undefined {
  return (globalThis as { RTCRtpScriptTransform?: TransformConstructor }).RTCRtpScriptTransform;
}

async function derive(room: string, passphrase: string): Promise<ArrayBuffer> {
  if (!passphrase) throw new CallboxError('unsupported', 'encryption needs a key or a passphrase');
  const text = new TextEncoder();
  const base = await crypto.subtle.importKey('raw', text.encode(passphrase.normalize('NFC')), 'PBKDF2', false, ['deriveBits']);
  return crypto.subtle.deriveBits({ name: 'PBKDF2', hash: 'SHA-256', salt: text.encode(`callbox ${room}`), iterations: ROUNDS }, base, 256);
}
