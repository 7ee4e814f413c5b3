/** The settings: which camera, microphone and speaker, the level of the microphone, the video's budget, the shortcuts. */

import { t } from './i18n.js';
import { Media } from './media.js';
import { $ } from './page.js';

const KEY = 'callbox.settings';

/** Wires the panel; `changed()` is called after each choice. Returns `{budget, shortcuts, redraw}`. */
export function startSettings({ media, changed, explain }) {
  const kept = { budget: 'normal', shortcuts: true, ...JSON.parse(localStorage.getItem(KEY) ?? '{}') };
  const settings = { ...kept, redraw };
  const keep = () => {
    localStorage.setItem(KEY, JSON.stringify({ budget: settings.budget, shortcuts: settings.shortcuts }));
    changed();
  };
  let meter = null;

  for (const [kind, select] of Object.entries({ audio: $('choose-audio'), video: $('choose-video'), speaker: $('choose-speaker') })) {
    select.addEventListener('change', async () => {
      explain(await media.choose(kind, select.value));
      changed();
    });
  }
  $('speaker-field').hidden = !Media.canChooseSpeaker;
  $('budget').value = settings.budget;
  $('budget').addEventListener('change', ({ target }) => {
    settings.budget = target.value;
    keep();
  });
  $('shortcuts').checked = settings.shortcuts;
  $('shortcuts').addEventListener('change', ({ target }) => {
    settings.shortcuts = target.checked;
    keep();
  });
  $('lobby-settings').addEventListener('click', () => $('settings').showModal());
  // Browsers give the names of devices only once one of them was allowed.
  new MutationObserver(redraw).observe($('settings'), { attributeFilter: ['open'] });
  $('settings').addEventListener('close', stopMeter);

  async function redraw() {
    if (!$('settings').open) return;
    const devices = await Media.devices();
    for (const kind of ['audio', 'video', 'speaker']) {
      const select = $(`choose-${kind}`);
      if (document.activeElement === select) continue;
      const options = devices[kind].map(({ id, label }, index) => new Option(label || `${t(`settings.${kind}`)} ${index + 1}`, id));
      select.replaceChildren(...(options.length ? options : [new Option(t('settings.none'), '')]));
      select.disabled = !options.length;
      const chosen = media.chosen(kind);
      if ([...select.options].some(({ value }) => value === chosen)) select.value = chosen;
    }
    startMeter(media.track('audio'));
  }

  /** The level of the microphone, ten times a second. */
  function startMeter(track) {
    if (meter?.track === track) return;
    stopMeter();
    if (!track) return;
    const context = new AudioContext();
    const analyser = Object.assign(context.createAnalyser(), { fftSize: 512 });
    context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    const timer = setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      const loudness = Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
      $('level').value = track.enabled ? Math.min(1, Math.sqrt(loudness) * 1.4) : 0;
    }, 100);
    meter = { track, context, timer };
  }

  function stopMeter() {
    clearInterval(meter?.timer);
    meter?.context.close();
    meter = null;
    $('level').value = 0;
  }

  return settings;
}

