import { Emitter } from './emitter.ts';
import { CallboxError, quiet } from './errors.ts';
import type { Peer } from './peer.ts';

/** Bytes that are handed to the browser ahead of the network, and that wait before them. */
const BUFFERED = 256 * 1024;
const QUEUED = 768 * 1024;
/** Messages that are kept until the application listens. */
const UNHEARD = 64;

/** What a channel carries: JSON values, or bytes. */
export type ChannelData = unknown | ArrayBuffer | ArrayBufferView<ArrayBuffer>;
type Raw = string | ArrayBuffer | ArrayBufferView<ArrayBuffer>;

/** Writes into a data channel no faster than it takes; never more than 1 MiB waits. */
export class Pipe {
  #queue: { data: Raw; size: number; resolve(): void; reject(error: unknown): void }[] = [];
  #queued = 0;
  #channel: RTCDataChannel | null = null;

  /** Uses this channel from now on. */
  attach(channel: RTCDataChannel): void {
    this.#channel = channel;
    channel.bufferedAmountLowThreshold = BUFFERED / 2;
    channel.addEventListener('open', () => this.#flush());
    channel.addEventListener('bufferedamountlow', () => this.#flush());
    this.#flush();
  }

  get channel(): RTCDataChannel | null {
    return this.#channel;
  }

  /** Resolves when the browser has taken the data; rejects with `backpressure` where too much waits already. */
  write(data: Raw): Promise<void> {
    const size = sizeOf(data);
    if (!this.#queue.length && this.#offer(data, size)) return Promise.resolve();
    // One message larger than the bound may wait alone.
    if (this.#queued && this.#queued + size > QUEUED) return quiet(Promise.reject(new CallboxError('backpressure', 'too much is waiting to be sent: await what send() returns')));
    this.#queued += size;
    return quiet(new Promise((resolve, reject) => this.#queue.push({ data, size, resolve, reject })));
  }

  /** Fails what waits. */
  fail(error: CallboxError): void {
    this.#queued = 0;
    for (const { reject } of this.#queue.splice(0)) reject(error);
  }

  #flush(): void {
    for (let next; (next = this.#queue[0]); ) {
      try {
        if (!this.#offer(next.data, next.size)) return;
        next.resolve();
      } catch (error) {
        next.reject(error);
      }
      this.#queue.shift();
      this.#queued -= next.size;
    }
  }

  #offer(data: Raw, size: number): boolean {
    const channel = this.#channel;
    if (channel?.readyState !== 'open' || (channel.bufferedAmount && channel.bufferedAmount + size > BUFFERED)) return false;
    channel.send(data as string);
    return true;
  }
}

function sizeOf(data: Raw): number {
  return typeof data === 'string' ? data.length * 2 : data.byteLength;
}

/** How a channel carries its messages. */
export interface ChannelOptions {
  /** False for what is of no use late, as cursor positions: nothing is sent twice, and order is not kept. */
  reliable?: boolean;
}

/** Events of a `Channel`. */
export interface ChannelEvents {
  message: [data: any, peer: Peer];
  /** Data can pass to that peer. */
  open: [peer: Peer];
  close: [peer: Peer];
}

interface End {
  pipe: Pipe;
  channels: Set<RTCDataChannel>;
}

/** Data between peers, directly and by name: everybody who opens a channel of one name is on it. */
export class Channel extends Emitter<ChannelEvents> {
  readonly name: string;
  #init: RTCDataChannelInit;
  #ends = new Map<Peer, End>();
  #peers: () => Iterable<Peer>;
  #unheard: [data: unknown, peer: Peer][] | null = [];

  /** @internal */
  constructor(name: string, peers: () => Iterable<Peer>, { reliable = true }: ChannelOptions) {
    super();
    this.name = name;
    this.#peers = peers;
    this.#init = reliable ? {} : { ordered: false, maxRetransmits: 0 };
    for (const peer of peers()) this.reach(peer);
  }

  override on<K extends keyof ChannelEvents & string>(event: K, listener: (...args: ChannelEvents[K]) => unknown): this {
    super.on(event, listener);
    const early = event === 'message' ? this.#unheard : null;
    if (early) this.#unheard = null;
    for (const message of early ?? []) this.emit('message', ...message);
    return this;
  }

  /**
   * Sends to everybody, or to one peer. Resolves when it was handed over everywhere; wait for that before sending more
   * of what is large.
   */
  send(data: ChannelData, to?: Peer): Promise<void> {
    const raw = encode(data);
    const peers = to ? [to] : [...this.#peers()];
    return quiet(Promise.all(peers.filter(({ link }) => link).map((peer) => this.reach(peer).pipe.write(raw))).then(() => {}));
  }

  /** True while data passes to that peer. */
  isOpen(peer: Peer): boolean {
    return this.#ends.get(peer)?.pipe.channel?.readyState === 'open';
  }

  /** @internal Opens the channel to a peer, unless the peer opened it. */
  reach(peer: Peer): End {
    let end = this.#ends.get(peer);
    if (!end) this.#ends.set(peer, (end = { pipe: new Pipe(), channels: new Set() }));
    const { link } = peer;
    if (link && link.state !== 'closed' && !end.channels.size) this.take(peer, link.openChannel(this.name, this.#init));
    return end;
  }

  /** @internal A channel to a peer: its own, or this side's. */
  take(peer: Peer, channel: RTCDataChannel): void {
    let end = this.#ends.get(peer);
    if (!end) this.#ends.set(peer, (end = { pipe: new Pipe(), channels: new Set() }));
    const { pipe, channels } = end;
    channels.add(channel);
    channel.binaryType = 'arraybuffer';
    channel.onmessage = ({ data }) => this.#hear(decode(data), peer);
    const opened = () => {
      if (pipe.channel?.readyState !== 'open') pipe.attach(channel);
      if (pipe.channel === channel) this.emit('open', peer);
    };
    if (channel.readyState === 'open') opened();
    else channel.addEventListener('open', opened);
    channel.onclose = () => {
      channels.delete(channel);
      if (pipe.channel === channel) this.emit('close', peer);
    };
  }

  /** @internal The peer's connection was made anew, or is gone. */
  lose(peer: Peer, forGood: boolean): void {
    const end = this.#ends.get(peer);
    if (!end) return;
    for (const channel of end.channels) channel.onclose = channel.onmessage = null;
    end.channels.clear();
    if (!forGood) return void this.reach(peer);
    this.#ends.delete(peer);
    end.pipe.fail(new CallboxError('closed', 'the peer is gone'));
    this.emit('close', peer);
  }

  #hear(data: unknown, peer: Peer): void {
    if (!this.#unheard) this.emit('message', data, peer);
    else if (this.#unheard.length < UNHEARD) this.#unheard.push([data, peer]);
  }
}

function encode(data: ChannelData): Raw {
  if (data instanceof ArrayBuffer) return data;
  if (ArrayBuffer.isView(data)) return data as ArrayBufferView<ArrayBuffer>;
  return JSON.stringify(data ?? null);
}

function decode(data: unknown): unknown {
  if (typeof data !== 'string') return data;
  try {
    return JSON.parse(data);
  } catch {
    return data; // a peer without this library
  }
}
