/**
 * The call page: lobby, mesh and controls. It wires the signaling client to one `Link` and one `Tile` a peer, and owns
 * nothing that those modules own.
 */

import { Callbox } from './callbox.js';
import { clearChat, heard, notify, startChat, tell } from './chat.js';
import { has, localise, t } from './i18n.js';
import { Link } from './link.js';
import { Media } from './media.js';
import { $, localAddress, token } from './page.js';
import { drawAvatar, Tile } from './stage.js';

const PATH_POLL = 2_000; // ms between two looks at the selected paths

const media = new Media(mediaChanged);
/** peerId → `{peer, link, tile, path}` */
const peers = new Map();
let box = null;
let self = null; // `{peerId, identity, role, room}` while in a room
let ownTile = null;
let sharedState = '';
let pathTimer = 0;
let wakeLock = null;
/** The sentences above the page and above the join button: functions, so that a language switch redraws them. */
const sentences = { warning: null, 'join-note': null };

start();

function start() {
  readAddress();
  $('name').value = localStorage.getItem('callbox.name') ?? '';
  $('relay-only').checked = localStorage.getItem('callbox.relay') === 'true';

  $('join').addEventListener('submit', join);
  $('name').addEventListener('input', drawLobby);
  $('relay-only').addEventListener('change', ({ target }) => setRelayOnly(target.checked));
  $('relay-toggle').addEventListener('click', () => setRelayOnly(!$('relay-only').checked));
  for (const button of document.querySelectorAll('[data-toggle]')) button.addEventListener('click', () => toggle(button.dataset.toggle));
  $('share-screen').hidden = !Media.canShareScreen;
  $('share-screen').addEventListener('click', () => media.toggleScreen());
  $('copy-link').addEventListener('click', copyLink);
  $('copy-invite').addEventListener('click', copyLink);
  $('leave').addEventListener('click', leave);
  $('warning-close').addEventListener('click', () => say('warning', null));
  startChat({ ownName: () => nameOf(self), send: (text) => box.request('message', { content: { text } }) });
  addEventListener('hashchange', () => self || readAddress());
  addEventListener('pagehide', () => box?.leave());
  addEventListener('pageshow', ({ persisted }) => persisted && location.reload());

  if (!globalThis.RTCPeerConnection) {
    say('warning', () => t('noWebrtc'));
    $('join-button').disabled = true;
  } else if (!Media.possible) {
    explain('insecure');
  }
  localise($('language'), redraw);
  Promise.all([Media.granted('audio'), Media.granted('video')]).then((granted) => granted.every(Boolean) && openMedia());
}

// ---- Lobby ----

/** `#room`, `#room=…&token=…`, `?room=…` and `?token=…`; without a room in it, one is made up. */
function readAddress() {
  const hash = location.hash.slice(1);
  const inHash = new URLSearchParams(hash);
  const inQuery = new URLSearchParams(location.search);
  const named = /^(room|token)=/.test(hash);
  const given = inHash.get('token') ?? inQuery.get('token');
  if (given) token.keep(given);
  $('room').value = (named ? inHash.get('room') : decoded(hash)) || inQuery.get('room') || freshRoom();
  rememberRoom($('room').value);
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a lone % that somebody typed
  }
}

/** A room name that is easy to read out and hard to guess. */
function freshRoom() {
  const letters = 'abcdefghjkmnpqrstuvwxyz23456789';
  const part = () => Array.from(crypto.getRandomValues(new Uint8Array(4)), (byte) => letters[byte % letters.length]).join('');
  return `${part()}-${part()}-${part()}`;
}

function rememberRoom(roomId) {
  history.replaceState(null, '', `${location.pathname}#${encodeURIComponent(roomId)}`);
}

async function join(event) {
  event.preventDefault();
  const roomId = $('room').value.trim();
  const name = $('name').value.trim();
  const password = $('password').value;
  if (!roomId || $('join-button').disabled) return;
  localStorage.setItem('callbox.name', name);
  if ($('token').value) token.keep($('token').value.trim());
  setJoining(true);
  say('join-note', null);
  await openMedia();
  if (!box || box.status === 'closed') box = connect();
  try {
    await box.join({
      roomId,
      ...(name && { identity: name }),
      ...(token.get() && { token: token.get() }),
      ...(password && { password }),
    });
  } catch ({ code, message }) {
    // A closed connection has said why by its own event.
    if (code !== 'closed') refused(code, message);
  }
  setJoining(false);
}

function refused(code, message) {
  if (['unauthorized', 'token-expired', 'forbidden'].includes(code)) reveal('token');
  if (code === 'bad-password') reveal('password');
  say('join-note', () => (has(`error.${code}`) ? t(`error.${code}`) : message));
}

function reveal(field) {
  $(`${field}-field`).hidden = false;
  $(field).focus();
}

function setJoining(joining) {
  $('join-button').disabled = joining;
  $('join-button').dataset.i18n = joining ? 'joining' : 'join';
  $('join-button').textContent = t($('join-button').dataset.i18n);
}

/** Shows a sentence, `words()`, or hides it. */
function say(place, words) {
  sentences[place] = words;
  $(`${place}-text`).textContent = words?.() ?? '';
  $(place).hidden = !words;
}

// ---- Signaling ----

function connect() {
  const box = new Callbox();
  box.on('status', drawStatus);
  box.on('joined', entered);
  box.on('resumed', resumed);
  box.on('peer-joined', ({ peer }) => {
    addPeer(peer, mustOffer(peer));
    tell('came', t('came', { name: nameOf(peer) }));
  });
  box.on('peer-left', ({ peerId, reason }) => {
    const name = nameOf(peers.get(peerId)?.peer);
    if (removePeer(peerId)) tell('left', t(has(`gone.${reason}`) ? `gone.${reason}` : 'gone.left', { name }));
  });
  box.on('peer-state', ({ peerId, state, connection }) => {
    const entry = peers.get(peerId);
    if (!entry) return;
    Object.assign(entry.peer, { state, connection });
    drawPeer(entry);
  });
  for (const type of ['offer', 'answer', 'candidate']) box.on(type, (message) => peers.get(message.from)?.link.receive(message));
  box.on('hangup', hungUp);
  box.on('message', ({ from, content }) => {
    const text = typeof content === 'string' ? content : content?.text;
    if (typeof text === 'string') heard(nameOf(peers.get(from)?.peer), text);
  });
  box.on('notify', ({ content }) => tell('notify', typeof content === 'string' ? content : JSON.stringify(content)));
  box.on('mute', ({ from, kind }) => {
    if (!media.on(kind)) return;
    if (kind === 'screen') media.toggleScreen();
    else toggle(kind);
    tell('mute', t('askedToMute', { name: nameOf(peers.get(from)?.peer) }));
  });
  box.on('room-updated', ({ room }) => Object.assign(self, { room }));
  box.on('draining', () => tell('draining', t('draining')));
  box.on('ice', applyIce);
  box.on('closed', ended);
  return box;
}

/** In a room: for the first time, or anew after a reconnection that could not resume. */
function entered({ peerId, identity, role, room, peers: others }) {
  clearPeers();
  self = { peerId, identity, role, room };
  $('call').classList.toggle('viewer', role === 'viewer');
  sharedState = '';
  ownTile = new Tile(peerId, { local: true });
  if (role === 'viewer') media.close();
  rememberRoom(room.roomId);
  $('lobby').hidden = true;
  $('call').hidden = $('room-bar').hidden = $('signal').hidden = false;
  for (const peer of others) addPeer(peer, role !== 'viewer');
  const names = others.map(nameOf).join(', ');
  tell('entered', t(others.length ? 'entered.others' : 'entered.alone', { room: room.roomId, names }));
  clearInterval(pathTimer);
  pathTimer = setInterval(lookAtPaths, PATH_POLL);
  wakeLock = navigator.wakeLock?.request('screen').catch(() => null);
  redraw();
  shareState();
}

/** Back under the same peer id. Where messages were lost, who is here is learnt anew and every path is negotiated again. */
function resumed({ gap, peers: others }) {
  if (gap) {
    for (const id of [...peers.keys()]) if (!others.some(({ peerId }) => peerId === id)) removePeer(id);
    for (const peer of others) if (!peers.has(peer.peerId)) addPeer(peer, true);
  }
  for (const { link } of peers.values()) if (gap || link.state !== 'connected') link.restart();
}

function ended({ code, reason }) {
  const why = { 4002: 'kicked', 4004: 'replaced', 4007: 'room-closed' }[code] ?? 'lost';
  // A refusal that was answered before the close said it better.
  if (!self && sentences['join-note']) return;
  if (self) leave();
  if (has(`error.${reason}`) || code === 4001) refused(has(`error.${reason}`) ? reason : 'unauthorized');
  else say('join-note', () => t(`ended.${why}`));
}

function leave() {
  const leaving = box;
  self = box = null;
  leaving?.leave();
  clearPeers();
  clearInterval(pathTimer);
  media.close();
  clearChat();
  wakeLock?.then((lock) => lock?.release());
  $('call').hidden = $('room-bar').hidden = $('signal').hidden = true;
  $('lobby').hidden = false;
  drawLobby();
  $('join-button').focus();
}

// ---- Mesh ----

function addPeer(peer, offers) {
  removePeer(peer.peerId);
  const entry = { peer, path: null, link: null, tile: new Tile(peer.peerId) };
  peers.set(peer.peerId, entry);
  connectTo(entry, offers);
}

function connectTo(entry, offers) {
  const { peerId } = entry.peer;
  entry.link?.close();
  entry.path = null;
  const link = new Link({
    polite: self.peerId < peerId,
    offers,
    config: rtcConfig(),
    outgoing: outgoing(),
    signal: (type, fields) => box?.request(type, { ...fields, to: peerId }).catch(({ code }) => console.info(`${type}: ${code}`)),
    changed: () => {
      if (entry.link !== link || !peers.has(peerId)) return;
      drawPeer(entry);
      if (link.state === 'connected') lookAtPath(entry);
    },
  });
  entry.link = link;
  drawPeer(entry);
}

/** Connects anew under the present policy: a browser keeps a working direct path through any ICE restart. */
function reconnect(entry) {
  box.request('hangup', { to: entry.peer.peerId }).catch(({ code }) => console.info(`hangup: ${code}`));
  connectTo(entry, self.role !== 'viewer');
}

/** The peer will offer anew, or be offered to if it is a viewer. Where both sides began anew at once, the impolite side's offer stands. */
function hungUp({ from, callId }) {
  const entry = peers.get(from);
  if (callId || !entry || (entry.link.unanswered && self.peerId > from)) return;
  connectTo(entry, mustOffer(entry.peer));
}

/** Who comes offers; a viewer may only answer, so it is offered to. */
function mustOffer(peer) {
  return peer.role === 'viewer' && self.role !== 'viewer';
}

function removePeer(peerId) {
  const entry = peers.get(peerId);
  entry?.link.close();
  entry?.tile.remove();
  return peers.delete(peerId);
}

function clearPeers() {
  for (const peerId of [...peers.keys()]) removePeer(peerId);
  ownTile?.remove();
  ownTile = null;
}

function lookAtPaths() {
  for (const entry of peers.values()) if (entry.link.state === 'connected') lookAtPath(entry);
}

async function lookAtPath(entry) {
  const { link } = entry;
  const path = await link.path();
  if (entry.link !== link || peers.get(entry.peer.peerId) !== entry) return;
  entry.path = path;
  link.shareAmong(peers.size);
  drawPeer(entry);
}

function rtcConfig() {
  const { iceServers, iceTransportPolicy } = box.ice;
  const policy = $('relay-only').checked ? 'relay' : iceTransportPolicy;
  return { iceServers, iceTransportPolicy: policy, bundlePolicy: 'max-bundle' };
}

/** Fresh credentials serve the next gathering; a room that became relay only moves every path at once. */
function applyIce({ iceTransportPolicy }) {
  const forced = iceTransportPolicy === 'relay';
  const became = forced && !$('relay-toggle').disabled;
  $('relay-toggle').disabled = forced;
  for (const entry of peers.values()) {
    entry.link.configure(rtcConfig());
    if (became && self.peerId > entry.peer.peerId) reconnect(entry);
  }
  drawControls();
}

function setRelayOnly(on) {
  $('relay-only').checked = on;
  localStorage.setItem('callbox.relay', on);
  drawControls();
  if (!self) return;
  const relays = box.ice.iceServers.flatMap(({ urls }) => urls).some((url) => /^turns?:/.test(url));
  tell('relay', t(!on ? 'relayOff' : relays ? 'relayOn' : 'noRelayHere'));
  for (const entry of peers.values()) reconnect(entry);
}

// ---- Own devices ----

async function openMedia() {
  const reason = await media.open();
  if (reason) explain(reason);
}

async function toggle(kind) {
  explain(await media.toggle(kind));
}

function explain(reason) {
  if (!reason) return say('warning', null);
  const [why, kind] = reason.split('-');
  if (why === 'insecure') return say('warning', () => (isSecureContext ? t('noMediaApi') : t('insecure', { local: localAddress() })));
  const device = { audio: 'deviceAudio', video: 'deviceVideo', both: 'deviceBoth' }[kind];
  say('warning', () => t(`media.${why}`, { what: t(device) }));
}

/** A viewer only receives. */
function outgoing() {
  return self.role === 'viewer' ? { audio: null, video: null } : media.outgoing;
}

function mediaChanged() {
  for (const { link } of peers.values()) {
    for (const [kind, track] of Object.entries(outgoing())) link.send(kind, track);
  }
  redraw();
  shareState();
}

/** Tells the others what is muted; a box without `state` still carries the call. */
function shareState() {
  if (!self) return;
  const state = { muted: { audio: !media.on('audio'), video: !media.on('video') }, screen: media.on('screen') };
  if (JSON.stringify(state) === sharedState) return;
  sharedState = JSON.stringify(state);
  box.request('state', { state }).catch(({ code }) => console.info(`state: ${code}`));
}

// ---- Drawing ----

async function copyLink() {
  $('invite-link').select();
  if (navigator.clipboard) await navigator.clipboard.writeText(roomLink()).catch(() => document.execCommand('copy'));
  else document.execCommand('copy'); // plain http has no clipboard API
  notify(t('copied'));
}

function roomLink() {
  return new URL(`#${encodeURIComponent(self.room.roomId)}`, location.href).href;
}

function redraw() {
  drawControls();
  for (const [place, words] of Object.entries(sentences)) say(place, words);
  if (!self) return drawLobby();
  $('room-name').textContent = self.room.roomId;
  document.title = `${self.room.roomId} · callbox`;
  $('invite-link').value = roomLink();
  drawStatus(box.status);
  const stream = ownStream();
  ownTile.draw({
    name: t('you', { name: nameOf(self) }),
    state: 'local',
    stream,
    video: Boolean(stream),
    muted: !media.on('audio'),
    screen: media.on('screen'),
  });
  for (const entry of peers.values()) drawPeer(entry);
}

function drawLobby() {
  const stream = ownStream();
  document.title = 'callbox';
  $('preview-video').hidden = !stream;
  if ($('preview-video').srcObject !== stream) $('preview-video').srcObject = stream;
  $('preview-hint').hidden = !Media.possible || media.on('audio') || media.on('video') || !(media.wanted.audio || media.wanted.video);
  drawAvatar($('preview-avatar'), $('name').value.trim());
  $('preview-controls').hidden = !Media.possible;
}

function drawPeer({ peer, link, tile, path }) {
  const [picture] = link.stream.getVideoTracks();
  const { muted, screen } = peer.state ?? {};
  const viewers = self.role === 'viewer' && peer.role === 'viewer';
  const waiting = peer.connection === 'away' ? 'away' : viewers ? 'viewer' : link.state;
  tile.draw({
    name: nameOf(peer),
    state: link.state === 'connected' ? link.state : waiting,
    path: path?.path,
    rtt: path?.rtt ?? null,
    stream: link.stream,
    video: Boolean(picture && !picture.muted && (screen || !muted?.video)),
    muted: Boolean(muted?.audio),
    screen: Boolean(screen),
  });
}

function drawControls() {
  for (const button of document.querySelectorAll('[data-toggle]')) {
    const kind = button.dataset.toggle;
    const on = media.wanted[kind];
    button.classList.toggle('off', !on);
    button.setAttribute('aria-label', t(`toggle.${kind}.${on ? 'on' : 'off'}`));
    button.title = button.getAttribute('aria-label');
  }
  $('share-screen').setAttribute('aria-pressed', media.on('screen'));
  $('relay-toggle').setAttribute('aria-pressed', $('relay-only').checked || $('relay-toggle').disabled);
  $('relay-toggle').title = t($('relay-toggle').disabled ? 'relayForced' : 'relayOnlyHint');
}

function drawStatus(status) {
  $('signal').dataset.status = status;
  $('signal').textContent = has(`status.${status}`) ? t(`status.${status}`) : '';
  if (!self && status === 'reconnecting') say('join-note', () => t('notAnswering'));
  if (!self && status === 'online') say('join-note', null);
}

/** The stream of one's own picture, kept while its track stays the same, so that the element does not flicker. */
function ownStream() {
  const { video } = media.outgoing;
  if (!video) return null;
  if (ownStream.last?.getTracks()[0] !== video) ownStream.last = new MediaStream([video]);
  return ownStream.last;
}

function nameOf(peer) {
  if (!peer) return '';
  return peer.identity === peer.peerId ? t('guest', { id: peer.peerId.slice(0, 4) }) : peer.identity;
}
