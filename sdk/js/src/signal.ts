import { Listeners, type Listener } from './emitter.ts';
import { CallboxError, quiet } from './errors.ts';
import { HttpTransport, SocketTransport, type Transport, type WebSocketConstructor } from './transport.ts';
import type { Closed, Entered, Frame, IceConfig, Joined, JoinFields, Json, PeerInfo, RegisterFields, SignalEvents, SignalStatus, TokenSource } from './wire.ts';

/** Close codes after which a client does not come back by itself, and what they mean. */
const FINAL_CODES: Record<number, string> = { 1000: 'closed', 4001: 'unauthorized', 4002: 'kicked', 4004: 'replaced', 4007: 'room-closed' };
const TOKEN_ERRORS = ['unauthorized', 'token-expired'];
/** The server restarts or the room moved: it, or its successor, is there already. */
const RESUME_AT_ONCE = 1012;
const HEARTBEAT_TIMEOUT = 4005;
const RATE_LIMITED = 4006;
const TOO_LARGE = 1009;
/** Milliseconds: how long a connection may take to greet, and a silent one to answer. */
export const WELCOME_WITHIN = 6_000;
const PONG_WITHIN = { calm: 10_000, attentive: 2_500 };
/** Milliseconds between two looks at a connection while a call depends on it: with the answer's time under five seconds. */
const ATTENTIVE_HEARTBEAT = 1_500;
/** Milliseconds: a timer this late says that the machine slept, and nothing about the connection. */
const SLEPT = 1_000;
const FIRST_RETRY = 200;
const RATE_LIMITED_RETRY = 5_000;
/** The longest wait between attempts while a call depends on the connection: relayed media waits for it. */
export const ATTENTIVE_RETRY = 2_500;
/** The longest wait between attempts, by the time since the loss: well under the resume window while that is open. */
const RETRY_CAPS = [
  { within: 10_000, cap: 1_000 },
  { within: 30_000, cap: ATTENTIVE_RETRY },
  { within: Infinity, cap: 10_000 },
];
/** The least attempts while the session is kept. */
const RETRIES_IN_WINDOW = 4;
const REQUEST_TIMEOUT = 30_000;
const ENTRY_TIMEOUT = 60_000;

/** Settings of a `Signal`. */
export interface SignalOptions {
  /** Used where `join` and `register` bring none. A function is asked again whenever a token is needed. */
  token?: TokenSource;
  /** For runtimes without a `WebSocket` of their own, as Node before 22: that of the package `ws`. */
  WebSocket?: WebSocketConstructor;
  fetch?: typeof fetch;
  /** `auto` uses a WebSocket and falls back to HTTP where none opens. */
  transport?: 'auto' | 'websocket' | 'http';
}

/** Settings of one request. */
export interface RequestOptions {
  /** Milliseconds until the request fails with `timeout`; 0 waits for ever. 30 s, and 60 s for `join` and `register`, by default. */
  timeout?: number;
  /** Gives the request up; it then fails with `aborted`. */
  signal?: AbortSignal;
  /** Where the server answers `rate-limited`, waits as long as it says and asks again, in the order of all such requests. */
  patient?: boolean;
}

interface Entry {
  type: 'join' | 'register';
  fields: JoinFields | RegisterFields;
}

interface Pending {
  message: Frame;
  /** The message as it is sent; one that enters gets a token in addition. */
  text: string;
  entry: Entry | undefined;
  patient: boolean | undefined;
  /** True while it waits because the server wants fewer requests. */
  held?: boolean;
  resolve(frame: Frame): void;
  reject(error: unknown): void;
}

/**
 * A session with a callbox: requests with answers, events, and the same session again after a lost connection. It knows
 * nothing of media or pages, and runs in browsers, workers, Node, Deno and Bun.
 *
 * ```ts
 * const signal = new Signal('wss://box.example/ws');
 * signal.on('message', ({ from, content }) => console.log(from, content));
 * await signal.join({ roomId: 'demo', identity: 'Ann' });
 * await signal.request('message', { content: { text: 'hello' } });
 * ```
 */
export class Signal {
  /** Own peer id; constant across resumed connections. */
  peerId: string | null = null;
  /** The newest ICE servers and credentials. */
  ice: IceConfig | null = null;
  /** `idle`, `connecting`, `online`, `reconnecting` or `closed`. */
  status: SignalStatus = 'idle';

  #url: string;
  #options: SignalOptions;
  #listeners = new Listeners();
  #pending = new Map<string, Pending>();
  #transport: Transport | null = null;
  #ready = false;
  #lastId = 0;
  #seq = 0;
  #resumeToken: string | null = null;
  #entry: Entry | null = null;
  #attempts = 0;
  #lostAt = 0;
  #overHttp: boolean;
  #greetedBySocket = false;
  #retryTimer: Timer;
  #welcomeTimer: Timer;
  #heartbeatTimer: Timer;
  #heartbeat = 25_000;
  #attentive = false;
  /** When the answer to the present probe is due; 0 without one. */
  #probing = 0;
  /** The ping that waits for its answer, and milliseconds there and back as measured last. */
  #ping = { id: '', at: 0 };
  #roundTrip = 0;
  #lastReceived = 0;
  #drainedUntil = 0;
  #tokenRetried = false;
  /** Runs until the server takes patient requests again; then the one that was sent to try. */
  #patience: Timer;
  #tried = '';
  /** Milliseconds that the server keeps the session for, without a connection. */
  #resumeWindow = Infinity;
  /** A list of peers that comes in parts, and what came while it was incomplete. */
  #parts: { frame: Frame & { peers: PeerInfo[] }; later: Frame[] } | null = null;

  /** @param url The server's WebSocket address; by default `ws` beside the page. */
  constructor(url: string | URL = besideThePage(), options: SignalOptions = {}) {
    this.#url = String(url).replace(/^http/, 'ws').replace(/#.*$/, '');
    this.#options = options;
    this.#overHttp = options.transport === 'http' || (options.transport !== 'websocket' && !this.#webSocket);
  }

  /** Listens to a frame type of the server, or to `status`, `ice`, `closed` or `frame`; returns a function that stops. */
  on<K extends keyof SignalEvents>(type: K, listener: Listener<SignalEvents[K]>): () => void {
    this.#listeners.add(type, listener);
    return () => this.off(type, listener);
  }

  /** Listens to the next event of that type only; returns a function that stops. */
  once<K extends keyof SignalEvents>(type: K, listener: Listener<SignalEvents[K]>): () => void {
    const stop = this.on(type, (...args) => {
      stop();
      return listener(...args);
    });
    return stop;
  }

  /** Stops calling `listener`. */
  off<K extends keyof SignalEvents>(type: K, listener: Listener<SignalEvents[K]>): void {
    this.#listeners.remove(type, listener);
  }

  /** Joins a room. A refused second `join` leaves the first session as it was. */
  join(fields: JoinFields, options?: RequestOptions): Promise<Joined> {
    return this.#enter('join', fields, options) as Promise<Joined>;
  }

  /** Takes a name without a room, to call and be called. */
  register(fields: RegisterFields = {}, options?: RequestOptions): Promise<Entered> {
    return this.#enter('register', fields, options) as Promise<Entered>;
  }

  /** Sends one message and resolves to its answer; rejects with a `CallboxError`. Survives a reconnection. */
  request(type: string, fields: Json = {}, options: RequestOptions = {}): Promise<Frame> {
    return this.#request(type, fields, options);
  }

  /** Leaves and closes at once, so that it also works while a page goes away. */
  leave(): void {
    if (this.status === 'closed') return;
    if (this.#ready) this.#write('{"type":"leave"}');
    this.#end(1000, 'left');
  }

  /** Asks at once whether the connection still lives, or tries at once to get it back. `within`: milliseconds for the answer. */
  probe(within: number = PONG_WITHIN.attentive): void {
    if (this.#ready) this.#probe(within);
    else if (this.status === 'reconnecting' && !this.#transport) this.#connect();
  }

  /** True while calls depend on this session: a silent connection is then found within five seconds. */
  get attentive(): boolean {
    return this.#attentive;
  }

  set attentive(on: boolean) {
    if (on === this.#attentive) return;
    this.#attentive = on;
    if (this.#ready) this.#startHeartbeat();
  }

  get #webSocket(): WebSocketConstructor | undefined {
    return this.#options.WebSocket ?? (globalThis.WebSocket as unknown as WebSocketConstructor | undefined);
  }

  #enter(type: Entry['type'], fields: Entry['fields'], options: RequestOptions = {}): Promise<Frame> {
    const { token: _, ...plain } = fields;
    const reply = this.#request(type, plain, { timeout: ENTRY_TIMEOUT, ...options }, { type, fields });
    reply.catch(({ code }: CallboxError) => {
      // Nothing was entered and the application waits no longer: there is no reason to go on trying.
      if (!this.#entry && !this.#pending.size && ['timeout', 'aborted', 'token'].includes(code)) this.#end(1000, code);
    });
    if (this.status === 'idle') this.#connect();
    return reply;
  }

  #request(type: string, fields: Json, { timeout = REQUEST_TIMEOUT, signal, patient }: RequestOptions, entry?: Entry): Promise<Frame> {
    if (this.status === 'closed') return quiet(Promise.reject(new CallboxError('closed', 'this client is closed; make another')));
    const message: Frame = { ...fields, type, id: String(++this.#lastId) };
    const { id } = message as { id: string };
    let text: string;
    try {
      text = JSON.stringify(message);
    } catch (error) {
      return quiet(Promise.reject(new CallboxError('invalid-message', `${type} cannot be written as JSON: ${String(error)}`)));
    }
    return quiet(
      new Promise<Frame>((resolve, reject) => {
        const giveUp = (code: string, text: string) => this.#pending.get(id)?.reject(new CallboxError(code, text));
        const timer = timeout ? setTimeout(() => giveUp('timeout', `no answer to ${type}${this.#why()}`), timeout) : undefined;
        const aborted = () => giveUp('aborted', `${type} was given up`);
        const settle = <T>(then: (value: T) => void) => (value: T) => {
          this.#pending.delete(id);
          clearTimeout(timer);
          signal?.removeEventListener('abort', aborted);
          then(value);
          if (id === this.#tried) this.#goOn();
        };
        const pending: Pending = { message, text, entry, patient, resolve: settle(resolve), reject: settle(reject) };
        this.#pending.set(id, pending);
        signal?.addEventListener('abort', aborted);
        if (signal?.aborted) aborted();
        else if (patient && (this.#patience || this.#tried)) pending.held = true;
        else if (this.#ready) void this.#send(id);
      }),
    );
  }

  /** The server wants fewer requests: those that may wait do. */
  #hold(pending: Pending, retryAfter: number): void {
    pending.held = true;
    clearTimeout(this.#patience);
    this.#tried = '';
    this.#patience = setTimeout(() => this.#goOn(), retryAfter);
  }

  /** Sends the first of those that wait, and each next one after its answer: refused requests count too. */
  #goOn(): void {
    const [id, pending] = [...this.#pending].find(([, { held }]) => held) ?? [''];
    this.#patience = undefined;
    this.#tried = id;
    if (!pending) return;
    pending.held = false;
    void this.#send(id);
  }

  /** Writes a pending request; one that enters gets a fresh token first. */
  async #send(id: string): Promise<void> {
    const pending = this.#pending.get(id);
    if (!pending) return;
    if (!pending.entry) return this.#write(pending.text);
    const transport = this.#transport;
    const source = pending.entry.fields.token ?? this.#options.token;
    let token = source;
    if (typeof source === 'function') {
      try {
        token = await source();
      } catch (error) {
        const failed = new CallboxError('token', `the token function failed: ${error instanceof Error ? error.message : String(error)}`);
        if (transport === this.#transport) pending.reject(failed);
        return;
      }
    }
    if (transport === this.#transport && this.#pending.has(id)) this.#write(token ? JSON.stringify({ ...pending.message, token }) : pending.text);
  }

  #connect(): void {
    clearTimeout(this.#retryTimer);
    this.#listenToBrowser(true);
    this.#setStatus(this.#lostAt ? 'reconnecting' : 'connecting');
    let transport: Transport;
    try {
      transport = this.#overHttp
        ? new HttpTransport(this.#url, this.#options.fetch ?? globalThis.fetch.bind(globalThis))
        : new SocketTransport(this.#url, this.#webSocket!);
    } catch (error) {
      const text = this.#overHttp || this.#webSocket ? `${this.#url || 'an empty text'} is not the address of a box: ${String(error)}` : 'this runtime has no WebSocket: give the option WebSocket one';
      return this.#end(1000, 'unsupported', text);
    }
    this.#transport = transport;
    transport.onframe = (text) => transport === this.#transport && this.#parse(text);
    transport.onclose = (code, reason) => transport === this.#transport && this.#lost(code, reason);
    this.#welcomeTimer = setTimeout(() => this.#lost(HEARTBEAT_TIMEOUT, 'no welcome'), WELCOME_WITHIN);
  }

  #parse(text: string): void {
    this.#lastReceived = Date.now();
    let frame: Frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return;
    }
    if (typeof frame?.type === 'string') this.#assemble(frame);
  }

  /** Puts a list of peers together that comes in parts; what comes in between waits, so that nothing overtakes. */
  #assemble(frame: Frame): void {
    const parts = this.#parts;
    if (!parts) {
      if (frame.more === true && Array.isArray(frame.peers)) this.#begin(frame as Frame & { peers: PeerInfo[] });
      else this.#receive(frame);
    } else if (frame.type === 'peers' && !frame.id && Array.isArray(frame.peers)) {
      this.#count(frame);
      parts.frame.peers.push(...(frame.peers as PeerInfo[]));
      if (frame.more === true) return;
      this.#parts = null;
      this.#receive(parts.frame);
      for (const later of parts.later) this.#assemble(later);
    } else {
      parts.later.push(frame);
    }
  }

  #begin(frame: Frame & { peers: PeerInfo[] }): void {
    const { more: _, ...whole } = frame;
    this.#count(frame);
    this.#parts = { frame: { ...whole, peers: [...frame.peers] } as Frame & { peers: PeerInfo[] }, later: [] };
  }

  #count({ type, seq = 0 }: Frame): void {
    if (type === 'joined' || type === 'registered') this.#seq = Math.max(1, seq);
    else if (seq > this.#seq) this.#seq = seq;
  }

  #receive(frame: Frame): void {
    const { type } = frame;
    const asked = frame.id === undefined ? undefined : this.#pending.get(frame.id);
    this.#count(frame);
    if (type === 'pong' && frame.id === this.#ping.id) {
      this.#roundTrip = Date.now() - this.#ping.at;
      // Answered: who asks again gets another question.
      this.#probing = 0;
    } else if (type === 'welcome') {
      void this.#welcomed(frame as Frame & { heartbeat: number });
    } else if (type === 'draining') {
      this.#drainedUntil = Date.now() + Number(frame.reconnectIn);
    } else if (type === 'joined' || type === 'registered' || type === 'resumed') {
      this.peerId = (frame as Entered).peerId;
      this.#resumeToken = (frame as Entered).resumeToken;
      this.#resumeWindow = (frame as Entered).resumeWindow * 1000 || Infinity;
      if (asked?.entry) this.#entry = asked.entry;
      this.#tokenRetried = false;
      this.#restored();
    }
    if (asked) {
      const { code, retryAfter = RATE_LIMITED_RETRY } = frame as { code?: unknown; retryAfter?: number };
      if (type === 'error' && code === 'rate-limited' && asked.patient) this.#hold(asked, retryAfter);
      else if (type === 'error') {
        // Where the application itself asks to enter, the connection is there all the same.
        if (asked.entry && asked.entry !== this.#entry) this.#restored();
        asked.reject(new CallboxError(String(frame.code), frame.message as string, frame.retryAfter as number));
      } else asked.resolve(frame);
    }
    // What a peer wrote never carries ICE servers: only these frames are the server's own.
    if (Array.isArray(frame.iceServers) && (['joined', 'registered', 'resumed', 'ice-servers'].includes(type) || (type === 'ack' && asked))) {
      const { iceServers, iceTransportPolicy, ttl, expiresAt } = frame as Frame & IceConfig;
      this.ice = { iceServers, iceTransportPolicy, ttl, expiresAt };
      this.#emit('ice', this.ice);
    }
    this.#emit('frame', frame);
    this.#emit(type, frame);
  }

  async #welcomed({ heartbeat }: { heartbeat: number }): Promise<void> {
    const transport = this.#transport;
    clearTimeout(this.#welcomeTimer);
    if (!this.#overHttp) this.#greetedBySocket = true;
    if (heartbeat > 0) this.#heartbeat = heartbeat * 1000;
    this.#startHeartbeat();
    if (this.#resumeToken) await this.#resume();
    if (transport !== this.#transport) return;
    if (!this.#resumeToken) {
      this.#reenter();
      const entering = [...this.#pending].find(([, { entry }]) => entry)?.[0];
      if (entering) await this.#send(entering);
      if (transport !== this.#transport) return;
      this.#openUp(entering);
    } else {
      this.#openUp();
    }
  }

  /** The server answers a repeated id with the reply that it gave before, so nothing happens twice. */
  #openUp(sent?: string): void {
    this.#ready = true;
    // A session that is gone has to be entered anew first, and the server may refuse that.
    if (!sent || !this.#lostAt) this.#restored();
    for (const [id, pending] of [...this.#pending]) {
      pending.held = false;
      if (id !== sent) void this.#send(id);
    }
  }

  #restored(): void {
    this.#attempts = this.#lostAt = 0;
    this.#setStatus('online');
  }

  /** Browsers do not say why an address cannot be reached. */
  #why(): string {
    if (this.#ready) return '';
    return `: ${this.#url.replace(/\?.*/, '')} cannot be reached. Is it the address of a box, and this page's origin in its http.allowed_origins?`;
  }

  /** Takes the session back. Where that fails the session is gone, and its unanswered requests fail with it. */
  async #resume(): Promise<void> {
    const transport = this.#transport;
    const reply = this.#request('resume', { resumeToken: this.#resumeToken, seq: this.#seq }, {});
    this.#write(this.#pending.get(String(this.#lastId))!.text);
    try {
      await reply;
    } catch (error) {
      if (transport !== this.#transport) return;
      this.#resumeToken = null;
      this.#rejectAll(error, (pending) => !pending.entry);
    }
  }

  /** Enters anew after a session was lost; an entry that is still unanswered is simply sent again. */
  #reenter(): void {
    if (!this.#entry || [...this.#pending.values()].some(({ entry }) => entry)) return;
    const entry = this.#entry;
    const { token, ...plain } = entry.fields;
    this.#request(entry.type, plain, { timeout: 0 }, entry).catch(({ code, message }: CallboxError) => {
      if (this.status === 'closed' || this.#entry !== entry) return;
      const source = token ?? this.#options.token;
      if (TOKEN_ERRORS.includes(code) && typeof source === 'function' && !this.#tokenRetried) {
        this.#tokenRetried = true;
        this.#lost(RESUME_AT_ONCE, code);
      } else if (['rate-limited', 'draining', 'timeout', 'token', 'internal'].includes(code)) {
        this.#lost(RATE_LIMITED, code);
      } else {
        this.#end(1000, code, message);
      }
    });
  }

  #startHeartbeat(): void {
    clearInterval(this.#heartbeatTimer);
    const every = this.#attentive ? ATTENTIVE_HEARTBEAT : this.#heartbeat;
    this.#heartbeatTimer = setInterval(() => {
      if (Date.now() - this.#lastReceived > every / 2) this.#probe(this.#attentive ? PONG_WITHIN.attentive : PONG_WITHIN.calm);
    }, every);
    // In Node this timer alone keeps no process alive.
    (this.#heartbeatTimer as { unref?: () => void }).unref?.();
  }

  /** A browser does not show the WebSocket's own pings, so a dead path is found by asking. */
  #probe(within: number): void {
    // A box far away answers no sooner than it can.
    const deadline = Math.max(within, Math.min(4 * this.#roundTrip, PONG_WITHIN.attentive));
    const transport = this.#transport;
    const asked = Date.now();
    const due = asked + deadline;
    if (this.#probing && this.#probing <= due) return;
    this.#probing = due;
    this.#ping = { id: String(++this.#lastId), at: asked };
    this.#write(JSON.stringify({ type: 'ping', id: this.#ping.id }));
    setTimeout(() => {
      if (this.#probing === due) this.#probing = 0;
      if (transport !== this.#transport || this.#lastReceived >= asked) return;
      if (Date.now() - asked > deadline + SLEPT) this.#probe(deadline);
      else this.#lost(HEARTBEAT_TIMEOUT, 'no answer');
    }, deadline);
  }

  #lost(code: number, reason: string): void {
    this.#dropTransport();
    const final = FINAL_CODES[code];
    if (final) return this.#end(code, final === 'closed' ? reason || final : final);
    if (this.#options.transport !== 'websocket' && this.#options.transport !== 'http' && !this.#greetedBySocket) {
      this.#overHttp = !this.#overHttp && typeof (this.#options.fetch ?? globalThis.fetch) === 'function';
    }
    if (code === TOO_LARGE) this.#rejectLargest();
    // A resume that was under way is asked again on the next connection.
    for (const { message, reject } of [...this.#pending.values()]) if (message.type === 'resume') reject(new CallboxError('closed'));
    this.#lostAt ||= Date.now();
    this.#setStatus('reconnecting');
    clearTimeout(this.#retryTimer);
    this.#retryTimer = setTimeout(() => this.#connect(), this.#retryDelay(code));
  }

  #retryDelay(code: number): number {
    const now = Date.now();
    const { cap } = RETRY_CAPS.find(({ within }) => now - this.#lostAt < within)!;
    // Several attempts fit into a short window, too.
    const most = Math.min(cap, this.#attentive ? ATTENTIVE_RETRY : Infinity, this.#resumeWindow / RETRIES_IN_WINDOW);
    const jitter = 0.5 + Math.random() / 2;
    // Where only the path is dead, the server waits behind another one.
    const first = (code === RESUME_AT_ONCE || code === HEARTBEAT_TIMEOUT) && !this.#attempts ? 0 : FIRST_RETRY;
    const backoff = Math.min(most, first * 2 ** this.#attempts++) * jitter;
    // The server counts from its message, so a part of the wait is over already.
    const atLeast = code === RATE_LIMITED ? RATE_LIMITED_RETRY * jitter : this.#drainedUntil - now;
    this.#drainedUntil = 0;
    return Math.max(backoff, atLeast);
  }

  #end(code: number, reason: string, text = `closed (${reason})`): void {
    if (this.status === 'closed') return;
    this.#dropTransport();
    clearTimeout(this.#retryTimer);
    this.#listenToBrowser(false);
    this.#resumeToken = this.#entry = null;
    this.#setStatus('closed');
    this.#rejectAll(new CallboxError(reason === 'unsupported' ? reason : 'closed', text));
    this.#emit('closed', { code, reason } satisfies Closed);
  }

  /** Lets go at once: the close handshake of a dead path can take minutes. */
  #dropTransport(): void {
    clearTimeout(this.#welcomeTimer);
    clearInterval(this.#heartbeatTimer);
    clearTimeout(this.#patience);
    this.#patience = undefined;
    this.#tried = '';
    this.#ready = false;
    this.#probing = 0;
    this.#parts = null;
    const transport = this.#transport;
    this.#transport = null;
    transport?.close();
  }

  /** The server takes no frame of that size: sent again, it would end the next connection too. */
  #rejectLargest(): void {
    const [largest] = [...this.#pending.values()].sort((a, b) => b.text.length - a.text.length);
    largest?.reject(new CallboxError('too-large', `the server takes no message of ${largest.text.length} characters`));
  }

  #rejectAll(error: unknown, which: (pending: Pending) => boolean = () => true): void {
    for (const pending of [...this.#pending.values()]) if (which(pending)) pending.reject(error);
  }

  #write(text: string): void {
    this.#transport?.send(text);
  }

  #setStatus(status: SignalStatus): void {
    if (status === this.status) return;
    this.status = status;
    this.#emit('status', status);
  }

  #emit(type: string, ...args: unknown[]): void {
    this.#listeners.emit(type, args);
  }

  /** A network that came back or changed, and a page that wakes, are reasons to look at once. */
  #onBrowser = ({ type }: Event) => {
    if (type !== 'visibilitychange' || document.visibilityState === 'visible') this.probe();
  };

  #listenToBrowser(on: boolean): void {
    const change = on ? 'addEventListener' : 'removeEventListener';
    globalThis[change]?.('online', this.#onBrowser);
    globalThis[change]?.('pageshow', this.#onBrowser);
    if (typeof document !== 'undefined') document[change]('visibilitychange', this.#onBrowser);
    const { connection } = (globalThis.navigator ?? {}) as { connection?: EventTarget };
    connection?.[change]?.('change', this.#onBrowser);
  }
}

function besideThePage(): URL {
  if (typeof document === 'undefined') throw new CallboxError('unsupported', "outside of a page the server's address has to be given");
  return new URL('ws', document.baseURI);
}

type Timer = ReturnType<typeof setTimeout> | undefined;
