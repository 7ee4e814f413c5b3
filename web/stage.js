/** The tiles: what is seen of each participant and of each shared screen. It draws what it is given and owns no connection. */

import { t } from './i18n.js';
import { $ } from './page.js';

/** How far a picture may be cut to fill its tile: beyond it is shown whole, with bars. */
const MOST_CUT = 1.45;

const template = $('tile');
const stage = $('stage');
let pinned = null;
let speaker = '';

/** One participant's picture, name, mute mark, connection state and path; or one screen. */
export class Tile {
  #element = template.content.firstElementChild.cloneNode(true);
  #part = (selector) => this.#element.querySelector(selector);

  /** `local` marks one's own tile: mirrored, silent and movable. `screen` marks a shared screen. */
  constructor(id, { local = false, screen = false } = {}) {
    this.#element.dataset.peer = id;
    this.#element.classList.toggle('local', local);
    this.#element.classList.toggle('shared', screen);
    const video = this.#part('video');
    video.muted = local;
    if (speaker) video.setSinkId?.(speaker).catch(() => {});
    video.addEventListener('resize', () => this.#fit());
    new ResizeObserver(() => this.#fit()).observe(this.#element);
    this.#part('.pin').addEventListener('click', () => pin(pinned === this.#element ? null : this.#element));
    this.#part('.full').addEventListener('click', () => (document.fullscreenElement ? document.exitFullscreen() : this.#element.requestFullscreen?.().catch(() => {})));
    this.#part('.pip').hidden = !document.pictureInPictureEnabled;
    this.#part('.pip').addEventListener('click', () => (document.pictureInPictureElement === video ? document.exitPictureInPicture() : video.requestPictureInPicture?.().catch(() => {})));
    this.#part('.full').hidden = !document.fullscreenEnabled;
    if (local && !screen) makeMovable(this.#element);
    stage.insertBefore(this.#element, $('invite'));
    arrange();
  }

  /** Draws `{name, state, path, rtt, stream, video, muted, screen, hand, encrypted}`; `video` says whether there is a picture. */
  draw({ name, state, path, rtt, stream, video, muted, screen, hand, encrypted }) {
    const { dataset, classList } = this.#element;
    dataset.state = state;
    dataset.path = path ?? '';
    dataset.muted = String(Boolean(muted));
    dataset.video = String(Boolean(video));
    dataset.hand = String(Boolean(hand));
    dataset.encrypted = String(Boolean(encrypted));
    classList.toggle('screen', Boolean(screen));
    const marks = [muted && t('muted'), hand && t('handUp'), encrypted && t('encrypted')].filter(Boolean);
    this.#element.setAttribute('aria-label', [name, ...marks].join(', '));
    this.#part('.tile-name').textContent = name;
    drawAvatar(this.#part('.avatar'), name);
    if (this.#part('video').srcObject !== stream) this.#part('video').srcObject = stream ?? null;
    for (const [selector, key] of [['.pin', pinned === this.#element ? 'unpin' : 'pin'], ['.full', 'fullscreen'], ['.pip', 'pip']]) {
      this.#part(selector).setAttribute('aria-label', `${t(key)}: ${name}`);
      this.#part(selector).title = t(key);
    }
    const waiting = state !== 'connected' && state !== 'local';
    this.#part('.tile-state').textContent = waiting ? t(`state.${state}`) : '';
    const words = !waiting && path ? [t(`path.${path}`), rtt === null || rtt === undefined ? '' : t('milliseconds', { ms: rtt })] : [];
    this.#part('.path').textContent = words.filter(Boolean).join(' · ');
    this.#part('.path').hidden = !words.length;
    arrange();
  }

  remove() {
    if (pinned === this.#element) pinned = null;
    this.#part('video').srcObject = null;
    this.#element.remove();
    arrange();
  }

  #fit() {
    const { videoWidth, videoHeight } = this.#part('video');
    const { clientWidth, clientHeight } = this.#element;
    if (!videoWidth || !clientHeight) return;
    const ratio = videoWidth / videoHeight / (clientWidth / clientHeight);
    this.#element.classList.toggle('whole', ratio > MOST_CUT || ratio < 1 / MOST_CUT);
  }
}

/** Sends every sound to that device. */
export function useSpeaker(id) {
  speaker = id;
  for (const video of stage.querySelectorAll('.tile:not(.local) video')) video.setSinkId?.(id).catch(() => {});
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

function pin(element) {
  pinned = element;
  arrange();
}

/** A pinned tile, or else a shared screen, is large; the others stand beside it. */
function arrange() {
  const tiles = [...stage.querySelectorAll('.tile')];
  stage.dataset.others = tiles.filter((tile) => !tile.matches('.local, .shared')).length;
  const large = pinned ?? tiles.find((tile) => tile.matches('.shared:not(.local), .screen:not(.local)')) ?? tiles.find((tile) => tile.matches('.shared')) ?? null;
  for (const tile of tiles) {
    tile.classList.toggle('large', tile === large);
    tile.querySelector('.pin').setAttribute('aria-pressed', tile === pinned);
  }
  stage.classList.toggle('focused', Boolean(large));
}

/** One's own picture goes to the corner that it is dragged to, or that the arrow keys name. */
function makeMovable(element) {
  const corner = { x: 'right', y: 'bottom' };
  const place = () => (element.dataset.corner = `${corner.y}-${corner.x}`);
  place();
  let from = null;
  element.addEventListener('pointerdown', (event) => {
    if (event.target.closest('button')) return;
    from = { x: event.clientX, y: event.clientY };
    element.setPointerCapture(event.pointerId);
  });
  element.addEventListener('pointermove', ({ clientX, clientY }) => {
    if (from) element.style.translate = `${clientX - from.x}px ${clientY - from.y}px`;
  });
  element.addEventListener('pointerup', ({ clientX, clientY }) => {
    if (!from) return;
    from = null;
    element.style.translate = '';
    const { left, top, width, height } = stage.getBoundingClientRect();
    Object.assign(corner, { x: clientX < left + width / 2 ? 'left' : 'right', y: clientY < top + height / 2 ? 'top' : 'bottom' });
    place();
  });
  element.addEventListener('keydown', ({ key }) => {
    const to = { ArrowLeft: { x: 'left' }, ArrowRight: { x: 'right' }, ArrowUp: { y: 'top' }, ArrowDown: { y: 'bottom' } }[key];
    if (!to) return;
    Object.assign(corner, to);
    place();
  });
}
