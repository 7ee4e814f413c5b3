import { CallboxError } from './errors.ts';
import { instanceOf, type Peer } from './peer.ts';
import { SealedChannel } from './sealed.ts';
import { Seen, SFrame } from './sframe.ts';

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

/** What the frames' worker reports; nothing in it says that the worker runs. */
interface Report {
  peer?: string;
  ok?: boolean;
}

type TransformConstructor = new (worker: Worker, options: unknown) => unknown;

/**
 * End-to-end encryption of one room: media frames in a worker, messages and data channels here. What is sealed here is bound to
 * the room and to who sent it, and opened once: who has no key can neither repeat it nor pass it off as its own.
 */
export class Encryption {
  /** Frames of other codecs cannot be cut into packets once they are sealed. */
  readonly codecs = ['video/VP8'];
  #worker: Worker;
  #url: string | undefined;
  #room: string;
  #instance: string;
  #data = new SFrame();
  #seen = new Seen();
  #sealing: Promise<unknown> = Promise.resolve();
  #opening: Promise<unknown> = Promise.resolve();
  #ready: Promise<void>;
  #peers = new Map<string, Peer>();
  #prepared = new WeakSet<object>();

  /** @internal */
  constructor(room: string, instance: string, options: EncryptionOptions) {
    if (!transformConstructor()) throw new CallboxError('unsupported', 'this browser has no RTCRtpScriptTransform, which end-to-end encryption needs');
    this.#room = room;
    this.#instance = instance;
    if (!options.worker) this.#url = URL.createObjectURL(new Blob([CALLBOX_WORKER], { type: 'text/javascript' }));
    this.#worker = new Worker(options.worker ?? this.#url!, { type: 'module' });
    this.#worker.onmessage = ({ data: { peer, ok } }: MessageEvent<Report>) => {
      if (peer === undefined) this.#revoke();
      else this.#peers.get(peer)?.setEncrypted(Boolean(ok));
    };
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
    if (!(raw instanceof ArrayBuffer || ArrayBuffer.isView(raw))) throw new CallboxError('unsupported', 'encryption.key is an ArrayBuffer or a typed array; words are a passphrase');
    if (raw.byteLength < 16) throw new CallboxError('unsupported', 'encryption.key needs at least 16 bytes');
    this.#data.setKey(raw);
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
    this.#worker.postMessage({ forget: peer.id });
  }

  /** @internal In the order of the calls, so that counters rise in the order of sending. */
  seal(content: unknown): Promise<unknown> {
    const sealed = this.#sealing.then(async () => {
      await this.#ready;
      const bytes = await this.#data.seal(new TextEncoder().encode(JSON.stringify(content ?? null)), undefined, this.#bound('message', this.#instance));
      return { callbox: { sframe: btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join('')) } };
    });
    this.#sealing = sealed.catch(() => {});
    return sealed;
  }

  /** @internal In the order of the calls. */
  open(content: unknown, peer: Peer): Promise<unknown> {
    const opened = this.#opening.then(async () => {
      await this.#ready;
      const sealed = (content as { callbox?: { sframe?: unknown } } | null)?.callbox?.sframe;
      if (typeof sealed !== 'string') throw new Error('not encrypted');
      const bytes = Uint8Array.from(atob(sealed), (letter) => letter.charCodeAt(0));
      return JSON.parse(new TextDecoder().decode(await this.#open(bytes, 'message', instanceOf(peer.metadata))));
    });
    this.#opening = opened.catch(() => {});
    return opened;
  }

  /** @internal A data channel to that peer, made by `create`. */
  openChannel(peer: Peer, create: (init?: RTCDataChannelInit) => RTCDataChannel, init?: RTCDataChannelInit): RTCDataChannel {
    return this.#wrap(peer, create(SealedChannel.init(init)), init?.protocol);
  }

  /** @internal A data channel of that peer: `ready` gets it as soon as its protocol is known. */
  channelOpened(peer: Peer, channel: RTCDataChannel, ready: (channel: RTCDataChannel) => void): void {
    this.#wrap(peer, channel, undefined, ready);
  }

  #wrap(peer: Peer, channel: RTCDataChannel, protocol?: string, ready?: (channel: RTCDataChannel) => void): RTCDataChannel {
    const { label } = channel;
    const theirs = () => instanceOf(peer.metadata);
    const seals = {
      seal: (data: Uint8Array<ArrayBuffer>) => this.#data.seal(data, undefined, this.#bound('channel', this.#instance, theirs(), label)),
      open: (data: Uint8Array<ArrayBuffer>) => this.#open(data, 'channel', theirs(), this.#instance, label),
    };
    const known = ready && ((sealed: SealedChannel) => ready(sealed as unknown as RTCDataChannel));
    return new SealedChannel(channel, seals, protocol, known) as unknown as RTCDataChannel;
  }

  /** What is sealed by one and for one cannot be shown as another's: everybody in the room can see an instance, and copy it. */
  #bound(...names: (string | null)[]): Uint8Array<ArrayBuffer> {
    return new TextEncoder().encode(JSON.stringify(['callbox', this.#room, ...names]));
  }

  #open(data: Uint8Array<ArrayBuffer>, ...names: (string | null)[]): Promise<Uint8Array<ArrayBuffer>> {
    // What passes on different ways does not pass in one order.
    return this.#data.open(data, 0, this.#bound(...names), (kid, counter) => this.#seen.take(JSON.stringify([kid, ...names]), counter));
  }

  #revoke(): void {
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = undefined;
  }

  /** @internal */
  close(): void {
    this.#worker.terminate();
    this.#revoke();
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
