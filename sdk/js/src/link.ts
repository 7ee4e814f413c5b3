import { Emitter } from './emitter.ts';
import { PathMeter, type Path } from './path.ts';
import type { Json } from './wire.ts';

/** Milliseconds before an interrupted connection is given a new path; the impolite side moves first, to spare a glare. */
const RESTART_AFTER = { impolite: 1_000, polite: 3_000 };
/** Milliseconds after both descriptions in which ICE begins to check paths. Chromium may stop gathering before the first candidate, and
 * then says nothing for ever. Each further wait is twice as long, up to a minute. */
const CHECKS_AFTER = { impolite: 3_000, polite: 5_000, most: 60_000 };
/** Connections in a row, none of which began to check a path, after which the link counts as failed. */
const UNCHECKED_FAILS = 3;
/** Milliseconds between two connections that are begun because a description did not fit the one before. */
const BEGIN_ANEW_AFTER = 5_000;
/** Milliseconds in which a living peer answers over the connection itself, and after which one that has not is doubted. */
const ALIVE_WITHIN = 800;
const DOUBTED_AFTER = 350;
const SLEPT = 1_000;
/** Unanswered questions that a restart may take. */
const RESTART_TAKES = 14;
/** Candidates that are kept for a description that is still to come. */
const MAX_EARLY_CANDIDATES = 64;
/** Pixels of a picture that fit the bits a second with which browsers begin, and milliseconds until the whole picture is sent. */
const FIRST_PICTURE = 640 * 360;
const WHOLE_PICTURE_AFTER = 2_000;
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
  /** What is sent from the beginning: it is in the first offer. */
  outgoing?: readonly Outgoing[];
  /** Kinds that the first offer makes room for though nothing is sent. */
  receive?: readonly ('audio' | 'video')[];
  /** True where the peer opens the control channel too. */
  control?: boolean;
  /** Sees each sender and receiver before its first frame. */
  prepare?: (end: RTCRtpSender | RTCRtpReceiver, kind: string) => void;
  /** Opens a data channel by `create`, in its own way. */
  open?: (create: (init?: RTCDataChannelInit) => RTCDataChannel, init?: RTCDataChannelInit) => RTCDataChannel;
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
  /** The peer's end closed in order; `said` where the peer said so itself, and does not begin anew. */
  bye: [said: boolean];
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
  /** The stream that each line was opened for. */
  #streamOf = new WeakMap<RTCRtpTransceiver, string>();
  /** False while this side waits for the peer's first offer. */
  #started = false;
  #closed = false;
  #ignoring = false;
  /** True after a rollback: the next ICE restart is a new connection. Between Chromium and Firefox a restart after a rollback
   * ends in mismatched DTLS roles, or in receivers that show nothing. */
  #spoilt = false;
  /** The steps of the negotiation, one after the other, this side's offers among them: a description that comes while an offer is
   * still being made would roll back what this side takes for stable, and Chromium then gathers no candidate for the answer. */
  #steps: Promise<void> = Promise.resolve();
  /** Resolves when the present connection is given up: what a closed one was asked for may never settle. */
  #gone: Promise<void> = Promise.resolve();
  #giveUp = () => {};
  #early: RTCIceCandidateInit[] = [];
  /** Digests of the certificate in the peer's last description, as the peer wrote it: of several a browser keeps one. */
  #certificate: readonly string[] | undefined;
  #restartTimer: ReturnType<typeof setTimeout> | undefined;
  #checksTimer: ReturnType<typeof setTimeout> | undefined;
  /** Connections and restarts in a row in which ICE has not begun to check a path. */
  #unchecked = 0;
  #pings = new Map<number, (alive: boolean) => void>();
  #lastPing = 0;
  /** Milliseconds there and back, as measured last. */
  #rtt = 0;
  /** Questions over the connection without an answer, since the last answer. */
  missed = 0;
  #meter = new PathMeter();
  #since = performance.now();
  #connectedAt = Infinity;
  #begunAnew = -Infinity;
  /** Milliseconds from the first step to `connected`; null before. */
  connectMs: number | null = null;

  constructor(options: LinkOptions) {
    super();
    this.#options = options;
    this.#outgoing = options.outgoing ?? [];
    this.#open(options.offers);
  }

  /** The connection below; it may be replaced by another one. */
  get pc(): RTCPeerConnection {
    return this.#pc;
  }

  /** `new`, `connecting`, `connected`, `disconnected`, `failed` or `closed`. */
  get state(): RTCPeerConnectionState {
    if (this.#closed) return 'closed';
    // Without any candidate Chromium itself says `new` for ever.
    return this.#unchecked >= UNCHECKED_FAILS && this.#pc.iceConnectionState === 'new' ? 'failed' : this.#pc.connectionState;
  }

  set polite(polite: boolean) {
    this.#options.polite = polite;
  }

  /** Takes an `offer`, `answer` or `candidate` of the peer; they are handled one after the other. */
  receive(message: { type: string; sdp?: unknown; candidate?: unknown }): void {
    const { type } = message;
    this.#step(type, () => (type === 'candidate' ? this.#addCandidate(message.candidate) : this.#describe(type, message.sdp)), () => type === 'candidate' || this.#unfit());
  }

  #step(name: string, work: () => Promise<unknown>, failed: () => void = () => {}): void {
    this.#steps = this.#steps
      .then(() => (this.#closed ? undefined : work()))
      .catch((error: unknown) => {
        console.warn(`callbox: ${name}:`, error);
        failed();
      })
      .then(() => {});
  }

  /** The two sides do not agree any more on what they negotiated: Chromium and Firefox differ after a rollback. */
  #unfit(): void {
    const now = performance.now();
    if (this.#closed || now - this.#begunAnew < BEGIN_ANEW_AFTER) return;
    this.#begunAnew = now;
    this.#open(true);
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
    // A restart takes a few round trips; what stays unanswered meanwhile asks for no other one.
    this.missed = -RESTART_TAKES;
    if (this.#spoilt) this.#open(true);
    else if (this.#pc.signalingState === 'have-local-offer') this.#send('offer');
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

  /**
   * Asks the peer over the connection itself; without a control channel the browser's own view counts. `doubted` is called
   * before the answer is given up.
   */
  alive(doubted: () => void = () => {}): Promise<boolean> {
    const control = this.#control;
    if (this.state !== 'connected') return Promise.resolve(false);
    if (control?.readyState !== 'open') return Promise.resolve(true);
    const n = ++this.#lastPing;
    return new Promise((resolve) => {
      const asked = Date.now();
      const within = Math.max(ALIVE_WITHIN, 4 * this.#rtt);
      const doubt = setTimeout(doubted, Math.max(DOUBTED_AFTER, 3 * this.#rtt));
      const done = (alive: boolean) => {
        clearTimeout(doubt);
        clearTimeout(timer);
        this.#pings.delete(n);
        this.missed = alive ? 0 : this.missed + 1;
        resolve(alive);
      };
      // A timer this late says that the page slept, and nothing about the connection.
      const timer = setTimeout(() => done(Date.now() - asked > within + SLEPT), within);
      this.#pings.set(n, done);
      if (!this.say({ ping: n })) done(false);
    });
  }

  /** Says something over the control channel; false where there is none. */
  say(message: Json): boolean {
    if (this.#control?.readyState !== 'open') return false;
    this.#control.send(JSON.stringify(message));
    return true;
  }

  /** Measures the path; null while there is none. */
  async path(): Promise<Path | null> {
    const path = this.#meter.measure(await this.#pc.getStats());
    this.#rtt = path?.rtt ?? 0;
    return path;
  }

  /** Opens a data channel to the peer. */
  openChannel(label: string, init?: RTCDataChannelInit): RTCDataChannel {
    const create = (its?: RTCDataChannelInit) => this.#pc.createDataChannel(label, its);
    return this.#options.open?.(create, init) ?? create(init);
  }

  /** Shares a budget for video among `links`. */
  async shareBudget(budget: number, links: number): Promise<void> {
    const settled = performance.now() - this.#connectedAt > WHOLE_PICTURE_AFTER;
    for (const { key, kind, maxBitrate } of this.#outgoing) {
      const sender = this.#slots.get(key)?.sender;
      if (kind !== 'video' && !maxBitrate) continue;
      const parameters = sender?.getParameters();
      const encoding = parameters?.encodings?.[0];
      if (!sender || !parameters || !encoding) continue;
      const bitrate = maxBitrate ?? Math.max(150_000, Math.round(budget / Math.max(1, links)));
      const small = (encoding.scaleResolutionDownBy ?? 1) > 1;
      if (encoding.maxBitrate === bitrate && !(small && settled)) continue;
      encoding.maxBitrate = bitrate;
      if (small && settled) encoding.scaleResolutionDownBy = 1;
      await sender.setParameters(parameters).catch(() => {});
    }
  }

  close(): void {
    if (this.#closed) return;
    this.say({ bye: true });
    this.#closed = true;
    this.#drop();
  }

  #open(offers: boolean): void {
    const again = Boolean(this.#pc);
    if (again) this.#drop();
    const pc = (this.#pc = connection(this.#options.config));
    this.#gone = new Promise((resolve) => (this.#giveUp = resolve));
    this.missed = 0;
    this.#started = this.#ignoring = this.#spoilt = false;
    this.#early = [];
    this.#certificate = undefined;
    this.#meter = new PathMeter();
    this.#connectedAt = Infinity;
    pc.onnegotiationneeded = () => pc === this.#pc && this.#started && this.#step('offer', () => this.#offer(pc));
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
      if (this.#pc.getTransceivers().some(({ receiver }) => receiver.track.kind === kind)) continue;
      const { receiver } = this.#pc.addTransceiver(kind, { direction: 'recvonly' });
      this.#options.prepare?.(receiver, kind);
    }
    // The browser's own event comes after what the page does with a newcomer. Without a control channel it is waited for: a
    // channel that the page opens now is then in the first offer.
    const pc = this.#pc;
    if (this.#control) this.#step('offer', () => this.#offer(pc));
  }

  #openControl(): void {
    if (!this.#options.control || this.#control) return;
    const control = (this.#control = this.#pc.createDataChannel(CONTROL.label, { negotiated: true, id: CONTROL.id }));
    control.onmessage = ({ data }) => this.#asked(data);
    control.onclose = () => {
      if (control === this.#control && !this.#closed) this.emit('bye', false);
    };
  }

  #asked(data: unknown): void {
    let message: Json;
    try {
      message = JSON.parse(String(data));
    } catch {
      return;
    }
    if (typeof message?.ping === 'number') this.say({ pong: message.ping });
    else if (typeof message?.pong === 'number') this.#pings.get(message.pong)?.(true);
    else if (message?.bye) this.emit('bye', true);
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
      transceiver.direction = transceiver.direction === 'sendrecv' ? 'recvonly' : 'inactive';
    }
    for (const outgoing of this.#outgoing) {
      const { key, track } = outgoing;
      const taken = this.#slots.get(key);
      if (taken && taken.sender.track !== track) changes.push(taken.sender.replaceTrack(track));
      else if (!taken && track) changes.push(this.#openSlot(outgoing, track));
    }
    await this.#unlessGone(Promise.all(changes).catch((error: unknown) => console.warn('callbox: replaceTrack:', error)));
  }

  /** Takes a line of the session that nothing is sent on, or opens one. */
  async #openSlot({ key, kind, stream, codecs }: Outgoing, track: MediaStreamTrack): Promise<void> {
    const taken = new Set(this.#slots.values());
    const free = this.#pc
      .getTransceivers()
      .filter((one) => !taken.has(one) && one.receiver.track.kind === kind && one.direction !== 'stopped' && one.currentDirection !== 'stopped');
    // A line that carried a stream carries no other one: Chromium falls back to the name of the first.
    let transceiver = free.find((one) => this.#streamOf.get(one) === stream.id) ?? free.find((one) => !this.#streamOf.has(one));
    const reused = transceiver;
    if (!transceiver) {
      const sender = this.#pc.addTrack(track, stream);
      transceiver = this.#pc.getTransceivers().find((one) => one.sender === sender)!;
    }
    if (kind === 'video' && this.connectMs === null) beginSmall(transceiver.sender, track);
    this.#slots.set(key, transceiver);
    this.#streamOf.set(transceiver, stream.id);
    this.#options.prepare?.(transceiver.sender, kind);
    // The peer may send on this line before `ontrack` is called.
    this.#options.prepare?.(transceiver.receiver, kind);
    if (codecs?.length) prefer(transceiver, kind, codecs);
    if (!reused) return;
    await reused.sender.replaceTrack(track);
    if (this.#slots.get(key) !== reused) return;
    reused.sender.setStreams?.(stream);
    reused.direction = 'sendrecv';
  }

  async #offer(pc: RTCPeerConnection): Promise<void> {
    // What a description has taken up meanwhile asks again if there is something left.
    if (pc !== this.#pc || pc.signalingState !== 'stable') return;
    await this.#unlessGone(pc.setLocalDescription());
    if (pc === this.#pc) this.#send('offer');
  }

  #send(type: 'offer' | 'answer'): void {
    const sdp = this.#pc.localDescription?.sdp;
    if (sdp && !this.#closed) this.#options.send(type, { sdp });
  }

  async #describe(messageType: string, given: unknown): Promise<void> {
    const sdp = typeof given === 'string' ? given : (given as RTCSessionDescriptionInit | null)?.sdp;
    const type = messageType as 'offer' | 'answer';
    if (typeof sdp !== 'string') return;
    const known = this.#certificate;
    const certificate = fingerprints(sdp);
    const other = known !== undefined && !certificate.some((digest) => known.includes(digest));
    if (type === 'answer') {
      // A peer that began anew cannot answer for the connection that it gave up.
      if (other) return this.#open(true);
      if (this.#pc.signalingState !== 'have-local-offer') return;
      const answered = this.#pc;
      await this.#unlessGone(answered.setRemoteDescription({ type, sdp }));
      if (answered !== this.#pc) return;
      this.#certificate = certificate;
      this.#expectChecks();
      return this.#flushEarly();
    }
    if (!other && this.#spoils(sdp)) return this.#open(true);
    // A connection that has no peer yet is begun anew, which spares the rollback.
    const begun = known === undefined && this.#pc.signalingState === 'have-local-offer';
    // What the peer gives up because no check began, it gives up for both.
    if (other && this.#pc.iceConnectionState === 'new') this.#countUnchecked();
    if (other || (begun && this.#options.polite)) this.#open(false);
    const pc = this.#pc;
    const glare = pc.signalingState !== 'stable';
    this.#ignoring = glare && !this.#options.polite;
    if (this.#ignoring) {
      // The peer began anew and may have given up the connection that got this side's offer.
      if (known === undefined) this.resend();
      return;
    }
    this.#spoilt ||= pc.signalingState === 'have-local-offer';
    // The peer looks for a new path, so this side need not.
    if (known !== undefined && ufrag(sdp) !== ufrag(pc.remoteDescription?.sdp)) this.missed = -RESTART_TAKES;
    await this.#unlessGone(pc.setRemoteDescription({ type, sdp }));
    if (pc !== this.#pc) return;
    this.#certificate = certificate;
    if (!this.#started) {
      this.#started = true;
      if (/^m=application /m.test(sdp)) this.#openControl();
    }
    await this.#flushEarly();
    await this.#sync();
    if (pc !== this.#pc) return;
    await this.#unlessGone(pc.setLocalDescription());
    if (pc !== this.#pc) return;
    this.#send('answer');
    this.#expectChecks();
  }

  /** Whether an offer restarts ICE where a rollback was, or would be. */
  #spoils(offer: string): boolean {
    const { currentRemoteDescription: remote, currentLocalDescription: local, pendingLocalDescription: pending } = this.#pc;
    if (!remote) return false;
    const restarts = ufrag(offer) !== ufrag(remote.sdp);
    const crosses = pending?.type === 'offer' && this.#options.polite;
    return crosses ? restarts || ufrag(pending.sdp) !== ufrag(local?.sdp) : restarts && this.#spoilt;
  }

  /** Waits for a step of the present connection, but no longer than there is that connection. */
  #unlessGone(step: Promise<unknown>): Promise<unknown> {
    return Promise.race([step, this.#gone]);
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
      await this.#unlessGone(this.#pc.addIceCandidate(candidate ?? undefined));
    } catch (error) {
      // What one side of two crossing offers ignored, its candidates are ignored with. A name of mDNS may be unknown here.
      if (!this.#ignoring) console.info('callbox: candidate:', error);
    }
  }

  async #flushEarly(): Promise<void> {
    const sdp = this.#pc.remoteDescription?.sdp ?? '';
    const due = this.#early.filter(({ usernameFragment: fragment }) => !fragment || sdp.includes(`a=ice-ufrag:${fragment}`));
    this.#early = [];
    for (const candidate of due) await this.#unlessGone(this.#pc.addIceCandidate(candidate).catch(() => {}));
  }

  /** Both sides know each other's description: begins anew where ICE then stands still. */
  #expectChecks(): void {
    const pc = this.#pc;
    clearTimeout(this.#checksTimer);
    if (this.#closed || pc.iceConnectionState !== 'new') return;
    const first = this.#options.polite ? CHECKS_AFTER.polite : CHECKS_AFTER.impolite;
    this.#checksTimer = setTimeout(() => {
      if (pc !== this.#pc || this.#closed || pc.iceConnectionState !== 'new') return;
      this.#countUnchecked();
      // A peer without this library may not know what to do with another certificate.
      if (this.#options.control) this.#open(true);
      else this.restart();
    }, Math.min(CHECKS_AFTER.most, first * 2 ** this.#unchecked));
  }

  #countUnchecked(): void {
    if (++this.#unchecked === UNCHECKED_FAILS) this.emit('state', this.state);
  }

  #stateChanged(): void {
    clearTimeout(this.#restartTimer);
    const { state } = this;
    if (state === 'connected') {
      this.#unchecked = 0;
      this.connectMs ??= Math.round(performance.now() - this.#since);
      this.#connectedAt = Math.min(this.#connectedAt, performance.now());
    } else if (state === 'disconnected' || state === 'failed' || this.#pc.iceConnectionState === 'disconnected') {
      const wait = this.#options.polite ? RESTART_AFTER.polite : RESTART_AFTER.impolite;
      this.#restartTimer = setTimeout(() => this.state !== 'connected' && this.restart(), wait);
    }
    this.emit('state', state);
  }

  #drop(): void {
    clearTimeout(this.#restartTimer);
    clearTimeout(this.#checksTimer);
    for (const done of [...this.#pings.values()]) done(false);
    const control = this.#control;
    this.#control = null;
    if (control) control.onclose = control.onmessage = null;
    this.#slots.clear();
    const pc = this.#pc;
    pc.onnegotiationneeded = pc.onicecandidate = pc.ontrack = pc.ondatachannel = null;
    pc.onconnectionstatechange = pc.oniceconnectionstatechange = null;
    pc.close();
    this.#giveUp();
  }
}

/** All digests of the certificate that a description speaks for: it changes only with the peer connection. */
function fingerprints(sdp: string): string[] {
  return [...sdp.matchAll(/^a=fingerprint:(\S+ \S+)/gm)].map(([, digest]) => digest!.toUpperCase());
}

/** The name of an ICE session: it changes with each restart. */
function ufrag(sdp: string | undefined): string | undefined {
  return sdp === undefined ? undefined : /^a=ice-ufrag:(\S+)/m.exec(sdp)?.[1];
}

let warm = false;

/**
 * Lets the browser load what its first connection needs, once: codecs, threads, the network's interfaces. `join` and `register` do
 * it while they wait for the server; a lobby may do it before, so that nobody waits for it after the click.
 */
export function warmUp(): void {
  if (warm || typeof RTCPeerConnection === 'undefined') return;
  warm = true;
  const pc = new RTCPeerConnection();
  pc.createOffer({ offerToReceiveAudio: true, offerToReceiveVideo: true }).catch(() => {}).then(() => pc.close());
}

/** A server that the browser does not understand must not cost the call. */
function connection(config: RTCConfiguration): RTCPeerConnection {
  try {
    // One gathering begins before the descriptions are made: everything is bundled, so that no second one follows.
    return new RTCPeerConnection({ iceCandidatePoolSize: 1, ...config });
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

/** A picture that is too large for the first bits a second is dropped several times before the browser makes it smaller itself. */
function beginSmall(sender: RTCRtpSender, track: MediaStreamTrack): void {
  const { width = 0, height = 0 } = track.getSettings();
  const scale = Math.sqrt((width * height) / FIRST_PICTURE);
  const parameters = sender.getParameters();
  const encoding = parameters.encodings?.[0];
  if (scale < 1.2 || !encoding || /detail|text/.test(track.contentHint ?? '')) return;
  encoding.scaleResolutionDownBy = scale;
  sender.setParameters(parameters).catch(() => {});
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
