/**
 * One's own microphone, camera and screen. It owns the tracks and says, in one word, why one could not be had; it knows
 * neither the page nor any connection.
 */

const CONSTRAINTS = {
  audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  video: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 }, facingMode: 'user' },
};

export class Media {
  /** What the person wants on, whether or not it could be had. */
  wanted = { audio: true, video: true };

  #tracks = { audio: null, video: null, screen: null };
  #changed;

  constructor(changed) {
    this.#changed = changed;
  }

  /** False where the browser withholds devices: plain http from another machine, or no such API. */
  static get possible() {
    return Boolean(globalThis.isSecureContext && navigator.mediaDevices?.getUserMedia);
  }

  static get canShareScreen() {
    return Boolean(navigator.mediaDevices?.getDisplayMedia);
  }

  /** True where this kind was allowed before, so that asking opens no prompt. */
  static async granted(kind) {
    try {
      const name = kind === 'audio' ? 'microphone' : 'camera';
      return (await navigator.permissions.query({ name })).state === 'granted';
    } catch {
      return false;
    }
  }

  /** True while that kind (`audio`, `video`, `screen`) is being sent. */
  on(kind) {
    return Boolean(this.#tracks[kind]?.enabled);
  }

  /** The tracks to send: a shared screen takes the camera's place. */
  get outgoing() {
    return { audio: this.#tracks.audio, video: this.#tracks.screen ?? this.#tracks.video };
  }

  /**
   * Opens what is wanted and not open yet. Returns null, `insecure`, or `reason-kind`: `denied`, `absent`, `busy` or
   * `failed`, of `audio`, `video` or `both`. What could not be had is not wanted any more, until it is switched on again.
   */
  async open(kinds = ['audio', 'video']) {
    const missing = kinds.filter((kind) => this.wanted[kind] && !this.#tracks[kind]);
    if (!missing.length) return null;
    const failures = Media.possible ? await this.#request(missing) : new Map(missing.map((kind) => [kind, 'insecure']));
    for (const kind of failures.keys()) this.wanted[kind] = false;
    this.#changed();
    const [[kind, reason] = [], second] = failures;
    if (!reason || reason === 'insecure') return reason ?? null;
    return `${reason}-${second ? 'both' : kind}`;
  }

  /** Turns the microphone or camera on or off; returns null, or why it could not be had. */
  async toggle(kind) {
    const track = this.#tracks[kind];
    this.wanted[kind] = !this.wanted[kind];
    if (track && kind === 'audio') {
      track.enabled = this.wanted.audio;
    } else if (track) {
      // Stopped, not merely disabled: the camera's lamp goes out.
      track.stop();
      this.#tracks[kind] = null;
    } else if (this.wanted[kind]) {
      return this.open([kind]);
    }
    this.#changed();
    return null;
  }

  /** Starts or ends sharing a screen; the picker's cancel is no error. */
  async toggleScreen() {
    if (this.#tracks.screen) return this.#endScreen();
    const stream = await navigator.mediaDevices.getDisplayMedia({ video: true }).catch(() => null);
    if (!stream) return;
    [this.#tracks.screen] = stream.getVideoTracks();
    this.#tracks.screen.contentHint = 'detail';
    this.#tracks.screen.onended = () => this.#endScreen();
    this.#changed();
  }

  /** Lets every device go. */
  close() {
    for (const kind of Object.keys(this.#tracks)) {
      this.#tracks[kind]?.stop();
      this.#tracks[kind] = null;
    }
    this.#changed();
  }

  /** One missing device fails a request for both, so each is then asked for by itself. */
  async #request(kinds) {
    try {
      this.#adopt(await navigator.mediaDevices.getUserMedia(Object.fromEntries(kinds.map((kind) => [kind, CONSTRAINTS[kind]]))));
      return new Map();
    } catch (error) {
      const reason = reasonFor(error);
      if (kinds.length === 1 || reason === 'denied') return new Map(kinds.map((kind) => [kind, reason]));
      return new Map([...(await this.#request(['audio'])), ...(await this.#request(['video']))]);
    }
  }

  #adopt(stream) {
    for (const track of stream.getTracks()) {
      this.#tracks[track.kind] = track;
      track.onended = () => {
        this.#tracks[track.kind] = null;
        this.wanted[track.kind] = false;
        this.#changed();
      };
    }
  }

  #endScreen() {
    this.#tracks.screen?.stop();
    this.#tracks.screen = null;
    this.#changed();
  }
}

/** `denied`, `absent`, `busy` or `failed`. */
function reasonFor({ name }) {
  switch (name) {
    case 'NotAllowedError':
    case 'SecurityError':
      return 'denied';
    case 'NotFoundError':
    case 'OverconstrainedError':
      return 'absent';
    case 'NotReadableError':
    case 'AbortError':
      return 'busy';
    default:
      return 'failed';
  }
}
