import { Emitter } from './emitter.ts';
import { PathMeter, type Path } from './path.ts';
import type { Json } from './wire.ts';

/** Milliseconds before an interrupted connection is given a new path; the impolite side moves first, to spare a glare. */
const RESTART_AFTER = { impolite: 1_000, polite: 3_000 };
/** Milliseconds in which a living peer answers over the connection itself. */
const ALIVE_WITHIN = 800;
/** Candidates that are kept for a description that is still to come. */
const MAX_EARLY_CANDIDATES = 64;
/** The channel that both sides open by themselves, for questions about the connection. */
const CONTROL = { label: 'callbox', id: 0 };

/** One track to send. A slot keeps its place in the session while its track comes, goes and changes. */
export interface Outgoing {
  /** Names the slot; constant while it is published. */
  key: string;
  kind: 'audio' | 'video';
  track: MediaStreamTrack | null;
  /** The stream that the peer sees the track in. */
  stream: MediaStream;
  /** Bits a second; video without it shares the room's budget. */
  maxBitrate?: number | undefined;
  /** Preferred codecs, as `video/VP9`, best first. */
  codecs?: readonly string[] | undefined;
}

/** Settings of a `Link`. */
export interface LinkOptions {
  /** The polite side yields where two offers cross. */
  polite: boolean;
  /** Whether this side makes the first offer. */
  offers: boolean;
  config: RTCConfiguration;
  /** Carries a description or candidate to the peer. */
  send(type: 'offer' | 'answer' | 'candidate', fields: Json): void;
  /** Kinds that the first offer makes room for though nothing is sent. */
  receive?: readonly ('audio' | 'video')[];
  /** True where the peer opens the control channel too. */
  control?: boolean;
  /** Sees each sender and receiver before its first frame. */
  prepare?: (end: RTCRtpSender | RTCRtpReceiver, kind: string) => void;
}

/** Events of a `Link`. */
export interface LinkEvents {
  state: [state: RTCPeerConnectionState];
  /** A track came; `key` is the id of the peer's stream, or empty. */
  track: [track: MediaStreamTrack, key: string];
  trackend: [track: MediaStreamTrack, key: string];
  /** The connection was made anew: earlier tracks and channels are gone. */
  reset: [];
  channel: [channel: RTCDataChannel];
  /** The peer's end closed in order. */
  bye: [];
  /** A request over the control channel. */
  control: [message: Json];
}

/**
 * One peer connection: perfect negotiation, trickle, ICE restarts, tracks that come and go, and the path in words. It
 * knows nothing of rooms or of how signaling travels.
 */
export class Link extends Emitter<LinkEvents> {
  #options: LinkOptions;
  #pc!: RTCPeerConnection;
  #control: RTCDataChannel | null = null;
  #outgoing: readonly Outgoing[] = [];
  #slots = new Map<string, RTCRtpTransceiver>();
  /** False while this side waits for the peer's first offer. */
  #started = false;
  #closed = false;
  #offering = false;
  #ignoring = false;
  #received: Promise<void> = Promise.resolve();
  #early: RTCIceCandidateInit[] = [];
  #restartTimer: ReturnType<typeof setTimeout> | undefined;
  #pings = new Map<number, (alive: boolean) => void>();
  #lastPing = 0;
  #meter = new PathMeter();
  #since = performance.now();
  /** Milliseconds from the first step to `connected`; null before. */
  connectMs: number | null = null;

  constructor(options: LinkOptions) {
    super();
    this.#options = options;
    this.#open(options.offers);
  }

  /** The connection below; it may be replaced by another one. */
  get pc(): RTCPeerConnection {
    return this.#pc;
  }

  /** `new`, `connecting`, `connected`, `disconnected`, `failed` or `closed`. */
  get state(): RTCPeerConnectionState {
    return this.#closed ? 'closed' : this.#pc.connectionState;
  }

  set polite(polite: boolean) {
    this.#options.polite = polite;
  }

  /** Takes an `offer`, `answer` or `candidate` of the peer; they are handled one after the other. */
  receive(message: { type: string; sdp?: unknown; candidate?: unknown }): void {
    this.#received = this.#received
      .then(() => (this.#closed ? undefined : message.type === 'candidate' ? this.#addCandidate(message.candidate) : this.#describe(message.type, message.sdp)))
      .catch((error: unknown) => console.warn(`callbox: ${message.type}:`, error));
  }

  /** Sends these tracks from now on; resolves when each is on its way, or waits for the negotiation that is due. */
  async publish(outgoing: readonly Outgoing[]): Promise<void> {
    this.#outgoing = outgoing;
    await this.#sync();
  }

  /** Uses new ICE servers or another policy from the next gathering on. */
  configure(config: RTCConfiguration): void {
    this.#options.config = config;
    if (!this.#closed) applyConfig(this.#pc, config);
  }

  /** Looks for a new path. One that works is kept meanwhile. */
  restart(): void {
    if (this.#closed) return;
    if (this.#pc.signalingState === 'have-local-offer') this.#send('offer');
    else if (this.#pc.remoteDescription) this.#pc.restartIce();
    else if (!this.#started) this.start();
  }

  /** Sends again what may have been lost while the peer was out of reach. */
  resend(): void {
    if (!this.#closed && this.#pc.signalingState === 'have-local-offer') this.#send('offer');
  }

  /** Connects anew from nothing: a path that works survives every restart, even against a new policy. */
  reset(): void {
    if (!this.#closed) this.#open(true);
  }

  /** Makes the first offer, though the peer was to make it. */
  start(): void {
    if (this.#started || this.#closed) return;
    this.#start();
  }

  /** Asks the peer over the connection itself; without a control channel the browser's own view counts. */
  alive(): Promise<boolean> {
    const control = this.#control;
    if (this.state !== 'connected') return Promise.resolve(false);
    if (control?.readyState !== 'open') return Promise.resolve(true);
    const n = ++this.#lastPing;
    return new Promise((resolve) => {
      const done = (alive: boolean) => {
        clearTimeout(timer);
        this.#pings.delete(n);
        resolve(alive);
      };
      const timer = setTimeout(done, ALIVE_WITHIN, false);
      this.#pings.set(n, done);
      if (!this.tell({ ping: n })) done(false);
    });
  }

  /** Says something over the control channel; false where there is none. */
  tell(message: Json): boolean {
    if (this.#control?.readyState !== 'open') return false;
    this.#control.send(JSON.stringify(message));
    return true;
  }

  /** Measures the path; null while there is none. */
  async path(): Promise<Path | null> {
    return this.#meter.measure(await this.#pc.getStats());
  }

  /** Opens a data channel to the peer. */
  openChannel(label: string, init?: RTCDataChannelInit): RTCDataChannel {
    return this.#pc.createDataChannel(label, init);
  }

  /** Shares a budget for video among `links`. */
  async shareBudget(budget: number, links: number): Promise<void> {
    for (const { key, kind, maxBitrate } of this.#outgoing) {
      const sender = this.#slots.get(key)?.sender;
      if (kind !== 'video' && !maxBitrate) continue;
      const parameters = sender?.getParameters();
      const encoding = parameters?.encodings?.[0];
      if (!sender || !parameters || !encoding) continue;
      const bitrate = maxBitrate ?? Math.max(150_000, Math.round(budget / Math.max(1, links)));
      if (encoding.maxBitrate === bitrate) continue;
      encoding.maxBitrate = bitrate;
      await sender.setParameters(parameters).catch(() => {});
    }
  }

  close(): void {
    if (this.#closed) return;
    this.tell({ bye: true });
    this.#closed = true;
    this.#drop();
  }

  #open(offers: boolean): void {
    const again = Boolean(this.#pc);
    if (again) this.#drop();
    const pc = (this.#pc = connection(this.#options.config));
    this.#started = this.#offering = this.#ignoring = false;
    this.#early = [];
    this.#meter = new PathMeter();
    pc.onnegotiationneeded = () => pc === this.#pc && this.#started && void this.#offer();
    pc.onicecandidate = ({ candidate }) => pc === this.#pc && this.#options.send('candidate', { candidate: candidate?.toJSON() ?? null });
    pc.ontrack = ({ track, streams: [stream], receiver }) => {
      if (pc !== this.#pc) return;
      this.#options.prepare?.(receiver, track.kind);
      const key = stream?.id ?? '';
      stream?.addEventListener('removetrack', (event) => pc === this.#pc && event.track === track && this.emit('trackend', track, key));
      this.emit('track', track, key);
    };
    pc.ondatachannel = ({ channel }) => pc === this.#pc && this.emit('channel', channel);
    pc.onconnectionstatechange = () => pc === this.#pc && this.#stateChanged();
    pc.oniceconnectionstatechange = () => pc === this.#pc && pc.iceConnectionState === 'disconnected' && this.#stateChanged();
    if (again) this.emit('reset');
    if (offers) this.#start();
  }

  /** Begins to negotiate: everything that this side has is in its first offer. */
  #start(): void {
    this.#started = true;
    this.#openControl();
    void this.#sync();
    for (const kind of this.#options.receive ?? []) {
      if (!this.#pc.getTransceivers().some(({ receiver }) => receiver.track.kind === kind)) this.#pc.addTransceiver(kind, { direction: 'recvonly' });
    }
  }

  #openControl(): void {
    if (!this.#options.control || this.#control) return;
    const control = (this.#control = this.#pc.createDataChannel(CONTROL.label, { negotiated: true, id: CONTROL.id }));
    control.onmessage = ({ data }) => this.#asked(data);
    control.onclose = () => {
      if (control === this.#control && !this.#closed) this.emit('bye');
    };
  }

  #asked(data: unknown): void {
    let message: Json;
    try {
      message = JSON.parse(String(data));
    } catch {
      return;
    }
    if (typeof message?.ping === 'number') this.tell({ pong: message.ping });
    else if (typeof message?.pong === 'number') this.#pings.get(message.pong)?.(true);
    else if (message?.bye) this.emit('bye');
    else if (message) this.emit('control', message);
  }

  async #sync(): Promise<void> {
    if (!this.#started || this.#closed) return;
    const changes: Promise<void>[] = [];
    const wanted = new Set(this.#outgoing.map(({ key }) => key));
    for (const [key, transceiver] of this.#slots) {
      if (wanted.has(key)) continue;
      this.#slots.delete(key);
      changes.push(transceiver.sender.replaceTrack(null));
      transceiver.direction = transceiver.direction.startsWith('send') && transceiver.direction !== 'sendonly' ? 'recvonly' : 'inactive';
    }
    for (const outgoing of this.#outgoing) {
      const { key, track } = outgoing;
      const taken = this.#slots.get(key);
      if (taken && taken.sender.track !== track) changes.push(taken.sender.replaceTrack(track));
      else if (!taken && track) changes.push(this.#openSlot(outgoing, track));
    }
    await Promise.all(changes).catch((error: unknown) => console.warn('callbox: replaceTrack:', error));
  }

  /** Takes a line of the session that nothing is sent on, or opens one. */
  async #openSlot({ key, kind, stream, codecs }: Outgoing, track: MediaStreamTrack): Promise<void> {
    const taken = new Set(this.#slots.values());
    let transceiver = this.#pc
      .getTransceivers()
      .find((one) => !taken.has(one) && one.receiver.track.kind === kind && one.direction !== 'stopped' && one.currentDirection !== 'stopped');
    let change: Promise<void> | undefined;
    if (transceiver) {
      transceiver.sender.setStreams?.(stream);
      transceiver.direction = 'sendrecv';
      change = transceiver.sender.replaceTrack(track);
    } else {
      const sender = this.#pc.addTrack(track, stream);
      transceiver = this.#pc.getTransceivers().find((one) => one.sender === sender)!;
    }
    this.#slots.set(key, transceiver);
    this.#options.prepare?.(transceiver.sender, kind);
    if (codecs?.length) prefer(transceiver, kind, codecs);
    await change;
  }

  async #offer(): Promise<void> {
    const pc = this.#pc;
    try {
      this.#offering = true;
      await pc.setLocalDescription();
      if (pc === this.#pc && pc.signalingState === 'have-local-offer') this.#send('offer');
    } catch (error) {
      if (pc === this.#pc && !this.#closed) console.warn('callbox: offer:', error);
    } finally {
      if (pc === this.#pc) this.#offering = false;
    }
  }

  #send(type: 'offer' | 'answer'): void {
    const sdp = this.#pc.localDescription?.sdp;
    if (sdp) this.#options.send(type, { sdp });
  }

  async #describe(messageType: string, given: unknown): Promise<void> {
    const sdp = typeof given === 'string' ? given : (given as RTCSessionDescriptionInit | null)?.sdp;
    const type = messageType as 'offer' | 'answer';
    if (typeof sdp !== 'string') return;
    const known = fingerprint((this.#pc.currentRemoteDescription ?? this.#pc.remoteDescription)?.sdp);
    const other = known !== undefined && fingerprint(sdp) !== known;
    if (type === 'answer') {
      // A peer that began anew cannot answer for the connection that it gave up.
      if (other) return this.#open(true);
      if (this.#pc.signalingState !== 'have-local-offer') return;
      await this.#pc.setRemoteDescription({ type, sdp });
      return this.#flushEarly();
    }
    if (other) this.#open(false);
    const pc = this.#pc;
    const glare = this.#offering || pc.signalingState !== 'stable';
    this.#ignoring = glare && !this.#options.polite;
    if (this.#ignoring) return;
    await pc.setRemoteDescription({ type, sdp });
    if (pc !== this.#pc) return;
    if (!this.#started) {
      this.#started = true;
      if (/^m=application /m.test(sdp)) this.#openControl();
    }
    await this.#flushEarly();
    void this.#sync();
    await pc.setLocalDescription();
    if (pc === this.#pc) this.#send('answer');
  }

  async #addCandidate(given: unknown): Promise<void> {
    const candidate = typeof given === 'string' ? { candidate: given, sdpMLineIndex: 0 } : (given as RTCIceCandidateInit | null);
    const { remoteDescription } = this.#pc;
    const fragment = candidate?.usernameFragment;
    if (!remoteDescription || (fragment && !remoteDescription.sdp.includes(`a=ice-ufrag:${fragment}`))) {
      // It belongs to a description that is still to come, or to a connection that is gone.
      if (candidate && this.#early.length < MAX_EARLY_CANDIDATES) this.#early.push(candidate);
      return;
    }
    try {
      await this.#pc.addIceCandidate(candidate ?? undefined);
    } catch (error) {
      // What one side of two crossing offers ignored, its candidates are ignored with. A name of mDNS may be unknown here.
      if (!this.#ignoring) console.info('callbox: candidate:', error);
    }
  }

  async #flushEarly(): Promise<void> {
    const sdp = this.#pc.remoteDescription?.sdp ?? '';
    const due = this.#early.filter(({ usernameFragment: fragment }) => !fragment || sdp.includes(`a=ice-ufrag:${fragment}`));
    this.#early = [];
    for (const candidate of due) await this.#pc.addIceCandidate(candidate).catch(() => {});
  }

  #stateChanged(): void {
    clearTimeout(this.#restartTimer);
    const { state } = this;
    if (state === 'connected') {
      this.connectMs ??= Math.round(performance.now() - this.#since);
    } else if (state === 'disconnected' || state === 'failed' || this.#pc.iceConnectionState === 'disconnected') {
      const wait = this.#options.polite ? RESTART_AFTER.polite : RESTART_AFTER.impolite;
      this.#restartTimer = setTimeout(() => this.state !== 'connected' && this.restart(), wait);
    }
    this.emit('state', state);
  }

  #drop(): void {
    clearTimeout(this.#restartTimer);
    for (const done of [...this.#pings.values()]) done(false);
    const control = this.#control;
    this.#control = null;
    if (control) control.onclose = control.onmessage = null;
    this.#slots.clear();
    const pc = this.#pc;
    pc.onnegotiationneeded = pc.onicecandidate = pc.ontrack = pc.ondatachannel = null;
    pc.onconnectionstatechange = pc.oniceconnectionstatechange = null;
    pc.close();
  }
}

/** The certificate that a description speaks for: it changes only with the peer connection. */
function fingerprint(sdp: string | undefined): string | undefined {
  return sdp === undefined ? undefined : /^a=fingerprint:\S+ (\S+)/m.exec(sdp)?.[1]?.toUpperCase();
}

/** A server that the browser does not understand must not cost the call. */
function connection(config: RTCConfiguration): RTCPeerConnection {
  try {
    return new RTCPeerConnection(config);
  } catch (error) {
    console.warn('callbox: ICE servers:', error);
    return new RTCPeerConnection({ ...config, iceServers: [] });
  }
}

function applyConfig(pc: RTCPeerConnection, config: RTCConfiguration): void {
  try {
    pc.setConfiguration({ ...pc.getConfiguration(), ...config });
  } catch (error) {
    console.warn('callbox: ICE servers:', error);
  }
}

/** Puts the preferred codecs first and keeps the others, so that two sides always find one in common. */
function prefer(transceiver: RTCRtpTransceiver, kind: string, codecs: readonly string[]): void {
  const all = RTCRtpReceiver.getCapabilities?.(kind)?.codecs ?? [];
  const rank = (mimeType: string) => {
    const at = codecs.findIndex((codec) => codec.toLowerCase() === mimeType.toLowerCase());
    return at < 0 ? codecs.length : at;
  };
  const sorted = [...all].sort((a, b) => rank(a.mimeType) - rank(b.mimeType));
  try {
    transceiver.setCodecPreferences?.(sorted);
  } catch {
    // An older browser may not know one of its own codecs here; its default order serves.
  }
}
