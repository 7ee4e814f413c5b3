/**
 * The operator's dashboard: rooms and who is in them, relays, refusals, certificates, load and events as they happen. It
 * speaks to the admin API alone, so that it can nothing that `curl` cannot. The token stays in this tab.
 */

import { ADMIN_WORDS } from './admin-words.js';
import { addWords, fileSize, has, localise, t } from './i18n.js';
import { $, makeElement } from './page.js';

/** Milliseconds between two looks where no event asks for one, and the least between two looks at all. */
const LOOK_EVERY = 5_000;
const LOOK_AFTER = 400;
const RETRY_EVENTS_AFTER = 3_000;
/** Events that stay on the page, and members that one room shows. */
const MAX_EVENTS = 200;
const MAX_MEMBERS = 500;
const TOKEN_KEY = 'callbox.adminToken';

addWords(ADMIN_WORDS);

let data = { rooms: [], relays: [], metrics: null, nodes: null, more: false, partial: [] };
/** Rooms whose members are shown: id → members. */
const opened = new Map();
/** Bytes of each relay at the look before, for its rate. */
let before = { at: 0, bytes: new Map(), cpu: new Map(), rates: new Map(), load: new Map(), total: 0 };
let traced = null;
let stream = null;
let timer = 0;
let looking = false;
let hasEvents = false;
let liveKey = 'admin.connecting';
/** Sentences by place: functions, so that a language switch redraws them. */
const sentences = {};

localise($('language'), draw);
$('token-form').addEventListener('submit', (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN_KEY, $('token').value.trim());
  $('token').value = '';
  enter();
});
$('forget').addEventListener('click', forget);
$('filter').addEventListener('input', drawRooms);
$('drain').addEventListener('click', async () => (await sure('admin.sureDrain', '')) && act('admin.drainNow', 'POST', 'v1/drain'));
$('mint').addEventListener('submit', mint);
$('trace-off').addEventListener('click', () => trace(null));
if (sessionStorage.getItem(TOKEN_KEY)) enter();
else $('token').focus();

// ---- The admin API ----

/** Asks the box; resolves to what it answered, or throws `{status, detail}`. */
async function ask(method, path, body) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(TOKEN_KEY)}`, ...(body && { 'Content-Type': 'application/json' }) };
  const response = await fetch(path, { method, headers, cache: 'no-store', ...(body && { body: JSON.stringify(body) }) });
  const text = await response.text();
  const json = /json/.test(response.headers.get('Content-Type') ?? '') ? JSON.parse(text) : null;
  if (!response.ok) throw Object.assign(new Error(json?.detail ?? `HTTP ${response.status}`), { status: response.status });
  return json ?? text;
}

async function enter() {
  try {
    await ask('GET', 'v1/rooms');
  } catch ({ status, message }) {
    const key = status === 404 ? 'admin.absent' : status ? 'admin.refused' : 'admin.unreachable';
    sessionStorage.removeItem(TOKEN_KEY);
    // A token that the box knows and that may not read: the box names the scope that is missing.
    say('refused', () => (status === 403 ? t('admin.scope', { why: message }) : t(key)));
    $('token').focus();
    return;
  }
  say('refused', null);
  $('entrance').hidden = true;
  $('dashboard').hidden = $('live').hidden = false;
  await look();
  listen();
}

function forget() {
  sessionStorage.removeItem(TOKEN_KEY);
  stream?.abort();
  clearTimeout(timer);
  location.reload();
}

/** Reads everything once, and again after a while. */
async function look() {
  if (looking) return;
  looking = true;
  clearTimeout(timer);
  try {
    const [rooms, relays, metrics, nodes] = await Promise.all([
      ask('GET', 'v1/rooms'),
      ask('GET', 'v1/relays'),
      ask('GET', 'metrics').then(readMetrics),
      // Without a cluster there is no such path.
      data.nodes === false ? false : ask('GET', 'v1/nodes').catch(({ status }) => (status === 404 ? false : null)),
      ...[...opened.keys()].map(readMembers),
    ]);
    data = { rooms: rooms.rooms, more: Boolean(rooms.next), partial: [...new Set([...(rooms.partial ?? []), ...(relays.partial ?? [])])], relays: relays.relays, metrics, nodes };
    measure();
    say('error', null);
  } catch ({ status, message }) {
    if (status === 401 || status === 404) return forget();
    say('error', () => (status ? message : t('admin.unreachable')));
  } finally {
    looking = false;
  }
  draw();
  timer = setTimeout(look, LOOK_EVERY);
}

/** Looks soon: several events ask for one look. */
function lookSoon() {
  clearTimeout(timer);
  timer = setTimeout(look, LOOK_AFTER);
}

async function readMembers(id) {
  try {
    opened.set(id, (await ask('GET', `v1/rooms/${encodeURIComponent(id)}`)).members.slice(0, MAX_MEMBERS));
  } catch {
    opened.delete(id);
  }
}

/** Follows the events; a box without that path is looked at again and again. */
async function listen() {
  stream?.abort();
  stream = new AbortController();
  const { signal } = stream;
  const path = traced === null ? 'v1/events' : `v1/events?trace=${encodeURIComponent(traced)}`;
  setLive('admin.connecting');
  try {
    const response = await fetch(path, { headers: { Authorization: `Bearer ${sessionStorage.getItem(TOKEN_KEY)}`, Accept: 'text/event-stream' }, cache: 'no-store', signal });
    if (response.status === 404) return setLive('admin.polling');
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    setLive('admin.live');
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      text += value;
      const events = text.split(/\r?\n\r?\n/);
      text = events.pop();
      events.forEach(take);
    }
  } catch {
    // What ended it is of no use to the operator: the next attempt shows whether the box is there.
  }
  if (signal.aborted) return;
  setLive('admin.polling');
  setTimeout(() => signal.aborted || listen(), RETRY_EVENTS_AFTER);
}

function take(event) {
  const field = (name) => event.split(/\r?\n/).filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).trimStart()).join('\n');
  const data = field('data');
  if (!data) return;
  let content;
  try {
    content = JSON.parse(data);
  } catch {
    content = data;
  }
  const name = field('event') || 'message';
  hasEvents = true;
  const row = document.createElement('div');
  row.dataset.event = name;
  row.append(timeOf(new Date(content?.ts ?? Date.now())), makeElement('b', name), makeElement('span', summary(content)));
  const list = $('events');
  list.prepend(row);
  while (list.children.length > MAX_EVENTS) list.lastChild.remove();
  $('no-events').hidden = true;
  if (name !== 'message') lookSoon();
}

/** What an event says, in a line: texts and numbers by name. */
function summary(content) {
  if (typeof content !== 'object' || content === null) return String(content);
  return Object.entries(content)
    .filter(([key, value]) => key !== 'ts' && value !== null && value !== '')
    .map(([key, value]) => (['message', 'text'].includes(key) ? value : `${key} ${typeof value === 'object' ? JSON.stringify(value) : value}`))
    .join(' · ');
}

function trace(room) {
  traced = room;
  $('trace-off').hidden = room === null;
  drawTrace();
  listen();
}

// ---- Metrics ----

/** OpenMetrics text → `{get(name, labels?), all(name)}`; names without the prefix and `_total`. */
function readMetrics(text) {
  const samples = new Map();
  for (const line of text.split('\n')) {
    const found = /^(\w+)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!found || line.startsWith('#')) continue;
    const name = found[1].replace(/^callbox_/, '').replace(/_total$/, '');
    const labels = Object.fromEntries([...(found[2] ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, value]) => [key, value]));
    if (!samples.has(name)) samples.set(name, []);
    samples.get(name).push({ labels, value: Number(found[3]) });
  }
  const all = (name) => samples.get(name) ?? [];
  const sum = (name, labels = {}) =>
    all(name).filter((one) => Object.entries(labels).every(([key, value]) => one.labels[key] === value)).reduce((total, { value }) => total + value, 0);
  return { all, sum, has: (name) => samples.has(name) };
}

/** Rates since the look before. */
function measure() {
  const at = performance.now();
  const seconds = (at - before.at) / 1000;
  const known = before.at > 0 && seconds > 0;
  const bytes = new Map();
  const rates = new Map();
  for (const relay of data.relays) {
    const key = keyOf(relay);
    bytes.set(key, relay.bytesSent + relay.bytesReceived);
    if (known && before.bytes.has(key)) rates.set(key, Math.max(0, ((bytes.get(key) - before.bytes.get(key)) * 8) / seconds));
  }
  const cpu = new Map(data.metrics.all('relay_worker_cpu_seconds').map(({ labels, value }) => [labels.worker, value]));
  const load = new Map();
  for (const [worker, value] of cpu) if (known && before.cpu.has(worker)) load.set(worker, Math.max(0, (value - before.cpu.get(worker)) / seconds));
  before = { at, bytes, cpu, rates, load, total: [...rates.values()].reduce((sum, rate) => sum + rate, 0) };
}

const keyOf = ({ user, client, relayed }) => `${user} ${client} ${relayed}`;

// ---- What is seen ----

function draw() {
  document.title = `${t('admin.title')} · callbox`;
  for (const [place, words] of Object.entries(sentences)) showWords(place, words);
  setLive(liveKey);
  drawTrace();
  if (!data.metrics) return;
  drawFigures();
  drawRooms();
  drawRelays();
  drawNodes();
  drawRefusals();
  drawBox();
  $('no-events').hidden = hasEvents;
}

function drawFigures() {
  const { metrics } = data;
  const reported = (path) => metrics.sum('signal_reports', { path });
  list('figures', [
    [t('figure.rooms'), count(metrics.sum('signal_rooms'))],
    [t('figure.peers'), count(metrics.sum('signal_peers'))],
    [t('figure.connections'), count(metrics.sum('signal_connections'))],
    [t('figure.calls'), count(metrics.sum('signal_calls'))],
    [t('figure.allocations'), count(data.relays.length)],
    [t('figure.rate'), bitRate(before.total)],
    ...['direct', 'relay', 'failed'].map((path) => [t(`figure.${path}`), count(reported(path))]),
  ]);
}

function drawRooms() {
  const wanted = $('filter').value.trim().toLowerCase();
  const rooms = data.rooms.filter(({ roomId }) => roomId.toLowerCase().includes(wanted));
  rows('rooms', rooms.flatMap((room) => [roomRow(room), ...(opened.get(room.roomId) ?? []).map((member) => memberRow(room, member))]));
  $('no-rooms').hidden = rooms.length > 0;
  say('partial', data.more || data.partial.length ? () => [data.more && t('admin.moreRooms'), data.partial.length && t('admin.partial', { nodes: data.partial.join(', ') })].filter(Boolean).join(' ') : null);
}

function roomRow(room) {
  const { roomId } = room;
  const marks = [room.locked && t('admin.locked'), room.hasPassword && t('admin.password'), room.relayOnly && t('admin.relayOnly'), t('admin.max', { count: room.maxPeers })];
  const shown = opened.has(roomId);
  return row(roomId, [
    ['th', roomId],
    ['td', count(room.peers ?? 0)],
    ['td', timeOf(new Date(room.createdAt))],
    ['td', marks.filter(Boolean).join(' · ')],
    ['td', actions(
      [t(shown ? 'admin.hide' : 'admin.show'), roomId, () => toggleRoom(roomId), { expanded: shown }],
      [t('admin.trace'), roomId, () => trace(roomId), { pressed: traced === roomId }],
      [t('admin.close'), roomId, async () => (await sure('admin.sureClose', roomId)) && act('admin.close', 'DELETE', `v1/rooms/${encodeURIComponent(roomId)}`)],
    )],
  ]);
}

function memberRow({ roomId }, { peerId, identity, role, connection, joinedAt, dialect, report }) {
  const marks = [t(has(`role.${role}`) ? `role.${role}` : 'role.member'), pathOf(report), connection === 'away' && t('admin.away'), dialect];
  const line = row(`${roomId} ${peerId}`, [
    ['th', identity],
    ['td', ''],
    ['td', timeOf(new Date(joinedAt))],
    ['td', marks.filter(Boolean).join(' · ')],
    ['td', actions([t('admin.remove'), identity, async () => (await sure('admin.sureRemove', identity)) && act('admin.remove', 'DELETE', `v1/rooms/${encodeURIComponent(roomId)}/peers/${encodeURIComponent(peerId)}`)])],
  ]);
  line.classList.add('member');
  return line;
}

/**
 * The path that a member reported last, in words; a dash where it has reported none. An allocation says nothing of it: every
 * browser takes one while it gathers.
 */
function pathOf(report) {
  if (!report) return '–';
  const { path, transport, rttMs, lostPpm } = report;
  const words = [t(`admin.path.${path}`), transport?.toUpperCase(), rttMs !== undefined && t('milliseconds', { ms: rttMs }), lostPpm && t('admin.lost', { share: (lostPpm / 10_000).toFixed(1) })];
  return words.filter(Boolean).join(' ');
}

async function toggleRoom(id) {
  if (opened.has(id)) opened.delete(id);
  else await readMembers(id);
  drawRooms();
}

function drawRelays() {
  rows('relays', data.relays.map((relay) => row(keyOf(relay), [
    ['th', relay.identity ?? relay.user],
    ['td', relay.roomId ?? ''],
    ['td', relay.transport.toUpperCase()],
    ['td', relay.client],
    ['td', fileSize(relay.bytesSent)],
    ['td', fileSize(relay.bytesReceived)],
    ['td', before.rates.has(keyOf(relay)) ? bitRate(before.rates.get(keyOf(relay))) : '–'],
    ['td', duration(relay.age)],
    ['td', actions([t('admin.revoke'), relay.identity ?? relay.user, async () => (await sure('admin.sureRevoke', relay.identity ?? relay.user)) && act('admin.revoke', 'DELETE', `v1/relays/${encodeURIComponent(relay.user)}`)])],
  ])));
  $('no-relays').hidden = data.relays.length > 0;
}

function drawNodes() {
  const nodes = data.nodes?.nodes ?? [];
  $('nodes-card').hidden = !nodes.length;
  rows('nodes', nodes.map((node) => row(node.id, [['th', node.name ?? node.id], ['td', summary({ ...node, name: null })]])));
}

function drawRefusals() {
  const { metrics } = data;
  const counted = (name, label, what) => metrics.all(name).filter(({ value }) => value > 0).map(({ labels, value }) => [`${what} ${labels[label] ?? ''}`.trim(), count(value)]);
  const found = [
    ...counted('signal_errors', 'code', 'signaling'),
    ...counted('relay_refused', 'code', 'relay'),
    ...counted('relay_dropped', 'cause', 'dropped'),
    ...counted('relay_auth_failures', 'cause', 'credentials refused'),
    ...counted('signal_connections_refused', 'cause', 'connections refused'),
    ...counted('signal_slow_consumers', 'cause', 'slow consumers'),
  ];
  list('refusals', found);
  $('no-refusals').hidden = found.length > 0;
}

function drawBox() {
  const { metrics } = data;
  const value = (name) => (metrics.has(name) ? metrics.sum(name) : null);
  const days = value('tls_certificate_days_left');
  const started = value('process_start_time_seconds');
  const memory = value('process_resident_memory_bytes');
  const [open, most] = [value('process_open_fds'), value('process_max_fds')];
  list('box', [
    [t('admin.version'), metrics.all('build_info')[0]?.labels.version ?? '–'],
    ...(started ? [[t('admin.uptime'), duration(Date.now() / 1000 - started)]] : []),
    [t('admin.certificate'), days === null ? t('admin.noTls') : t('admin.days', { days: Math.floor(days) }), days !== null && days < 10],
    ...(memory ? [[t('admin.memory'), fileSize(memory)]] : []),
    ...(open !== null && most ? [[t('admin.descriptors'), `${count(open)} / ${count(most)}`, open > 0.8 * most]] : []),
    ...(metrics.has('relay_ports') ? [[t('admin.ports'), `${count(metrics.sum('relay_ports_free'))} / ${count(metrics.sum('relay_ports'))}`]] : []),
    ...[...before.load].map(([n, load]) => [t('admin.worker', { n }), t('admin.load', { percent: Math.round(load * 100) }), load > 0.8]),
  ]);
}

// ---- Acting ----

async function act(what, method, path, body) {
  try {
    const answer = await ask(method, path, body);
    lookSoon();
    return answer;
  } catch ({ message }) {
    say('error', () => t('admin.failed', { what: t(what), why: message }));
    $('error').scrollIntoView({ block: 'nearest' });
    return null;
  }
}

/** Asks before what cannot be taken back. */
function sure(key, what) {
  const dialog = $('sure');
  $('sure-text').textContent = t(key, { what });
  $('sure-yes').textContent = t({ 'admin.sureClose': 'admin.close', 'admin.sureRemove': 'admin.remove', 'admin.sureRevoke': 'admin.revoke', 'admin.sureDrain': 'admin.drainNow' }[key]);
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise((resolve) => {
    $('sure-yes').onclick = () => dialog.close('yes');
    $('sure-no').onclick = () => dialog.close('');
    dialog.onclose = () => resolve(dialog.returnValue === 'yes');
  });
}

async function mint(event) {
  event.preventDefault();
  const ttl = Math.round(Number($('mint-minutes').value) * 60);
  const [identity, room, role] = ['mint-identity', 'mint-room', 'mint-role'].map((id) => $(id).value.trim());
  const token = event.submitter?.value !== 'credentials';
  const answer = token
    ? await act('admin.mintToken', 'POST', 'v1/tokens', { ...(identity && { identity }), ...(room && { room }), ...(role && { role }), ttl })
    : await act('admin.mintCredentials', 'POST', 'v1/credentials', { ...(identity && { user: identity }), ttl });
  $('minted-field').hidden = !answer;
  if (!answer) return;
  $('minted').value = token ? `${answer.url}\n\n${answer.token}` : JSON.stringify(answer.iceServers, null, 2);
  $('minted').focus();
  $('minted').select();
}

// ---- Small parts ----

function say(place, words) {
  sentences[place] = words;
  showWords(place, words);
}

function showWords(place, words) {
  $(place).textContent = words?.() ?? '';
  $(place).hidden = !words;
}

function setLive(key) {
  liveKey = key;
  $('live').textContent = t(key);
  $('live').dataset.status = key === 'admin.live' ? 'online' : key === 'admin.connecting' ? 'connecting' : 'idle';
}

function drawTrace() {
  $('trace-off').textContent = traced === null ? '' : t('admin.traceOff', { room: traced });
}

/** Puts rows into a table; what has not changed stays, so that focus does too. */
function rows(id, wanted) {
  const body = $(id);
  const present = new Map([...body.children].map((element) => [element.dataset.key, element]));
  const kept = wanted.map((element) => {
    const old = present.get(element.dataset.key);
    if (!old) return element;
    for (const [n, cell] of [...element.children].entries()) {
      const there = old.children[n];
      if (there.textContent !== cell.textContent || there.querySelectorAll('button').length !== cell.querySelectorAll('button').length) there.replaceWith(cell);
    }
    old.className = element.className;
    return old;
  });
  const inPlace = kept.length === body.children.length && kept.every((element, n) => element === body.children[n]);
  if (!inPlace) body.replaceChildren(...kept);
}

function row(key, cells) {
  const line = document.createElement('tr');
  line.dataset.key = key;
  for (const [name, content] of cells) {
    const cell = document.createElement(name);
    if (name === 'th') cell.scope = 'row';
    cell.append(content);
    line.append(cell);
  }
  return line;
}

function actions(...given) {
  const group = Object.assign(document.createElement('span'), { className: 'row-actions' });
  for (const [words, what, work, { expanded, pressed } = {}] of given) {
    const button = Object.assign(makeElement('button', words), { type: 'button', className: 'quiet small' });
    button.setAttribute('aria-label', `${words}: ${what}`);
    if (expanded !== undefined) button.setAttribute('aria-expanded', expanded);
    if (pressed !== undefined) button.setAttribute('aria-pressed', pressed);
    button.addEventListener('click', work);
    group.append(button);
  }
  return group;
}

function list(id, entries) {
  const box = $(id);
  const pairs = entries.flatMap(([name, value, bad]) => {
    const words = [makeElement('dt', name), Object.assign(makeElement('dd', value), { className: bad ? 'bad' : '' })];
    if (id !== 'figures') return words;
    const group = document.createElement('div');
    group.append(...words);
    return [group];
  });
  box.replaceChildren(...pairs);
}

function timeOf(date) {
  const today = date.toDateString() === new Date().toDateString();
  const time = makeElement('time', date.toLocaleString(document.documentElement.lang, today ? { timeStyle: 'medium' } : { dateStyle: 'short', timeStyle: 'short' }));
  time.dateTime = date.toISOString();
  return time;
}

const count = (n) => Math.round(n).toLocaleString(document.documentElement.lang);

function bitRate(bits) {
  const units = ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s'];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, bits)) / 3));
  return `${(bits / 1000 ** power).toFixed(power > 1 ? 1 : 0)} ${units[power]}`;
}

function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const part = (size) => String(Math.floor(whole / size) % 60).padStart(2, '0');
  const hours = Math.floor(whole / 3600);
  return hours >= 48 ? `${Math.floor(hours / 24)} d ${hours % 24} h` : `${hours}:${part(60)}:${part(1)}`;
}
