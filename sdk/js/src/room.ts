import { Channel, type ChannelOptions } from './channel.ts';
import { EarlyEvents, Emitter } from './emitter.ts';
import { Encryption, type EncryptionOptions } from './encryption.ts';
import { CallboxError, quiet, report } from './errors.ts';
import { FileDesk, FILE_LABEL, type IncomingFile, type OutgoingFile } from './files.ts';
import { warmUp, type Outgoing } from './link.ts';
import { instanceOf, Peer, type PeerHost } from './peer.ts';
import { outgoingFor, Publication, type PublishOptions } from './publication.ts';
import { Recording, type RecordOptions } from './recording.ts';
import { Signal, type RequestOptions, type SignalOptions } from './signal.ts';
import type { CreateRoom, IceConfig, Joined, Json, LeaveReason, PeerInfo, Relayed, Resumed, Role, RoomInfo, TokenSource } from './wire.ts';

/** Milliseconds between two measurements of every path. */
const MEASURE_EVERY = 2_000;
/** Milliseconds between two questions over each connection. */
export const WATCH_EVERY = 700;
/** Bits a second that one side spends on sending video, shared among the peers. */
const VIDEO_BUDGET = 4_000_000;
/** Reasons of `peer-left` after which a peer's media ends at once. */
const GONE_FOR_GOOD: readonly string[] = ['left', 'kicked', 'replaced', 'room-closed'];
/** Channels that one peer may open without this side's asking for them. */
const MAX_FOREIGN = 64;

/** What keeps a connection going is worth a wait where many negotiate at once. */
export const PATIENT: RequestOptions = { patient: true, timeout: 120_000 };

/** How to join a room. */
export interface JoinOptions extends Omit<SignalOptions, 'token'> {
  /** The room's name. */
  room: string;
  /** The name that others see. A token's `sub` takes its place. */
  name?: string;
  /** A token, or a function that is asked for one whenever one is needed. */
  token?: TokenSource;
  password?: string;
  /** An object that the others get with this peer; `callbox` in it belongs to the library. */
  metadata?: Json;
  /** Settings of the room, if it does not exist yet. */
  create?: CreateRoom;
  /** Streams to publish with the first offer, which saves a round trip. */
  streams?: readonly MediaStream[];
  /** True forces every path through the relay, so that nobody learns this side's address. */
  relayOnly?: boolean;
  /** False makes no peer connections: messages and state only. */
  mesh?: boolean;
  /** False makes no room for media in the first offer: data only, until somebody publishes. */
  media?: boolean;
  /** Encrypts media and messages end to end; needs a browser with `RTCRtpScriptTransform`. */
  encryption?: EncryptionOptions;
  /** Bits a second for all video that is sent. */
  videoBudget?: number;
  /** Extra settings of every peer connection. */
  rtcConfig?: RTCConfiguration;
  /** Milliseconds in which the first join must succeed; 0 waits for ever. 60 s by default. */
  timeout?: number;
  signal?: AbortSignal;
}

/** The state of a `Room`. */
export type RoomStatus = 'connecting' | 'online' | 'reconnecting' | 'closed';

/** Events of a `Room`. */
export interface RoomEvents {
  /** `online`, `reconnecting`, or `closed` with the reason: `left`, `kicked`, `replaced`, `room-closed`, or an error code. A listener that comes after the end gets `closed`. */
  status: [status: RoomStatus, reason?: string];
  /** Somebody came. */
  peer: [peer: Peer];
  /** Somebody is gone. */
  leave: [peer: Peer, reason: LeaveReason];
  /** A message from a peer to the room or to this side. What came before anybody listened comes to the first listener. */
  message: [content: any, peer: Peer];
  /** A peer's `state`, `role` or `connection` changed. */
  state: [peer: Peer];
  /** The room's settings changed. */
  room: [room: RoomInfo];
  /** This side's role changed. */
  role: [role: Role];
  /** A host asks this side to mute or unmute `audio`, `video` or `screen`. The last word before anybody listened comes to the first listener. */
  mute: [kind: string, peer: Peer | undefined];
  unmute: [kind: string, peer: Peer | undefined];
  /** The operator says something. What came before anybody listened comes to the first listener. */
  notify: [content: unknown];
  /** The server restarts; the call goes on. */
  draining: [reconnectIn: number];
  /** A host removed this side. */
  kicked: [reason: string | undefined];
  /** Fresh ICE servers, or another policy. */
  ice: [ice: IceConfig];
  /** A peer opened a channel that this side had not opened. A new listener gets those that this side has not asked for yet. */
  channel: [channel: Channel];
  /** A peer offers a file: `accept()` or `reject()` it. A new listener gets the offers without an answer. */
  file: [file: IncomingFile, peer: Peer];
}

/** A room with everybody in it. Made by `join`. */
export class Room extends Emitter<RoomEvents> implements PeerHost {
  /** Everybody else, by `peer.id`. */
  readonly peers = new Map<string, Peer>();
  /** `connecting`, `online`, `reconnecting` or `closed`. */
  status: RoomStatus = 'connecting';
  /** Why the room closed. */
  reason: string | undefined;
  /** The room's settings. */
  info!: RoomInfo;
  /** This side's role, identity and present peer id. */
  role: Role = 'member';
  identity = '';
  /** The signaling below: for frames that this class has no method for. */
  signaling: Signal;
  /** Bits a second for all video that is sent. */
  videoBudget: number;
  /** @internal */
  readonly receives: readonly ('audio' | 'video')[];

  #options: JoinOptions;
  #instance = randomName();
  /** @internal */
  readonly idleStreams = new Map<string, MediaStream[]>();
  #publications = new Set<Publication>();
  #channels = new Map<string, Channel>();
  /** Channels that peers opened, and that the application has not asked for. */
  #foreignChannels = new Map<Channel, Peer>();
  /** The peer ids that this side has had: what others copy proves nothing. */
  #own = new Set<string>();
  #early = new EarlyEvents();
  #files = new FileDesk((file, peer) => this.emit('file', file, peer));
  #state: Json = {};
  #relayOnly: boolean;
  #wasRelayed = false;
  /** True while the browser keeps the page that this room is in, and may show it again. */
  #kept = false;
  #timer: ReturnType<typeof setInterval> | undefined;
  #watch: ReturnType<typeof setInterval> | undefined;
  #reports = true;
  #refused: string | undefined;
  #encryption: Encryption | null;

  /** @internal */
  constructor(url: string | URL | undefined, options: JoinOptions) {
    super();
    this.#options = options;
    this.#relayOnly = options.relayOnly ?? false;
    this.videoBudget = options.videoBudget ?? VIDEO_BUDGET;
    this.receives = options.media === false ? [] : ['audio', 'video'];
    this.#url = url;
    this.signaling = this.#connect();
    if (options.mesh !== false) warmUp();
    for (const stream of options.streams ?? []) this.#publications.add(new Publication(this, stream, {}));
    this.#encryption = options.encryption ? new Encryption(options.room, this.#instance, options.encryption) : null;
  }

  #url: string | URL | undefined;

  /** The room's name. */
  get id(): string {
    return this.info?.roomId ?? this.#options.room;
  }

  /** This side's present peer id. */
  get peerId(): string {
    return this.signaling.peerId ?? '';
  }

  /** This side's own state, as it was set. */
  get state(): Readonly<Json> {
    return this.#state;
  }

  /** The newest ICE servers and credentials. */
  get ice(): IceConfig | null {
    return this.signaling.ice;
  }

  /** Everything that is being sent. */
  get publications(): readonly Publication[] {
    return [...this.#publications];
  }

  /** True while this side sends and receives through the relay only. */
  get relayOnly(): boolean {
    return this.#relayOnly || this.ice?.iceTransportPolicy === 'relay';
  }

  /** Setting it connects to everybody anew. */
  set relayOnly(on: boolean) {
    if (on === this.#relayOnly) return;
    this.#relayOnly = on;
    for (const { link } of this.peers.values()) {
      link?.configure(this.config());
      link?.reset();
    }
  }

  /** Sends a stream to everybody, and to everybody who comes. Published again, its present tracks are taken. */
  publish(stream: MediaStream, options: PublishOptions = {}): Promise<Publication> {
    return quiet(this.#publish(stream, options));
  }

  /** Sends a message through the server: to everybody, or to one peer. */
  send(content: unknown, to?: Peer): Promise<void> {
    return quiet(this.#send(content, to));
  }

  /** Says something about this side that newcomers are to know too. Keys merge, `null` deletes one. */
  setState(state: Json): Promise<void> {
    try {
      JSON.stringify(state);
    } catch (error) {
      return quiet(Promise.reject(new CallboxError('invalid-message', `state cannot be written as JSON: ${String(error)}`)));
    }
    this.#state = merge(this.#state, state);
    return this.#ask('state', { state }, PATIENT);
  }

  /** Opens, or returns, the data channel of that name to everybody. */
  channel(name: string, options: ChannelOptions = {}): Channel {
    let channel = this.#channels.get(name);
    if (!channel) this.#channels.set(name, (channel = new Channel(name, () => this.peers.values(), options)));
    this.#foreignChannels.delete(channel);
    channel.reachAll();
    return channel;
  }

  /** Offers a file to a peer; it flows when the peer accepts. */
  sendFile(file: Blob, to: Peer, options: { name?: string } = {}): OutgoingFile {
    return this.#files.send(to, file, options.name);
  }

  /** Records everybody, this side included, into one file. */
  record(options?: RecordOptions): Recording {
    return new Recording(() => [...this.#publications].map(({ sent }) => sent).concat([...this.peers.values()].flatMap(({ streams }) => [...streams.values()])), options);
  }

  /** Asks a peer to mute or unmute; for hosts. */
  mute(peer: Peer, kind: 'audio' | 'video' | 'screen', muted = true): Promise<void> {
    return this.#ask(muted ? 'mute' : 'unmute', { kind, to: peer.peerId });
  }

  /** Removes a peer; for hosts. */
  kick(peer: Peer, reason?: string): Promise<void> {
    return this.#ask('kick', { peerId: peer.peerId, ...(reason && { reason }) });
  }

  /** Gives a peer another role; for hosts. */
  grant(peer: Peer, role: Role): Promise<void> {
    return this.#ask('grant', { peerId: peer.peerId, role });
  }

  /** Changes the room's settings; for hosts. `null` removes the password or the metadata. */
  update(settings: { locked?: boolean; maxPeers?: number; password?: string | null; metadata?: Json | null; relayOnly?: boolean }): Promise<void> {
    return this.#ask('room', settings);
  }

  /** Makes a link for a guest; for hosts. `url` is the page's link, `token` is absent on a box without tokens. */
  invite(options: { ttl?: number; role?: Role; uses?: number } = {}): Promise<{ url: string; token?: string; expiresAt?: number }> {
    return quiet(this.signaling.request('invite', { ...options }).then((frame) => frame as unknown as { url: string; token?: string; expiresAt?: number }));
  }

  /** Leaves and ends all media at once; also right while a page goes away. */
  leave(): void {
    this.peers.forEach((peer) => this.#report(peer, true));
    this.signaling.leave();
    this.#close('left');
  }

  /** Comes back after the session ended for good, as with an expired token, while media may still flow. */
  rejoin(): Promise<void> {
    if (this.signaling.status !== 'closed') return Promise.resolve();
    this.#setStatus('connecting');
    this.signaling = this.#connect();
    return quiet(this.enter(false));
  }

  /** @internal What bounds the first join is over by the next one. */
  async enter(first = true): Promise<void> {
    const { room, name, password, metadata, create, token } = this.#options;
    const { timeout, signal } = first ? this.#options : ({} as JoinOptions);
    this.#listenToPage(true);
    try {
      await this.#encryption?.ready;
      await this.signaling.join(
        {
          roomId: room,
          ...(name && { identity: name }),
          ...(password && { password }),
          ...(create && { create }),
          metadata: { ...metadata, callbox: { instance: this.#instance } },
          token,
        },
        { ...(timeout !== undefined && { timeout }), ...(signal && { signal }) },
      );
    } catch (error) {
      // Refused again, the call goes on as it was, and `rejoin()` may be asked again.
      if (!first) this.#refused = error instanceof CallboxError ? error.code : 'closed';
      this.signaling.leave();
      this.#refused = undefined;
      throw error;
    }
  }

  /** @internal */
  config(): RTCConfiguration {
    const { iceServers = [], iceTransportPolicy = 'all' } = this.ice ?? {};
    return { bundlePolicy: 'max-bundle', ...this.#options.rtcConfig, iceServers, iceTransportPolicy: this.#relayOnly ? 'relay' : iceTransportPolicy };
  }

  /** @internal */
  outgoing(peer: Peer): Outgoing[] {
    if (this.role === 'viewer') return [];
    const outgoing = outgoingFor(this.#publications, peer.sameLibrary);
    const codecs = this.#encryption?.codecs;
    return codecs ? outgoing.map((one) => ({ ...one, codecs: one.kind === 'video' ? codecs : one.codecs })) : outgoing;
  }

  /** @internal */
  prepare(end: RTCRtpSender | RTCRtpReceiver, kind: string, peer: Peer): void {
    this.#encryption?.prepare(end, kind, peer);
  }

  /** @internal */
  signal(peer: Peer, type: string, fields: Json): void {
    // A peer that is gone by now is no error: it is about to be announced.
    this.signaling.request(type, { ...fields, to: peer.peerId }, PATIENT).catch(() => {});
  }

  /** @internal */
  linkChanged(peer: Peer): void {
    const { status } = peer;
    if (status === 'disconnected' || peer.link?.pc.iceConnectionState === 'disconnected') this.signaling.probe();
    if (status === 'connected') this.#measure(peer);
    else if (status === 'failed') {
      this.#report(peer);
      this.#channels.forEach((channel) => channel.release(peer));
    }
    this.#files.wake(peer);
  }

  /** @internal */
  openChannel(peer: Peer, create: (init?: RTCDataChannelInit) => RTCDataChannel, init?: RTCDataChannelInit): RTCDataChannel {
    return this.#encryption ? this.#encryption.openChannel(peer, create, init) : create(init);
  }

  /** @internal */
  channelOpened(peer: Peer, channel: RTCDataChannel): void {
    if (this.#encryption) this.#encryption.channelOpened(peer, channel, (sealed) => this.#channelOpened(peer, sealed));
    else this.#channelOpened(peer, channel);
  }

  #channelOpened(peer: Peer, channel: RTCDataChannel): void {
    if (channel.label === FILE_LABEL) return this.#files.take(peer, channel);
    const known = this.#channels.get(channel.label);
    if (known) return known.take(peer, channel);
    if ([...this.#foreignChannels.values()].filter((one) => one === peer).length >= MAX_FOREIGN) return channel.close();
    const opened = new Channel(channel.label, () => this.peers.values(), {});
    this.#channels.set(channel.label, opened);
    this.#foreignChannels.set(opened, peer);
    opened.take(peer, channel);
    this.emit('channel', opened);
  }

  /** @internal */
  override past(event: string): Iterable<unknown[]> {
    if (event === 'status') return this.status === 'closed' ? [[this.status, this.reason]] : [];
    if (event === 'file') return this.#files.offers();
    if (event === 'channel') return [...this.#foreignChannels.keys()].map((channel) => [channel]);
    return this.#early.take(event);
  }

  /** @internal */
  *earlyMessages(peer: Peer): Iterable<unknown[]> {
    for (const [content] of this.#early.take('message', (args) => args[1] === peer)) yield [content];
  }

  /** @internal */
  fellSilent(peer: Peer): void {
    this.#remove(peer, 'disconnected');
  }

  /** @internal */
  left(peer: Peer): void {
    this.#remove(peer, 'left');
  }

  /** @internal */
  async publicationChanged(): Promise<void> {
    await Promise.all([...this.peers.values()].map((peer) => peer.publish()));
  }

  /** @internal */
  async publicationEnded(publication: Publication): Promise<void> {
    if (!this.#publications.delete(publication)) return;
    if (publication.label !== 'camera') void this.setState({ callbox: { streams: { [publication.wire.id]: null } } });
    await this.publicationChanged();
  }

  async #publish(stream: MediaStream, options: PublishOptions): Promise<Publication> {
    if (this.role === 'viewer') throw new CallboxError('forbidden', 'a viewer only receives');
    let publication = [...this.#publications].find((one) => one.stream === stream);
    if (publication) publication.adopt();
    else this.#publications.add((publication = new Publication(this, stream, options)));
    // The label goes first: it is there when the stream arrives.
    if (publication.label !== 'camera') void this.setState({ callbox: { streams: { [publication.wire.id]: publication.label } } });
    await this.publicationChanged();
    return publication;
  }

  async #send(content: unknown, to?: Peer): Promise<void> {
    const sealed = this.#encryption ? await this.#encryption.seal(content) : content;
    await this.signaling.request('message', { content: sealed, ...(to && { to: to.peerId }) });
  }

  #ask(type: string, fields: Json, options?: RequestOptions): Promise<void> {
    return quiet(this.signaling.request(type, fields, options).then(() => {}));
  }

  #connect(): Signal {
    const signal = new Signal(this.#url, this.#options);
    const from = (frame: { from?: unknown }) => this.#byPeerId(frame.from as string);
    signal.on('status', (status) => (status === 'online' || status === 'reconnecting') && this.#setStatus(status));
    signal.on('closed', ({ reason }) => this.#ended(this.#refused ?? reason));
    signal.on('welcome', ({ peerId }) => this.#own.add(peerId));
    signal.on('joined', (joined) => this.#joined(joined));
    signal.on('resumed', (resumed) => this.#resumed(resumed));
    signal.on('peer-joined', ({ peer }) => this.#isSelf(peer) || this.#meet(peer, false));
    signal.on('peer-left', ({ peerId, reason }) => {
      const peer = this.#byPeerId(peerId);
      if (peer) this.#depart(peer, reason);
    });
    signal.on('peer-state', ({ peerId, state, connection, role }) => {
      if (peerId === this.peerId && role && role !== this.role) this.emit('role', (this.role = role));
      const peer = this.#byPeerId(peerId);
      if (!peer) return;
      if (connection === 'away' && peer.saidBye) return this.left(peer);
      peer.update({ state, connection, ...(role && { role }) });
      this.emit('state', peer);
    });
    for (const type of ['offer', 'answer', 'candidate'] as const) signal.on(type, (frame) => from(frame)?.link?.receive(frame));
    signal.on('message', (frame) => void this.#deliver(frame, from(frame)).catch(report));
    for (const type of ['mute', 'unmute'] as const) {
      signal.on(type, (frame) => {
        for (const earlier of ['mute', 'unmute']) this.#early.drop(earlier, ([kind]) => kind === frame.kind);
        this.#emitOrKeep(type, frame.kind, from(frame));
      });
    }
    signal.on('hangup', (frame) => {
      const peer = from(frame);
      // A client without this library stopped its media and may begin anew.
      if (peer && !frame.callId && !peer.sameLibrary) this.#connectTo(peer, false);
    });
    signal.on('room-updated', ({ room }) => this.emit('room', (this.info = room)));
    signal.on('notify', ({ content }) => this.#emitOrKeep('notify', content));
    signal.on('draining', ({ reconnectIn }) => this.emit('draining', reconnectIn));
    signal.on('kicked', ({ reason }) => this.#emitOrKeep('kicked', reason));
    signal.on('ice', (ice) => this.#iceChanged(ice));
    return signal;
  }

  #emitOrKeep<K extends keyof RoomEvents>(event: K, ...args: RoomEvents[K]): void {
    if (!this.emit(event, ...args)) this.#early.keep(event, ...args);
  }

  async #deliver(frame: Relayed & { content: unknown }, peer: Peer | undefined): Promise<void> {
    if (!peer) return;
    let { content } = frame;
    if (this.#encryption) {
      try {
        content = await this.#encryption.open(content, peer);
      } catch {
        return console.warn('callbox: a message that this key does not open');
      }
    }
    const reached = [peer.emit('message', content), this.emit('message', content, peer)];
    if (!reached.includes(true)) this.#early.keep('message', content, peer);
  }

  /** In the room: for the first time, or anew after the session could not be resumed. */
  #joined(joined: Joined): void {
    this.#takeSelf(joined);
    const listed = new Set(joined.peers.map(({ peerId }) => peerId));
    // Who is not listed may come back under another peer id, as this side just did.
    for (const peer of this.peers.values()) if (!listed.has(peer.peerId)) peer.lose();
    const here = joined.peers.filter((info) => !this.#isSelf(info)).map((info) => this.#meet(info, joined.role !== 'viewer'));
    if (Object.keys(this.#state).length) void this.#ask('state', { state: this.#state }, PATIENT);
    void this.#restartDead(here);
    this.#timer ??= setInterval(() => this.#tick(), MEASURE_EVERY);
    this.#watch ??= setInterval(() => this.peers.forEach((peer) => void peer.look(this.signaling)), WATCH_EVERY);
  }

  /** Back under the same peer id. Without a gap the frames that follow say the rest. */
  #resumed(resumed: Resumed): void {
    if (!resumed.peers || !resumed.room) return;
    this.#takeSelf(resumed as Resumed & Joined);
    const here = new Set<Peer>();
    for (const info of resumed.peers) {
      if (this.#isSelf(info)) continue;
      const known = this.#byPeerId(info.peerId);
      if (known) known.update(info);
      if (known || resumed.gap) here.add(known ?? this.#meet(info, resumed.role !== 'viewer'));
    }
    if (resumed.gap) {
      for (const peer of this.peers.values()) if (!here.has(peer)) this.#depart(peer, 'disconnected');
      for (const { link } of here) link?.resend();
    }
    void this.#restartDead(here);
  }

  /** An earlier session of this side, whose resume window is still open. */
  #isSelf({ peerId }: PeerInfo): boolean {
    return this.#own.has(peerId);
  }

  #takeSelf({ identity, role, room }: { identity: string; role: Role; room: RoomInfo }): void {
    const changed = role !== this.role;
    this.#own.add(this.peerId);
    [this.identity, this.role, this.info] = [identity, role, room];
    if (changed) this.emit('role', role);
  }

  /** Somebody is here: known, known under another peer id, or new. */
  #meet(info: PeerInfo, offers: boolean): Peer {
    const known = this.#byPeerId(info.peerId);
    if (known) {
      known.update(info);
      known.readdress();
      this.emit('state', known);
      return known;
    }
    const instance = instanceOf(info.metadata);
    const anonymous = info.identity === info.peerId;
    // In the other's name comes back only who has that name: an instance can be seen by all in the room.
    const kept = [...this.peers.values()].find(
      (peer) => instance !== null && instanceOf(peer.metadata) === instance && peer.connection !== 'online' && (peer.identity === info.identity || (anonymous && peer.identity === peer.peerId)),
    );
    if (kept) {
      kept.readdress({ ...info, connection: info.connection });
      if (offers && kept.status === 'failed') kept.link?.restart();
      this.emit('state', kept);
      return kept;
    }
    const peer = new Peer(this, info);
    this.peers.set(peer.id, peer);
    this.signaling.attentive = true;
    if (this.#options.mesh !== false && !(peer.role === 'viewer' && this.role === 'viewer')) {
      // A viewer has nothing to offer, so it is offered to.
      this.#connectTo(peer, offers || (info.role === 'viewer' && this.role !== 'viewer'));
      for (const channel of this.#channels.values()) if (channel.wanted) channel.reach(peer);
    }
    this.emit('peer', peer);
    return peer;
  }

  /** Makes the connection, or makes it anew; whatever went over the one before goes on over it. */
  #connectTo(peer: Peer, offers: boolean): void {
    const renewed = () => {
      this.#channels.forEach((channel) => channel.lose(peer, false));
      this.#files.reset(peer);
    };
    const again = peer.link !== null;
    peer.connect(offers);
    peer.link?.on('reset', renewed);
    if (again) renewed();
  }

  #depart(peer: Peer, reason: LeaveReason): void {
    if (GONE_FOR_GOOD.includes(reason) || peer.status !== 'connected') {
      if (peer.connection === 'lost' && !GONE_FOR_GOOD.includes(reason)) return;
      this.#remove(peer, reason);
    } else {
      peer.lose();
      this.emit('state', peer);
    }
  }

  #remove(peer: Peer, reason: LeaveReason): void {
    if (!this.peers.delete(peer.id)) return;
    peer.close();
    this.#encryption?.forget(peer);
    for (const channel of this.#channels.values()) channel.lose(peer, true);
    for (const [channel, opener] of this.#foreignChannels) {
      if (opener !== peer) continue;
      this.#foreignChannels.delete(channel);
      if (!channel.wanted) this.#channels.delete(channel.name);
    }
    this.#files.lose(peer);
    if (!this.peers.size) this.signaling.attentive = false;
    this.emit('leave', peer, reason);
    // The last one whose media had outlived the session.
    if (!this.peers.size && this.status === 'closed') this.#close(this.reason ?? '');
  }

  /** Renegotiates only what is broken: media that flows is left alone. */
  async #restartDead(peers: Iterable<Peer>): Promise<void> {
    await Promise.all(
      [...peers].map(async ({ link }) => {
        if (link && link.connectMs !== null && (link.missed > 0 || !(await link.alive()))) link.restart();
      }),
    );
  }

  #iceChanged(ice: IceConfig): void {
    const relayed = ice.iceTransportPolicy === 'relay';
    const became = relayed && !this.#wasRelayed;
    this.#wasRelayed = relayed;
    for (const peer of this.peers.values()) {
      peer.link?.configure(this.config());
      // A room that became relay only moves every path at once; one side is enough.
      if (became && !this.#relayOnly && this.peerId > peer.peerId) peer.link?.reset();
    }
    this.emit('ice', ice);
  }

  #tick(): void {
    for (const peer of this.peers.values()) this.#measure(peer);
  }

  #measure(peer: Peer): void {
    void peer.measure(this.videoBudget, this.peers.size).then(() => this.#report(peer));
  }

  /** Says how a connection went, once; a server that does not ask for it is spared. */
  #report(peer: Peer, last = false): void {
    const outcome = this.#reports && peer.connection === 'online' && peer.outcome(last);
    if (!outcome) return;
    this.signaling.request('report', { ...outcome, to: peer.peerId }).catch(({ code }: CallboxError) => {
      if (code === 'unknown-type') this.#reports = false;
    });
  }

  #byPeerId(peerId: string): Peer | undefined {
    for (const peer of this.peers.values()) if (peer.peerId === peerId) return peer;
    return undefined;
  }

  #setStatus(status: RoomStatus, reason?: string): void {
    if (status === this.status) return;
    this.status = status;
    this.reason = reason;
    this.emit('status', status, reason);
  }

  /** The session is over for good. Media ends with it only where somebody ended it. */
  #ended(reason: string): void {
    if (this.#kept) {
      for (const peer of [...this.peers.values()]) this.#remove(peer, 'left');
      return this.#setStatus('reconnecting');
    }
    if (['left', ...GONE_FOR_GOOD].includes(reason)) return this.#close(reason);
    for (const peer of [...this.peers.values()]) this.#depart(peer, 'disconnected');
    if (!this.peers.size) this.#close(reason);
    else this.#setStatus('closed', reason);
  }

  #close(reason: string): void {
    clearInterval(this.#timer);
    clearInterval(this.#watch);
    this.#timer = this.#watch = undefined;
    this.#listenToPage(false);
    for (const peer of [...this.peers.values()]) this.#remove(peer, 'left');
    // After another end `rejoin()` goes on with what was published.
    if (GONE_FOR_GOOD.includes(reason)) {
      this.#publications.clear();
      this.#encryption?.close();
    }
    this.#setStatus('closed', reason);
  }

  /** A page that goes away leaves, also where the browser may keep it: its connections do not survive that. */
  #goodbye = (event: PageTransitionEvent) => {
    if (!event.persisted) return this.leave();
    this.#kept = true;
    this.signaling.leave();
  };

  /** A page that was kept comes back into the room. */
  #welcomeBack = () => {
    if (!this.#kept) return;
    this.#kept = false;
    this.signaling = this.#connect();
    quiet(this.enter(false));
  };

  /** A network that changed may have taken the path of every connection. */
  #networkChanged = () => void this.#restartDead(this.peers.values());

  #listenToPage(on: boolean): void {
    const change = on ? 'addEventListener' : 'removeEventListener';
    if (typeof window === 'undefined') return;
    window[change]('pagehide', this.#goodbye as EventListener);
    window[change]('pageshow', this.#welcomeBack);
    window[change]('online', this.#networkChanged);
    (navigator as { connection?: EventTarget }).connection?.[change]?.('change', this.#networkChanged);
  }
}

/**
 * Joins a room.
 *
 * ```ts
 * const room = await join('wss://box.example/ws', { room: 'demo', name: 'Ann' });
 * await room.publish(await navigator.mediaDevices.getUserMedia({ audio: true, video: true }));
 * room.on('peer', (peer) => peer.on('stream', (stream) => show(stream)));
 * ```
 */
export async function join(url: string | URL | undefined, options: JoinOptions): Promise<Room> {
  if (typeof options?.room !== 'string') throw new CallboxError('invalid-message', "join needs the room's name: join(url, { room })");
  const room = new Room(url, options);
  await room.enter();
  return room;
}

/** As the server merges `state` (RFC 7396). */
function merge(into: Json, patch: Json): Json {
  const merged = { ...into };
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key];
    else if (isObject(value)) merged[key] = merge(isObject(merged[key]) ? (merged[key] as Json) : {}, value);
    else merged[key] = value;
  }
  return merged;
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** 128 random bits. */
export function randomName(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
