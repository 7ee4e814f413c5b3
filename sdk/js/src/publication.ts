import type { Outgoing } from './link.ts';

/** How a stream is published. */
export interface PublishOptions {
  /** What the stream is: `camera` (the default), `screen`, or a word of the application. */
  label?: string;
  /** Bits a second for each of its tracks; without it video shares `videoBudget`. */
  maxBitrate?: number;
  /** What the encoder spares first: `motion` for films, `detail` or `text` for screens. */
  contentHint?: string;
  /** Preferred codecs, as `video/VP9`, best first. */
  codecs?: readonly string[];
}

/** @internal What a publication needs of the room or call that it belongs to. */
export interface Publisher {
  publicationChanged(): Promise<void>;
  publicationEnded(publication: Publication): Promise<void>;
}

/** A stream that is being sent to everybody. */
export class Publication {
  /** The stream, as it was given. */
  readonly stream: MediaStream;
  readonly label: string;
  #options: PublishOptions;
  #publisher: Publisher;
  #tracks = new Map<string, MediaStreamTrack | null>();

  /** @internal */
  constructor(publisher: Publisher, stream: MediaStream, options: PublishOptions) {
    this.#publisher = publisher;
    this.#options = options;
    this.stream = stream;
    this.label = options.label ?? 'camera';
    this.adopt();
  }

  /** Sends another track of that kind in place of the present one, or none; nothing is negotiated again. */
  replace(kind: 'audio' | 'video', track: MediaStreamTrack | null): Promise<void> {
    this.#set(kind, track);
    return this.#publisher.publicationChanged();
  }

  /** Stops sending. The tracks themselves go on: they are the application's. */
  unpublish(): Promise<void> {
    return this.#publisher.publicationEnded(this);
  }

  /** @internal Takes the stream's tracks as they are now. */
  adopt(): void {
    const counts = { audio: 0, video: 0 };
    for (const track of this.stream.getTracks()) {
      const kind = track.kind as 'audio' | 'video';
      const n = counts[kind]++;
      this.#set(n ? `${kind}${n}` : kind, track);
    }
    for (const kind of ['audio', 'video'] as const) if (!counts[kind] && this.#tracks.has(kind)) this.#tracks.set(kind, null);
  }

  /** @internal */
  get outgoing(): Outgoing[] {
    const { maxBitrate, codecs } = this.#options;
    return [...this.#tracks].map(([name, track]) => ({
      key: `${this.stream.id}/${name}`,
      kind: name.startsWith('audio') ? 'audio' : 'video',
      track,
      stream: this.stream,
      maxBitrate,
      codecs,
    }));
  }

  /** @internal What is sent at present. */
  get sent(): MediaStream {
    return new MediaStream([...this.#tracks.values()].filter((track) => track !== null));
  }

  #set(name: string, track: MediaStreamTrack | null): void {
    if (this.#tracks.get(name) === track) return;
    if (track && this.#options.contentHint && 'contentHint' in track) track.contentHint = this.#options.contentHint;
    this.#tracks.set(name, track);
    track?.addEventListener('ended', () => {
      // A screen whose sharing the browser ended is published no longer.
      if (this.#tracks.get(name) === track && this.label !== 'camera' && [...this.#tracks.values()].every((one) => !one || one.readyState === 'ended')) void this.unpublish();
    });
  }
}

/**
 * The tracks for a peer. One that knows nothing of this library has room for one picture, so a shared screen takes the
 * camera's place there.
 */
export function outgoingFor(publications: Iterable<Publication>, several: boolean): Outgoing[] {
  const all = [...publications];
  if (several) return all.flatMap(({ outgoing }) => outgoing);
  const camera = all.find(({ label }) => label === 'camera');
  const screen = all.find(({ label }) => label === 'screen')?.outgoing.find(({ kind, track }) => kind === 'video' && track);
  if (!camera || !screen) return (camera ?? all[0])?.outgoing ?? [];
  const rest = camera.outgoing.filter(({ kind }) => kind === 'audio');
  const picture = camera.outgoing.find(({ kind }) => kind === 'video');
  return [...rest, { ...screen, key: picture?.key ?? `${camera.stream.id}/video`, stream: camera.stream }];
}
