// The library in pages of another origin: the ten lines, an HTTP session where WebSockets do not pass, tokens that expire.
// Needs what browsers.mjs needs.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { startBox } from './box.mjs';
import { prepare, startBrowser, startPages, WITHIN } from './pages.mjs';

const SECRET = 'a secret of this test alone, 32 bytes and more';

let chromium, firefox;
before(async () => {
  [chromium, firefox] = await Promise.all([startBrowser('chromium'), startBrowser('firefox')]);
});
after(() => Promise.all([chromium?.stop(), firefox?.stop()]));

function mint(claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ exp: Math.floor(Date.now() / 1000) + 600, room: '*', ...claims })}`;
  return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`;
}

const moves = (page) =>
  page.waitForFunction(
    () => {
      const video = document.querySelector('video:not(.own)');
      return video && video.videoWidth > 0 && video.currentTime > 0.5;
    },
    { timeout: WITHIN },
  );

/** In a page whose address ends in `?slow`, the camera comes when a test calls `allow`; `tracks` counts what peers sent. */
const SLOW_PERSON = `
if (location.search === '?slow') {
  const { mediaDevices } = navigator, ask = mediaDevices.getUserMedia.bind(mediaDevices), Connection = RTCPeerConnection;
  mediaDevices.getUserMedia = async (wanted) => (await new Promise((resolve) => (globalThis.allow = resolve)), ask(wanted));
  globalThis.tracks = 0;
  globalThis.RTCPeerConnection = class extends Connection {
    constructor(...settings) {
      super(...settings);
      this.addEventListener('track', () => globalThis.tracks++);
    }
  };
}
`;

const HELPERS = `
const tiles = {
  put: (id, srcObject) => document.body.append(Object.assign(document.createElement('video'), { id, srcObject, autoplay: true, muted: true })),
  remove: (id) => document.getElementById(id)?.remove(),
};
const drawn = (globalThis.drawn = []), badges = (globalThis.badges = []);
const draw = (data) => drawn.push(data), badge = (s) => badges.push(s), x = 1, y = 2;
`;
const CONTRACT = `
import { join } from 'https://box.example/sdk/v1/callbox.js'        // or npm: callbox-client
const room = await join('wss://box.example/ws', { room: 'demo', name: 'Ann',
  token: () => fetch('/token').then(r => r.text()) })               // asked again whenever one is needed
await room.publish(await navigator.mediaDevices.getUserMedia({ audio: true, video: true }))
for (const p of room.peers.values()) show(p)
room.on('peer', show)                                               // later ones
room.on('leave', p => tiles.remove(p.id))
function show(p) { p.on('stream', s => tiles.put(p.id, s)); p.on('path', x => console.log(x.kind, x.rtt)) }
room.channel('cursor').on('message', (data, p) => draw(data, p)).send({ x, y })
room.on('status', s => badge(s))                                    // online | reconnecting | closed(reason)
`;

describe('an empty page of another origin', { timeout: 180_000 }, () => {
  let box;
  before(async () => {
    box = await startBox();
  });
  after(() => box?.stop());

  /** Opens pages that hold nothing but that script, loaded from the box itself. */
  async function paste(lines, extra = {}) {
    const script = lines.replaceAll('https://box.example/', box.url).replaceAll('wss://box.example/ws', box.ws);
    const page = `<!doctype html><meta charset="utf-8"><title>empty</title><link rel="icon" href="data:,"><body><script type="module">${script}</script>`;
    const pages = await startPages({ '/': page, ...extra });
    assert.notEqual(new URL(pages.url).origin, new URL(box.url).origin);
    return pages;
  }

  it('has a call by the lines at the top of docs/sdk.md', async () => {
    const docs = readFileSync(new URL('../../docs/sdk.md', import.meta.url), 'utf8');
    const [, lines] = /## Ten lines\n+```js\n([\s\S]*?)```/.exec(docs);
    const pages = await paste(`${SLOW_PERSON}${lines}`);
    const [ann, ben] = [await chromium.open(pages.url), await firefox.open(`${pages.url}?slow`)];
    // Ben is still asked for his camera when Ann's picture comes.
    await ben.waitForFunction(() => globalThis.allow && globalThis.tracks === 2, { timeout: WITHIN });
    await ben.evaluate(() => globalThis.allow());
    await Promise.all([moves(ann), moves(ben)]);
    assert.equal(await ben.evaluate(() => document.querySelectorAll('video').length), 1);
    // Who leaves the page leaves the room, and takes the picture along.
    await ben.goto('about:blank');
    await ann.waitForFunction(() => !document.querySelector('video'), { timeout: WITHIN });
    await Promise.all([ann.close(), ben.close()]);
    pages.stop();
  });

  it('has a call, data and a badge by the lines of the contract, its helpers stubbed', async () => {
    // The lines stand here as they do there, but for the address of the box.
    const pages = await paste(`${HELPERS}${CONTRACT}\nglobalThis.room = room;`, { '/token': '' });
    const ann = await chromium.open(pages.url);
    const logged = [];
    ann.on('console', (message) => logged.push(message.text()));
    await ann.waitForFunction(() => globalThis.room, { timeout: WITHIN });
    const ben = await firefox.open(pages.url);
    await Promise.all([moves(ann), moves(ben)]);
    // Ann sent to nobody; what Ben sent before he was connected came once he was.
    await ann.waitForFunction(() => globalThis.drawn.length, { timeout: WITHIN });
    assert.deepEqual(await ann.evaluate(() => globalThis.drawn), [{ x: 1, y: 2 }]);
    for (const end = Date.now() + WITHIN; !logged.some((line) => /^direct \d/.test(line)); ) {
      assert.ok(Date.now() < end, `no path was said: ${logged}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    // Who leaves takes the tile along.
    await ben.evaluate(() => globalThis.room.leave());
    await ann.waitForFunction(() => !document.querySelector('video'), { timeout: WITHIN });
    await ann.evaluate(() => globalThis.room.leave());
    assert.deepEqual(await ann.evaluate(() => globalThis.badges), ['closed']);
    await Promise.all([ann.close(), ben.close()]);
    pages.stop();
  });

  it('loads the UMD file by a script element', async () => {
    const html = `<!doctype html><title>umd</title><link rel="icon" href="data:,"><script src="${box.url}sdk/v1/callbox.umd.js"></script>`;
    const pages = await startPages({ '/': html });
    const page = await firefox.open(pages.url);
    const joined = await page.evaluate(async (url) => {
      const room = await globalThis.callbox.join(url, { room: 'umd', name: 'Umd' });
      return room.identity;
    }, box.ws);
    assert.equal(joined, 'Umd');
    await page.close();
    pages.stop();
  });
});

describe('a token that is a string', { timeout: 120_000 }, () => {
  it('ends no call when it expires, and the room says why once it is asked for', async () => {
    const box = await startBox({ CALLBOX_AUTH__MODE: 'jwt', CALLBOX_AUTH__SECRET: SECRET, CALLBOX_AUTH__LEEWAY: '0s' });
    const pages = await startPages();
    const [ann, ben] = [await prepare(await chromium.open(pages.url)), await prepare(await firefox.open(pages.url))];
    try {
      const soon = Math.floor(Date.now() / 1000) + 12;
      await ann.evaluate((url, token) => t.enter(url, { room: 'old', token }), box.ws, mint({ sub: 'Ann', exp: soon }));
      await ben.evaluate((url, token) => t.enter(url, { room: 'old', token }), box.ws, mint({ sub: 'Ben' }));
      const moving = (page, name) => page.evaluate((name) => t.moving(name), name);
      await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, soon * 1000 + 1_000 - Date.now())));
      // The token is over: media and signaling go on.
      await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
      await ben.evaluate(() => t.room.on('message', (content) => (t.word = content)));
      await ann.evaluate(() => t.room.send('still here'));
      assert.equal(await ben.evaluate(() => t.wait(() => t.word)), 'still here');
      // A new session needs a token; the old one is refused for good, and direct media flows on.
      await box.kill();
      await box.start();
      await ann.evaluate(() => t.wait(() => t.room.status === 'closed'));
      assert.equal(await ann.evaluate(() => t.room.reason), 'token-expired');
      await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
    } finally {
      await Promise.all([ann.close(), ben.close()]);
      pages.stop();
      box.stop();
    }
  });
});

it('made no page throw, log an error, or leave a rejection unhandled', () => {
  const own = [...chromium.faults, ...firefox.faults].filter((fault) => !/WebSocket|ERR_CONNECTION|can.t establish a connection|NetworkError|Failed to load resource/.test(fault));
  assert.deepEqual(own, []);
});
