/** The chat panel, the log of the room's events, and the notices that pass. It sends by the functions it is given. */

import { t } from './i18n.js';
import { $, makeElement } from './page.js';

const NOTICE_FOR = 6_000; // ms
/** Lines that who comes later gets of the chat. */
const REMEMBERED = 50;
const LINK = /https?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]]/g;

let noticeTimer = 0;
/** The chat so far: `{name, text, at}`. */
let history = [];
/** Whether somebody has said already what was written before. */
let recalled = false;

/** Wires the panel; `send(text)` rejects what the box did not take, `sendFiles(files)` offers them, `ownName()` names the writer. */
export function startChat({ send, sendFiles, ownName }) {
  $('chat-toggle').addEventListener('click', () => showChat($('chat').hidden));
  $('chat-close').addEventListener('click', () => showChat(false));
  $('chat').addEventListener('keydown', ({ key }) => key === 'Escape' && showChat(false));
  $('chat-form').addEventListener('submit', async (event) => {
    event.preventDefault();
    const text = $('chat-text').value.trim();
    if (!text) return;
    $('chat-text').value = '';
    const line = addChat('own', ownName(), text, Date.now());
    await send(text).catch(() => (line.dataset.failed = t('notSent')));
  });
  $('chat-file').addEventListener('click', () => $('chat-files').click());
  $('chat-files').addEventListener('change', ({ target }) => {
    sendFiles([...target.files]);
    target.value = '';
  });
  for (const place of [$('call')]) {
    place.addEventListener('dragover', (event) => {
      if (![...event.dataTransfer.types].includes('Files')) return;
      event.preventDefault();
      place.classList.add('dropping');
    });
    place.addEventListener('dragleave', ({ relatedTarget }) => place.contains(relatedTarget) || place.classList.remove('dropping'));
    place.addEventListener('drop', (event) => {
      event.preventDefault();
      place.classList.remove('dropping');
      sendFiles([...event.dataTransfer.files]);
    });
  }
}

/** Somebody else wrote. */
export function received(name, text) {
  addChat('chat', name, text, Date.now());
  announce(`${name}: ${text}`);
  if (!$('chat').hidden) return;
  $('unread').hidden = false;
  showNotice(`${name}: ${text}`);
}

/** What was written before this person came, as `teller` says, who was there: it counts once. */
export function recall(lines, teller) {
  if (recalled || history.length || !Array.isArray(lines)) return;
  recalled = true;
  const told = lines.slice(-REMEMBERED).filter((line) => typeof line?.name === 'string' && typeof line.text === 'string');
  if (told.length) addLine('told', t('history', { name: teller }));
  for (const { name, text, at } of told) addChat('history', name.slice(0, 128), text.slice(0, 4000), Number(at) || Date.now());
}

export function remembered() {
  return history.slice(-REMEMBERED);
}

/** Says an event of the room: in the log, as a notice that passes, and to a screen reader. */
export function sayEvent(event, text) {
  addLine(event, text);
  notify(text);
}

/** Says something that is of no interest later. */
export function notify(text) {
  announce(text);
  showNotice(text);
}

/** A line of the log that the caller fills and keeps up to date, as of a file on its way. */
export function addRow(event) {
  if ($('chat').hidden) $('unread').hidden = false;
  return addLine(event);
}

export function clearChat() {
  history = [];
  recalled = false;
  $('chat-log').replaceChildren();
  $('unread').hidden = true;
  showPanel(false);
}

export function showChat(show) {
  showPanel(show);
  if (show) $('unread').hidden = true;
  $(show ? 'chat-text' : 'chat-toggle').focus();
}

function showPanel(show) {
  $('chat').hidden = !show;
  $('call').classList.toggle('with-chat', show);
  $('chat-toggle').setAttribute('aria-expanded', show);
}

function addChat(event, name, text, at) {
  history.push({ name, text, at });
  const time = new Date(at).toLocaleTimeString(document.documentElement.lang, { hour: '2-digit', minute: '2-digit' });
  return addLine(event, makeElement('b', name), makeElement('time', time), linked(text));
}

/** The text with its web addresses as links: nothing but http and https becomes one, and no markup is read. */
function linked(text) {
  const paragraph = document.createElement('p');
  let at = 0;
  for (const { 0: address, index } of text.matchAll(LINK)) {
    if (!URL.canParse(address)) continue;
    const link = Object.assign(makeElement('a', address), { href: address, target: '_blank', rel: 'noopener noreferrer nofollow' });
    paragraph.append(text.slice(at, index), link);
    at = index + address.length;
  }
  paragraph.append(text.slice(at));
  return paragraph;
}

function addLine(event, ...content) {
  const line = document.createElement('li');
  line.dataset.event = event;
  line.append(...content);
  $('chat-log').append(line);
  line.scrollIntoView({ block: 'nearest' });
  return line;
}

/** The log is not a live region: nothing is read aloud twice, and messages are read aloud while the panel is closed too. */
function announce(text) {
  $('live').textContent = text;
}

function showNotice(text) {
  clearTimeout(noticeTimer);
  $('notice').textContent = text;
  $('notice').classList.add('shown');
  noticeTimer = setTimeout(() => $('notice').classList.remove('shown'), NOTICE_FOR);
}
