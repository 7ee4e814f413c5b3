import { Emitter } from './emitter.ts';
import { CallboxError, quiet } from './errors.ts';

/** Milliseconds of recording in one piece. */
const PIECE = 1_000;
const FORMATS = ['video/webm;codecs=vp9,opus', 'video/webm;codecs=vp8,opus', 'video/webm', 'video/mp4'];
const AUDIO_FORMATS = ['audio/webm;codecs=opus', 'audio/webm', 'audio/ogg;codecs=opus', 'audio/mp4'];

/** How to record. */
export interface RecordOptions {
  /** This track alone, as it is sent, in place of everybody mixed; the recording ends with it. */
  track?: MediaStreamTrack;
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

/** One file of everybody, their sound mixed, their pictures side by side; or of one track. */
export class Recording extends Emitter<RecordingEvents> {
  bytes = 0;
  #sources: Sources;
  #recorder: MediaRecorder;
  #audio: AudioContext | null = null;
  #mixed: MediaStreamAudioDestinationNode | null = null;
  #sounds = new Map<MediaStreamTrack, MediaStreamAudioSourceNode>();
  #pictures = new Map<MediaStreamTrack, HTMLVideoElement>();
  #canvas = document.createElement('canvas');
  #timer: ReturnType<typeof setInterval> | undefined;
  #pieces: Blob[] = [];
  #sink: WritableStreamDefaultWriter<Blob> | null = null;
  #recorded = 0;
  /** When the present stretch began; null while nothing is recorded. */
  #since: number | null = null;
  #failed: CallboxError | null = null;
  #done: Promise<Blob>;

  constructor(sources: Sources, options: RecordOptions = {}) {
    super();
    const { track, video = track?.kind !== 'audio', width = 1280, height = 720, frameRate = 25, sink, ...bits } = options;
    this.#sources = sources;
    // A picture alone names no sound: Firefox would wait for it.
    const mimeType = options.mimeType ?? (video ? FORMATS : AUDIO_FORMATS).map((type) => (track && video ? type.replace(',opus', '') : type)).find((type) => MediaRecorder.isTypeSupported(type));
    if (!mimeType || !MediaRecorder.isTypeSupported(mimeType)) throw new CallboxError('unsupported', 'this browser records in no format that is known here');
    Object.assign(this.#canvas, { width, height });
    if (!track) {
      this.#audio = new AudioContext();
      this.#mixed = this.#audio.createMediaStreamDestination();
    }
    const tracks = track ? [track] : [...(video ? this.#canvas.captureStream(frameRate).getVideoTracks() : []), ...this.#mixed!.stream.getAudioTracks()];
    const recorder = (this.#recorder = new MediaRecorder(new MediaStream(tracks), { mimeType, ...(bits.videoBitsPerSecond && { videoBitsPerSecond: bits.videoBitsPerSecond }), ...(bits.audioBitsPerSecond && { audioBitsPerSecond: bits.audioBitsPerSecond }) }));
    recorder.ondataavailable = ({ data }) => this.#keep(data);
    this.#done = quiet(
      new Promise((resolve, reject) => {
        // Also where the track ended by itself.
        recorder.onstop = () => void this.#finish().then(resolve, reject);
        recorder.onerror = (event) => this.#fail('the browser gave the recording up', (event as ErrorEvent).error ?? event);
      }),
    );
    if (!track) {
      this.#mix();
      // A timer and not animation frames: those stop in a tab that nobody looks at.
      this.#timer = setInterval(() => this.#mix(), 1000 / frameRate);
      void this.#audio?.resume();
    }
    try {
      recorder.start(PIECE);
      this.#sink = sink?.getWriter() ?? null;
    } catch (error) {
      if (recorder.state !== 'inactive') recorder.stop();
      this.#release();
      throw error;
    }
    this.#since = performance.now();
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
    return this.#recorded + (this.#since === null ? 0 : performance.now() - this.#since);
  }

  #halt(): void {
    this.#recorded = this.ms;
    this.#since = null;
  }

  pause(): void {
    if (this.status !== 'recording') return;
    this.#halt();
    this.#recorder.pause();
    this.emit('status', 'paused');
  }

  resume(): void {
    if (this.status !== 'paused') return;
    this.#since = performance.now();
    this.#recorder.resume();
    this.emit('status', 'recording');
  }

  /** Ends the recording; resolves to the file, which is empty where it went to a sink. Rejects where the sink took not all of it. */
  stop(): Promise<Blob> {
    if (this.status !== 'stopped') {
      this.#halt();
      this.#recorder.stop();
    }
    return this.#done;
  }

  #keep(data: Blob): void {
    if (!data.size) return;
    this.bytes += data.size;
    if (this.#sink) {
      this.#sink.write(data).catch((error: unknown) => this.#fail('the recording cannot be written', error));
    } else {
      this.#pieces.push(data);
    }
    this.emit('progress', this.bytes, this.ms);
  }

  /** Said once, whatever fails after it. */
  #fail(what: string, cause: unknown): void {
    if (this.#failed) return;
    this.#failed = new CallboxError('file', `${what}: ${String(cause)}`);
    this.emit('error', cause);
    void this.stop();
  }

  #release(): void {
    clearInterval(this.#timer);
    for (const node of this.#sounds.values()) node.disconnect();
    for (const element of this.#pictures.values()) element.srcObject = null;
    this.#audio?.close().catch(() => {});
  }

  async #finish(): Promise<Blob> {
    this.#halt();
    this.#release();
    await this.#sink?.close().catch((error: unknown) => this.#fail('the recording cannot be written', error));
    this.emit('status', 'stopped');
    if (this.#failed) throw this.#failed;
    return new Blob(this.#pieces, { type: this.mimeType });
  }

  /** Follows who is here, and draws their pictures. */
  #mix(): void {
    const tracks = new Set([...this.#sources()].flatMap((stream) => stream.getTracks()).filter(({ readyState }) => readyState === 'live'));
    for (const track of tracks) {
      if (track.kind === 'audio' && !this.#sounds.has(track)) {
        const node = this.#audio!.createMediaStreamSource(new MediaStream([track]));
        node.connect(this.#mixed!);
        this.#sounds.set(track, node);
      } else if (track.kind === 'video' && !this.#pictures.has(track)) {
        const element = Object.assign(document.createElement('video'), { muted: true, playsInline: true, srcObject: new MediaStream([track]) });
        element.play().catch(() => {});
        this.#pictures.set(track, element);
      }
    }
    for (const [track, node] of this.#sounds) if (!tracks.has(track)) node.disconnect(), this.#sounds.delete(track);
    for (const [track, element] of this.#pictures) if (!tracks.has(track)) (element.srcObject = null), this.#pictures.delete(track);
    this.#draw();
  }

  #draw(): void {
    const { width, height } = this.#canvas;
    const context = this.#canvas.getContext('2d', { alpha: false });
    if (!context) return;
    context.fillStyle = '#101514';
    context.fillRect(0, 0, width, height);
    const pictures = [...this.#pictures].filter(([track, { videoWidth }]) => !track.muted && videoWidth).map(([, element]) => element);
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
