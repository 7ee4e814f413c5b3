/**
 * One connection to the server that carries text frames: a WebSocket, or HTTP requests where WebSockets do not pass.
 * A transport reports its end once and is then of no more use.
 */
export interface Transport {
  onframe: (text: string) => void;
  onclose: (code: number, reason: string) => void;
  send(text: string): void;
  /** Lets go at once and reports nothing more. */
  close(): void;
}

/** The part of the browser's `WebSocket` that is used; the packages `ws` and `undici` have it too. */
export interface WebSocketLike {
  readyState: number;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  onerror: ((event: unknown) => void) | null;
  send(text: string): void;
  close(code?: number): void;
}

/** Makes a WebSocket: the browser's, or that of a package. */
export type WebSocketConstructor = new (url: string) => WebSocketLike;

const OPEN = 1;
const ABNORMAL = 1006;
const TOO_LARGE = 1009;
/** Milliseconds in which a stream of events has to begin; a proxy that collects it would never let it. */
const FIRST_EVENT_WITHIN = 3_000;
const LONG_POLL_SECONDS = 25;
/** Characters of a request that may outlive its page. */
const KEPT_ALIVE = 8_192;

/** Frames over a WebSocket. */
export class SocketTransport implements Transport {
  onframe = (_: string) => {};
  onclose = (_: number, __: string) => {};
  #socket: WebSocketLike;

  constructor(url: string, Socket: WebSocketConstructor) {
    const socket = (this.#socket = new Socket(url));
    socket.onmessage = ({ data }) => this.onframe(String(data));
    socket.onclose = ({ code, reason }) => this.onclose(code, String(reason ?? ''));
    socket.onerror = () => {};
  }

  send(text: string): void {
    if (this.#socket.readyState === OPEN) this.#socket.send(text);
  }

  close(): void {
    const socket = this.#socket;
    socket.onmessage = socket.onclose = null;
    socket.close(1000);
  }
}

/** Frames over HTTP: down by Server-Sent Events or, where those do not come through, by long polling; up by POST. */
export class HttpTransport implements Transport {
  onframe = (_: string) => {};
  onclose = (_: number, __: string) => {};
  #base: string;
  #query: string;
  #fetch: typeof fetch;
  #session = '';
  #gone = new AbortController();
  #unsent: string[] = [];
  #sending = false;
  #sent: Promise<void> = Promise.resolve();
  #delivered = false;

  constructor(url: string, fetcher: typeof fetch) {
    const base = new URL(url.replace(/^ws/, 'http'));
    base.pathname = base.pathname.replace(/\/?ws\/?$/, '') + '/v1/sessions';
    // A token in the address is for the request that opens the session.
    const { search } = base;
    base.search = base.hash = '';
    this.#base = base.href;
    this.#query = search;
    this.#fetch = fetcher;
    this.#run().catch(() => this.#end(ABNORMAL, 'no connection'));
  }

  send(text: string): void {
    this.#unsent.push(text);
    this.#flush();
  }

  close(): void {
    if (this.#gone.signal.aborted) return;
    this.#gone.abort();
    const last = this.#unsent.splice(0);
    if (!this.#session) return;
    const url = `${this.#base}/${this.#session}`;
    // What is under way arrives first: the session ends with the DELETE.
    void this.#sent
      .then(async () => {
        for (const text of last) await this.#post(text);
        await this.#fetch(url, { method: 'DELETE', keepalive: true });
      })
      .catch(() => {});
  }

  async #run(): Promise<void> {
    const { signal } = this.#gone;
    const made = await this.#fetch(this.#base + this.#query, { method: 'POST', signal });
    if (made.status !== 201) return this.#end(ABNORMAL, `HTTP ${made.status}`);
    this.#session = encodeURIComponent(((await made.json()) as { sessionId: string }).sessionId);
    this.#flush();
    await this.#events().catch(() => {});
    while (!signal.aborted) {
      const polled = await this.#fetch(`${this.#base}/${this.#session}/messages?wait=${LONG_POLL_SECONDS}`, { signal, cache: 'no-store' });
      if (!polled.ok) return this.#end(ABNORMAL, `HTTP ${polled.status}`);
      const { messages, closed } = (await polled.json()) as { messages: unknown[]; closed?: { code: number; reason?: string } };
      for (const message of messages) this.#deliver(JSON.stringify(message));
      if (closed) return this.#end(closed.code, closed.reason ?? '');
    }
  }

  /** Reads events until their stream ends; returns at once where none comes. */
  async #events(): Promise<void> {
    const stop = new AbortController();
    const giveUp = () => stop.abort();
    this.#gone.signal.addEventListener('abort', giveUp);
    const timer = setTimeout(() => this.#delivered || giveUp(), FIRST_EVENT_WITHIN);
    try {
      const response = await this.#fetch(`${this.#base}/${this.#session}/events`, {
        headers: { Accept: 'text/event-stream' },
        signal: stop.signal,
        cache: 'no-store',
      });
      if (!response.ok || !response.body) return;
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      let text = '';
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        text += decoder.decode(value, { stream: true });
        const events = text.split(/\r?\n\r?\n/);
        text = events.pop() ?? '';
        for (const event of events) this.#event(event);
      }
    } finally {
      clearTimeout(timer);
      this.#gone.signal.removeEventListener('abort', giveUp);
    }
  }

  #event(event: string): void {
    const lines = event.split(/\r?\n/);
    const data = lines.filter((line) => line.startsWith('data:')).map((line) => line.slice(5).trimStart()).join('\n');
    if (!data) return;
    if (lines.some((line) => /^event: ?close$/.test(line))) {
      const { code, reason } = JSON.parse(data) as { code: number; reason?: string };
      this.#end(code, reason ?? '');
    } else {
      this.#deliver(data);
    }
  }

  #deliver(text: string): void {
    this.#delivered = true;
    if (!this.#gone.signal.aborted) this.onframe(text);
  }

  /** One request after the other: the order of frames is the order in which they arrive. */
  #flush(): void {
    if (this.#sending || !this.#session) return;
    this.#sending = true;
    this.#sent = this.#sendAll();
  }

  async #sendAll(): Promise<void> {
    try {
      for (let text; !this.#gone.signal.aborted && (text = this.#unsent.shift()) !== undefined; ) {
        const { ok, status } = await this.#post(text);
        if (!ok) return this.#end(status === 413 ? TOO_LARGE : ABNORMAL, `HTTP ${status}`);
      }
    } catch {
      this.#end(ABNORMAL, 'no connection');
    } finally {
      this.#sending = false;
    }
  }

  #post(text: string): Promise<Response> {
    // `keepalive` lets the last words out of a page that goes away; browsers bound the bytes of such requests.
    return this.#fetch(`${this.#base}/${this.#session}/messages`, { ...POST, body: text, keepalive: text.length < KEPT_ALIVE });
  }

  #end(code: number, reason: string): void {
    if (this.#gone.signal.aborted) return;
    this.#gone.abort();
    this.onclose(code, reason);
  }
}

const POST = { method: 'POST', headers: { 'Content-Type': 'application/json' } };
