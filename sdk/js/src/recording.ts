import { Emitter } from './emitter.ts';
import { CallboxError, quiet } from './errors.ts';

/** Milliseconds of recording in one piece. */
const PIECE = 1_000;
const FORMATS = ['video/webm;codecs=vp9,opus', 'video/webm;codecs=vp8,opus', 'video/webm', 'video/mp4'];
const AUDIO_FORMATS = ['audio/webm;codecs=opus', 'audio/webm', 'audio/ogg;codecs=opus', 'audio/mp4'];

/** How to record. */
export interface RecordOptions {
  /** False records sound only. */
  video?: boolean;
  width?: number;
  height?: number;
  frameRate?: number;
  mimeType?: string;
  videoBitsPerSecond?: number;
  audioBitsPerSecond?: number;
  /** Where the pieces go as they come, as from `showSaveFilePicker()`; without it they are kept as a `Blob`. */
  sink?: WritableStream<Blob>;
}

/** Events of a `Recording`. */
export interface RecordingEvents {
  /** Bytes so far, and milliseconds. */
  progress: [bytes: number, ms: number];
  status: [status: 'recording' | 'paused' | 'stopped'];
  error: [error: unknown];
}

/** A source of a recording: the streams that are to be in it now. */
export type Sources = () => Iterable<MediaStream>;

/** One file of everybody: their sound mixed, their pictures side by side. */
export class Recording extends Emitter<RecordingEvents> {
  bytes = 0;
  #sources: Sources;
  #recorder: MediaRecorder;
  #audio = new AudioContext();
  #mixed: MediaStreamAudioDestinationNode;
  #heard = new Map<MediaStreamTrack, MediaStreamAudioSourceNode>();
  #seen = new Map<MediaStreamTrack, HTMLVideoElement>();
  #canvas = document.createElement('canvas');
  #timer: ReturnType<typeof setInterval>;
  #pieces: Blob[] = [];
  #sink: WritableStreamDefaultWriter<Blob> | null;
  #recorded = 0;
  #since = performance.now();
  #done: Promise<Blob>;

  constructor(sources: Sources, options: RecordOptions = {}) {
    super();
    const { video = true, width = 1280, height = 720, frameRate = 25, sink, ...bits } = options;
    this.#sources = sources;
    this.#sink = sink?.getWriter() ?? null;
    this.#mixed = this.#audio.createMediaStreamDestination();
    Object.assign(this.#canvas, { width, height });
    const tracks = [...(video ? this.#canvas.captureStream(frameRate).getVideoTracks() : []), ...this.#mixed.stream.getAudioTracks()];
    const mimeType = options.mimeType ?? (video ? FORMATS : AUDIO_FORMATS).find((type) => MediaRecorder.isTypeSupported(type));
    if (!mimeType) throw new CallboxError('unsupported', 'this browser records in no format that is known here');
    const recorder = (this.#recorder = new MediaRecorder(new MediaStream(tracks), { mimeType, ...(bits.videoBitsPerSecond && { videoBitsPerSecond: bits.videoBitsPerSecond }), ...(bits.audioBitsPerSecond && { audioBitsPerSecond: bits.audioBitsPerSecond }) }));
    recorder.ondataavailable = ({ data }) => this.#keep(data);
    this.#done = quiet(
      new Promise((resolve, reject) => {
        recorder.onstop = () => void this.#finish().then(resolve, reject);
        recorder.onerror = (event) => {
          this.emit('error', (event as ErrorEvent).error ?? event);
          if (recorder.state !== 'inactive') recorder.stop();
        };
      }),
    );
    this.#mix();
    // A timer and not animation frames: those stop in a tab that nobody looks at.
    this.#timer = setInterval(() => this.#mix(), 1000 / frameRate);
    void this.#audio.resume();
    recorder.start(PIECE);
  }

  /** `recording`, `paused` or `stopped`. */
  get status(): 'recording' | 'paused' | 'stopped' {
    const { state } = this.#recorder;
    return state === 'inactive' ? 'stopped' : state;
  }

  /** The file's media type. */
  get mimeType(): string {
    return this.#recorder.mimeType;
  }

  /** Milliseconds that were recorded. */
  get ms(): number {
    return this.#recorded + (this.status === 'recording' ? performance.now() - this.#since : 0);
  }

  pause(): void {
    if (this.status !== 'recording') return;
    this.#recorded = this.ms;
    this.#recorder.pause();
    this.emit('status', 'paused');
  }

  resume(): void {
    if (this.status !== 'paused') return;
    this.#since = performance.now();
    this.#recorder.resume();
    this.emit('status', 'recording');
  }

  /** Ends the recording; resolves to the file, which is empty where it went to a sink. */
  stop(): Promise<Blob> {
    if (this.status !== 'stopped') {
      this.#recorded = this.ms;
      this.#recorder.stop();
    }
    return this.#done;
  }

  #keep(data: Blob): void {
    if (!data.size) return;
    this.bytes += data.size;
    if (this.#sink) {
      this.#sink.write(data).catch((error: unknown) => {
        this.emit('error', error);
        void this.stop();
      });
    } else {
      this.#pieces.push(data);
    }
    this.emit('progress', this.bytes, this.ms);
  }

  async #finish(): Promise<Blob> {
    clearInterval(this.#timer);
    for (const node of this.#heard.values()) node.disconnect();
    for (const element of this.#seen.values()) element.srcObject = null;
    await this.#audio.close().catch(() => {});
    await this.#sink?.close();
    this.emit('status', 'stopped');
    return new Blob(this.#pieces, { type: this.mimeType });
  }

  /** Follows who is here, and draws their pictures. */
  #mix(): void {
    const tracks = new Set([...this.#sources()].flatMap((stream) => stream.getTracks()).filter(({ readyState }) => readyState === 'live'));
    for (const track of tracks) {
      if (track.kind === 'audio' && !this.#heard.has(track)) {
        const node = this.#audio.createMediaStreamSource(new MediaStream([track]));
        node.connect(this.#mixed);
        this.#heard.set(track, node);
      } else if (track.kind === 'video' && !this.#seen.has(track)) {
        const element = Object.assign(document.createElement('video'), { muted: true, playsInline: true, srcObject: new MediaStream([track]) });
        element.play().catch(() => {});
        this.#seen.set(track, element);
      }
    }
    for (const [track, node] of this.#heard) if (!tracks.has(track)) node.disconnect(), this.#heard.delete(track);
    for (const [track, element] of this.#seen) if (!tracks.has(track)) (element.srcObject = null), this.#seen.delete(track);
    this.#draw();
  }

  #draw(): void {
    const { width, height } = this.#canvas;
    const context = this.#canvas.getContext('2d', { alpha: false });
    if (!context) return;
    context.fillStyle = '#101514';
    context.fillRect(0, 0, width, height);
    const pictures = [...this.#seen].filter(([track, { videoWidth }]) => !track.muted && videoWidth).map(([, element]) => element);
    const columns = Math.ceil(Math.sqrt(pictures.length));
    const rows = Math.ceil(pictures.length / Math.max(1, columns));
    pictures.forEach((picture, index) => {
      const [w, h] = [width / columns, height / rows];
      const scale = Math.min(w / picture.videoWidth, h / picture.videoHeight);
      const [pw, ph] = [picture.videoWidth * scale, picture.videoHeight * scale];
      context.drawImage(picture, (index % columns) * w + (w - pw) / 2, Math.floor(index / columns) * h + (h - ph) / 2, pw, ph);
    });
  }
}
