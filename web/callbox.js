/**
 * A small client of callbox's native signaling. It stands alone: copy this file into your own application.
 *
 *   const box = new Callbox('wss://box.example/ws');
 *   box.on('joined', ({ peers, iceServers }) => …);        // also after a reconnection that could not resume
 *   box.on('offer', ({ from, sdp }) => …);
 *   await box.join({ roomId: 'demo', identity: 'Ann' });
 *   await box.request('offer', { to: peerId, sdp });
 *
 * It keeps one WebSocket, answers every request with a promise, and when the socket is lost resumes the session under
 * the same peer id, so that calls live on. It knows nothing of media, peer connections or pages.
 */

/** Close codes after which a client does not come back by itself: closed by us, unauthorized, kicked, replaced, room closed. */
const FINAL_CLOSE_CODES = new Set([1000, 4001, 4002, 4004, 4007]);
const HEARTBEAT_TIMEOUT = 4005;
const RATE_LIMITED = 4006;
/** Milliseconds: how long a silent socket may take to answer a ping, and the bounds of the wait between attempts. */
const PING_DEADLINE = 10_000;
const FIRST_RETRY = 300;
const LAST_RETRY = 15_000;
const RATE_LIMITED_RETRY = 5_000;

/** Messages of the box that bring ICE servers; the `ack` of one's own `accept` does too. */
const ICE_MESSAGES = new Set(['joined', 'registered', 'resumed', 'ice-servers']);

/** The object in a frame; nothing for what is not one. */
function parsed(data) {
  try {
    const message = JSON.parse(data);
    return typeof message?.type === 'string' ? message : null;
  } catch {
    return null;
  }
}

/** What the box refused; `code` is one of the protocol's error codes. */
export class CallboxError extends Error {
  constructor(code, message, retryAfter) {
    super(message ?? code);
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

export class Callbox {
  /** Own peer id; constant across resumed connections. */
  peerId = null;
  /** The newest `{iceServers, iceTransportPolicy, ttl, expiresAt}`. */
  ice = null;
  /** `idle`, `connecting`, `online`, `reconnecting` or `closed`. */
  status = 'idle';

  #url;
  #listeners = new Map();
  #pending = new Map();
  #socket = null;
  #ready = false;
  #lastId = 0;
  #seq = 0;
  #resumeToken = null;
  #entry = null;
  #attempts = 0;
  #retryTimer = 0;
  #probeTimer = 0;
  #lastHeard = 0;
  #drainWait = 0;
  #onNetworkBack = () => (this.#ready ? this.#probe() : this.#retryNow());

  constructor(url = new URL('ws', document.baseURI).href.replace(/^http/, 'ws').replace(/#.*$/, '')) {
    this.#url = url;
  }

  /** Listens to a server message type, or to `status`, `ice` or `closed`; returns a function that stops listening. */
  on(type, listener) {
    if (!this.#listeners.has(type)) this.#listeners.set(type, new Set());
    this.#listeners.get(type).add(listener);
    return () => this.#listeners.get(type).delete(listener);
  }

  /** Joins a room: `{roomId, identity?, token?, password?, metadata?, create?}`. Resolves to the `joined` message. */
  join(fields) {
    return this.#enter('join', fields);
  }

  /** Takes a name without a room, to be called by it: `{identity, token?}`. Resolves to the `registered` message. */
  register(fields) {
    return this.#enter('register', fields);
  }

  /** Sends one message and resolves to its reply; rejects with a `CallboxError`. Survives a reconnection. */
  request(type, fields = {}) {
    if (this.status === 'closed') return Promise.reject(new CallboxError('closed', 'this client is closed; make another'));
    return new Promise((resolve, reject) => {
      const message = { ...fields, type, id: String(++this.#lastId) };
      this.#pending.set(message.id, { message, resolve, reject });
      if (this.#ready) this.#write(message);
    });
  }

  /** Leaves and closes at once, so that it also works while the page goes away. */
  leave() {
    if (this.#ready) this.#write({ type: 'leave' });
    this.#end(1000);
  }

  #enter(type, fields) {
    this.#resumeToken = null;
    this.#entry = { type, fields };
    const reply = this.request(type, fields);
    reply.catch(() => (this.#entry = null));
    if (this.status === 'idle') this.#connect();
    return reply;
  }

  #connect() {
    clearTimeout(this.#retryTimer);
    globalThis.addEventListener?.('online', this.#onNetworkBack);
    this.#setStatus(this.#attempts ? 'reconnecting' : 'connecting');
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      const message = parsed(data);
      if (message) this.#receive(message);
    };
    socket.onclose = ({ code, reason }) => this.#lost(code, reason);
  }

  #receive(message) {
    this.#lastHeard = Date.now();
    if (message.type === 'joined' || message.type === 'registered') this.#seq = 1;
    else if (message.seq > this.#seq) this.#seq = message.seq;
    // What has a sender was relayed: nothing in it speaks for the box.
    if (message.from !== undefined) return this.#emit(message.type, message);
    const answers = this.#pending.has(message.id);

    switch (message.type) {
      case 'welcome':
        return this.#welcomed(message);
      case 'draining':
        this.#drainWait = message.reconnectIn;
        break;
      case 'joined':
      case 'registered':
      case 'resumed':
        this.peerId = message.peerId;
        this.#resumeToken = message.resumeToken;
        break;
    }
    this.#settle(message);
    const mayBringIce = ICE_MESSAGES.has(message.type) || (message.type === 'ack' && answers);
    if (mayBringIce && Array.isArray(message.iceServers)) {
      const { iceServers, iceTransportPolicy, ttl, expiresAt } = message;
      this.ice = { iceServers, iceTransportPolicy, ttl, expiresAt };
      this.#emit('ice', this.ice);
    }
    this.#emit(message.type, message);
  }

  #settle(message) {
    const request = this.#pending.get(message.id);
    if (!request) return;
    this.#pending.delete(message.id);
    if (message.type === 'error') request.reject(new CallboxError(message.code, message.message, message.retryAfter));
    else request.resolve(message);
  }

  async #welcomed({ heartbeat }) {
    const socket = this.#socket;
    clearInterval(this.#probeTimer);
    this.#probeTimer = setInterval(() => this.#probe(), heartbeat * 1000);
    if (this.#resumeToken) await this.#resume();
    if (socket !== this.#socket) return;
    if (!this.#resumeToken) this.#reenter();
    this.#ready = true;
    this.#attempts = 0;
    this.#setStatus('online');
    // The box answers a repeated id with the reply it gave before, so nothing happens twice.
    for (const { message } of this.#pending.values()) this.#write(message);
  }

  /** Takes the session back. Where that fails the old session is gone, and its unanswered requests fail with it. */
  async #resume() {
    const message = { type: 'resume', id: String(++this.#lastId), resumeToken: this.#resumeToken, seq: this.#seq };
    const reply = new Promise((resolve, reject) => this.#pending.set(message.id, { message, resolve, reject }));
    this.#write(message);
    try {
      await reply;
    } catch (error) {
      this.#resumeToken = null;
      this.#rejectAll(error);
    }
  }

  /** Joins or registers anew after a session was lost; a first entry that is still unanswered is simply sent again. */
  #reenter() {
    const { type, fields } = this.#entry ?? {};
    if (!type || [...this.#pending.values()].some(({ message }) => message.type === type)) return;
    this.request(type, fields).catch(({ code }) => {
      if (code === 'rate-limited' || code === 'draining') this.#lost(RATE_LIMITED, code);
      else this.#end(1000, code);
    });
  }

  /** A browser does not see the WebSocket's own pings, so a dead path is found by asking. */
  #probe() {
    const socket = this.#socket;
    const asked = Date.now();
    this.#write({ type: 'ping', id: String(++this.#lastId) });
    setTimeout(() => {
      if (socket === this.#socket && this.#lastHeard < asked) this.#lost(HEARTBEAT_TIMEOUT, 'no answer');
    }, PING_DEADLINE);
  }

  #lost(code, reason) {
    this.#dropSocket();
    if (FINAL_CLOSE_CODES.has(code)) return this.#end(code, reason);
    // A resume that was under way is asked again on the next connection.
    for (const [id, { message }] of this.#pending) if (message.type === 'resume') this.#pending.delete(id);
    this.#setStatus('reconnecting');
    this.#retryTimer = setTimeout(() => this.#connect(), this.#retryDelay(code));
  }

  #retryDelay(code) {
    const jitter = 0.5 + Math.random();
    const backoff = Math.min(LAST_RETRY, FIRST_RETRY * 2 ** this.#attempts++) * jitter;
    const atLeast = code === RATE_LIMITED ? RATE_LIMITED_RETRY * jitter : this.#drainWait;
    this.#drainWait = 0;
    return Math.max(backoff, atLeast);
  }

  #retryNow() {
    if (this.status === 'reconnecting' && !this.#socket) this.#connect();
  }

  #end(code, reason) {
    if (this.status === 'closed') return;
    this.#dropSocket();
    clearTimeout(this.#retryTimer);
    globalThis.removeEventListener?.('online', this.#onNetworkBack);
    this.#resumeToken = null;
    this.#rejectAll(new CallboxError('closed', `closed (${code})`));
    this.#setStatus('closed');
    this.#emit('closed', { code, reason });
  }

  /** Lets go of the socket at once: the close handshake of a dead path can take minutes. */
  #dropSocket() {
    clearInterval(this.#probeTimer);
    this.#ready = false;
    if (!this.#socket) return;
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close(1000);
    this.#socket = null;
  }

  #rejectAll(error) {
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }

  #write(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #setStatus(status) {
    if (status === this.status) return;
    this.status = status;
    this.#emit('status', status);
  }

  #emit(type, detail) {
    for (const listener of this.#listeners.get(type) ?? []) listener(detail);
  }
}
