import { Emitter } from './emitter.ts';
import { CallboxError, quiet } from './errors.ts';
import type { Outgoing } from './link.ts';
import { Peer, type PeerHost } from './peer.ts';
import { outgoingFor, Publication, type PublishOptions } from './publication.ts';
import { Signal, type SignalOptions } from './signal.ts';
import type { Closed, Frame, Json, RegisterFields, TokenSource } from './wire.ts';

const VIDEO_BUDGET = 4_000_000;
const MEASURE_EVERY = 2_000;

/** How to register for direct calls. */
export interface RegisterOptions extends Omit<SignalOptions, 'token'> {
  /** The name under which others call. A token's `sub` takes its place. */
  identity?: string;
  token?: TokenSource;
  relayOnly?: boolean;
  rtcConfig?: RTCConfiguration;
}

/** How to call, or to accept a call. */
export interface CallOptions {
  /** The stream to send from the first moment on. */
  stream?: MediaStream;
  /** An object that the other side gets with the call, or with its acceptance. */
  metadata?: Json;
}

/** The state of a `Call`. */
export type CallStatus = 'ringing' | 'connecting' | 'connected' | 'ended';

/** Events of a `Call`. */
export interface CallEvents {
  status: [status: CallStatus];
  stream: [stream: MediaStream, label: string];
  message: [content: any];
  /** It is over: `hangup`, `rejected`, `busy`, `cancelled`, `timeout`, `answered-elsewhere`, `disconnected`, `closed`, or what the other side gave. */
  end: [reason: string];
}

/** Events of a `Phone`. */
export interface PhoneEvents {
  /** Somebody calls: `accept()` or `reject()`. */
  call: [call: Call];
  status: [status: Signal['status'], reason?: string];
}

/** A registered name: it calls, and is called, without a room. Made by `register`. */
export class Phone extends Emitter<PhoneEvents> {
  readonly signaling: Signal;
  /** Calls that ring or go on, by id. */
  readonly calls = new Map<string, Call>();
  identity = '';
  /** @internal */
  readonly options: RegisterOptions;

  /** @internal */
  constructor(url: string | URL | undefined, options: RegisterOptions) {
    super();
    this.options = options;
    const signal = (this.signaling = new Signal(url, options));
    signal.on('registered', ({ identity }) => (this.identity = identity));
    signal.on('status', (status) => status !== 'closed' && this.emit('status', status));
    signal.on('closed', ({ reason }: Closed) => {
      for (const call of [...this.calls.values()]) call.finish('closed');
      this.emit('status', 'closed', reason);
    });
    signal.on('call', ({ callId, from, fromIdentity, metadata }) => {
      const call = new Call(this, callId, { peerId: from, identity: fromIdentity }, true, metadata ?? null);
      this.emit('call', call);
    });
    signal.on('accept', (frame) => this.calls.get(frame.callId)?.accepted(frame));
    signal.on('reject', ({ callId, reason }) => this.calls.get(callId)?.finish(reason ?? 'rejected'));
    signal.on('hangup', ({ callId, reason }) => callId && this.calls.get(callId)?.finish(reason ?? 'hangup'));
    for (const type of ['offer', 'answer', 'candidate'] as const) signal.on(type, (frame) => this.calls.get(frame.callId ?? '')?.peer?.link?.receive(frame));
    signal.on('message', ({ callId, content }) => this.calls.get(callId ?? '')?.emit('message', content));
    signal.on('ice', () => this.calls.forEach((call) => call.peer?.link?.configure(call.config())));
    signal.on('resumed', ({ gap }) => this.calls.forEach((call) => void call.recover(gap)));
  }

  /** Calls an identity or a peer id. Resolves when it rings there. */
  call(to: string, options: CallOptions = {}): Promise<Call> {
    return quiet(
      this.signaling.request('call', { to, ...(options.metadata && { metadata: options.metadata }) }).then(({ callId }: Frame) => {
        const call = new Call(this, callId as string, { identity: to }, false, null);
        if (options.stream) call.take(options.stream);
        return call;
      }),
    );
  }

  /** Ends every call and gives the name up. */
  close(): void {
    for (const call of [...this.calls.values()]) call.hangup();
    this.signaling.leave();
  }
}

/** One direct call. */
export class Call extends Emitter<CallEvents> implements PeerHost {
  readonly id: string;
  readonly incoming: boolean;
  /** Who is called, or calls. */
  identity: string;
  /** What the other side gave with the call, or with its acceptance. */
  metadata: Json | null;
  status: CallStatus = 'ringing';
  /** Why it ended. */
  reason: string | undefined;
  /** The other side, once the call was accepted. */
  peer: Peer | null = null;
  /** @internal */
  readonly receives = ['audio', 'video'] as const;
  #phone: Phone;
  #from: string | undefined;
  #publications = new Set<Publication>();
  #timer: ReturnType<typeof setInterval> | undefined;

  /** @internal */
  constructor(phone: Phone, id: string, other: { peerId?: string; identity: string }, incoming: boolean, metadata: Json | null) {
    super();
    this.#phone = phone;
    this.#from = other.peerId;
    this.id = id;
    this.identity = other.identity;
    this.incoming = incoming;
    this.metadata = metadata;
    phone.calls.set(id, this);
  }

  /** Takes the call. */
  accept(options: CallOptions = {}): Promise<void> {
    return quiet(this.#accept(options));
  }

  /** Declines the call; other devices of this identity go on ringing. */
  reject(reason = 'rejected'): void {
    if (this.status !== 'ringing') return;
    this.#tell('reject', { reason });
    this.finish(reason);
  }

  /** Ends the call, or withdraws it while it rings. */
  hangup(reason?: string): void {
    if (this.status === 'ended') return;
    this.#tell('hangup', reason ? { reason } : {});
    this.finish(this.status === 'ringing' ? 'cancelled' : 'hangup');
  }

  /** Sends a message to the other side. */
  send(content: unknown): Promise<void> {
    if (!this.peer) return quiet(Promise.reject(new CallboxError('no-such-peer', 'nobody has accepted this call yet')));
    return quiet(this.#phone.signaling.request('message', { content, to: this.peer.peerId }).then(() => {}));
  }

  /** Sends another stream, or the present tracks of one that is being sent. */
  async publish(stream: MediaStream, options: PublishOptions = {}): Promise<Publication> {
    const publication = this.take(stream, options);
    await this.publicationChanged();
    return publication;
  }

  /** @internal */
  take(stream: MediaStream, options: PublishOptions = {}): Publication {
    let publication = [...this.#publications].find((one) => one.stream === stream);
    if (publication) publication.adopt();
    else this.#publications.add((publication = new Publication(this, stream, options)));
    return publication;
  }

  /** @internal The device that accepted is offered to. */
  accepted({ from, fromIdentity, metadata }: { from: string; fromIdentity: string; metadata?: Json | null }): void {
    if (this.status !== 'ringing' || this.incoming) return;
    this.metadata = metadata ?? null;
    this.identity = fromIdentity;
    this.#connect(from, true);
  }

  /** @internal */
  finish(reason: string): void {
    if (this.status === 'ended') return;
    clearInterval(this.#timer);
    this.#phone.calls.delete(this.id);
    this.#phone.signaling.attentive = this.#phone.calls.size > 0;
    this.peer?.close();
    this.reason = reason;
    this.#setStatus('ended');
    this.emit('end', reason);
  }

  /** @internal */
  async recover(gap: boolean): Promise<void> {
    const link = this.peer?.link;
    if (!link) return;
    if (gap) link.resend();
    if (link.connectMs !== null && !(await link.alive())) link.restart();
  }

  /** @internal */
  get peerId(): string | null {
    return this.#phone.signaling.peerId;
  }

  /** @internal */
  config(): RTCConfiguration {
    const { iceServers = [], iceTransportPolicy = 'all' } = this.#phone.signaling.ice ?? {};
    const { rtcConfig, relayOnly } = this.#phone.options;
    return { bundlePolicy: 'max-bundle', ...rtcConfig, iceServers, iceTransportPolicy: relayOnly ? 'relay' : iceTransportPolicy };
  }

  /** @internal */
  outgoing(): Outgoing[] {
    return outgoingFor(this.#publications, true);
  }

  /** @internal */
  signal(peer: Peer, type: string, fields: Json): void {
    this.#phone.signaling.request(type, { ...fields, to: peer.peerId }).catch(() => {});
  }

  /** @internal */
  linkChanged(peer: Peer): void {
    if (peer.status === 'connected') this.#setStatus('connected');
    else if (peer.status === 'disconnected') this.#phone.signaling.probe();
  }

  /** @internal */
  channelOpened(): void {}

  /** @internal */
  fellSilent(): void {}

  /** @internal */
  async publicationChanged(): Promise<void> {
    await this.peer?.publish();
  }

  /** @internal */
  async publicationEnded(publication: Publication): Promise<void> {
    if (this.#publications.delete(publication)) await this.publicationChanged();
  }

  async #accept({ stream, metadata }: CallOptions): Promise<void> {
    if (this.status !== 'ringing' || !this.incoming) throw new CallboxError('no-such-call', 'there is nothing to accept');
    if (stream) this.take(stream);
    try {
      await this.#phone.signaling.request('accept', { callId: this.id, ...(metadata && { metadata }) });
    } catch (error) {
      this.finish(error instanceof CallboxError ? error.code : 'closed');
      throw error;
    }
    if (this.#from) this.#connect(this.#from, false);
  }

  #connect(peerId: string, offers: boolean): void {
    const peer = new Peer(this, { peerId, identity: this.identity, role: 'member', state: {}, metadata: null, joinedAt: Date.now(), connection: 'online' });
    this.peer = peer;
    this.#phone.signaling.attentive = true;
    peer.on('stream', (stream, label) => this.emit('stream', stream, label));
    this.#setStatus('connecting');
    peer.connect(offers);
    this.#timer = setInterval(() => void peer.measure(VIDEO_BUDGET, 1), MEASURE_EVERY);
  }

  #tell(type: string, fields: Json): void {
    this.#phone.signaling.request(type, { ...fields, callId: this.id }).catch(() => {});
  }

  #setStatus(status: CallStatus): void {
    if (status === this.status || this.status === 'ended') return;
    this.status = status;
    this.emit('status', status);
  }
}

/** Takes a name, to call and be called without a room. */
export async function register(url: string | URL | undefined, options: RegisterOptions): Promise<Phone> {
  const phone = new Phone(url, options);
  const fields: RegisterFields = { ...(options.identity && { identity: options.identity }) };
  try {
    await phone.signaling.register(fields);
  } catch (error) {
    phone.signaling.leave();
    throw error;
  }
  return phone;
}
