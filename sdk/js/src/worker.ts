/** The worker that seals and opens media frames; it is inlined into the library. */
import { SFrame } from './sframe.ts';

/** Bytes of a VP8 frame that stay readable: the browser's packetiser and jitter buffer look at them. */
const CLEAR = { key: 10, delta: 3 };

interface Transformer {
  options: { seals: boolean; kind: string; peer: string };
  readable: ReadableStream<EncodedFrame>;
  writable: WritableStream<EncodedFrame>;
}

interface EncodedFrame {
  data: ArrayBuffer;
  type?: 'key' | 'delta' | 'empty';
}

const sframe = new SFrame();
const opened = new Map<string, boolean>();
const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent) => void;
  onrtctransform: (event: { transformer: Transformer }) => void;
  postMessage(message: unknown): void;
};
let keyed!: () => void;
const hasKey = new Promise<void>((resolve) => (keyed = resolve));

scope.onmessage = ({ data }) => {
  if (data.forget) return void opened.delete(data.forget);
  sframe.setKey(data.key);
  keyed();
};

scope.onrtctransform = ({ transformer }) => {
  const { seals, kind, peer } = transformer.options;
  const report = (ok: boolean) => {
    if (opened.get(peer) === ok) return;
    opened.set(peer, ok);
    scope.postMessage({ peer, ok });
  };
  const transform = async (frame: EncodedFrame, controller: TransformStreamDefaultController<EncodedFrame>) => {
    await hasKey;
    const data = new Uint8Array(frame.data);
    const clear = kind === 'video' ? Math.min(data.length, frame.type === 'key' ? CLEAR.key : CLEAR.delta) : 0;
    try {
      const changed = seals ? await sframe.seal(data.subarray(clear), data.slice(0, clear)) : await sframe.open(data, clear);
      frame.data = changed.buffer;
      controller.enqueue(frame);
      if (!seals) report(true);
    } catch {
      // A frame that no key opens is shown to nobody, no matter who sent it.
      if (!seals) report(false);
    }
  };
  transformer.readable.pipeThrough(new TransformStream({ transform })).pipeTo(transformer.writable).catch(() => {});
};

// The page may give up the address that this worker was loaded from.
scope.postMessage({});
