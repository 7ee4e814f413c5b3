import { report } from './errors.ts';

/** The `protocol` of a channel that says its real one in its first message, sealed. */
const SEALED = 'callbox.sealed';
/** The first byte of what is sealed. */
const TEXT = 0;
const BYTES = 1;
const PROTOCOL = 2;

type Bytes = Uint8Array<ArrayBuffer>;
type Data = string | ArrayBuffer | ArrayBufferView<ArrayBuffer>;

/** How a `SealedChannel` seals and opens. */
interface Seals {
  seal(data: Bytes): Promise<Bytes>;
  open(data: Bytes): Promise<Bytes>;
}

/**
 * A data channel whose messages are sealed, in both directions and in order. To who uses it, it looks as the browser's own. What
 * comes and cannot be opened is dropped.
 */
export class SealedChannel extends EventTarget {
  binaryType = 'arraybuffer';
  protocol: string;
  onmessage: ((event: MessageEvent) => void) | null = null;
  onclose: ((event: Event) => void) | null = null;
  #inner: RTCDataChannel;
  #seals: Seals;
  #sending: Promise<void> = Promise.resolve();
  #receiving: Promise<void> = Promise.resolve();
  /** Bytes that are being sealed. */
  #pending = 0;
  #closing = false;
  #warned = false;

  /** What the browser may know of a channel's settings: a `protocol` is not for everybody. */
  static init(init: RTCDataChannelInit = {}): RTCDataChannelInit {
    return init.protocol ? { ...init, protocol: SEALED } : init;
  }

  /** Wraps a channel; `ready` is called when the protocol of a peer's channel is known. */
  constructor(inner: RTCDataChannel, seals: Seals, protocol = '', ready?: (channel: SealedChannel) => void) {
    super();
    this.#inner = inner;
    this.#seals = seals;
    this.protocol = protocol;
    inner.binaryType = 'arraybuffer';
    // A listener that throws is reported, and ends nothing.
    this.addEventListener('message', (event) => this.onmessage?.(event as MessageEvent));
    this.addEventListener('close', (event) => this.onclose?.(event));
    const opened = () => {
      if (protocol) this.#write(PROTOCOL, new TextEncoder().encode(protocol));
      this.dispatchEvent(new Event('open'));
    };
    if (inner.readyState === 'open') opened();
    else inner.addEventListener('open', opened);
    inner.addEventListener('bufferedamountlow', () => this.#low());
    inner.addEventListener('message', ({ data }) => this.#receive(() => this.#took(data, ready)));
    // What came before the end is delivered before it.
    inner.addEventListener('close', () => this.#receive(() => this.dispatchEvent(new Event('close'))));
    if (inner.protocol !== SEALED) ready?.(this);
  }

  get label(): string {
    return this.#inner.label;
  }

  get readyState(): RTCDataChannelState {
    const { readyState } = this.#inner;
    return this.#closing && readyState === 'open' ? 'closing' : readyState;
  }

  get bufferedAmount(): number {
    return this.#pending + this.#inner.bufferedAmount;
  }

  get bufferedAmountLowThreshold(): number {
    return this.#inner.bufferedAmountLowThreshold;
  }

  set bufferedAmountLowThreshold(bytes: number) {
    this.#inner.bufferedAmountLowThreshold = bytes;
  }

  send(data: Data): void {
    if (this.readyState !== 'open') throw new DOMException('the channel is not open', 'InvalidStateError');
    if (typeof data === 'string') this.#write(TEXT, new TextEncoder().encode(data));
    else this.#write(BYTES, data instanceof ArrayBuffer ? new Uint8Array(data) : new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }

  /** What was sent before goes out first. */
  close(): void {
    this.#closing = true;
    void this.#sending.then(() => this.#inner.close());
  }

  #write(kind: number, content: Bytes): void {
    const data = new Uint8Array(1 + content.length);
    data[0] = kind;
    data.set(content, 1);
    this.#pending += data.length;
    this.#sending = this.#sending
      .then(() => this.#seals.seal(data))
      .then((sealed) => this.#inner.send(sealed))
      // The channel closed meanwhile: it says so by itself.
      .catch(() => {})
      .then(() => {
        this.#pending -= data.length;
        this.#low();
      });
  }

  #low(): void {
    if (this.bufferedAmount <= this.bufferedAmountLowThreshold) this.dispatchEvent(new Event('bufferedamountlow'));
  }

  #receive(next: () => unknown): void {
    this.#receiving = this.#receiving.then(next).then(() => {}, report);
  }

  async #took(data: unknown, ready?: (channel: SealedChannel) => void): Promise<void> {
    let opened: Bytes;
    try {
      if (!(data instanceof ArrayBuffer)) throw new TypeError('not sealed');
      opened = await this.#seals.open(new Uint8Array(data));
    } catch {
      if (!this.#warned) console.warn(`callbox: data on the channel ${this.label} that this key does not open`);
      this.#warned = true;
      return;
    }
    const content = opened.slice(1);
    const text = () => new TextDecoder().decode(content);
    if (opened[0] === PROTOCOL) {
      if (this.protocol || this.#inner.readyState !== 'open') return;
      this.protocol = text();
      ready?.(this);
    } else this.dispatchEvent(new MessageEvent('message', { data: opened[0] === TEXT ? text() : content.buffer }));
  }
}
