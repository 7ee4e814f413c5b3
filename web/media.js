/**
 * One's own microphone, camera and screen. It owns the tracks and says, in one word, why one could not be had; it knows
 * neither the page nor any connection.
 */

const CONSTRAINTS = {
  audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  video: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } },
};
const REMEMBERED = 'callbox.devices';

export class Media {
  /** What the person wants on, whether or not it could be had. */
  wanted = { audio: true, video: true };

  #tracks = { audio: null, video: null, screen: null, system: null };
  #changed;
  /** True once anything was opened, until all is let go: before, a plugged-in camera must not open by itself. */
  #inUse = false;
  /** Device ids that the person chose, by kind: `audio`, `video`, `speaker`. */
  #chosen = JSON.parse(localStorage.getItem(REMEMBERED) ?? '{}');

  constructor(changed) {
    this.#changed = changed;
    navigator.mediaDevices?.addEventListener?.('devicechange', () => this.#devicesChanged());
  }

  /** False where the browser withholds devices: plain http from another machine, or no such API. */
  static get possible() {
    return Boolean(globalThis.isSecureContext && navigator.mediaDevices?.getUserMedia);
  }

  static get canShareScreen() {
    return Boolean(navigator.mediaDevices?.getDisplayMedia);
  }

  static get canChooseSpeaker() {
    return 'setSinkId' in HTMLMediaElement.prototype;
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

  /** The devices of this machine: `{audio, video, speaker}`, each a list of `{id, label}`. */
  static async devices() {
    const all = (await navigator.mediaDevices?.enumerateDevices?.().catch(() => [])) ?? [];
    const of = (kind) => all.filter((one) => one.kind === kind && one.deviceId).map(({ deviceId, label }) => ({ id: deviceId, label }));
    return { audio: of('audioinput'), video: of('videoinput'), speaker: of('audiooutput') };
  }

  /** True while that kind (`audio`, `video`, `screen`) is being sent. */
  on(kind) {
    return Boolean(this.#tracks[kind]?.enabled);
  }

  track(kind) {
    return this.#tracks[kind];
  }

  /** The device in use, or chosen, of a kind. */
  chosen(kind) {
    return this.#tracks[kind]?.getSettings?.().deviceId ?? this.#chosen[kind] ?? '';
  }

  /** Uses another device from now on, also after a reload; returns null, or why it could not be had. */
  async choose(kind, id) {
    this.#chosen[kind] = id;
    localStorage.setItem(REMEMBERED, JSON.stringify(this.#chosen));
    if (kind === 'speaker' || !this.#tracks[kind]) return this.#changed() ?? null;
    this.#stop(kind);
    return this.open([kind]);
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
    if (track && kind === 'audio') track.enabled = this.wanted.audio;
    // Stopped, not merely disabled: the camera's lamp goes out.
    else if (track) this.#stop(kind);
    else if (this.wanted[kind]) return this.open([kind]);
    this.#changed();
    return null;
  }

  /**
   * Starts or ends sharing a screen, with its sound where the browser offers it. Returns null, `denied` (by the system or a policy)
   * or `failed`; a person who closes the picker has made no error.
   */
  async toggleScreen() {
    if (this.#tracks.screen) {
      this.endScreen();
      return null;
    }
    const wanted = { video: true, audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false }, systemAudio: 'include' };
    let stream;
    try {
      stream = await navigator.mediaDevices.getDisplayMedia(wanted);
    } catch (error) {
      return screenReason(error);
    }
    [this.#tracks.screen] = stream.getVideoTracks();
    this.#tracks.system = stream.getAudioTracks()[0] ?? null;
    this.#tracks.screen.onended = () => this.endScreen();
    this.#changed();
    return null;
  }

  endScreen() {
    for (const kind of ['screen', 'system']) this.#stop(kind);
    this.#changed();
  }

  /** Lets every device go. */
  close() {
    this.#inUse = false;
    for (const kind of Object.keys(this.#tracks)) this.#stop(kind);
    this.#changed();
  }

  #stop(kind) {
    const track = this.#tracks[kind];
    if (!track) return;
    track.onended = null;
    track.stop();
    this.#tracks[kind] = null;
  }

  /** One missing device fails a request for both, so each is then asked for by itself. */
  async #request(kinds) {
    try {
      this.#adopt(await navigator.mediaDevices.getUserMedia(Object.fromEntries(kinds.map((kind) => [kind, this.#constraints(kind)]))));
      return new Map();
    } catch (error) {
      const reason = reasonFor(error);
      if (kinds.length === 1 || reason === 'denied') return new Map(kinds.map((kind) => [kind, reason]));
      return new Map([...(await this.#request(['audio'])), ...(await this.#request(['video']))]);
    }
  }

  #constraints(kind) {
    const id = this.#chosen[kind];
    // Wished for, not demanded: a camera that is unplugged today must not cost the call.
    return { ...CONSTRAINTS[kind], ...(id ? { deviceId: { ideal: id } } : kind === 'video' && { facingMode: 'user' }) };
  }

  #adopt(stream) {
    this.#inUse = true;
    for (const track of stream.getTracks()) {
      this.#tracks[track.kind] = track;
      track.onended = () => {
        // Unplugged: what is wanted comes back with the next device.
        this.#tracks[track.kind] = null;
        this.#changed();
        this.#devicesChanged();
      };
    }
  }

  async #devicesChanged() {
    const devices = await Media.devices();
    for (const kind of ['audio', 'video']) if (this.wanted[kind] && !this.#tracks[kind] && this.#inUse && devices[kind].length) await this.#reopen(kind);
    this.#changed();
  }

  /** A device that is not ready yet stays wanted: the next change tries again. */
  async #reopen(kind) {
    await this.open([kind]);
    if (!this.#tracks[kind]) this.wanted[kind] = true;
  }
}

/** Why a screen was not shared; null where the person closed the picker. */
function screenReason({ name, message }) {
  if (name === 'NotAllowedError') return /system|policy/i.test(message) ? 'denied' : null;
  return name === 'SecurityError' || name === 'NotFoundError' ? 'denied' : 'failed';
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
