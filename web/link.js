/**
 * One peer connection of the mesh: perfect negotiation, the tracks that go out, and the path that was found, in one
 * word. It knows neither the page nor the signaling socket: `signal(type, fields)` sends, `receive` takes.
 */

const KINDS = ['audio', 'video'];
/** Milliseconds before an interrupted connection is given a new path; the impolite side moves first, to spare a glare. */
const RESTART_AFTER = { impolite: 2_000, polite: 5_000 };
/** Bits a second that one page spends on sending video, divided among its links. */
const VIDEO_BUDGET = 4_000_000;
const VIDEO_PER_LINK = { least: 150_000, most: 1_500_000 };

export class Link {
  stream = new MediaStream();

  #pc;
  #polite;
  #offers;
  #signal;
  #changed;
  #outgoing;
  #senders = {};
  #received = Promise.resolve();
  #offering = false;
  #ignoring = false;
  #restartTimer = 0;

  /**
   * @param {{polite: boolean, offers: boolean, config: RTCConfiguration,
   *   outgoing: {audio: ?MediaStreamTrack, video: ?MediaStreamTrack},
   *   signal: function(string, object): void, changed: function(): void}} options
   */
  constructor({ polite, offers, config, outgoing, signal, changed }) {
    this.#polite = polite;
    this.#offers = offers;
    this.#signal = signal;
    this.#changed = changed;
    this.#outgoing = { ...outgoing };
    this.#pc = new RTCPeerConnection(config);
    this.#pc.onnegotiationneeded = () => this.#offer();
    this.#pc.onicecandidate = ({ candidate }) => signal('candidate', { candidate: candidate?.toJSON() ?? null });
    this.#pc.ontrack = ({ track }) => this.#take(track);
    this.#pc.onconnectionstatechange = () => this.#stateChanged();
    if (offers) this.#openLines();
  }

  /** `new`, `connecting`, `connected`, `disconnected`, `failed` or `closed`. */
  get state() {
    return this.#pc.connectionState;
  }

  /** True while this side's first offer stands unanswered. */
  get unanswered() {
    return this.#offers && !this.#pc.remoteDescription;
  }

  /** Takes an `offer`, `answer` or `candidate` of the peer; they are handled one after the other. */
  receive(message) {
    this.#received = this.#received
      .then(() => (message.type === 'candidate' ? this.#addCandidate(message.candidate) : this.#describe(message)))
      .catch((error) => console.warn(`${message.type} from ${message.from}:`, error));
  }

  /** Sends another track of that kind, or none. */
  send(kind, track) {
    this.#outgoing[kind] = track;
    this.#senders[kind]?.replaceTrack(track).catch((error) => console.warn('replaceTrack:', error));
  }

  /** Uses new ICE servers or another policy from the next gathering on. */
  configure(config) {
    this.#pc.setConfiguration(config);
  }

  /** Looks for a new path where the old one fails. A path that works is kept, even against a new policy. */
  restart() {
    if (this.#pc.remoteDescription) this.#pc.restartIce();
  }

  /** Shares the video budget among that many links. */
  async shareAmong(links) {
    const sender = this.#senders.video;
    const parameters = sender?.getParameters();
    if (!parameters?.encodings?.length) return;
    const fair = Math.round(VIDEO_BUDGET / links);
    parameters.encodings[0].maxBitrate = Math.min(VIDEO_PER_LINK.most, Math.max(VIDEO_PER_LINK.least, fair));
    await sender.setParameters(parameters).catch(() => {});
  }

  /** The selected path: `{path, rtt}` with rtt in milliseconds, or null while there is none. */
  async path() {
    return selectedPath(await this.#pc.getStats());
  }

  close() {
    clearTimeout(this.#restartTimer);
    this.#pc.onconnectionstatechange = null;
    this.#pc.close();
  }

  /** Makes the first offer due. Both kinds are negotiated once, track or not, so that no later mute or share renegotiates. */
  #openLines() {
    for (const kind of KINDS) {
      this.#senders[kind] = this.#pc.addTransceiver(this.#outgoing[kind] ?? kind, { direction: 'sendrecv' }).sender;
    }
  }

  async #offer() {
    try {
      this.#offering = true;
      await this.#pc.setLocalDescription();
      this.#signal('offer', { sdp: this.#pc.localDescription.sdp });
    } catch (error) {
      console.warn('offer:', error);
    } finally {
      this.#offering = false;
    }
  }

  async #describe({ type, sdp }) {
    const description = typeof sdp === 'string' ? { type, sdp } : sdp;
    const glare = type === 'offer' && (this.#offering || this.#pc.signalingState !== 'stable');
    this.#ignoring = glare && !this.#polite;
    if (this.#ignoring) return;
    await this.#pc.setRemoteDescription(description);
    if (type !== 'offer') return;
    this.#adopt();
    await this.#pc.setLocalDescription();
    this.#signal('answer', { sdp: this.#pc.localDescription.sdp });
  }

  /** Answers with what there is to send, on the lines that the peer's offer opened. */
  #adopt() {
    for (const kind of KINDS) {
      if (this.#senders[kind]) continue;
      const transceiver = this.#pc.getTransceivers().find(({ mid, receiver }) => mid !== null && receiver.track.kind === kind);
      if (!transceiver) continue;
      transceiver.direction = 'sendrecv';
      this.#senders[kind] = transceiver.sender;
      this.send(kind, this.#outgoing[kind]);
    }
  }

  async #addCandidate(candidate) {
    try {
      await this.#pc.addIceCandidate(typeof candidate === 'string' ? { candidate, sdpMLineIndex: 0 } : candidate);
    } catch (error) {
      if (!this.#ignoring) throw error;
    }
  }

  #take(track) {
    for (const old of this.stream.getTracks()) if (old.kind === track.kind) this.stream.removeTrack(old);
    this.stream.addTrack(track);
    track.onmute = track.onunmute = track.onended = () => this.#changed();
    this.#changed();
  }

  #stateChanged() {
    clearTimeout(this.#restartTimer);
    if (this.state === 'disconnected' || this.state === 'failed') {
      const wait = this.#polite ? RESTART_AFTER.polite : RESTART_AFTER.impolite;
      this.#restartTimer = setTimeout(() => this.restart(), wait);
    }
    this.#changed();
  }
}

/**
 * Reads the selected candidate pair out of a stats report: `relay-udp`, `relay-tcp` or `relay-tls` (this side's leg to
 * the relay), `relay-remote` (only the peer is relayed), `direct`, or `direct-nat` (through at least one NAT).
 */
export function selectedPath(report) {
  const stats = [...report.values()];
  const transport = stats.find(({ type, selectedCandidatePairId }) => type === 'transport' && selectedCandidatePairId);
  // Firefox has no transport statistics; it marks the pair itself.
  const pair = transport
    ? report.get(transport.selectedCandidatePairId)
    : stats.find(({ type, selected, nominated, state }) => type === 'candidate-pair' && (selected ?? (nominated && state === 'succeeded')));
  const local = report.get(pair?.localCandidateId);
  const remote = report.get(pair?.remoteCandidateId);
  if (!local || !remote) return null;
  const rtt = pair.currentRoundTripTime === undefined ? null : Math.round(pair.currentRoundTripTime * 1000);
  return { path: pathOf(local, remote), rtt };
}

function pathOf(local, remote) {
  if (local.candidateType === 'relay') return `relay-${local.relayProtocol ?? 'udp'}`;
  if (remote.candidateType === 'relay') return 'relay-remote';
  return local.candidateType === 'host' && remote.candidateType === 'host' ? 'direct' : 'direct-nat';
}
