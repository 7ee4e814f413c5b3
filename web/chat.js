/** The chat panel, the log of the room's events, and the notices that pass. It sends by the function it is given. */

import { t } from './i18n.js';
import { $, makeElement } from './page.js';

const NOTICE_FOR = 6_000; // ms

let noticeTimer = 0;

/** Wires the panel; `send(text)` rejects what the box did not take, `ownName()` names the writer. */
export function startChat({ send, ownName }) {
  $('chat-toggle').addEventListener('click', () => showChat($('chat').hidden));
  $('chat-close').addEventListener('click', () => showChat(false));
  $('chat').addEventListener('keydown', ({ key }) => key === 'Escape' && showChat(false));
  $('chat-form').addEventListener('submit', async (event) => {
    event.preventDefault();
    const text = $('chat-text').value.trim();
    if (!text) return;
    $('chat-text').value = '';
    const line = addLine('own', makeElement('b', ownName()), timeNow(), makeElement('p', text));
    await send(text).catch(() => (line.dataset.failed = t('notSent')));
  });
}

/** Somebody else wrote. */
export function heard(name, text) {
  addLine('chat', makeElement('b', name), timeNow(), makeElement('p', text));
  announce(`${name}: ${text}`);
  if (!$('chat').hidden) return;
  $('unread').hidden = false;
  showNotice(`${name}: ${text}`);
}

/** Says an event of the room: in the log, as a notice that passes, and to a screen reader. */
export function tell(event, text) {
  addLine(event, text);
  notify(text);
}

/** Says something that is of no interest later. */
export function notify(text) {
  announce(text);
  showNotice(text);
}

export function clearChat() {
  $('chat-log').replaceChildren();
  $('unread').hidden = true;
  showPanel(false);
}

function showChat(show) {
  showPanel(show);
  if (show) $('unread').hidden = true;
  $(show ? 'chat-text' : 'chat-toggle').focus();
}

function showPanel(show) {
  $('chat').hidden = !show;
  $('call').classList.toggle('with-chat', show);
  $('chat-toggle').setAttribute('aria-expanded', show);
}

function addLine(event, ...content) {
  const line = document.createElement('li');
  line.dataset.event = event;
  line.append(...content);
  $('chat-log').append(line);
  line.scrollIntoView({ block: 'nearest' });
  return line;
}

function timeNow() {
  return makeElement('time', new Date().toLocaleTimeString(document.documentElement.lang, { hour: '2-digit', minute: '2-digit' }));
}

/** The log is no live region, so that nothing is read twice and the closed panel is heard too. */
function announce(text) {
  $('live').textContent = text;
}

function showNotice(text) {
  clearTimeout(noticeTimer);
  $('notice').textContent = text;
  $('notice').classList.add('shown');
  noticeTimer = setTimeout(() => $('notice').classList.remove('shown'), NOTICE_FOR);
}
