import { EarlyEvents, Emitter } from './emitter.ts';
import { CallboxError, quiet } from './errors.ts';
import { warmUp, type Outgoing } from './link.ts';
import { instanceOf, Peer, type PeerHost } from './peer.ts';
import { outgoingFor, Publication, type PublishOptions } from './publication.ts';
import { PATIENT, randomName, WATCH_EVERY } from './room.ts';
import { Signal, type SignalOptions } from './signal.ts';
import type { Closed, Frame, Json, RegisterFields, TokenSource } from './wire.ts';

const VIDEO_BUDGET = 4_000_000;
const MEASURE_EVERY = 2_000;
/** Milliseconds in which the reason of a hang-up comes by signaling after the connection itself said goodbye. */
const REASON_WITHIN = 1_500;
/** Milliseconds between two tries to bind a call anew whose session at the server is gone. */
const BIND_AGAIN_EVERY = 1_500;

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
  /** A listener that comes after the end gets `ended`. */
  status: [status: CallStatus];
  /** A new listener gets the streams that are there. */
  stream: [stream: MediaStream, label: string];
  /** What came before anybody listened comes to the first listener. */
  message: [content: any];
  /** It is over: `hangup`, `rejected`, `busy`, `cancelled`, `timeout`, `answered-elsewhere`, `disconnected`, `closed`, or what the other side gave. A listener that comes after the end gets it too. */
  end: [reason: string];
}

/** Events of a `Phone`. */
export interface PhoneEvents {
  /** Somebody calls: `accept()` or `reject()`. A new listener gets the calls that ring. */
  call: [call: Call];
  /** A listener that comes after the end gets `closed`. */
  status: [status: Signal['status'], reason?: string];
}

/** A registered name: it calls, and is called, without a room. Made by `register`. */
export class Phone extends Emitter<PhoneEvents> {
  readonly signaling: Signal;
  /** Calls that ring or go on, by id. */
  readonly calls = new Map<string, Call>();
  identity = '';
  /** Why the name was given up. */
  reason: string | undefined;
  /** @internal */
  readonly options: RegisterOptions;
  /** @internal Calls that are being bound anew, by the id that they will have. */
  readonly binding = new Map<string, Call>();
  /** @internal By it, devices of this library know each other. */
  readonly instance = randomName();
  #goodbye = ({ persisted }: PageTransitionEvent) => {
    if (!persisted) return this.close();
    for (const call of [...this.calls.values()]) call.hangup();
  };

  /** @internal */
  constructor(url: string | URL | undefined, options: RegisterOptions) {
    super();
    this.options = options;
    const signal = (this.signaling = new Signal(url, options));
    signal.on('registered', ({ identity }) => {
      this.identity = identity;
      // A new session: the server knows nothing of the calls that go on.
      for (const call of [...this.calls.values()]) call.lose('disconnected', true);
    });
    signal.on('status', (status) => status !== 'closed' && this.emit('status', status));
    signal.on('closed', ({ reason }: Closed) => {
      if (typeof window !== 'undefined') window.removeEventListener('pagehide', this.#goodbye);
      for (const call of [...this.calls.values()]) reason === 'left' ? call.finish('closed') : call.lose('closed', false);
      this.reason = reason;
      this.emit('status', 'closed', reason);
    });
    if (typeof window !== 'undefined') window.addEventListener('pagehide', this.#goodbye);
    signal.on('call', ({ callId, from, fromIdentity, metadata }) => {
      const thread = threadOf(metadata, 'goesOn');
      if (thread !== undefined) return this.#bindAgain(callId, from, fromIdentity, thread);
      const call = new Call(this, callId, { peerId: from, identity: fromIdentity }, true, metadata ?? null);
      this.emit('call', call);
    });
    signal.on('accept', (frame) => {
      const again = this.binding.get(frame.callId);
      if (again) again.bound(frame.callId, frame.from);
      else this.calls.get(frame.callId)?.accepted(frame);
      this.binding.delete(frame.callId);
    });
    signal.on('reject', ({ callId, reason }) => this.#bindingEnded(callId) || this.calls.get(callId)?.finish(reason ?? 'rejected'));
    signal.on('hangup', ({ callId, reason }) => {
      const call = callId && !this.#bindingEnded(callId) ? this.calls.get(callId) : undefined;
      // The other side's session is over, and perhaps not its media.
      if (reason === 'disconnected') call?.lose(reason, false);
      else call?.finish(reason ?? 'hangup');
    });
    for (const type of ['offer', 'answer', 'candidate'] as const) signal.on(type, (frame) => this.calls.get(frame.callId ?? '')?.receive(frame));
    signal.on('message', ({ callId, content }) => this.calls.get(callId ?? '')?.deliver(content));
    signal.on('ice', () => this.calls.forEach((call) => call.peer?.link?.configure(call.config())));
    signal.on('resumed', ({ gap }) => this.calls.forEach((call) => void call.recover(gap)));
  }

  /** Nobody answered to a call that is being bound anew. */
  #bindingEnded(callId: string): boolean {
    const call = this.binding.get(callId);
    this.binding.delete(callId);
    call?.bindAgain(BIND_AGAIN_EVERY);
    return Boolean(call);
  }

  /** Somebody says that a call goes on: the one that it says, if that lost its session. Nobody is asked, and nothing rings. */
  #bindAgain(callId: string, from: string, identity: string, thread: string): void {
    const call = [...this.calls.values()].find((one) => one.thread === thread && one.identity === identity && one.incoming);
    if (!call) return void this.signaling.request('reject', { callId, reason: 'no-such-call' }).catch(() => {});
    this.signaling.request('accept', { callId }).then(
      () => call.bound(callId, from),
      () => {},
    );
  }

  /** @internal */
  override past(event: string): Iterable<unknown[]> {
    if (event === 'call') return [...this.calls.values()].filter(({ incoming, status }) => incoming && status === 'ringing').map((call) => [call]);
    return event === 'status' && this.signaling.status === 'closed' ? [['closed', this.reason]] : [];
  }

  /** Calls an identity or a peer id. Resolves when it rings there. */
  call(to: string, options: CallOptions = {}): Promise<Call> {
    const thread = randomName();
    return quiet(
      this.signaling.request('call', { to, metadata: marked(options.metadata, this.instance, thread) }).then(({ callId }: Frame) => {
        const call = new Call(this, callId as string, { identity: to }, false, null);
        call.thread = thread;
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
  id: string;
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
  /** @internal What both sides know the call by when the server has forgotten it. */
  thread: string | undefined;
  #phone: Phone;
  #from: string | undefined;
  /** What the other side said with its call or acceptance, with what belongs to the library. */
  #given: Json | null;
  #why = 'disconnected';
  #again: ReturnType<typeof setTimeout> | undefined;
  #watch: ReturnType<typeof setInterval> | undefined;
  /** @internal */
  readonly idleStreams = new Map<string, MediaStream[]>();
  #publications = new Set<Publication>();
  #early = new EarlyEvents();
  #timer: ReturnType<typeof setInterval> | undefined;

  /** @internal */
  constructor(phone: Phone, id: string, other: { peerId?: string; identity: string }, incoming: boolean, metadata: Json | null) {
    super();
    this.#phone = phone;
    this.#from = other.peerId;
    this.id = id;
    this.identity = other.identity;
    this.incoming = incoming;
    this.#given = metadata;
    this.metadata = plain(metadata);
    this.thread = threadOf(metadata);
    phone.calls.set(id, this);
  }

  /** Takes the call. */
  accept(options: CallOptions = {}): Promise<void> {
    return quiet(this.#accept(options));
  }

  /** Declines the call; other devices of this identity go on ringing. */
  reject(reason = 'rejected'): void {
    if (this.status !== 'ringing') return;
    this.#request('reject', { reason });
    this.finish(reason);
  }

  /** Ends the call, or withdraws it while it rings. */
  hangup(reason?: string): void {
    if (this.status === 'ended') return;
    this.#request('hangup', reason ? { reason } : {});
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

  /** @internal */
  override past(event: string): Iterable<unknown[]> {
    if (event === 'stream') return this.peer?.past(event) ?? [];
    if (event === 'message') return this.#early.take(event);
    if (this.status !== 'ended') return [];
    return event === 'end' ? [[this.reason]] : event === 'status' ? [[this.status]] : [];
  }

  /** @internal */
  deliver(content: unknown): void {
    if (!this.emit('message', content)) this.#early.keep('message', content);
  }

  /** @internal */
  receive(frame: { type: string; sdp?: unknown; candidate?: unknown; labels?: unknown }): void {
    const { peer } = this;
    if (!peer) return;
    if (frame.type !== 'candidate') peer.state = { callbox: { streams: frame.labels ?? {} } };
    peer.link?.receive(frame);
  }

  /** @internal The device that accepted is offered to. */
  accepted({ from, fromIdentity, metadata }: { from: string; fromIdentity: string; metadata?: Json | null }): void {
    if (this.status !== 'ringing' || this.incoming) return;
    this.#given = metadata ?? null;
    this.metadata = plain(this.#given);
    this.identity = fromIdentity;
    this.#connect(from, true);
  }

  /** @internal The server's part of this call is over; it goes on for as long as its media flows, and is bound anew. */
  lose(reason: string, own: boolean): void {
    const { peer } = this;
    if (peer?.connection === 'lost') return;
    // Where this side's own session is new, the box may have been away, and a relayed path with it.
    const flows = own ? typeof peer?.link?.connectMs === 'number' : peer?.status === 'connected';
    if (!peer || !flows) return this.finish(reason);
    this.#why = reason;
    peer.lose();
    this.bindAgain(0);
  }

  /** @internal Calls the other side's name until the device that has this call answers; it does so without asking anybody. */
  bindAgain(after: number): void {
    const { signaling, instance, binding } = this.#phone;
    const { thread, peer } = this;
    clearTimeout(this.#again);
    this.#again = setTimeout(() => {
      if (this.incoming || this.status === 'ended' || peer?.connection !== 'lost' || thread === undefined || !peer.sameLibrary) return;
      if (signaling.status !== 'online') return this.bindAgain(BIND_AGAIN_EVERY);
      signaling.request('call', { to: this.identity, metadata: { callbox: { instance, goesOn: thread } } }).then(
        ({ callId }) => binding.set(callId as string, this),
        () => this.bindAgain(BIND_AGAIN_EVERY),
      );
    }, after);
  }

  /** @internal Bound under another id, to the device that had this call before. */
  bound(id: string, peerId: string): void {
    const { peer } = this;
    if (this.status === 'ended' || !peer) return void this.#phone.signaling.request('hangup', { callId: id }).catch(() => {});
    clearTimeout(this.#again);
    this.#phone.calls.delete(this.id);
    this.#phone.calls.set((this.id = id), this);
    peer.readdress({ peerId, identity: this.identity, role: 'member', state: peer.state, metadata: this.#given, joinedAt: Date.now(), connection: 'online' });
    peer.link?.configure(this.config());
    void this.recover(false);
  }

  /** @internal */
  finish(reason: string): void {
    if (this.status === 'ended') return;
    clearInterval(this.#timer);
    clearInterval(this.#watch);
    clearTimeout(this.#again);
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

  /** @internal A description brings the labels of its streams: a call has no state to keep them in. */
  signal(peer: Peer, type: string, fields: Json): void {
    const labels = [...this.#publications].filter(({ label }) => label !== 'camera').map(({ wire, label }) => [wire.id, label]);
    const more = type !== 'candidate' && labels.length ? { labels: Object.fromEntries(labels) } : {};
    this.#phone.signaling.request(type, { ...fields, ...more, to: peer.peerId }, PATIENT).catch(() => {});
  }

  /** @internal */
  linkChanged(peer: Peer): void {
    if (peer.status === 'connected') {
      this.#setStatus('connected');
      this.#measure(peer);
    } else if (peer.status === 'failed') this.#report(peer);
    else if (peer.status === 'disconnected') this.#phone.signaling.probe();
  }

  /** @internal */
  channelOpened(): void {}

  /** @internal */
  fellSilent(): void {
    this.finish(this.#why);
  }

  /** @internal */
  left(): void {}

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
      await this.#phone.signaling.request('accept', { callId: this.id, metadata: marked(metadata, this.#phone.instance) });
    } catch (error) {
      this.finish(error instanceof CallboxError ? error.code : 'closed');
      throw error;
    }
    if (this.#from) this.#connect(this.#from, false);
  }

  #connect(peerId: string, offers: boolean): void {
    const peer = new Peer(this, { peerId, identity: this.identity, role: 'member', state: {}, metadata: this.#given, joinedAt: Date.now(), connection: 'online' });
    this.peer = peer;
    this.#phone.signaling.attentive = true;
    peer.on('stream', (stream, label) => this.emit('stream', stream, label));
    this.#setStatus('connecting');
    peer.connect(offers);
    peer.link?.on('bye', (said) => said && setTimeout(() => this.finish('hangup'), REASON_WITHIN));
    this.#timer = setInterval(() => this.#measure(peer), MEASURE_EVERY);
    this.#watch = setInterval(() => void peer.look(this.#phone.signaling), WATCH_EVERY);
  }

  #measure(peer: Peer): void {
    void peer.measure(VIDEO_BUDGET, 1).then(() => this.#report(peer));
  }

  /** Says how the connection went, once; a server that does not ask for it is spared. */
  #report(peer: Peer): void {
    const outcome = peer.connection === 'online' && peer.outcome();
    if (outcome) this.#request('report', outcome);
  }

  #request(type: string, fields: Json): void {
    this.#phone.signaling.request(type, { ...fields, callId: this.id }, PATIENT).catch(() => {});
  }

  #setStatus(status: CallStatus): void {
    if (status === this.status || this.status === 'ended') return;
    this.status = status;
    this.emit('status', status);
  }
}

/** The application's metadata with what belongs to the library. */
function marked(metadata: Json | undefined, instance: string, thread?: string): Json {
  return { ...metadata, callbox: { instance, ...(thread && { thread }) } };
}

function plain(metadata: Json | null): Json | null {
  if (instanceOf(metadata) === null) return metadata;
  const { callbox: _, ...rest } = metadata as Json;
  return Object.keys(rest).length ? rest : null;
}

function threadOf(metadata: Json | null | undefined, name: 'thread' | 'goesOn' = 'thread'): string | undefined {
  const thread = (metadata?.callbox as Json | null | undefined)?.[name];
  return typeof thread === 'string' ? thread : undefined;
}

/** Takes a name, to call and be called without a room. */
export async function register(url: string | URL | undefined, options: RegisterOptions): Promise<Phone> {
  const phone = new Phone(url, options);
  warmUp();
  const fields: RegisterFields = { ...(options.identity && { identity: options.identity }) };
  try {
    await phone.signaling.register(fields);
  } catch (error) {
    phone.signaling.leave();
    throw error;
  }
  return phone;
}
