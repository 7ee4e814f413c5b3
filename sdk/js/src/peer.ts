import { Emitter } from './emitter.ts';
import { Link, type Outgoing } from './link.ts';
import type { Path } from './path.ts';
import { ATTENTIVE_RETRY, WELCOME_WITHIN, type Signal } from './signal.ts';
import type { Json, PeerInfo, Role } from './wire.ts';

/** Milliseconds that a peer whose session is gone may be silent before it counts as gone too: after a restart of the box the last attempt
 * of the peer may have begun just before, and the relay's path takes some time as well. */
const SILENT_FOR = ATTENTIVE_RETRY + WELCOME_WITHIN + 2_500;
/** The least milliseconds that signaling gets to answer when a connection got no answer. */
const PROBE_WITHIN = 600;
/** Measurements without a figure of loss after which the others are reported without it. */
const REPORT_WITHOUT_LOSS = 6;
/** Questions without an answer after which a new path is looked for; the impolite side moves first, to spare a glare. */
const MISSED = { impolite: 2, polite: 7 };

/** @internal What a peer needs of the room or call around it. */
export interface PeerHost {
  readonly peerId: string | null;
  config(): RTCConfiguration;
  outgoing(peer: Peer): Outgoing[];
  receives: readonly ('audio' | 'video')[];
  prepare?(end: RTCRtpSender | RTCRtpReceiver, kind: string, peer: Peer): void;
  signal(peer: Peer, type: string, fields: Json): void;
  linkChanged(peer: Peer): void;
  openChannel?(peer: Peer, create: (init?: RTCDataChannelInit) => RTCDataChannel, init?: RTCDataChannelInit): RTCDataChannel;
  channelOpened(peer: Peer, channel: RTCDataChannel): void;
  /** The peer's session was gone before, and now its media is too. */
  fellSilent(peer: Peer): void;
  /** The peer ended its media in order, and its signaling is lost: a page that went away. */
  left(peer: Peer): void;
  /** Messages of that peer that reached nobody yet. */
  earlyMessages?(peer: Peer): Iterable<unknown[]>;
}

/** Events of a `Peer`. */
export interface PeerEvents {
  /** A stream came; `label` is `camera`, `screen`, or what the peer called it. A new listener gets the streams that are there. */
  stream: [stream: MediaStream, label: string];
  /** A stream has no tracks any more. */
  streamend: [stream: MediaStream];
  /** A track came into one of the streams. */
  track: [track: MediaStreamTrack, stream: MediaStream];
  /** The path was measured; every two seconds while connected. */
  path: [path: Path];
  /** `state`, `role` or `connection` changed. */
  state: [peer: Peer];
  /** The peer connection changed: `new`, `connecting`, `connected`, `disconnected`, `failed`, `closed`. */
  status: [status: RTCPeerConnectionState];
  /** A message from this peer. What came before anybody listened, here or at the room, comes to the first listener. */
  message: [content: unknown];
  /** Whether what this peer sends could be decrypted changed. */
  encrypted: [encrypted: boolean];
}

/** Somebody else in the room. The object stays the same while the person stays, whatever happens to the connections. */
export class Peer extends Emitter<PeerEvents> {
  /** Names this peer in `room.peers` for as long as it is there. */
  readonly id: string;
  /** The peer id of the present session; another one after the peer had to join again. */
  peerId: string;
  identity: string;
  role: Role;
  /** What the peer said about itself by `state`. */
  state: Json;
  metadata: Json | null;
  joinedAt: number;
  /** `away` while its connection is lost; `lost` when its session is gone too and only its media still flows. */
  connection: 'online' | 'away' | 'lost';
  dialect: string | undefined;
  /** The streams that the peer sends, by the id that the peer gave them. */
  readonly streams = new Map<string, MediaStream>();
  /** The path as it was measured last. */
  path: Path | null = null;
  /** True while what the peer sends is end-to-end encrypted and could be decrypted. */
  encrypted = false;
  /** The peer connection's keeper; null for a viewer that is with viewers, and without media. */
  link: Link | null = null;

  #host: PeerHost;
  #stale = new Set<MediaStreamTrack>();
  #silence: ReturnType<typeof setTimeout> | undefined;
  #reported = false;
  #unreported = 0;
  /** @internal The peer ended its media in order: Firefox lets a page that goes away say no more than that. */
  saidBye = false;

  /** @internal */
  constructor(host: PeerHost, info: PeerInfo) {
    super();
    this.#host = host;
    this.id = this.peerId = info.peerId;
    this.identity = info.identity;
    this.role = info.role;
    this.state = info.state ?? {};
    this.metadata = info.metadata;
    this.joinedAt = info.joinedAt;
    this.connection = info.connection ?? 'online';
    this.dialect = info.dialect;
  }

  /** The peer's name; empty where it gave none. */
  get name(): string {
    const name = this.metadata?.name;
    if (this.identity !== this.peerId && this.identity !== this.id) return this.identity;
    return typeof name === 'string' ? name : '';
  }

  /** The first stream that is not a shared screen. */
  get stream(): MediaStream | undefined {
    return [...this.streams].find(([key]) => this.labelOf(key) !== 'screen')?.[1];
  }

  /** The state of the peer connection. */
  get status(): RTCPeerConnectionState {
    return this.link?.state ?? 'new';
  }

  /** True where the peer uses this library too. */
  get sameLibrary(): boolean {
    return instanceOf(this.metadata) !== null;
  }

  /** What the peer calls a stream of its own. */
  labelOf(stream: MediaStream | string): string {
    const key = typeof stream === 'string' ? stream : [...this.streams].find(([, one]) => one === stream)?.[0];
    const labels = (this.state.callbox as { streams?: Record<string, string> } | undefined)?.streams;
    const label = key === undefined ? undefined : labels?.[key];
    return typeof label === 'string' ? label : 'camera';
  }

  /** @internal A peer's media may come while the page still waits for its own camera. */
  override past(event: string): Iterable<unknown[]> {
    if (event === 'stream') return [...this.streams].map(([key, stream]) => [stream, this.labelOf(key)]);
    return (event === 'message' && this.#host.earlyMessages?.(this)) || [];
  }

  /** @internal Makes the connection, or makes it anew. */
  connect(offers: boolean): void {
    this.link?.close();
    const link = new Link({
      polite: this.#isPolite(),
      offers,
      config: this.#host.config(),
      outgoing: this.#host.outgoing(this),
      receive: this.#host.receives,
      control: this.sameLibrary,
      send: (type, fields) => this.#host.signal(this, type, fields),
      prepare: (end, kind) => this.#host.prepare?.(end, kind, this),
      open: (create, init) => this.#host.openChannel?.(this, create, init) ?? create(init),
    });
    this.link = link;
    link
      .on('state', (state) => this.#stateChanged(state))
      .on('track', (track, key) => this.#addTrack(track, key))
      .on('trackend', (track, key) => this.#removeTrack(track, key))
      .on('reset', () => this.#markStale())
      .on('channel', (channel) => this.#host.channelOpened(this, channel))
      .on('bye', (said) => {
        this.saidBye ||= said;
        if (this.connection === 'lost') this.#host.fellSilent(this);
        else if (said && this.connection === 'away') this.#host.left(this);
      });
    this.#markStale();
  }

  /** @internal */
  publish(): Promise<void> {
    return this.link?.publish(this.#host.outgoing(this)) ?? Promise.resolve();
  }

  /** @internal Takes what the server says about this peer; true where something changed. */
  update(info: Partial<PeerInfo>): void {
    const { peerId, identity, role, state, metadata, connection } = info;
    if (peerId !== undefined) this.peerId = peerId;
    if (identity !== undefined) this.identity = identity;
    if (role !== undefined) this.role = role;
    if (state !== undefined) this.state = state;
    if (metadata !== undefined) this.metadata = metadata;
    if (connection !== undefined) this.connection = connection;
    if (this.connection !== 'lost') clearTimeout(this.#silence);
    this.emit('state', this);
  }

  /** @internal The peer came back under another peer id, or this side did. */
  readdress(info?: PeerInfo): void {
    if (info) this.update(info);
    if (this.link) this.link.polite = this.#isPolite();
    this.link?.resend();
  }

  /** @internal The session is gone while media flows: the peer stays for as long as it does. */
  lose(): void {
    this.connection = 'lost';
    this.emit('state', this);
    this.#watch();
  }

  /** @internal */
  async measure(budget: number, links: number): Promise<void> {
    const { link } = this;
    if (link?.state !== 'connected') return;
    const path = await link.path().catch(() => null);
    if (!path || link !== this.link) return;
    this.path = path;
    this.emit('path', path);
    void link.shareBudget(budget, links);
  }

  /** @internal The browser takes five seconds to find that a path is gone; a question that stays unanswered shows it sooner. */
  async look(signaling: Signal, again = true): Promise<void> {
    const { link } = this;
    const doubted = () => {
      // Often the network changed, and signaling has lost its way too.
      signaling.probe(Math.max(PROBE_WITHIN, 4 * (this.path?.rtt ?? 0)));
      // One lost question proves nothing, so the next one does not wait for its turn.
      if (again) void this.look(signaling, false);
    };
    if (link?.state !== 'connected' || (await link.alive(doubted)) || link !== this.link) return;
    if (link.missed >= (this.#isPolite() ? MISSED.polite : MISSED.impolite) && signaling.status === 'online') link.restart();
  }

  /** @internal What is to be reported about this connection, once; `last`: now or never. */
  outcome(last = false): Json | null {
    const { link, path } = this;
    const failed = link?.state === 'failed';
    if (this.#reported || !link || (!failed && !path)) return null;
    // The loss is known from the second measurement with media on.
    if (!last && !failed && path!.loss === null && ++this.#unreported < REPORT_WITHOUT_LOSS) return null;
    this.#reported = true;
    if (failed || !path) return { path: 'failed' };
    return {
      path: path.kind.startsWith('relay') ? 'relay' : 'direct',
      ...(path.transport && { transport: path.transport }),
      ...(link.connectMs !== null && { connectMs: link.connectMs }),
      ...(path.rtt !== null && { rttMs: path.rtt }),
      ...(path.loss !== null && { loss: path.loss }),
    };
  }

  /** @internal */
  setEncrypted(encrypted: boolean): void {
    if (encrypted === this.encrypted) return;
    this.encrypted = encrypted;
    this.emit('encrypted', encrypted);
  }

  /** @internal */
  close(): void {
    clearTimeout(this.#silence);
    this.link?.close();
    for (const stream of this.streams.values()) this.emit('streamend', stream);
    this.streams.clear();
  }

  #isPolite(): boolean {
    return (this.#host.peerId ?? '') < this.peerId;
  }

  #stateChanged(state: RTCPeerConnectionState): void {
    if (state === 'connected') this.#dropStale();
    else this.path = null;
    this.emit('status', state);
    this.#host.linkChanged(this);
    if (this.connection === 'lost') this.#watch();
  }

  #watch(): void {
    clearTimeout(this.#silence);
    if (this.status === 'connected') return;
    const gone = () => this.connection === 'lost' && this.status !== 'connected' && this.#host.fellSilent(this);
    this.#silence = setTimeout(gone, SILENT_FOR);
  }

  /** The streams are this side's own objects, so that an element that shows one goes on with the tracks that follow. */
  #addTrack(track: MediaStreamTrack, key: string): void {
    let stream = this.streams.get(key);
    const fresh = !stream;
    if (!stream) this.streams.set(key, (stream = new MediaStream()));
    for (const old of stream.getTracks()) {
      // A peer without stream ids has one track a kind.
      if (old.kind === track.kind && old !== track && (this.#stale.has(old) || old.readyState === 'ended' || !key)) stream.removeTrack(old);
    }
    stream.addTrack(track);
    if (fresh) this.emit('stream', stream, this.labelOf(key));
    this.emit('track', track, stream);
  }

  #removeTrack(track: MediaStreamTrack, key: string): void {
    const stream = this.streams.get(key);
    stream?.removeTrack(track);
    if (stream && !stream.getTracks().length) this.#endStream(key, stream);
  }

  #markStale(): void {
    for (const stream of this.streams.values()) for (const track of stream.getTracks()) this.#stale.add(track);
  }

  #dropStale(): void {
    for (const [key, stream] of this.streams) {
      for (const track of stream.getTracks()) if (this.#stale.has(track)) stream.removeTrack(track);
      if (!stream.getTracks().length) this.#endStream(key, stream);
    }
    this.#stale.clear();
  }

  #endStream(key: string, stream: MediaStream): void {
    this.streams.delete(key);
    this.emit('streamend', stream);
  }
}

/** The random name of a peer's library object, by which it is recognised after it had to join again. */
export function instanceOf(metadata: Json | null | undefined): string | null {
  const instance = (metadata?.callbox as { instance?: unknown } | null | undefined)?.instance;
  return typeof instance === 'string' ? instance : null;
}
