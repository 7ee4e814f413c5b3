// What a person does at the desk while the call page runs: plugs a headset out and in, is refused a screen, looks at another tab;
// and what a stranger in the room makes up. Needs what call.mjs needs.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Person, startBox, startBrowser } from './harness.mjs';

describe('the call page', { timeout: 180_000 }, () => {
  let box, browser;
  before(async () => {
    box = await startBox();
    browser = await startBrowser();
  });
  after(async () => {
    await browser?.stop();
    box?.stop();
  });

  it('takes a headset or camera again that was the only one, and was plugged out and in', async () => {
    const prepare = (page) =>
      page.addInitScript(() => {
        const { mediaDevices } = navigator;
        const list = mediaDevices.enumerateDevices.bind(mediaDevices);
        globalThis.present = true;
        mediaDevices.enumerateDevices = async () => (globalThis.present ? list() : []);
        const open = mediaDevices.getUserMedia.bind(mediaDevices);
        globalThis.tracks = [];
        mediaDevices.getUserMedia = async (wanted) => {
          if (!globalThis.present) throw new DOMException('nothing is plugged in', 'NotFoundError');
          const stream = await open(wanted);
          globalThis.tracks.push(...stream.getTracks());
          return stream;
        };
      });
    const ann = await (await Person.arrive(browser, box, { name: 'Ann', room: 'plugs', prepare })).inRoom();
    const ben = await Person.arrive(browser, box, { name: 'Ben', room: 'plugs' });
    await ben.seesTile('Ann', { video: 'true', muted: 'false' });
    await ann.page.evaluate(() => {
      globalThis.present = false;
      for (const track of globalThis.tracks.splice(0)) {
        track.stop();
        track.dispatchEvent(new Event('ended'));
      }
    });
    await ben.seesTile('Ann', { video: 'false', muted: 'true' });
    await ann.page.evaluate(() => {
      globalThis.present = true;
      navigator.mediaDevices.dispatchEvent(new Event('devicechange'));
    });
    await ben.seesTile('Ann', { video: 'true', muted: 'false' });
    await ben.seesMoving('Ann');
    // Who has left opens nothing.
    await ann.press('Leave');
    await ann.page.evaluate(async () => {
      globalThis.tracks.splice(0);
      navigator.mediaDevices.dispatchEvent(new Event('devicechange'));
      await navigator.mediaDevices.enumerateDevices();
    });
    await ann.page.locator('#lobby:not([hidden])').waitFor();
    assert.equal(await ann.page.evaluate(() => globalThis.tracks.length), 0);
    await Promise.all([ann, ben].map((one) => one.page.close()));
  });

  it('says that the system does not let a screen be shared, and nothing where the person changed their mind', async () => {
    const ann = await (
      await Person.arrive(browser, box, {
        name: 'Ann',
        room: 'screens',
        prepare: (page) =>
          page.addInitScript(() => {
            navigator.mediaDevices.getDisplayMedia = async () => {
              const [name, message] = globalThis.refusal;
              throw new DOMException(message, name);
            };
          }),
      })
    ).inRoom();
    const tried = async (...refusal) => {
      await ann.page.evaluate((given) => {
        globalThis.refusal = given;
      }, refusal);
      await ann.press('Share');
    };
    await tried('NotAllowedError', 'Permission denied by system');
    await ann.page.locator('#warning').getByText('the system does not allow').waitFor();
    await tried('NotReadableError', 'Could not start video source');
    await ann.page.locator('#warning').getByText('could not be captured').waitFor();
    await tried('NotAllowedError', 'Permission denied');
    await ann.page.locator('#warning').waitFor({ state: 'hidden' });
    await ann.page.close();
  });

  it('keeps the screen on again after the tab was hidden', async () => {
    const ann = await (
      await Person.arrive(browser, box, {
        name: 'Ann',
        room: 'awake',
        prepare: (page) =>
          page.addInitScript(() => {
            globalThis.locks = [];
            const request = async () => {
              const lock = { released: false, release: async () => (lock.released = true) };
              globalThis.locks.push(lock);
              return lock;
            };
            Object.defineProperty(navigator, 'wakeLock', { value: { request } });
          }),
      })
    ).inRoom();
    const looked = () => ann.page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
    await ann.page.waitForFunction(() => globalThis.locks.length === 1);
    await looked();
    await ann.page.evaluate(() => (globalThis.locks[0].released = true));
    await looked();
    await ann.page.waitForFunction(() => globalThis.locks.length === 2);
    await ann.press('Leave');
    await ann.page.waitForFunction(() => globalThis.locks.every(({ released }) => released));
    await looked();
    assert.equal(await ann.page.evaluate(() => globalThis.locks.length), 2);
    await ann.page.close();
  });

  it('takes what was written before from the eldest alone, once, and says who says so', async () => {
    const ann = await (await Person.arrive(browser, box, { name: 'Ann', room: 'told' })).inRoom();
    await ann.says('the first line');
    const forger = await browser.open();
    await forger.goto(`${box.url}check`);
    // It came second, and sends a history of its own to everybody who comes.
    await forger.evaluate(async (ws) => {
      const { join } = await import('/sdk/v1/callbox.js');
      const room = await join(ws, { room: 'told', name: 'Eve', media: false });
      const channel = room.channel('callbox.chat');
      globalThis.sent = 0;
      channel.on('open', (peer) => void channel.send({ history: [{ name: 'Boss', text: 'wire the money' }] }, peer).then(() => globalThis.sent++));
    }, new URL('ws', box.url).href.replace(/^http/, 'ws'));
    const ben = await Person.arrive(browser, box, { name: 'Ben', room: 'told' });
    await ben.readsInLog('the first line');
    await ben.readsInLog('Written before, as Ann says:');
    await forger.waitForFunction(() => globalThis.sent >= 2);
    // The second word of the eldest counts no more than the forger's.
    await ann.says('and now the next');
    await ben.readsInLog('and now the next');
    for (const one of [ann, ben]) assert.equal(await one.page.locator('#chat-log li', { hasText: 'wire the money' }).count(), 0);
    await Promise.all([ann.page, ben.page, forger].map((page) => page.close()));
  });

  it('made no page throw or log an error', () => assert.deepEqual(browser.faults, []));
});
