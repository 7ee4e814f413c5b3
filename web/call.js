/**
 * The call page: lobby, tiles and controls. Signaling and connections are the library's; this page puts a `Tile` to each
 * peer and shared screen, and buttons to what a person does.
 */

import { join as enterRoom, warmUp } from '../sdk/v1/callbox.js';
import { clearChat, notify, recall, received, remembered, sayEvent, showChat, startChat } from './chat.js';
import { wireDialogs } from './dialogs.js';
import { emptySoon, sweep } from './disk.js';
import { wireFiles } from './files.js';
import { has, localise, t } from './i18n.js';
import { Media } from './media.js';
import { $, insecureText, token } from './page.js';
import { wireRecording } from './recording.js';
import { startSettings } from './settings.js';
import { drawAvatar, Tile, useSpeaker } from './stage.js';

const VIDEO_BUDGETS = { low: 600_000, normal: 4_000_000, high: 10_000_000 };
/** What brings a page that is loaded again back into its call, for this tab alone: `{room, password, passphrase}`. */
const IN_CALL = 'callbox.inCall';
/** The reason that everybody is removed with where the host ends the call: each page says it in its own language. */
const ENDED_FOR_ALL = 'ended-for-all';

const media = new Media(mediaChanged);
/** peer → `{tile, screens: Map<stream, Tile>}` */
const shown = new Map();
let room = null;
let camera = null; // the publication of microphone and camera
let screen = null; // the publication of a shared screen
let ownTile = null;
let ownScreen = null;
let joining = null;
/** Whether people log in by name and password. */
let logsIn = false;
let sharedState = '';
/** Why the session ended, while media flows on and the person has not come back into the room. */
let lost = '';
/** What the host gave as a reason when it removed this person. */
let removedFor;
let wakeLock = null;
/** Whether the warning that is shown is about a screen that could not be shared. */
let screenRefused = false;
/** Who is not reached over any path. */
const unreached = new Set();
/** The sentences above the page and above the join button: functions, so that a language switch redraws them. */
const sentences = { warning: null, 'join-note': null };

const dialogs = wireDialogs({ room: () => room, nameOf, notify, endForAll });
const files = wireFiles({ room: () => room, nameOf });
const recording = wireRecording({ room: () => room, changed: drawControls });
const settings = startSettings({ media, changed: applySettings, explain });
start();

function start() {
  readAddress();
  $('name').value = localStorage.getItem('callbox.name') ?? '';
  $('relay-only').checked = localStorage.getItem('callbox.relay') === 'true';

  $('join').addEventListener('submit', submit);
  $('name').addEventListener('input', drawLobby);
  $('relay-only').addEventListener('change', ({ target }) => setRelayOnly(target.checked));
  $('relay-toggle').addEventListener('click', () => setRelayOnly(!$('relay-only').checked));
  for (const button of document.querySelectorAll('[data-toggle]')) button.addEventListener('click', () => toggle(button.dataset.toggle));
  $('share-screen').hidden = !Media.canShareScreen;
  $('share-screen').addEventListener('click', shareScreen);
  $('show-password').addEventListener('click', () => reveal('password'));
  $('hand').addEventListener('click', raiseHand);
  $('record').addEventListener('click', recording.toggle);
  $('record').hidden = !globalThis.MediaRecorder;
  $('copy-link').addEventListener('click', copyLink);
  $('copy-invite').addEventListener('click', copyLink);
  $('leave').addEventListener('click', leave);
  $('warning-close').addEventListener('click', () => say('warning', null));
  $('rejoin').addEventListener('submit', comeBack);
  $('more-toggle').addEventListener('click', () => showMore($('more').hidden));
  $('more').addEventListener('click', ({ target }) => target.closest('button') && showMore(false));
  $('more').addEventListener('keydown', ({ key }) => key === 'Escape' && showMore(false));
  startChat({ ownName: () => ownName(), send: (text) => room.send({ text }), sendFiles: files.send });
  addEventListener('hashchange', () => room || readAddress());
  addEventListener('keydown', shortcut);
  addEventListener('pageshow', ({ persisted }) => persisted && location.reload());
  // The browser takes the lock away from a page that is hidden.
  document.addEventListener('visibilitychange', stayAwake);

  if (!globalThis.RTCPeerConnection) {
    say('warning', () => t('noWebrtc'));
    $('join-button').disabled = true;
  } else if (!Media.possible) {
    explain('insecure');
  }
  localise($('language'), redraw);
  warmUp();
  void sweep();
  fetch(loginUrl()).then((answer) => answer.json()).then(({ login }) => {
    logsIn = login;
    if (login && !token.get()) $('login-password-field').hidden = false;
  }, () => {});
  if (comesBack()) $('join').requestSubmit();
  else Promise.all([Media.granted('audio'), Media.granted('video')]).then((granted) => granted.every(Boolean) && openMedia());
}

/** True where this page was in a call before it was loaded again: it comes back with all that it had come with. */
function comesBack() {
  const { room: roomId, password, passphrase } = JSON.parse(sessionStorage.getItem(IN_CALL) ?? '{}');
  if (roomId === $('room').value && performance.getEntriesByType('navigation')[0]?.type === 'reload') {
    $('password').value = password;
    $('passphrase').value = passphrase;
    return true;
  }
  sessionStorage.removeItem(IN_CALL);
  return false;
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

async function submit(event) {
  event.preventDefault();
  const roomId = $('room').value.trim();
  if (!roomId || joining) return;
  const name = $('name').value.trim();
  const password = $('password').value;
  const maxPeers = Number($('max-peers').value) || undefined;
  const passphrase = $('passphrase').value;
  localStorage.setItem('callbox.name', name);
  if ($('token').value) token.keep($('token').value.trim());
  joining = new AbortController();
  drawJoining();
  say('join-note', null);
  for (const field of document.querySelectorAll('#join [aria-invalid]')) field.removeAttribute('aria-invalid');
  const wrong = await logIn(name, $('login-password').value);
  if (wrong) {
    joining = null;
    refused(wrong, t('notAnswering'));
    return drawJoining();
  }
  await openMedia();
  const notAnswering = setTimeout(() => say('join-note', () => t('notAnswering')), 4_000);
  const create = { ...(password && { password }), ...(maxPeers && { maxPeers }), ...($('make-relay-only').checked && { relayOnly: true }) };
  try {
    camera = null;
    const stream = ownMedia();
    const entered = await enterRoom(new URL('ws', document.baseURI), {
      room: roomId,
      name,
      token: () => token.get(),
      password,
      create,
      relayOnly: $('relay-only').checked,
      videoBudget: VIDEO_BUDGETS[settings.budget],
      streams: [stream],
      timeout: 0,
      signal: joining.signal,
      ...(passphrase && { encryption: { passphrase } }),
    });
    say('join-note', null);
    sessionStorage.setItem(IN_CALL, JSON.stringify({ room: entered.id, password, passphrase }));
    enter(entered);
  } catch ({ code, message }) {
    refused(code, message);
  }
  clearTimeout(notAnswering);
  joining = null;
  drawJoining();
}

function loginUrl() {
  return new URL('v1/login', document.baseURI);
}

/** Exchanges name and password for a token, where people log in; gives the code of a refusal. */
async function logIn(name, password) {
  if (!logsIn || !password) return '';
  const body = JSON.stringify({ name, password });
  const answer = await fetch(loginUrl(), { method: 'POST', headers: { 'content-type': 'application/json' }, body }).catch(() => null);
  if (answer?.ok) {
    token.keep((await answer.json()).token);
    $('login-password').value = '';
    $('login-password-field').hidden = true;
    return '';
  }
  return answer?.status === 429 ? 'login-limited' : 'bad-login';
}

/** What is needed, or what was wrong with what was given. */
function refused(code, message) {
  sessionStorage.removeItem(IN_CALL);
  if (logsIn && ['unauthorized', 'token-expired'].includes(code)) {
    token.keep('');
    code = 'login';
  }
  const login = { login: 'login-password', 'bad-login': 'login-password', 'login-limited': 'login-password' };
  const field = { ...login, unauthorized: 'token', 'token-expired': 'token', forbidden: 'token', 'bad-password': 'password' }[code];
  const given = field && Boolean($(field).value || (field === 'token' && token.get()));
  if (field) {
    reveal(field);
    $(field).setAttribute('aria-invalid', given);
  }
  const key = given && has(`error.${code}.given`) ? `error.${code}.given` : `error.${code}`;
  say('join-note', () => (has(key) ? t(key) : message));
}

function reveal(field) {
  $(`${field}-field`).hidden = false;
  $(field).closest('details')?.setAttribute('open', '');
  $(field).focus();
}

function drawJoining() {
  $('join-button').disabled = Boolean(joining) || !globalThis.RTCPeerConnection;
  $('join-button').dataset.i18n = joining ? 'joining' : 'join';
  $('join-button').textContent = t($('join-button').dataset.i18n);
}

/** Shows a sentence, `words()`, or hides it. That the session is lost is said for as long as it is. */
function say(place, words) {
  if (place === 'warning' && !words && lost) words = sessionLost;
  sentences[place] = words;
  if (place === 'warning') {
    $('warning-check').hidden = words !== noPath;
    $('rejoin').hidden = words !== sessionLost;
    $('warning-close').hidden = words === sessionLost;
  }
  $(`${place}-text`).textContent = words?.() ?? '';
  const shown = $(place).hidden && words;
  $(place).hidden = !words;
  if (shown) $(place).scrollIntoView({ block: 'nearest' });
}

// ---- In the room ----

function enter(entered) {
  room = entered;
  [camera] = room.publications;
  ownTile = new Tile(room.peerId, { local: true });
  rememberRoom(room.id);
  $('lobby').hidden = true;
  $('call').hidden = $('room-bar').hidden = $('signal').hidden = false;
  stayAwake();
  sharedState = '';

  room.on('status', (status, reason) => (status === 'closed' ? ended(reason) : drawStatus()));
  const newcomers = new WeakSet();
  room.on('peer', (peer) => {
    newcomers.add(peer);
    follow(peer);
    sayEvent('came', t('came', { name: nameOf(peer) }));
  });
  room.on('leave', (peer, reason) => {
    unfollow(peer);
    // The last one whose media had outlived the session.
    if (room?.status === 'closed' && !room.peers.size) ended(room.reason);
    else sayEvent('left', t(has(`gone.${reason}`) ? `gone.${reason}` : 'gone.left', { name: nameOf(peer) }));
  });
  room.on('state', (peer) => {
    const entry = shown.get(peer);
    if (peer.state.hand && entry && !entry.hand) sayEvent('hand', t('raisedHand', { name: nameOf(peer) }));
    if (entry) entry.hand = Boolean(peer.state.hand);
    drawPeer(peer);
    dialogs.redraw();
  });
  room.on('message', (content, peer) => {
    const text = typeof content === 'string' ? content : content?.text;
    if (typeof text === 'string') received(nameOf(peer), text);
  });
  room.on('notify', (content) => sayEvent('notify', typeof content === 'string' ? content : JSON.stringify(content)));
  room.on('mute', (kind, peer) => {
    if (!media.on(kind)) return;
    if (kind === 'screen') media.endScreen();
    else toggle(kind);
    sayEvent('mute', t('askedToMute', { name: nameOf(peer) }));
  });
  room.on('role', drawRole);
  room.on('room', () => {
    drawControls();
    dialogs.redraw();
  });
  room.on('ice', drawControls);
  room.on('kicked', (why) => (removedFor = why));
  room.on('draining', () => sayEvent('draining', t('draining')));
  room.on('file', files.receive);
  // Who was here first sends what was written before, once; anybody else would make it up.
  const [eldest] = [...room.peers.values()].sort((one, other) => one.joinedAt - other.joinedAt);
  room.channel('callbox.chat').on('open', (peer) => {
    const isEldest = [...room.peers.values()].every((other) => newcomers.has(other));
    if (isEldest && remembered().length) room.channel('callbox.chat').send({ history: remembered() }, peer);
  });
  room.channel('callbox.chat').on('message', (told, peer) => peer === eldest && recall(told?.history, nameOf(peer)));

  drawRole(room.role);
  for (const peer of room.peers.values()) follow(peer);
  const names = [...room.peers.values()].map(nameOf).join(', ');
  sayEvent('entered', t(names ? 'entered.others' : 'entered.alone', { room: room.id, names }));
  mediaChanged();
}

function drawRole(role) {
  $('call').classList.toggle('viewer', role === 'viewer');
  $('call').classList.toggle('host', role === 'host');
  if (role === 'viewer') media.close();
  dialogs.redraw();
}

/** The session is over. The call is over with it where somebody ended it, or where no media flows on. */
function ended(reason) {
  if (!room) return;
  // The page goes away, perhaps to be loaded again. A person who leaves has no room any more.
  if (reason === 'left') return;
  if (room.peers.size && !['kicked', 'replaced', 'room-closed'].includes(reason)) return goesOn(reason);
  leave();
  const why = removedFor;
  removedFor = undefined;
  // The box's own word for it says no more than the sentence does.
  const said = { [ENDED_FOR_ALL]: 'endedForAll', 'removed by the operator': 'ended.byOperator', kicked: 'ended.kicked' }[why];
  if (reason === 'kicked' && why) say('join-note', () => (said ? t(said) : t('ended.kickedFor', { why })));
  else if (['kicked', 'replaced', 'room-closed'].includes(reason)) say('join-note', () => t(`ended.${reason}`));
  else if (has(`error.${reason}`)) refused(reason);
  else say('join-note', () => t('ended.lost'));
}

/** Media flows without a session: the tiles stay, and the person is asked for what brings the session back. */
function goesOn(reason) {
  const needsToken = ['unauthorized', 'token-expired', 'forbidden'].includes(reason);
  lost = logsIn && needsToken ? 'login' : reason;
  $('rejoin-key').hidden = !needsToken && !['bad-login', 'login-limited'].includes(reason);
  $('rejoin-key').dataset.i18nLabel = $('rejoin-key').dataset.i18nPlaceholder = logsIn ? 'loginPassword' : 'token';
  for (const name of ['aria-label', 'placeholder']) $('rejoin-key').setAttribute(name, t($('rejoin-key').dataset.i18nLabel));
  say('warning', sessionLost);
  drawStatus();
}

function sessionLost() {
  const key = [`error.${lost}.given`, `error.${lost}`].find(has);
  return `${t('goesOn')} ${key ? t(key) : ''}`.trim();
}

async function comeBack(event) {
  event.preventDefault();
  const coming = room;
  const key = $('rejoin-key').value.trim();
  $('rejoin-button').disabled = true;
  $('rejoin-key').value = '';
  const wrong = await logIn($('name').value.trim(), key);
  if (key && !logsIn) token.keep(key);
  if (room === coming && wrong) goesOn(wrong);
  else if (room === coming) {
    // A refusal comes to `ended` too, which asks again.
    const back = await room.rejoin().then(() => true, () => false);
    if (back && room === coming) {
      lost = '';
      if (sentences.warning === sessionLost) say('warning', null);
    }
  }
  $('rejoin-button').disabled = false;
}

async function leave() {
  const leaving = room;
  room = camera = screen = null;
  lost = '';
  if (sentences.warning === sessionLost) say('warning', null);
  sessionStorage.removeItem(IN_CALL);
  if (recording.on) await recording.stop();
  leaving?.leave();
  for (const peer of [...shown.keys()]) unfollow(peer);
  ownTile?.remove();
  ownScreen?.remove();
  ownTile = ownScreen = null;
  media.close();
  clearChat();
  emptySoon();
  dialogs.close();
  showMore(false);
  wakeLock?.then((lock) => lock?.release());
  $('call').hidden = $('room-bar').hidden = $('signal').hidden = true;
  $('lobby').hidden = false;
  drawLobby();
  $('join-button').focus();
}

/** Keeps the screen on while the page is looked at. */
async function stayAwake() {
  if (!room || document.visibilityState !== 'visible') return;
  const held = await wakeLock;
  if (!held || held.released) wakeLock = navigator.wakeLock?.request('screen').catch(() => null);
}

async function endForAll() {
  for (const peer of room.peers.values()) await room.kick(peer, ENDED_FOR_ALL).catch(() => {});
  leave();
}

// ---- Others ----

function follow(peer) {
  const entry = { tile: new Tile(peer.id), screens: new Map(), hand: Boolean(peer.state.hand) };
  shown.set(peer, entry);
  peer.on('stream', (stream, label) => addStream(peer, stream, label));
  peer.on('streamend', (stream) => {
    entry.screens.get(stream)?.remove();
    entry.screens.delete(stream);
    drawPeer(peer);
  });
  for (const event of ['track', 'path', 'status', 'encrypted']) peer.on(event, () => drawPeer(peer));
  peer.on('status', (status) => {
    if (status === 'failed') unreached.add(peer);
    else if (status === 'connected') unreached.delete(peer);
    else return;
    sayUnreached();
  });
  drawPeer(peer);
  dialogs.redraw();
}

function unfollow(peer) {
  const entry = shown.get(peer);
  if (!entry) return;
  entry.tile.remove();
  for (const tile of entry.screens.values()) tile.remove();
  shown.delete(peer);
  if (unreached.delete(peer)) sayUnreached();
  dialogs.redraw();
}

/** Who has no path looks for one on and on; meanwhile the person reads what may be in the way, and where it is found out. */
function sayUnreached() {
  if (unreached.size && !lost) say('warning', noPath);
  else if (sentences.warning === noPath) say('warning', null);
}

function noPath() {
  return t('noPath', { names: [...unreached].map(nameOf).join(', ') });
}

function addStream(peer, stream, label) {
  for (const event of ['addtrack', 'removetrack']) stream.addEventListener(event, () => drawPeer(peer));
  if (label === 'screen') shown.get(peer).screens.set(stream, new Tile(peer.id, { screen: true }));
  watch(peer, stream);
  drawPeer(peer);
}

/** A track that pauses and goes on says so by itself. */
function watch(peer, stream) {
  for (const track of stream.getTracks()) track.onmute = track.onunmute = track.onended = () => drawPeer(peer);
}

function drawPeer(peer) {
  const entry = shown.get(peer);
  if (!entry || !room) return;
  const { muted, screen: screenOnly } = peer.state;
  const { stream } = peer;
  if (stream) watch(peer, stream);
  const picture = stream?.getVideoTracks().find((track) => !track.muted);
  const viewers = room.role === 'viewer' && peer.role === 'viewer';
  const waiting = peer.connection === 'away' ? 'away' : viewers ? 'viewer' : peer.status;
  // A client with one picture only puts its screen into the camera's place.
  const alone = Boolean(screenOnly) && !peer.sameLibrary;
  entry.tile.draw({
    name: nameOf(peer),
    state: peer.status === 'connected' ? 'connected' : has(`state.${waiting}`) ? waiting : 'new',
    path: peer.path?.kind,
    rtt: peer.path?.rtt,
    stream,
    video: Boolean(picture && (alone || !muted?.video)),
    muted: muted?.audio,
    screen: alone,
    hand: peer.state.hand,
    encrypted: peer.encrypted,
  });
  for (const [shared, tile] of entry.screens) {
    tile.draw({ name: t('screenOf', { name: nameOf(peer) }), state: 'connected', stream: shared, video: true, screen: true, encrypted: peer.encrypted });
  }
}

// ---- Own devices ----

async function openMedia() {
  const reason = await media.open();
  if (reason) explain(reason);
}

async function shareScreen() {
  const reason = await media.toggleScreen();
  if (reason) say('warning', () => t(`screen.${reason}`));
  else if (screenRefused) say('warning', null);
  screenRefused = Boolean(reason);
}

async function toggle(kind) {
  explain(await media.toggle(kind));
}

function explain(reason) {
  if (!reason) return say('warning', null);
  const [why, kind] = reason.split('-');
  if (why === 'insecure') return say('warning', () => (isSecureContext ? t('noMediaApi') : insecureText(t)));
  const device = { audio: 'deviceAudio', video: 'deviceVideo', both: 'deviceBoth' }[kind];
  say('warning', () => t(`media.${why}`, { what: t(device) }));
}

function ownMedia() {
  return new MediaStream([media.track('audio'), media.track('video')].filter(Boolean));
}

async function mediaChanged() {
  settings.redraw();
  if (room && room.role !== 'viewer') {
    camera ??= await room.publish(ownMedia());
    for (const kind of ['audio', 'video']) void camera.replace(kind, media.track(kind));
    const shared = media.track('screen');
    if (shared && !screen) {
      const stream = new MediaStream([shared, media.track('system')].filter(Boolean));
      screen = room.publish(stream, { label: 'screen', contentHint: 'detail', maxBitrate: 2_500_000 });
      ownScreen = new Tile('own-screen', { local: true, screen: true });
      ownScreen.stream = stream;
    } else if (!shared && screen) {
      const ending = screen;
      screen = null;
      ownScreen.remove();
      ownScreen = null;
      (await ending).unpublish();
    }
  }
  redraw();
  shareState();
}

/** Tells the others what is muted; a box without `state` still carries the call. */
function shareState(more = {}) {
  if (!room) return;
  const state = { muted: { audio: !media.on('audio'), video: !media.on('video') }, screen: media.on('screen'), ...more };
  if (JSON.stringify(state) === sharedState) return;
  sharedState = JSON.stringify(state);
  room.setState(state);
}

function raiseHand() {
  const hand = room.state.hand ? null : true;
  room.setState({ hand });
  drawControls();
  redraw();
}

function setRelayOnly(on) {
  $('relay-only').checked = on;
  localStorage.setItem('callbox.relay', on);
  drawControls();
  if (!room) return;
  const relays = room.ice?.iceServers.flatMap(({ urls }) => urls).some((url) => /^turns?:/.test(url));
  sayEvent('relay', t(!on ? 'relayOff' : relays ? 'relayOn' : 'noRelayHere'));
  room.relayOnly = on;
}

function applySettings() {
  useSpeaker(media.chosen('speaker'));
  if (room) room.videoBudget = VIDEO_BUDGETS[settings.budget];
}

/** One letter each, unless somebody writes or switched them off. */
function shortcut(event) {
  if (!room || !settings.shortcuts || event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input, textarea, select, dialog')) return;
  const act = {
    m: () => toggle('audio'),
    v: () => toggle('video'),
    s: () => $('share-screen').hidden || shareScreen(),
    c: () => showChat($('chat').hidden),
    h: raiseHand,
    p: () => dialogs.open('people'),
  }[event.key.toLowerCase()];
  if (!act) return;
  event.preventDefault();
  act();
}

// ---- Drawing ----

async function copyLink() {
  $('invite-link').select();
  if (navigator.clipboard) await navigator.clipboard.writeText(roomLink()).catch(() => document.execCommand('copy'));
  else document.execCommand('copy'); // plain http has no clipboard API
  notify(t('copied'));
}

function roomLink() {
  return new URL(`#${encodeURIComponent(room.id)}`, location.href).href;
}

function ownName() {
  return nameOf({ identity: room.identity, peerId: room.peerId, name: room.identity === room.peerId ? '' : room.identity });
}

function redraw() {
  drawControls();
  drawJoining();
  dialogs.redraw();
  settings.redraw();
  recording.redraw();
  for (const [place, words] of Object.entries(sentences)) say(place, words);
  if (!room) return drawLobby();
  $('room-name').textContent = room.id;
  document.title = `${room.id} · callbox`;
  $('invite-link').value = roomLink();
  drawStatus();
  const stream = ownPicture();
  const name = ownName();
  ownTile?.draw({ name: t('you', { name }), state: 'local', stream, video: Boolean(stream), muted: !media.on('audio'), hand: room.state.hand });
  ownScreen?.draw({ name: t('screenOf', { name }), state: 'local', stream: ownScreen.stream, video: true, screen: true });
  for (const peer of shown.keys()) drawPeer(peer);
}

function drawLobby() {
  const stream = ownPicture();
  document.title = 'callbox';
  $('preview').dataset.video = String(Boolean(stream));
  $('preview-video').hidden = !stream;
  if ($('preview-video').srcObject !== stream) $('preview-video').srcObject = stream;
  $('preview-hint').hidden = !Media.possible || media.on('audio') || media.on('video') || !(media.wanted.audio || media.wanted.video);
  drawAvatar($('preview-avatar'), $('name').value.trim());
  $('preview-avatar').hidden = Boolean(stream);
  $('preview-controls').hidden = !Media.possible;
}

function drawControls() {
  for (const button of document.querySelectorAll('[data-toggle]')) {
    const kind = button.dataset.toggle;
    const on = media.wanted[kind];
    button.classList.toggle('off', !on);
    button.setAttribute('aria-label', t(`toggle.${kind}.${on ? 'on' : 'off'}`));
    button.title = button.getAttribute('aria-label');
  }
  const forced = room?.ice?.iceTransportPolicy === 'relay';
  $('share-screen').setAttribute('aria-pressed', media.on('screen'));
  $('relay-toggle').disabled = Boolean(forced);
  $('relay-toggle').setAttribute('aria-pressed', $('relay-only').checked || Boolean(forced));
  $('relay-toggle').title = t(forced ? 'relayForced' : 'relayOnlyHint');
  $('hand').setAttribute('aria-pressed', Boolean(room?.state.hand));
  $('record').setAttribute('aria-pressed', recording.on);
  $('more-toggle').classList.toggle('recording', recording.on);
}

function showMore(show) {
  if (!show && !$('more').hidden && $('more').contains(document.activeElement)) $('more-toggle').focus();
  $('more').hidden = !show;
  $('more-toggle').setAttribute('aria-expanded', show);
  if (show) $('more').querySelector('button:not([hidden], :disabled)').focus();
}

function drawStatus() {
  const { status } = room ?? {};
  $('signal').dataset.status = status ?? 'idle';
  $('signal').textContent = has(`status.${status}`) ? t(`status.${status}`) : '';
}

/** The stream of one's own picture, kept while its track stays the same, so that the element does not flicker. */
function ownPicture() {
  const video = media.track('video');
  if (!video) return null;
  if (ownPicture.last?.getTracks()[0] !== video) ownPicture.last = new MediaStream([video]);
  return ownPicture.last;
}

function nameOf(peer) {
  if (!peer) return '';
  return peer.name || t('guest', { id: peer.peerId.slice(0, 4) });
}
