/** The recording on this device: a bar over the call with its time and size, and the file at the end. */

import { notify, sayEvent } from './chat.js';
import { limits, ownPlace } from './disk.js';
import { fileSize, t } from './i18n.js';
import { $ } from './page.js';

/** `call` gives `{room(), changed()}`; returns `{toggle, stop, on}`. */
export function wireRecording(call) {
  let recording = null;
  /** A stop that is under way. */
  let ending = null;
  let beginning = false;
  let clock = 0;

  $('recording-pause').addEventListener('click', () => (recording?.status === 'paused' ? recording.resume() : recording?.pause()));
  $('recording-stop').addEventListener('click', () => {
    $('more-toggle').focus();
    void stop();
  });

  async function start() {
    if (beginning) return;
    beginning = true;
    const place = await ownPlace();
    beginning = false;
    const room = call.room();
    if (!room) return place?.remove();
    try {
      recording = room.record({ sink: place?.sink });
    } catch {
      place?.remove();
      return notify(t('record.failed'));
    }
    recording.place = place;
    recording.on('progress', (bytes) => !place && bytes >= limits.memory && void stop());
    clock = setInterval(draw, 1_000);
    recording.on('status', (status) => (status === 'stopped' ? void stop() : draw()));
    sayEvent('record', t('record.started'));
    draw();
  }

  /** Ends it and saves what there is of it, however it ended. */
  function stop() {
    ending ??= recording && finish(recording).finally(() => (ending = null));
    return ending;
  }

  async function finish(stopping) {
    const { place } = stopping;
    const whole = await stopping.stop().catch(() => null);
    const file = place ? await place.file() : whole;
    recording = null;
    clearInterval(clock);
    draw();
    if (!file?.size) return say(place?.reason === 'full' ? 'record.nothing' : 'record.failed');
    const extension = stopping.mimeType.includes('mp4') ? 'mp4' : 'webm';
    const download = `callbox-${new Date().toISOString().slice(0, 19).replace(/[:T]/g, '-')}.${extension}`;
    Object.assign(document.createElement('a'), { href: URL.createObjectURL(file), download }).click();
    const why = place?.reason ?? (!place && stopping.bytes >= limits.memory ? 'memory' : whole ? 'saved' : 'cut');
    say(`record.${why === 'failed' ? 'cut' : why}`, file.size);
  }

  /** Who has left the call has no log any more. */
  function say(key, size = 0) {
    if (call.room()) sayEvent('record', t(key, { size: fileSize(size) }));
  }

  function draw() {
    $('recording').hidden = !recording;
    call.changed();
    if (!recording) return;
    const seconds = Math.floor(recording.ms / 1000);
    const paused = recording.status === 'paused';
    $('recording').dataset.paused = paused;
    $('recording-text').textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')} · ${fileSize(recording.bytes)}`;
    $('recording-pause').textContent = t(paused ? 'record.resume' : 'record.pause');
  }

  return {
    toggle: () => (recording ? stop() : start()),
    stop,
    redraw: draw,
    get on() {
      return Boolean(recording);
    },
  };
}
