/** The tiles: what is seen of each participant. It draws what it is told and owns no connection. */

import { t } from './i18n.js';
import { $ } from './page.js';

const template = $('tile');
const stage = $('stage');

/** One participant's picture, name, mute mark, connection state and path. */
export class Tile {
  #element = template.content.firstElementChild.cloneNode(true);
  #part = (selector) => this.#element.querySelector(selector);

  /** `local` marks one's own tile: mirrored and silent. */
  constructor(peerId, { local = false } = {}) {
    this.#element.dataset.peer = peerId;
    this.#element.classList.toggle('local', local);
    this.#part('video').muted = local;
    stage.insertBefore(this.#element, $('invite'));
    countTiles();
  }

  /** Draws `{name, state, path, rtt, stream, video, muted, screen}`; `video` says whether there is a picture to show. */
  draw({ name, state, path, rtt, stream, video, muted, screen }) {
    const { dataset, classList } = this.#element;
    dataset.state = state;
    dataset.path = path ?? '';
    dataset.muted = String(muted);
    dataset.video = String(video);
    classList.toggle('screen', screen);
    this.#element.setAttribute('aria-label', muted ? `${name}, ${t('muted')}` : name);
    this.#part('.tile-name').textContent = name;
    drawAvatar(this.#part('.avatar'), name);
    if (this.#part('video').srcObject !== stream) this.#part('video').srcObject = stream;

    const waiting = state !== 'connected' && state !== 'local';
    this.#part('.tile-state').textContent = waiting ? t(`state.${state}`) : '';
    const words = !waiting && path ? [t(`path.${path}`), rtt === null ? '' : t('milliseconds', { ms: rtt })] : [];
    this.#part('.path').textContent = words.filter(Boolean).join(' · ');
    this.#part('.path').hidden = !words.length;
  }

  remove() {
    this.#part('video').srcObject = null;
    this.#element.remove();
    countTiles();
  }
}

/** Initials on a colour that stays the same for a name. */
export function drawAvatar(element, name) {
  const plain = name.replace(/[（(].*/, '').trim();
  const [first = '', ...rest] = plain.split(/\s+/);
  const initials = [...first].slice(0, 1).concat([...(rest.at(-1) ?? '')].slice(0, 1));
  const hue = [...plain].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
  element.textContent = initials.join('').toUpperCase();
  element.style.setProperty('--hue', hue);
}

function countTiles() {
  stage.dataset.others = stage.querySelectorAll('.tile:not(.local)').length;
}
