/**
 * The connectivity page: the box's WebSocket and every ICE URL it hands out, each tried from this browser by itself, one
 * row each: `data-result` is `ok`, `warn` or `bad`, `data-url` what was tried. Above them one verdict, in words.
 */

import { localise, t } from './i18n.js';
import { echoFigures, familiesOf, familyOf, natOf, verdictOf } from './nat.js';
import { $, insecureText, token } from './page.js';

/** Milliseconds: for a WebSocket greeting, for a candidate (one that comes takes a second at most), for a connection. */
const GREETING_WITHIN = 5_000;
const CANDIDATE_WITHIN = 12_000;
const CONNECTED_WITHIN = 8_000;
/** Echoes through the relay: one each so many milliseconds, for two seconds, and the wait for the last. */
const ECHO_EVERY = 20;
const ECHOES = 100;
const LAST_ECHO_WITHIN = 1_000;

/** Rows so far: `{element, title, words, report}`; title and words are functions, so that a language switch redraws them. */
let rows = [];
let run = 0;
let verdict = null;
let nat = null;

localise($('language'), drawRows);
$('again').addEventListener('click', checkAll);
$('copy-text').addEventListener('click', () => copyReport(asText()));
$('copy-json').addEventListener('click', () => copyReport(JSON.stringify(asJson(), null, 2)));
$('token-form').addEventListener('submit', (event) => {
  event.preventDefault();
  token.keep($('token').value.trim());
  checkAll();
});
checkAll();

async function checkAll() {
  const thisRun = ++run;
  rows = [];
  verdict = nat = null;
  $('rows').replaceChildren();
  $('copied').textContent = '';
  $('report').hidden = true;
  drawVerdict();
  const secure = addRow(() => t('row.secure'));
  if (!globalThis.isSecureContext) secure('warn', () => insecureText(t));
  else if (navigator.mediaDevices) secure('ok', () => t('row.secure.ok'));
  else secure('warn', () => t('noMediaApi'));
  const [socketRow, httpRow] = [addRow(() => t('row.socket')), addRow(() => t('row.http'))];
  const signaling = checkSignaling(socketRow, httpRow);
  const given = await fetchServers(addRow(() => t('row.servers')));
  const relays = {};
  if (given?.iceServers.length && globalThis.RTCPeerConnection) {
    const judged = addRow(() => t('row.nat'));
    nat = await checkNat(given, judged);
  }
  for (const server of given?.iceServers ?? []) {
    // One after the other: a box that limits a user's allocations is not asked for all at once.
    for (const url of [server.urls].flat()) {
      if (thisRun !== run) return;
      const works = await checkUrl(url, server, addRow(() => url, url));
      const transport = transportOf(url);
      if (transport && relays[transport] !== 'ok') relays[transport] = works ? 'ok' : 'bad';
    }
  }
  const { socket, http } = await signaling;
  if (thisRun !== run) return;
  // Firefox names no server that does not answer; a relay over UDP that works is an answer too.
  if (nat === 'unknown' && relays.udp && relays.udp !== 'ok') nat = 'blocked';
  verdict = verdictOf({ socket, http, servers: Boolean(given), nat, relays });
  $('report').hidden = false;
  drawVerdict();
}

/** What carries signaling: a WebSocket, and HTTP requests where it does not pass. */
async function checkSignaling(socketRow, httpRow) {
  const http = checkHttp(httpRow);
  const socket = await checkSocket(socketRow, http);
  return { socket, http: await http };
}

async function checkSocket(done, http) {
  const started = performance.now();
  const socket = new WebSocket(new URL('ws', document.baseURI).href.replace(/^http/, 'ws'));
  const greeted = new Promise((resolve) => {
    socket.onmessage = () => resolve(true);
    socket.onclose = () => resolve(false);
  });
  const ok = Boolean(await within(GREETING_WITHIN, greeted));
  if (ok) done('ok', () => t('row.socket.ok'), { ms: performance.now() - started });
  else if (await http) done('warn', () => t('row.socket.warn'));
  else done('bad', () => t('row.socket.bad'));
  socket.close();
  return ok;
}

/** Opens a connection over HTTP, and waits for its greeting. */
async function checkHttp(done) {
  const started = performance.now();
  const greeted = async () => {
    const sessions = new URL('v1/sessions', document.baseURI);
    const made = await fetch(sessions, { method: 'POST' });
    const { sessionId } = await made.json();
    const session = `${sessions}/${encodeURIComponent(sessionId)}`;
    const { messages } = await (await fetch(`${session}/messages?wait=${GREETING_WITHIN / 1000}`, { cache: 'no-store' })).json();
    fetch(session, { method: 'DELETE' }).catch(() => {});
    return messages.length > 0;
  };
  const ok = Boolean(await within(2 * GREETING_WITHIN, greeted().catch(() => false)));
  if (ok) done('ok', () => t('row.http.ok'), { ms: performance.now() - started });
  else done('warn', () => t('row.http.bad'));
  return ok;
}

/** The list with the port that shows what a NAT does; null where it was refused. */
async function fetchServers(done) {
  const started = performance.now();
  const headers = token.get() ? { Authorization: `Bearer ${token.get()}` } : {};
  const response = await fetch('v1/ice-servers?format=check', { headers }).catch(() => null);
  if (!response?.ok) {
    const needsToken = response?.status === 401 || response?.status === 403;
    $('token-form').hidden = !needsToken;
    const refused = token.get() ? 'error.unauthorized.given' : 'error.unauthorized';
    done('bad', () => (needsToken ? t(refused) : t('row.servers.bad', { status: response?.status ?? '–' })));
    return null;
  }
  $('token-form').hidden = true;
  const given = await response.json();
  const count = given.iceServers.flatMap(({ urls }) => urls).length;
  if (count) done('ok', () => t('row.servers.ok', { count, minutes: Math.round(given.ttl / 60) }), { ms: performance.now() - started });
  else done('warn', () => t('row.servers.none'));
  return given;
}

/** Asks two ports of the box from one port of this machine. */
async function checkNat({ iceServers, natUrls = [] }, done) {
  const first = iceServers.flatMap(({ urls }) => urls).filter((url) => url.startsWith('stun:'));
  if (!first.length) {
    done('warn', () => t('row.nat.noStun'));
    return 'unknown';
  }
  const started = performance.now();
  const urls = [...first, ...natUrls];
  const { candidates, errors, ended } = await gatherAll({ iceServers: [{ urls }] });
  const silent = new Set(errors.map(({ url }) => url).filter(Boolean));
  const answers = urls.filter((url) => ![...silent].some((one) => one.includes(url.slice('stun:'.length)))).length;
  const ofFamily = (family) => candidates.filter(({ address }) => address && familyOf(address) === family);
  const hidden = candidates.filter(({ address }) => address?.endsWith('.local'));
  const isMapped = candidates.some(({ type }) => type === 'srflx');
  const answered = answersOf({ ended, isMapped, answers: saysErrors() ? answers : null, ports: natUrls.length ? 2 : 1 });
  const of4 = ofFamily('IPv4').filter((one) => !hidden.includes(one));
  const judged = natOf({ answered, candidates: of4.some(({ type }) => type === 'srflx') ? of4 : candidates });
  const result = { none: 'ok', same: 'ok', symmetric: 'warn', blocked: 'bad', unknown: 'warn' }[judged];
  const seen = [...new Set(candidates.filter(({ type }) => type === 'srflx').map(({ address, port }) => `${familyOf(address)} ${address}:${port}`))];
  const figures = { ms: performance.now() - started, nat: judged, seen };
  done(result, () => [t(`row.nat.${judged}`), seen.join(' · ')].filter(Boolean).join(' '), figures);
  for (const { family, result: its, address } of familiesOf({ candidates, errors })) {
    const words = its === 'ok' ? () => t('row.family.ok', { address }) : () => t('row.family.bad', { family });
    addRow(() => t('row.family', { family }))(its === 'ok' ? 'ok' : 'warn', words, { family });
  }
  return judged;
}

/**
 * How many ports of the box answered; `null` where the browser does not say. Chromium gathers for forty seconds where a
 * server is silent, and names the server only then.
 */
function answersOf({ ended, isMapped, answers, ports }) {
  if (!ended) return isMapped ? 1 : 0;
  // Where one family does not reach the box, only its own ports are silent.
  return answers === null ? null : Math.min(ports, answers);
}

/** An error of a loopback interface, which no server outside of the machine answers. */
const isLocal = ({ address }) => /^(127\.|\[?::1)/.test(address ?? '');

/** Firefox has no event for a server that does not answer. */
const saysErrors = () => 'onicecandidateerror' in RTCPeerConnection.prototype;

/** Fills in the row of a URL; true where it carries data. */
async function checkUrl(url, { username, credential }, done) {
  if (!globalThis.RTCPeerConnection) {
    done('bad', () => t('noWebrtc'));
    return false;
  }
  const relay = /^turns?:/.test(url);
  const config = { iceServers: [{ urls: url, username, credential }], iceTransportPolicy: relay ? 'relay' : 'all' };
  const { candidate, error, ended, ms } = await gather(config, relay ? 'relay' : 'srflx');
  const figures = { ms, ...(candidate?.address && { family: familyOf(candidate.address) }) };
  const finish = (result, words, more = {}) => (done(result, words, { ...figures, ...more }), more.rttMs !== undefined);
  if (error) return finish('bad', () => causeOf(error, url), { error: `${error.errorCode} ${error.errorText}` });
  if (!relay) {
    if (!candidate && !ended) return finish('bad', () => t('cause.unreachable.udp'));
    if (!candidate && !saysErrors()) return finish('warn', () => t('row.stun.unsaid'));
    return finish('ok', () => (candidate ? t('row.stun.srflx', { address: candidate.address }) : t('row.stun.host')));
  }
  if (!candidate) return finish('bad', () => t('cause.silent'));
  const echoes = await echo(config);
  if (!echoes || echoes.rtt === null) return finish('warn', () => t('row.relay.oneway'));
  const { rtt, loss, jitter } = echoes;
  const words = { rtt: rtt.toFixed(rtt < 10 ? 1 : 0), loss: (loss * 100).toFixed(loss && loss < 0.1 ? 1 : 0), jitter: jitter.toFixed(jitter < 10 ? 1 : 0) };
  return finish(loss > 0.05 ? 'warn' : 'ok', () => t('row.relay.round', words), { rttMs: round(rtt), loss: round(loss), jitterMs: round(jitter) });
}

/** Gathers until a candidate of that type, the end, or the deadline: `{candidate?, error?, ended, ms}`. */
async function gather(config, wanted) {
  const started = performance.now();
  const pc = new RTCPeerConnection(config);
  let error = null;
  const found = new Promise((resolve) => {
    pc.onicecandidateerror = (event) => isLocal(event) || (error ??= event);
    pc.onicecandidate = ({ candidate }) => (candidate === null || candidate.type === wanted) && resolve({ candidate });
  });
  pc.createDataChannel('check');
  await pc.setLocalDescription();
  const end = await within(CANDIDATE_WITHIN, found);
  const candidate = end?.candidate;
  const ms = performance.now() - started;
  pc.close();
  return { candidate, error: candidate ? null : error, ended: Boolean(end), ms };
}

/** Everything that one connection gathers, and what went wrong meanwhile. */
async function gatherAll(config) {
  const pc = new RTCPeerConnection(config);
  const candidates = [];
  const errors = [];
  const ended = new Promise((resolve) => {
    pc.onicecandidateerror = (event) => isLocal(event) || errors.push(event);
    pc.onicecandidate = ({ candidate }) => (candidate === null ? resolve(true) : candidate.protocol === 'udp' && candidates.push(candidate));
  });
  pc.createDataChannel('check');
  await pc.setLocalDescription();
  const hasEnded = Boolean(await within(CANDIDATE_WITHIN, ended));
  pc.close();
  return { candidates, errors, ended: hasEnded };
}

/** Sends echoes between two relayed peers of this page for two seconds; null where they did not connect. */
async function echo(config) {
  const [near, far] = [new RTCPeerConnection(config), new RTCPeerConnection(config)];
  near.onicecandidate = ({ candidate }) => far.addIceCandidate(candidate).catch(() => {});
  far.onicecandidate = ({ candidate }) => near.addIceCandidate(candidate).catch(() => {});
  far.ondatachannel = ({ channel }) => (channel.onmessage = ({ data }) => channel.readyState === 'open' && channel.send(data));
  // What is lost stays lost, as with media.
  const channel = near.createDataChannel('check', { ordered: false, maxRetransmits: 0 });
  const opened = new Promise((resolve) => (channel.onopen = () => resolve(true)));
  await near.setLocalDescription();
  await far.setRemoteDescription(near.localDescription);
  await far.setLocalDescription();
  await near.setRemoteDescription(far.localDescription);
  const figures = (await within(CONNECTED_WITHIN, opened)) ? await sendEchoes(channel) : null;
  near.close();
  far.close();
  return figures;
}

async function sendEchoes(channel) {
  const sentAt = [];
  const times = [];
  const all = new Promise((resolve) => {
    channel.onmessage = ({ data }) => {
      const n = Number(data);
      times[n] ??= performance.now() - sentAt[n];
      if (n === ECHOES - 1) resolve();
    };
  });
  for (let n = 0; n < ECHOES && channel.readyState === 'open'; n++) {
    sentAt[n] = performance.now();
    times[n] = null;
    channel.send(String(n));
    await new Promise((resolve) => setTimeout(resolve, ECHO_EVERY));
  }
  await within(LAST_ECHO_WITHIN, all);
  return echoFigures(times);
}

function transportOf(url) {
  if (url.startsWith('turns:')) return 'tls';
  return url.startsWith('turn:') ? (url.includes('transport=tcp') ? 'tcp' : 'udp') : null;
}

/** Browsers report 701 for every server that did not answer, and the STUN error code where one came. */
function causeOf({ errorCode, errorText }, url) {
  if ([300, 401, 403, 486, 508].includes(errorCode)) return t(`cause.${errorCode}`);
  if (errorCode === 701) return t(`cause.unreachable.${transportOf(url) ?? 'udp'}`);
  return t('cause.other', { text: `${errorCode} ${errorText}` });
}

const round = (value) => (value === null ? null : Number(value.toPrecision(3)));

function within(ms, promise) {
  return Promise.race([promise, new Promise((resolve) => setTimeout(resolve, ms, null))]);
}

/** Adds a row under way; the returned function fills in its result. */
function addRow(title, url = '') {
  const element = $('row').content.firstElementChild.cloneNode(true);
  const row = { element, title, words: () => t('checking'), report: { result: 'unfinished' } };
  element.dataset.url = url;
  $('rows').append(element);
  rows.push(row);
  drawRow(row);
  return (result, words, figures = {}) => {
    element.dataset.result = result;
    element.querySelector('time').textContent = figures.ms === undefined ? '' : t('milliseconds', { ms: Math.round(figures.ms) });
    row.words = words;
    row.report = { result, ...(url && { url }), ...figures, ...(figures.ms !== undefined && { ms: Math.round(figures.ms) }) };
    drawRow(row);
  };
}

function drawRows() {
  document.title = `${t('checkTitle')} · callbox`;
  rows.forEach(drawRow);
  drawVerdict();
}

function drawRow({ element, title, words }) {
  element.querySelector('b').textContent = title();
  element.querySelector('p').textContent = words();
}

function drawVerdict() {
  $('verdict').dataset.result = verdict?.result ?? '';
  $('verdict').dataset.nat = nat ?? '';
  $('verdict-title').textContent = t(verdict ? `${verdict.key}.title` : 'checking');
  $('verdict-text').textContent = verdict ? t(verdict.key) : '';
}

/** What a person may pass on: results and times, no credentials. */
function asJson() {
  return {
    page: location.origin + location.pathname,
    time: new Date().toISOString(),
    browser: navigator.userAgent,
    verdict: verdict?.key.replace('verdict.', ''),
    nat,
    rows: rows.map(({ title, words, report }) => ({ what: title(), ...report, words: words() })),
  };
}

function asText() {
  const { page, time, browser, rows: lines } = asJson();
  const mark = { ok: '+', warn: '!', bad: 'x' };
  const each = lines.map(({ result, what, ms, words }) => `${mark[result] ?? '?'} ${what}${ms === undefined ? '' : ` (${ms} ms)`}\n  ${words}`);
  return [`callbox: ${$('verdict-title').textContent}`, $('verdict-text').textContent, '', ...each, '', page, time, browser, ''].join('\n');
}

async function copyReport(text) {
  try {
    await navigator.clipboard.writeText(text);
    $('copied').textContent = t('reportCopied');
  } catch {
    // A page over plain http has no clipboard: what is to be copied is shown, and selected.
    const box = $('report-text');
    box.hidden = false;
    box.value = text;
    box.focus();
    box.select();
    $('copied').textContent = t('reportSelect');
  }
}
