import { Pipe } from './channel.ts';
import { Emitter } from './emitter.ts';
import { CallboxError, quiet } from './errors.ts';
import type { Peer } from './peer.ts';
import { Sha256 } from './sha256.ts';
import type { Json } from './wire.ts';

/** The label of the data channels that carry files; the rest of the offer is in the channel's `protocol`. */
export const FILE_LABEL = 'callbox.file';
/** Bytes in one message: every browser takes that much. */
const CHUNK = 64 * 1024;
/** Bytes that are read from a file at once. */
const READ = 1024 * 1024;
/** Bytes after which what was received is put into one `Blob`, which browsers may keep on disk. */
const GATHER = 8 * 1024 * 1024;
/** Transfers of one peer that are under way at a time; further ones wait at the sender. */
const MAX_OFFERS = 32;
/** The same at the receiver: the end of one may come after the beginning of the next. */
const MAX_INCOMING = 2 * MAX_OFFERS;
/** Ended transfers of one peer whose last word is said again where it was lost. */
const MAX_ENDED = 64;
/** Times that a peer may close the channel of a transfer before that is its answer. */
const MAX_CLOSES = 3;
/** Milliseconds before an offer whose channel the peer closed is made again. */
const OFFER_AGAIN_AFTER = 1_000;

/** The state of a transfer. */
export type FileStatus = 'offered' | 'flowing' | 'paused' | 'waiting' | 'done' | 'failed';

/** Events of a transfer. */
export interface FileEvents {
  /** Bytes so far, and in all. */
  progress: [bytes: number, size: number];
  /** `waiting` is a lost connection: the transfer goes on when the peer is back. */
  status: [status: FileStatus];
}

interface Offer {
  id: string;
  name: string;
  size: number;
  mime: string;
}

/** A file on its way, in either direction. */
abstract class FileTransfer extends Emitter<FileEvents> {
  readonly id: string;
  readonly name: string;
  readonly size: number;
  /** The file's media type. */
  readonly mime: string;
  readonly peer: Peer;
  /** Bytes that passed. */
  bytes = 0;
  status: FileStatus = 'offered';
  protected channel: RTCDataChannel | null = null;
  /** Whether a person paused it, on either side; a cut and a slow disk change nothing about that. */
  protected stopped = false;
  protected settle!: { resolve(value: any): void; reject(error: unknown): void };

  protected constructor(peer: Peer, { id, name, size, mime }: Offer) {
    super();
    this.peer = peer;
    this.id = id;
    this.name = name;
    this.size = size;
    this.mime = mime;
  }

  /** Stops until `resume()`; either side may do both, and a lost connection changes nothing about it. */
  pause(): void {
    if (this.status !== 'flowing' && this.status !== 'waiting') return;
    this.stopped = true;
    this.say({ pause: true });
    if (this.status === 'flowing') this.setStatus('paused');
  }

  /** Goes on after `pause()`. */
  resume(): void {
    this.stopped = false;
    this.say({ go: true });
    this.#goOn();
  }

  #goOn(): void {
    if (this.status !== 'paused') return;
    this.setStatus('flowing');
    this.goOn();
  }

  /** Nobody holds it up any more. */
  protected abstract goOn(): void;

  /** Gives the transfer up on both sides. */
  cancel(): void {
    this.say({ cancel: true });
    this.fail('aborted', 'the transfer was given up');
  }

  /** @internal */
  get ended(): boolean {
    return this.status === 'done' || this.status === 'failed';
  }

  /** @internal */
  fail(code: string, text: string): void {
    if (this.ended) return;
    this.setStatus('failed');
    this.settle.reject(new CallboxError(code, text));
    this.detach();
  }

  /** @internal */
  abstract flow(): void;

  protected attach(channel: RTCDataChannel): void {
    this.detach();
    this.channel = channel;
    channel.binaryType = 'arraybuffer';
    channel.onmessage = ({ data }) => {
      if (typeof data !== 'string') return this.took(new Uint8Array(data));
      let message: Json;
      try {
        message = JSON.parse(data);
      } catch {
        return;
      }
      if (typeof message !== 'object' || !message) return;
      if (message.pause) {
        this.stopped = true;
        if (this.status === 'flowing') this.setStatus('paused');
      } else if (message.go) {
        this.stopped = false;
        this.#goOn();
      } else if (message.cancel) this.fail('aborted', 'the peer gave the transfer up');
      else this.answered(message);
    };
    channel.onclose = () => {
      if (channel === this.channel) this.closed();
    };
  }

  protected detach(): void {
    const { channel } = this;
    this.channel = null;
    if (!channel) return;
    channel.onmessage = channel.onclose = null;
    // What was said last is on its way; the close follows it.
    whenOpen(channel, () => channel.close());
  }

  /** @internal The connection below is gone. */
  dropped(): void {
    if (this.channel) this.cut();
  }

  /** The peer closed the channel, or its page is gone. */
  protected closed(): void {
    this.cut();
  }

  protected cut(): void {
    const { channel } = this;
    if (channel) channel.onmessage = channel.onclose = null;
    this.channel = null;
    if (!this.ended && this.status !== 'offered') this.setStatus('waiting');
  }

  protected say(message: Json): void {
    const { channel } = this;
    if (channel) whenOpen(channel, () => channel.readyState === 'open' && channel.send(JSON.stringify(message)));
  }

  protected advance(bytes: number): void {
    this.bytes = bytes;
    this.emit('progress', bytes, this.size);
  }

  protected setStatus(status: FileStatus): void {
    if (status === this.status) return;
    this.status = status;
    this.emit('status', status);
  }

  protected took(_: Uint8Array<ArrayBuffer>): void {}
  protected abstract answered(message: Json): void;
}

/** A file that this side sends. */
export class OutgoingFile extends FileTransfer {
  /** Resolves when the peer has the whole file and its SHA-256 is right. */
  readonly done: Promise<void>;
  #file: Blob;
  #isDue = false;
  #pipe = new Pipe();
  #hash = new Sha256();
  #running = 0;
  #busy = false;
  /** Whether the peer's disk is behind. */
  #held = false;
  #closes = 0;

  /** @internal */
  constructor(peer: Peer, file: Blob, id: string, name: string) {
    super(peer, { id, name, size: file.size, mime: file.type });
    this.#file = file;
    this.done = quiet(new Promise((resolve, reject) => (this.settle = { resolve, reject })));
  }

  /** @internal Its turn has come. */
  start(): void {
    this.#isDue = true;
    this.wake();
  }

  /** @internal Offers the file, or what is missing of it, as soon as the peer can be reached. */
  wake(): void {
    const { link } = this.peer;
    if (!this.#isDue || this.ended || this.channel || !link || link.state === 'closed') return;
    const { id, name, size, mime } = this;
    this.#pipe = new Pipe();
    this.#held = false;
    const channel = link.openChannel(FILE_LABEL, { protocol: JSON.stringify({ id, name, size, mime }) });
    this.attach(channel);
    this.#pipe.attach(channel);
  }

  /** @internal */
  override flow(): void {
    // One that was paused and has not come to see it simply goes on; one that has said all waits for the answer.
    if (this.#busy) return;
    this.#busy = true;
    void this.#run(++this.#running).catch((error: unknown) => {
      // A cut connection is no failure: the transfer waits for the next one.
      if (!(error instanceof CallboxError) && this.channel?.readyState === 'open') this.fail('file', `the file cannot be read: ${String(error)}`);
    });
  }

  protected override answered(message: Json): void {
    if (message.full || message.room) {
      this.#held = Boolean(message.full);
      if (!this.#held && this.status === 'flowing') this.flow();
    } else if (message.no) this.fail('rejected', 'the peer did not want the file');
    else if (message.bad) this.fail('file', 'the file arrived damaged');
    else if (message.ok) {
      this.advance(this.size);
      this.setStatus('done');
      this.settle.resolve(undefined);
      this.detach();
    } else if (typeof message.at === 'number' && message.at >= 0 && message.at <= this.size) {
      this.#interrupt();
      this.bytes = message.at;
      if (this.stopped && !message.paused) this.say({ pause: true });
      this.stopped ||= Boolean(message.paused);
      this.setStatus(this.stopped ? 'paused' : 'flowing');
      if (!this.stopped) this.flow();
    }
  }

  protected override goOn(): void {
    this.flow();
  }

  #interrupt(): void {
    this.#running++;
    this.#busy = false;
  }

  /** @internal The connection was made anew: the offer goes over the next one at once. */
  override dropped(): void {
    this.#closes = 0;
    super.dropped();
    this.wake();
  }

  /** A peer that closes the channel again and again has answered. */
  protected override closed(): void {
    if (++this.#closes > MAX_CLOSES) this.fail('rejected', 'the peer closed the transfer');
    else this.cut();
  }

  protected override cut(): void {
    this.#interrupt();
    this.#pipe.fail(new CallboxError('closed'));
    super.cut();
    // A peer that closes the channel would close the next one too.
    setTimeout(() => this.wake(), OFFER_AGAIN_AFTER);
  }

  async #run(run: number): Promise<void> {
    const pipe = this.#pipe;
    while (this.bytes < this.size) {
      const part = new Uint8Array(await this.#file.slice(this.bytes, this.bytes + READ).arrayBuffer());
      for (let at = 0; at < part.length; at += CHUNK) {
        if (run !== this.#running) return;
        if (this.status !== 'flowing' || this.#held) return void (this.#busy = false);
        const chunk = part.subarray(at, at + CHUNK);
        await pipe.write(chunk);
        if (run !== this.#running) return;
        // What is sent a second time after a cut is in the hash already.
        const fresh = this.bytes + chunk.length - this.#hash.length;
        if (fresh > 0) this.#hash.update(chunk.subarray(chunk.length - fresh));
        this.advance(this.bytes + chunk.length);
        this.#closes = 0;
      }
    }
    this.#digest ??= this.#hash.hex();
    await pipe.write(JSON.stringify({ end: true, sha256: this.#digest }));
  }

  #digest: string | undefined;
}

/** A file that a peer offers. */
export class IncomingFile extends FileTransfer {
  /** Resolves to the file, or to an empty one where it was written to `sink`. */
  readonly done: Promise<File>;
  #parts: BlobPart[] = [];
  #gathered = 0;
  #hash = new Sha256();
  #accepted = false;
  #sink: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>> | null = null;
  #unwritten = 0;
  /** Whether this side has said over the present channel where the sender is to begin. */
  #asked = false;
  /** Whether the sender has said the end. */
  #whole = false;
  /** @internal What the sender was told at the end. */
  lastWord: Json | undefined;

  /** @internal */
  constructor(peer: Peer, offer: Offer) {
    super(peer, offer);
    this.done = quiet(new Promise((resolve, reject) => (this.settle = { resolve, reject })));
  }

  /** Takes the file; into `sink` where one is given, as from `showSaveFilePicker()`, else into memory and disk of the browser. */
  accept(sink?: WritableStream<Uint8Array<ArrayBuffer>>): Promise<File> {
    if (!this.#accepted) {
      this.#accepted = true;
      this.#sink = sink?.getWriter() ?? null;
      this.flow();
    }
    return this.done;
  }

  /** Declines the file. */
  reject(): void {
    this.#sayLast({ no: true });
    this.fail('rejected', 'the file was declined');
  }

  /** @internal The peer's channel: the first, or one after a cut. */
  reopen(channel: RTCDataChannel): void {
    this.attach(channel);
    this.#asked = false;
    if (this.#accepted) this.flow();
  }

  /** @internal */
  override flow(): void {
    if (this.status === 'flowing' && !this.channel) return;
    this.setStatus(this.stopped ? 'paused' : 'flowing');
    if (this.channel) this.#asked = true;
    this.say({ at: this.bytes, ...(this.stopped && { paused: true }) });
    if (this.#unwritten > READ) this.say({ full: true });
  }

  protected override goOn(): void {
    // After a cut the sender does not know yet where to begin.
    if (!this.#asked) this.flow();
  }

  #sayLast(message: Json): void {
    this.lastWord = message;
    this.say(message);
  }

  protected override took(chunk: Uint8Array<ArrayBuffer>): void {
    if (this.ended || !this.#accepted) return;
    if (this.bytes + chunk.length > this.size) return this.#spoil();
    this.#hash.update(chunk);
    if (this.#sink) this.#write(chunk);
    else this.#keep(chunk);
    this.advance(this.bytes + chunk.length);
  }

  protected override answered(message: Json): void {
    if (!message.end || this.ended || this.#whole) return;
    this.#whole = true;
    if (this.bytes !== this.size || this.#hash.hex() !== message.sha256) return this.#spoil();
    void this.#finish().catch((error: unknown) => this.#unwritable(error));
  }

  override fail(code: string, text: string): void {
    this.#parts = [];
    this.lastWord ??= { cancel: true };
    this.#sink?.abort(text).catch(() => {});
    super.fail(code, text);
  }

  async #finish(): Promise<void> {
    await this.#sink?.close();
    this.#sayLast({ ok: true });
    this.setStatus('done');
    this.settle.resolve(new File(this.#parts, this.name, { type: this.mime }));
    this.#parts = [];
  }

  #spoil(): void {
    this.#sayLast({ bad: true });
    this.fail('file', 'the file arrived damaged');
  }

  #unwritable(error: unknown): void {
    this.#sayLast({ cancel: true });
    this.fail('file', `the file cannot be written: ${String(error)}`);
  }

  #keep(chunk: Uint8Array<ArrayBuffer>): void {
    this.#parts.push(chunk);
    this.#gathered += chunk.length;
    if (this.#gathered < GATHER) return;
    this.#parts = [new Blob(this.#parts)];
    this.#gathered = 0;
  }

  /** A disk slower than the network holds the sender up. */
  #write(chunk: Uint8Array<ArrayBuffer>): void {
    const wasFull = this.#unwritten > READ;
    this.#unwritten += chunk.length;
    if (this.#unwritten > READ && !wasFull) this.say({ full: true });
    this.#sink!.write(chunk).then(
      () => {
        const full = this.#unwritten > READ;
        this.#unwritten -= chunk.length;
        if (full && this.#unwritten <= READ) this.say({ room: true });
      },
      (error: unknown) => this.#unwritable(error),
    );
  }
}

/** The files of a room. */
export class FileDesk {
  #incoming = new Map<Peer, Map<string, IncomingFile>>();
  #outgoing = new Map<Peer, Set<OutgoingFile>>();
  /** The last word about the files that a peer offered, by their ids. */
  #ended = new Map<Peer, Map<string, Json>>();
  #offered: (file: IncomingFile, peer: Peer) => void;
  #lastId = 0;

  constructor(offered: (file: IncomingFile, peer: Peer) => void) {
    this.#offered = offered;
  }

  send(peer: Peer, file: Blob, name = (file as File).name ?? 'file'): OutgoingFile {
    const transfer = new OutgoingFile(peer, file, `${Date.now().toString(36)}-${++this.#lastId}`, name);
    let all = this.#outgoing.get(peer);
    if (!all) this.#outgoing.set(peer, (all = new Set()));
    all.add(transfer);
    const next = () => [...all].slice(0, MAX_OFFERS).forEach((one) => one.start());
    const forget = () => (all.delete(transfer), next());
    transfer.done.then(forget, forget);
    next();
    return transfer;
  }

  take(peer: Peer, channel: RTCDataChannel): void {
    const offer = readOffer(channel.protocol);
    let all = this.#incoming.get(peer);
    if (!all) this.#incoming.set(peer, (all = new Map()));
    const known = offer && all.get(offer.id);
    if (known && !known.ended) return known.reopen(channel);
    if (!offer || known) return channel.close();
    const last = this.#ended.get(peer)?.get(offer.id);
    if (last) return sayLast(channel, last);
    if (all.size >= MAX_INCOMING) return sayLast(channel, { no: true });
    const file = new IncomingFile(peer, offer);
    all.set(offer.id, file);
    const forget = () => (all.delete(offer.id), this.#remember(peer, file));
    file.done.then(forget, forget);
    file.reopen(channel);
    this.#offered(file, peer);
  }

  #remember(peer: Peer, { id, lastWord }: IncomingFile): void {
    // A peer that is gone comes back as another one.
    if (!lastWord || !this.#incoming.has(peer)) return;
    let ended = this.#ended.get(peer);
    if (!ended) this.#ended.set(peer, (ended = new Map()));
    ended.set(id, lastWord);
    if (ended.size > MAX_ENDED) ended.delete(ended.keys().next().value!);
  }

  /** Offers that nobody answered yet. */
  offers(): [file: IncomingFile, peer: Peer][] {
    return [...this.#incoming.values()].flatMap((all) => [...all.values()]).filter(({ status }) => status === 'offered').map((file) => [file, file.peer]);
  }

  /** The peer's connection changed. */
  wake(peer: Peer): void {
    if (peer.status === 'connected') for (const file of this.#outgoing.get(peer) ?? []) file.wake();
  }

  /** The peer's connection was made anew, and the channels with it. */
  reset(peer: Peer): void {
    for (const file of this.#outgoing.get(peer) ?? []) file.dropped();
    for (const file of this.#incoming.get(peer)?.values() ?? []) file.dropped();
  }

  /** The peer is gone. */
  lose(peer: Peer): void {
    for (const file of [...(this.#outgoing.get(peer) ?? []), ...(this.#incoming.get(peer)?.values() ?? [])]) file.fail('closed', 'the peer is gone');
    this.#outgoing.delete(peer);
    this.#incoming.delete(peer);
    this.#ended.delete(peer);
  }
}

/** A channel that a peer opened may open a moment later here. */
function whenOpen(channel: RTCDataChannel, work: () => void): void {
  if (channel.readyState === 'connecting') channel.addEventListener('open', work);
  else work();
}

/** Says the last word about a transfer over a channel of the peer. */
function sayLast(channel: RTCDataChannel, message: Json): void {
  whenOpen(channel, () => {
    if (channel.readyState === 'open') channel.send(JSON.stringify(message));
    channel.close();
  });
}

function readOffer(text: string): Offer | null {
  try {
    const { id, name, size, mime } = JSON.parse(text) as Offer;
    const right = typeof id === 'string' && id.length <= 64 && Number.isSafeInteger(size) && size >= 0;
    // A name is a name, never a path, and shows the ending that it has: no character turns the direction of what follows.
    return right ? { id, size, name: String(name).slice(0, 255).replace(/[/\\\p{Cc}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, '_') || 'file', mime: typeof mime === 'string' ? mime : '' } : null;
  } catch {
    return null;
  }
}
