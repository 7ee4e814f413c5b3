/** Files that people send each other: a line of the chat for each, with how far it is. What arrives goes to the disk where there is a way. */

import { addRow, notify } from './chat.js';
import { placeFor } from './disk.js';
import { fileSize, t } from './i18n.js';
import { $, makeElement } from './page.js';

/** `call` gives `{room(), nameOf}`; returns `{send(files), receive(file, peer)}`. */
export function wireFiles(call) {
  function send(files) {
    const room = call.room();
    const peers = [...room.peers.values()].filter(({ link, sameLibrary }) => link && sameLibrary);
    if (!peers.length) return notify(t('file.nobody'));
    for (const file of files) for (const peer of peers) showFile(room.sendFile(file, peer), t('file.to', { name: call.nameOf(peer) }));
  }

  function receive(file, peer) {
    const take = button('file.accept', 'primary small');
    const decline = button('file.decline', 'quiet small');
    notify(t('file.offered', { name: call.nameOf(peer), file: file.name }));
    let place = null;
    let choosing = false;
    const row = showFile(file, t('file.from', { name: call.nameOf(peer) }), { answers: [take, decline], why: () => place?.reason });
    take.addEventListener('click', async () => {
      // Not disabled: it keeps the focus.
      if (choosing) return;
      choosing = true;
      try {
        place = await placeFor(file.name, file.size);
      } catch ({ reason, free }) {
        choosing = false;
        if (reason !== 'dismissed') row.say(t(`file.refused.${reason}`, { size: fileSize(file.size), free: fileSize(Math.max(0, free || 0)) }));
        return;
      }
      // Declined, or gone with its sender, while the person chose a place.
      if (file.status === 'failed') return place?.remove();
      row.answered();
      const got = await file.accept(place?.sink).catch(() => null);
      if (!got) return;
      if (place?.isNamed) return row.say(t('file.savedAs', { name: place.name }));
      const link = Object.assign(makeElement('a', t('file.save')), { href: URL.createObjectURL(place ? await place.file() : got), download: file.name });
      row.append(link);
      link.click();
    });
    decline.addEventListener('click', () => file.reject());
  }

  return { send, receive };
}

/** A line of the chat that shows how far a file is, and lets a person pause it and give it up. */
function showFile(file, who, { answers = [], why = () => null } = {}) {
  const row = addRow('file');
  const bar = Object.assign(document.createElement('progress'), { max: file.size || 1, value: 0, ariaLabel: file.name });
  const state = makeElement('small', '');
  const pause = button('file.pause', 'quiet small');
  const cancel = button('file.cancel', 'quiet small');
  let note = '';
  cancel.addEventListener('click', () => file.cancel());
  pause.addEventListener('click', () => (file.status === 'paused' ? file.resume() : file.pause()));
  row.append(makeElement('b', file.name), makeElement('small', `${who} · ${fileSize(file.size)}`), bar, state, ...answers, pause, cancel);
  const draw = () => {
    const { status } = file;
    const unanswered = answers.some((one) => one.isConnected);
    // Before the answer there is nothing to see of it, and who may decline need not cancel too.
    bar.hidden = status === 'offered';
    cancel.hidden = unanswered;
    pause.hidden = status !== 'flowing' && status !== 'paused';
    pause.textContent = t(status === 'paused' ? 'file.resume' : 'file.pause');
    bar.value = file.bytes;
    if (status === 'failed' && why()) note = t(`file.lost.${why()}`);
    state.textContent = note || (status !== 'offered' ? t(`file.${status}`) : answers.length ? '' : t('file.unanswered'));
    if (status === 'done' || status === 'failed') remove($('chat-log'), bar, pause, cancel, ...answers);
  };
  /** Takes buttons away; where one of them had the focus, it goes to `next`. */
  const remove = (next, ...all) => {
    const hadFocus = all.includes(document.activeElement);
    for (const one of all) one.remove();
    if (hadFocus) next.focus();
  };
  file.on('progress', draw).on('status', draw);
  draw();
  return {
    append: (element) => row.append(element),
    answered: () => {
      cancel.hidden = false;
      remove(cancel, ...answers);
    },
    say: (text) => ((note = text), draw()),
  };
}

function button(key, className) {
  return Object.assign(makeElement('button', t(key)), { type: 'button', className });
}
