/** The panels over a call: who is here and what a host may do, how good each path is, and a link for a guest. */

import { t } from './i18n.js';
import { $, makeElement } from './page.js';
import { qrCode } from './qr.js';

const NAMES = ['people', 'quality', 'invite-guest', 'settings'];
/** Measurements that the graph shows: two minutes of them. */
const MEASURED = 60;

/** Wires the panels. `call` gives `{room(), nameOf, notify, endForAll}`; returns `{open, close, redraw}`. */
export function wireDialogs(call) {
  const measured = new WeakMap();
  for (const name of NAMES) {
    const dialog = $(name);
    for (const button of document.querySelectorAll(`[data-dialog="${name}"]`)) button.addEventListener('click', () => open(name));
    dialog.querySelector('.dialog-close').addEventListener('click', () => dialog.close());
    // A click beside the panel closes it.
    dialog.addEventListener('click', ({ target }) => target === dialog && dialog.close());
  }
  $('lock').addEventListener('change', ({ target }) => change({ locked: target.checked }));
  $('set-password').addEventListener('click', () => change({ password: $('new-password').value || null }));
  $('set-max').addEventListener('click', () => $('new-max').reportValidity() && change({ maxPeers: Number($('new-max').value) }));
  $('end-for-all').addEventListener('click', () => {
    $('people').close();
    call.endForAll();
  });
  $('make-invite').addEventListener('click', makeInvite);
  $('copy-guest').addEventListener('click', async () => {
    $('guest-link').select();
    await navigator.clipboard?.writeText($('guest-link').value).catch(() => {});
    call.notify(t('copied'));
  });

  function open(name) {
    redraw();
    if (!$(name).open) $(name).showModal();
    if (name === 'invite-guest') showLink(new URL(`#${encodeURIComponent(call.room().id)}`, location.href).href, '');
  }

  function close() {
    for (const name of NAMES) $(name).close();
  }

  async function change(settings) {
    try {
      await call.room().update(settings);
      call.notify(t('host.done'));
      $('new-password').value = '';
    } catch ({ message }) {
      call.notify(message);
      redraw();
    }
  }

  async function makeInvite() {
    const role = $('guest-role').value;
    try {
      const { url, expiresAt } = await call.room().invite({ role, ttl: Number($('guest-ttl').value) });
      showLink(url, expiresAt ? t('invite.until', { time: new Date(expiresAt * 1000).toLocaleTimeString(document.documentElement.lang, { hour: '2-digit', minute: '2-digit' }) }) : '');
    } catch ({ code, message }) {
      call.notify(code === 'unknown-type' ? t('invite.unknown') : message);
    }
  }

  function showLink(url, until) {
    $('guest-link').value = url;
    $('guest-until').textContent = until;
    $('guest-qr').replaceChildren(qrCode(url));
  }

  function redraw() {
    const room = call.room();
    if (!room) return;
    const host = room.role === 'host';
    $('host-tools').hidden = !host;
    $('make-invite-form').hidden = !host;
    $('people-count').textContent = room.peers.size + 1;
    drawPeople(room, host);
    if (document.activeElement !== $('lock')) $('lock').checked = room.info.locked;
    if (document.activeElement !== $('new-max')) $('new-max').value = room.info.maxPeers;
    $('has-password').textContent = t(room.info.hasPassword ? 'host.hasPassword' : 'host.noPassword');
  }

  function drawPeople(room, host) {
    const own = personRow(t('you', { name: call.nameOf({ peerId: room.peerId, name: room.identity === room.peerId ? '' : room.identity }) }), room.role, { hand: room.state.hand });
    const others = [...room.peers.values()].map((peer) => {
      const row = personRow(call.nameOf(peer), peer.role, { hand: peer.state.hand, away: peer.connection !== 'online' });
      if (!host) return row;
      const name = call.nameOf(peer);
      const act = (key, work) => {
        const button = Object.assign(makeElement('button', t(key)), { type: 'button', className: 'quiet small', ariaLabel: `${t(key)}: ${name}` });
        button.addEventListener('click', () => work().catch(({ message }) => call.notify(message)));
        row.lastElementChild.append(button);
      };
      act('host.mute', () => room.mute(peer, 'audio').then(() => call.notify(t('host.asked', { name }))));
      if (peer.role !== 'host') act('host.promote', () => room.grant(peer, 'host'));
      act('host.kick', () => room.kick(peer));
      return row;
    });
    $('people-list').replaceChildren(own, ...others);
  }

  function personRow(name, role, { hand, away }) {
    const row = document.createElement('li');
    const marks = [t(`role.${role}`), hand && t('handUp'), away && t('away')].filter(Boolean).join(' · ');
    row.append(makeElement('b', name), makeElement('small', marks), document.createElement('span'));
    return row;
  }

  /** A row for each peer, with the round-trip time of the last two minutes. */
  function drawQuality() {
    const room = call.room();
    if (!room) return;
    const rows = [...room.peers.values()].map((peer) => {
      const { path } = peer;
      const all = measured.get(peer) ?? [];
      if (path) all.push(path.rtt ?? 0);
      measured.set(peer, all.slice(-MEASURED));
      const row = document.createElement('tr');
      const cells = path
        ? [t(`path.${path.kind}`), path.rtt === null ? '–' : t('milliseconds', { ms: path.rtt }), path.loss === null ? '–' : together(`${(path.loss * 100).toFixed(1)} %`), `${together(`${mbit(path.up)} ↑`)} ${together(`${mbit(path.down)} ↓`)}`]
        : [t(`state.${peer.status === 'connected' ? 'connecting' : peer.status}`), '–', '–', '–'];
      row.append(Object.assign(makeElement('th', call.nameOf(peer)), { scope: 'row' }), ...cells.map((text) => makeElement('td', text)));
      const graph = document.createElement('td');
      graph.append(sparkline(measured.get(peer)));
      row.append(graph);
      return row;
    });
    $('quality-rows').replaceChildren(...rows);
    $('quality-empty').hidden = rows.length > 0;
  }
  setInterval(() => call.room() && drawQuality(), 2_000);

  return { open, close, redraw };
}

/** Keeps a figure and its unit on one line. */
function together(text) {
  return text.replaceAll(' ', '\u00a0');
}

function mbit(bits) {
  return `${(bits / 1e6).toFixed(bits < 1e6 ? 2 : 1)} Mbit/s`;
}

function sparkline(values) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 120 28');
  svg.setAttribute('class', 'sparkline');
  svg.setAttribute('aria-hidden', 'true');
  const top = Math.max(50, ...values);
  const line = document.createElementNS(svg.namespaceURI, 'polyline');
  line.setAttribute('points', values.map((value, index) => `${(index * 120) / (MEASURED - 1)},${26 - (value / top) * 24}`).join(' '));
  svg.append(line);
  return svg;
}
