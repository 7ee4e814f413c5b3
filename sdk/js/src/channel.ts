import { EarlyEvents, Emitter } from './emitter.ts';
import { CallboxError, quiet } from './errors.ts';
import type { Peer } from './peer.ts';

/** Bytes that are handed to the browser ahead of the network, and that wait before them. */
const BUFFERED = 256 * 1024;
const QUEUED = 768 * 1024;
/** Bytes before the network that make what is of no use late come late. */
const LATE = 16 * 1024;
/** Channels of one name that one peer may open at a time. */
const MAX_SAME = 8;
/** Milliseconds in which one peer that data is for has to be connected. */
const CONNECTED_WITHIN = 30_000;

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

  /** The channel is gone; a browser may still call it open for a moment, and takes what nobody gets. */
  detach(): void {
    this.#channel = null;
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

  /** Hands over what is of no use late, or drops it. */
  writeNow(data: Raw): void {
    if (!this.#queue.length) this.#offer(data, sizeOf(data), LATE);
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

  #offer(data: Raw, size: number, most = BUFFERED): boolean {
    const channel = this.#channel;
    if (channel?.readyState !== 'open' || (channel.bufferedAmount && channel.bufferedAmount + size > most)) return false;
    channel.send(data as string);
    return true;
  }
}

function sizeOf(data: Raw): number {
  return typeof data === 'string' ? data.length * 2 : data.byteLength;
}

/** How a channel carries its messages. */
export interface ChannelOptions {
  /** False for what is of no use late, as cursor positions: nothing is sent twice, order is not kept, and what cannot go at once is dropped. */
  reliable?: boolean;
}

/** Events of a `Channel`. */
export interface ChannelEvents {
  /** What came before anybody listened comes to the first listener. */
  message: [data: any, peer: Peer];
  /** Data can pass to that peer. A new listener gets the peers that it can pass to already. */
  open: [peer: Peer];
  close: [peer: Peer];
}

interface End {
  pipe: Pipe;
  channels: Set<RTCDataChannel>;
  /** Ends the wait of what was sent to everybody, and not to this peer alone. */
  release: Set<() => void>;
}

/** Data between peers, directly and by name: everybody who opens a channel of one name is on it. */
export class Channel extends Emitter<ChannelEvents> {
  readonly name: string;
  #init: RTCDataChannelInit;
  #ends = new Map<Peer, End>();
  #peers: () => Iterable<Peer>;
  #early = new EarlyEvents();
  /** @internal False while only peers have opened it: this side then opens it to nobody. */
  wanted = false;

  /** @internal */
  constructor(name: string, peers: () => Iterable<Peer>, { reliable = true }: ChannelOptions) {
    super();
    this.name = name;
    this.#peers = peers;
    this.#init = reliable ? {} : { ordered: false, maxRetransmits: 0 };
  }

  /** @internal The application asked for it. */
  reachAll(): void {
    if (this.wanted) return;
    this.wanted = true;
    for (const peer of this.#peers()) this.reach(peer);
  }

  /** @internal */
  override past(event: string): Iterable<unknown[]> {
    if (event === 'open') return [...this.#ends.keys()].filter((peer) => this.isOpen(peer)).map((peer) => [peer]);
    return this.#early.take(event);
  }

  /**
   * Sends to everybody, or to one peer. Resolves when it was handed over to each who is connected; wait for that before
   * sending more of what is large. Who is not connected yet gets it later; one peer alone is waited for, half a minute at most.
   * On a channel that is not reliable it goes to those that it can go to at once.
   */
  send(data: ChannelData, to?: Peer): Promise<void> {
    const raw = encode(data);
    this.reachAll();
    const peers = (to ? [to] : [...this.#peers()]).filter(({ link }) => link);
    if (this.#init.maxRetransmits === 0) {
      for (const peer of peers) this.reach(peer).pipe.writeNow(raw);
      return Promise.resolve();
    }
    if (to) return peers.length ? this.#soon(this.reach(to).pipe.write(raw)) : Promise.resolve();
    const written = peers.map((peer) => {
      const end = this.reach(peer);
      const write = end.pipe.write(raw);
      return peer.status === 'connected' && unlessReleased(end, write);
    });
    return quiet(Promise.all(written).then(() => {}));
  }

  /** A peer without peer connections may never be connected. */
  #soon(write: Promise<void>): Promise<void> {
    let timer: ReturnType<typeof setTimeout>;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new CallboxError('timeout', 'the peer was not connected in time')), CONNECTED_WITHIN);
    });
    return quiet(Promise.race([write, late]).finally(() => clearTimeout(timer)));
  }

  /** True while data passes to that peer. */
  isOpen(peer: Peer): boolean {
    return this.#ends.get(peer)?.pipe.channel?.readyState === 'open';
  }

  #end(peer: Peer): End {
    let end = this.#ends.get(peer);
    if (!end) this.#ends.set(peer, (end = { pipe: new Pipe(), channels: new Set(), release: new Set() }));
    return end;
  }

  /** @internal The peer's connection failed: what was sent to everybody no longer waits for it. */
  release(peer: Peer): void {
    for (const release of [...(this.#ends.get(peer)?.release ?? [])]) release();
  }

  /** @internal Opens the channel to a peer, unless the peer opened it. */
  reach(peer: Peer): End {
    const end = this.#end(peer);
    const { link } = peer;
    if (link && link.state !== 'closed' && !end.channels.size) this.take(peer, link.openChannel(this.name, this.#init));
    return end;
  }

  /** @internal A channel to a peer: its own, or this side's. */
  take(peer: Peer, channel: RTCDataChannel): void {
    const { pipe, channels } = this.#end(peer);
    if (channels.size >= MAX_SAME) return channel.close();
    channels.add(channel);
    channel.binaryType = 'arraybuffer';
    channel.onmessage = ({ data }) => {
      const decoded = decode(data);
      if (!this.emit('message', decoded, peer)) this.#early.keep('message', decoded, peer);
    };
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
    end.pipe.detach();
    if (!forGood) return void (this.wanted && this.reach(peer));
    this.#ends.delete(peer);
    end.pipe.fail(new CallboxError('closed', 'the peer is gone'));
    this.emit('close', peer);
  }
}

/** Waits for what is being written, but no longer than the peer can be reached. */
function unlessReleased({ release }: End, write: Promise<void>): Promise<void> {
  return new Promise((resolve, reject) => {
    const released = () => resolve();
    release.add(released);
    write.then(resolve, reject).finally(() => release.delete(released));
  });
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
