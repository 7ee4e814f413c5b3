/**
 * The connectivity page: the box's WebSocket and every ICE URL it hands out, each tried from this browser by itself, one
 * row each: `data-result` is `ok`, `warn` or `bad`, `data-url` what was tried.
 */

import { localise, t } from './i18n.js';
import { $, localAddress, token } from './page.js';

/** Milliseconds: for a WebSocket greeting, for a candidate (a browser's own STUN retries take 9.5 s), for a round trip. */
const GREETING_WITHIN = 5_000;
const CANDIDATE_WITHIN = 12_000;
const ROUND_TRIP_WITHIN = 8_000;

/** Rows so far: `{element, title: () => string, words: () => string}`; words are functions, so that a language switch redraws them. */
let rows = [];
let run = 0;

localise($('language'), drawRows);
$('again').addEventListener('click', checkAll);
$('token-form').addEventListener('submit', (event) => {
  event.preventDefault();
  token.keep($('token').value.trim());
  checkAll();
});
checkAll();

async function checkAll() {
  const thisRun = ++run;
  rows = [];
  $('rows').replaceChildren();
  const secure = addRow(() => t('row.secure'));
  if (!globalThis.isSecureContext) secure('warn', () => t('insecure', { local: localAddress() }));
  else if (navigator.mediaDevices) secure('ok', () => t('row.secure.ok'));
  else secure('warn', () => t('noMediaApi'));
  checkSocket(addRow(() => t('row.socket')));
  const iceServers = await fetchServers(addRow(() => t('row.servers')));
  if (thisRun !== run) return;
  for (const server of iceServers) {
    // One after the other: a box that limits a user's allocations is not asked for all at once.
    for (const url of [server.urls].flat()) {
      if (thisRun !== run) return;
      await checkUrl(url, server, addRow(() => url, url));
    }
  }
}

async function checkSocket(done) {
  const started = performance.now();
  const socket = new WebSocket(new URL('ws', document.baseURI).href.replace(/^http/, 'ws'));
  const greeted = new Promise((resolve) => {
    socket.onmessage = () => resolve(true);
    socket.onclose = () => resolve(false);
  });
  if (await within(GREETING_WITHIN, greeted)) done('ok', () => t('row.socket.ok'), performance.now() - started);
  else done('bad', () => t('row.socket.bad'));
  socket.close();
}

async function fetchServers(done) {
  const started = performance.now();
  const headers = token.get() ? { Authorization: `Bearer ${token.get()}` } : {};
  const response = await fetch('v1/ice-servers', { headers }).catch(() => null);
  if (!response?.ok) {
    const needsToken = response?.status === 401 || response?.status === 403;
    $('token-form').hidden = !needsToken;
    done('bad', () => (needsToken ? t('error.unauthorized') : t('row.servers.bad', { status: response?.status ?? '–' })));
    return [];
  }
  $('token-form').hidden = true;
  const { iceServers, ttl } = await response.json();
  const count = iceServers.flatMap(({ urls }) => urls).length;
  if (count) done('ok', () => t('row.servers.ok', { count, minutes: Math.round(ttl / 60) }), performance.now() - started);
  else done('warn', () => t('row.servers.none'));
  return iceServers;
}

async function checkUrl(url, { username, credential }, done) {
  if (!globalThis.RTCPeerConnection) return done('bad', () => t('noWebrtc'));
  const relay = /^turns?:/.test(url);
  const config = { iceServers: [{ urls: url, username, credential }], iceTransportPolicy: relay ? 'relay' : 'all' };
  const { candidate, error, ms } = await gather(config, relay ? 'relay' : 'srflx');
  if (error) return done('bad', () => causeOf(error, url));
  if (!relay) return done('ok', () => (candidate ? t('row.stun.srflx', { address: candidate.address }) : t('row.stun.host')), ms);
  if (!candidate) return done('bad', () => t('cause.silent'));
  const rtt = await roundTrip(config);
  if (rtt === null) done('warn', () => t('row.relay.oneway'), ms);
  else done('ok', () => t('row.relay.round', { rtt: rtt.toFixed(rtt < 10 ? 1 : 0) }), ms);
}

/** Gathers until a candidate of that type, the end, or the deadline: `{candidate?, error?, ms}`. */
async function gather(config, wanted) {
  const started = performance.now();
  const pc = new RTCPeerConnection(config);
  let error = null;
  const found = new Promise((resolve) => {
    pc.onicecandidateerror = (event) => (error ??= event);
    pc.onicecandidate = ({ candidate }) => (candidate === null || candidate.type === wanted) && resolve(candidate);
  });
  pc.createDataChannel('check');
  await pc.setLocalDescription();
  const candidate = await within(CANDIDATE_WITHIN, found);
  const ms = performance.now() - started;
  pc.close();
  return { candidate, error: candidate ? null : error, ms };
}

/** Sends data between two relayed peers of this page; the time there and back in ms, or null where nothing came. */
async function roundTrip(config) {
  const [near, far] = [new RTCPeerConnection(config), new RTCPeerConnection(config)];
  near.onicecandidate = ({ candidate }) => far.addIceCandidate(candidate).catch(() => {});
  far.onicecandidate = ({ candidate }) => near.addIceCandidate(candidate).catch(() => {});
  far.ondatachannel = ({ channel }) => (channel.onmessage = ({ data }) => channel.send(data));
  const channel = near.createDataChannel('check');
  const echoed = new Promise((resolve) => {
    let sent = 0;
    channel.onopen = () => {
      sent = performance.now();
      channel.send('callbox');
    };
    channel.onmessage = () => resolve(performance.now() - sent);
  });
  await near.setLocalDescription();
  await far.setRemoteDescription(near.localDescription);
  await far.setLocalDescription();
  await near.setRemoteDescription(far.localDescription);
  const rtt = await within(ROUND_TRIP_WITHIN, echoed);
  near.close();
  far.close();
  return rtt;
}

/** Browsers report 701 for every server that did not answer, and the STUN error code where one came. */
function causeOf({ errorCode, errorText }, url) {
  if ([300, 401, 403, 486, 508].includes(errorCode)) return t(`cause.${errorCode}`);
  if (errorCode === 701) return t(`cause.unreachable.${url.startsWith('turns:') ? 'tls' : url.includes('transport=tcp') ? 'tcp' : 'udp'}`);
  return t('cause.other', { text: `${errorCode} ${errorText}` });
}

function within(ms, promise) {
  return Promise.race([promise, new Promise((resolve) => setTimeout(resolve, ms, null))]);
}

/** Adds a row under way; the returned function fills in its result. */
function addRow(title, url = '') {
  const element = $('row').content.firstElementChild.cloneNode(true);
  const row = { element, title, words: () => t('checking') };
  element.dataset.url = url;
  $('rows').append(element);
  rows.push(row);
  drawRow(row);
  return (result, words, ms) => {
    element.dataset.result = result;
    element.querySelector('time').textContent = ms === undefined ? '' : t('milliseconds', { ms: Math.round(ms) });
    row.words = words;
    drawRow(row);
  };
}

function drawRows() {
  document.title = `${t('checkTitle')} · callbox`;
  rows.forEach(drawRow);
}

function drawRow({ element, title, words }) {
  element.querySelector('b').textContent = title();
  element.querySelector('p').textContent = words();
}
