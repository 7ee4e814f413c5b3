// Each block of code in docs/sdk.md is run as it stands, but for the addresses of the box and of the library: in Chromium, or
// in Node where it needs no browser. The ten lines at its top are run by embed.mjs. Needs what browsers.mjs needs, of browsers
// only Chromium.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { WebSocket } from 'ws';
import { Signal } from '../../sdk/js/dist/signal.mjs';
import { startBox } from './box.mjs';
import { prepare, startBrowser, startPages, WITHIN } from './pages.mjs';

const DOCS = readFileSync(new URL('../../docs/sdk.md', import.meta.url), 'utf8');
/** The heading above each block → the block. */
const BLOCKS = new Map();
{
  let heading = '';
  for (const [, title, block] of DOCS.matchAll(/^## (.+)$|^```js\n([\s\S]*?)^```$/gm)) {
    if (title) heading = title;
    else {
      assert.ok(!BLOCKS.has(heading), `"${heading}" has two blocks: join them, or name them apart here`);
      BLOCKS.set(heading, block);
    }
  }
}
const ran = new Set(['Ten lines']);

describe('the blocks of docs/sdk.md', { timeout: 180_000 }, () => {
  let box, pages, chromium;
  before(async () => {
    box = await startBox();
    pages = await startPages({ '/token': '' });
    chromium = await startBrowser('chromium');
  });
  after(async () => {
    await chromium?.stop();
    pages?.stop();
    box?.stop();
  });

  const take = (heading) => {
    ran.add(heading);
    const block = BLOCKS.get(heading);
    assert.ok(block, `docs/sdk.md has no block under "${heading}"`);
    return block.replaceAll('https://box.example/', box.url).replaceAll('wss://box.example/ws', box.ws);
  };
  /** Runs a block as a module; what it reads and does not define is on the page, and `made` is there afterwards. */
  const run = (page, block, made = '') =>
    page.evaluate(
      async (text) => {
        await import(URL.createObjectURL(new Blob([text], { type: 'text/javascript' })));
      },
      `${block}\nObject.assign(globalThis, { ${made} });`,
    );
  const open = async () => prepare(await chromium.open(pages.url));
  const pair = async (room) => {
    const both = [await open(), await open()];
    for (const [n, page] of both.entries()) {
      await page.evaluate(
        async (url, room, name) => {
          await t.enter(url, { room, name });
          globalThis.room = t.room;
        },
        box.ws,
        room,
        ['Ann', 'Ben'][n],
      );
    }
    await Promise.all([both[0].evaluate(() => t.moving('Ben')), both[1].evaluate(() => t.moving('Ann'))]);
    for (const page of both) await page.evaluate(() => (globalThis.peer = [...room.peers.values()][0]));
    return both;
  };
  const close = (...opened) => Promise.all(opened.map((page) => page.close()));

  it('Rooms', async () => {
    const text = `import { join } from '${box.url}sdk/v1/callbox.js';\n${take('Rooms')}`;
    const both = [await open(), await open()];
    for (const page of both) {
      await page.evaluate(async () => (globalThis.stream = await t.camera()));
      await run(page, text, 'room');
    }
    const seen = await both[1].evaluate(async () => {
      const peer = await t.wait(() => [...room.peers.values()][0]);
      await t.wait(() => peer.encrypted && peer.stream);
      const { maxPeers, hasPassword } = room.info;
      return { name: room.identity, peer: peer.identity, maxPeers, hasPassword };
    });
    assert.deepEqual(seen, { name: 'Ann', peer: 'Ann', maxPeers: 8, hasPassword: true });
    const stranger = new Signal(box.ws, { WebSocket });
    await assert.rejects(stranger.join({ roomId: 'demo', password: 'wrong' }), { code: 'bad-password' });
    stranger.leave();
    await close(...both);
  });

  it('Data', async () => {
    const both = await pair('data');
    for (const page of both) {
      await page.evaluate(() => {
        globalThis.drawn = [];
        globalThis.draw = (peer, x, y) => drawn.push([peer.name, x, y]);
      });
      await run(page, take('Data'), 'cursor');
    }
    // What went out before the channel was open is dropped, as the text says.
    const drawn = both[1].evaluate(() => t.wait(() => drawn[0]));
    await both[0].evaluate(async () => {
      await t.wait(() => peer.link);
      globalThis.timer = setInterval(() => cursor.send({ x: 3, y: 4 }).catch(() => {}), 100);
    });
    assert.deepEqual(await drawn, ['Ann', 3, 4]);
    await close(...both);
  });

  it('Files', async () => {
    const both = await pair('files');
    const [sends, receives, ...more] = take('Files').split('\n\n');
    assert.deepEqual(more, []);
    await run(both[1], receives.replace('await file.accept()', 'globalThis.got = await file.accept()'));
    await both[0].evaluate(() => {
      globalThis.file = new File([new Uint8Array(100_000).fill(7)], 'sevens.bin');
      globalThis.bar = (share) => (globalThis.share = share);
    });
    await run(both[0], sends);
    assert.equal(await both[0].evaluate(() => share), 1);
    assert.equal(await both[1].evaluate(async () => (await t.wait(() => globalThis.got)).size), 100_000);
    await close(...both);
  });

  it('Recording', async () => {
    const both = await pair('recording');
    await run(both[0], take('Recording'), 'blob, recording');
    assert.deepEqual(await both[0].evaluate(() => [blob instanceof Blob, /^video\//.test(blob.type), recording.status]), [true, true, 'stopped']);
    await close(...both);
  });

  it('Direct calls', async () => {
    const both = [await open(), await open()];
    const [ann, ben] = both;
    const block = take('Direct calls');
    for (const page of both) {
      await page.evaluate(async () => {
        globalThis.stream = await t.camera();
        globalThis.show = (stream) => (globalThis.video = t.show(stream));
      });
    }
    // The other device takes calls by the same lines.
    await run(ben, block.split('\n').slice(0, 4).join('\n').replace("'ann'", "'ben'"), 'phone');
    await ann.evaluate(() => (console.log = (reason) => (globalThis.reason = reason ?? '')));
    await run(ann, block, 'call');
    // A page behind another one shows no pictures.
    await ann.bringToFront();
    await ann.waitForFunction(() => globalThis.video?.videoWidth > 0, { timeout: WITHIN });
    assert.equal(await ann.evaluate(() => globalThis.reason), undefined);
    await ann.evaluate(() => call.hangup());
    await ann.waitForFunction(() => globalThis.reason !== undefined, { timeout: WITHIN });
    await close(...both);
  });

  it('Signaling alone', async () => {
    const page = await open();
    const other = new Signal(box.ws, { WebSocket });
    const said = new Promise((resolve) => other.on('message', ({ content }) => resolve(content)));
    await other.join({ roomId: 'demo', identity: 'Eve' });
    await run(page, take('Signaling alone'), 'signal');
    assert.equal(await said, 'hello');
    await page.evaluate(() => (console.log = (from, content) => (globalThis.heard = [from, content])));
    await other.request('message', { content: 'and you' });
    assert.deepEqual(await page.evaluate(() => t.wait(() => globalThis.heard)), [other.peerId, 'and you']);
    other.leave();
    await page.close();
  });

  it('In your backend', async () => {
    const block = take('In your backend').replace("'callbox-client/hooks'", `'${new URL('../../sdk/js/dist/hooks.mjs', import.meta.url)}'`);
    const verdict = async (secret, signed) => {
      const body = '{"type":"room-started"}';
      const at = Math.floor(Date.now() / 1000);
      const signature = `t=${at},v1=${createHmac('sha256', signed).update(`${at}.${body}`).digest('hex')}`;
      Object.assign(globalThis, { secret, body, request: { headers: { 'callbox-signature': signature } } });
      const text = `${block}\nexport { isGenuine };\n// ${Math.random()}`;
      return (await import(`data:text/javascript,${encodeURIComponent(text)}`)).isGenuine;
    };
    const secret = 'a secret of this test alone, 32 bytes';
    assert.equal(await verdict(secret, secret), true);
    assert.equal(await verdict(secret, 'another secret of this test, 32 bytes'), false);
  });

  it('were all run', () => assert.deepEqual([...ran].sort(), [...BLOCKS.keys()].sort()));

  it('made no page throw or log an error', () => assert.deepEqual(chromium.faults, []));
});
