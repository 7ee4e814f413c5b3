// The call page in Chromium and Firefox: a reload comes back into the call with all that the person came with, a call with a
// passphrase gives nothing to who has not got it, files and recordings go to the disk, and a box that is killed ends no call. Needs what browsers.mjs needs; CALLBOX_WEB=../.. serves the pages of the tree.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { servePages } from '../browser/served.mjs';
import { startBox } from './box.mjs';
import { close, giveSound, prepare, run, smallCamera, startBrowser, startPages, WITHIN } from './pages.mjs';

describe('the call page', { timeout: 400_000 }, () => {
  let box, site, pages, chromium, firefox;
  const saved = { chromium: mkdtempSync(join(tmpdir(), 'callbox-saved-')), firefox: mkdtempSync(join(tmpdir(), 'callbox-saved-')) };
  before(async () => {
    box = await startBox();
    site = process.env.CALLBOX_WEB ? await servePages(box, process.env.CALLBOX_WEB) : box;
    pages = await startPages();
    [chromium, firefox] = await Promise.all(['chromium', 'firefox'].map((name) => startBrowser(name, { downloads: saved[name] })));
  });
  after(async () => {
    await Promise.all([chromium?.stop(), firefox?.stop()]);
    pages?.stop();
    box?.stop();
    for (const folder of Object.values(saved)) rmSync(folder, { recursive: true, force: true });
  });

  /** Opens the page and joins, with what is typed into the fields. */
  const arrive = async (browser, room, fields) => {
    const page = await browser.open(`${site.url}#${room}`, smallCamera);
    await page.waitForSelector('#join-button:not([disabled])');
    await run(page, (fields) => {
      for (const [id, text] of Object.entries(fields)) document.getElementById(id).value = text;
      document.getElementById('join-button').click();
    }, fields);
    await inCall(page);
    return page;
  };
  const inCall = (page) => page.waitForFunction(() => !document.getElementById('call').hidden && document.querySelector('.tile.local'), { polling: 100 });
  const says = (page, text) =>
    run(page, (text) => {
      document.getElementById('chat-text').value = text;
      document.getElementById('chat-form').requestSubmit();
    }, text);
  /** A member that has only the library, and no key: it keeps everything that it gets. */
  const watch = async (room, options = {}) => {
    const page = await prepare(await chromium.open(pages.url));
    await run(page, async (url, options) => {
      await t.enter(url, { name: 'Eve', camera: false, media: false, ...options });
      t.got = [];
      const keep = (what) => t.got.push(typeof what === 'string' ? what : JSON.stringify(what));
      t.room.signaling.on('message', ({ content }) => keep(content));
      const read = (data) => keep(data instanceof ArrayBuffer ? new TextDecoder('latin1').decode(data) : data);
      t.room.channel('callbox.chat').on('message', read);
      t.room.channel('callbox.chat').on('open', () => (t.opened = true));
    }, box.ws, { room, ...options });
    return page;
  };

  for (const name of ['chromium', 'firefox']) {
    it(`comes back into the call after a reload, again and again, and not after leaving (${name})`, async () => {
      const page = await arrive({ chromium, firefox }[name], `reload-${name}`, { name: 'Ann' });
      for (let n = 0; n < 2; n++) {
        await page.reload();
        await inCall(page);
      }
      await run(page, () => document.getElementById('leave').click());
      await page.waitForSelector('#lobby:not([hidden])');
      await page.reload();
      await page.waitForSelector('#join-button:not([disabled])');
      assert.deepEqual(await run(page, () => [document.getElementById('call').hidden, sessionStorage.getItem('callbox.inCall')]), [true, null]);
      await page.close();
    });
  }

  it('comes back with the password, and with the passphrase: nothing is in clear after a reload', async () => {
    const page = await arrive(chromium, 'secrets', { name: 'Ann', password: 'open sesame', passphrase: 'our long secret words' });
    const eve = await watch('secrets', { password: 'open sesame' });
    await page.reload();
    await inCall(page);
    await says(page, 'after the reload');
    await run(eve, () => t.wait(() => t.got.some((text) => text.includes('sframe'))));
    assert.ok(!(await run(eve, () => t.got.join())).includes('after the reload'));
    await Promise.all([page.close(), eve.close()]);
  });

  it('gives the chat so far to who comes with the passphrase, and to nobody else', async () => {
    const secret = 'a horse that staples batteries';
    const ann = await arrive(chromium, 'history', { name: 'Ann', passphrase: secret });
    await says(ann, 'the safe is 4711');
    const eve = await watch('history');
    await run(eve, () => t.wait(() => t.opened && t.got.length > 0));
    const ben = await arrive(firefox, 'history', { name: 'Ben', passphrase: secret });
    await ben.waitForFunction(() => document.getElementById('chat-log').textContent.includes('the safe is 4711'), { polling: 100 });
    await says(ann, 'and it is open');
    await ben.waitForFunction(() => document.getElementById('chat-log').textContent.includes('and it is open'), { polling: 100 });
    assert.ok(!/4711|open/.test(await run(eve, () => t.got.join())));
    await Promise.all([ann, ben, eve].map((one) => one.close()));
  });

  /** The file of that name that the browser saved, once it is as large as that. */
  const savedAs = async (browser, pattern, whole) => {
    for (const end = Date.now() + WITHIN; ; ) {
      const name = readdirSync(saved[browser]).sort().findLast((one) => pattern.test(one));
      const bytes = name && readFileSync(join(saved[browser], name));
      if (bytes && whole(bytes)) return bytes;
      assert.ok(Date.now() < end, `${pattern} was not saved whole: ${readdirSync(saved[browser])}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  /** What a page keeps in the browser's own storage: the sizes of its files. */
  const keptBy = (page) =>
    run(page, async () => {
      const sizes = [];
      const look = async (folder) => {
        for await (const entry of folder.values()) entry.kind === 'file' ? sizes.push((await entry.getFile()).size) : await look(entry);
      };
      // What goes away meanwhile makes the question one to ask again.
      return look(await navigator.storage.getDirectory()).then(() => sizes, () => null);
    });
  const until = async (what, why) => {
    for (const end = Date.now() + WITHIN; !(await what()); ) {
      assert.ok(Date.now() < end, `not in time: ${why}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  const sees = (page, selector, text) =>
    page
      .waitForFunction((selector, text) => [...document.querySelectorAll(selector)].some((one) => !one.closest('[hidden]') && one.textContent.includes(text)), { polling: 50 }, selector, text)
      .catch(async () => assert.fail(`no “${text}” in ${selector}: ${await run(page, () => document.getElementById('call').innerText)}`));
  /** Presses the button of that text in the last line that is a file. */
  const answer = (page, text) =>
    run(page, (text) => [...[...document.querySelectorAll('[data-event="file"]')].at(-1).querySelectorAll('button')].find((one) => one.textContent === text).click(), text);
  /** Drops a file of that many bytes on the call, as from a desktop; gives its digest. */
  const drop = (page, name, size) =>
    run(page, async (name, size) => {
      const bytes = new Uint8Array(size);
      for (let at = 0; at < size; at += 65_536) crypto.getRandomValues(bytes.subarray(at, at + 65_536));
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([bytes], name));
      const place = document.getElementById('stage');
      for (const type of ['dragover', 'drop']) place.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
      return Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)), (byte) => byte.toString(16).padStart(2, '0')).join('');
    }, name, size);
  const limit = (page, limits) => run(page, async (limits) => void Object.assign((await import('/assets/disk.js')).limits, limits), limits);
  const SIZE = 3_000_000;
  /** Two who see each other, with the chat open. */
  const pair = async (room, one, other) => {
    const both = [await arrive(one, room, { name: 'Ann' }), await arrive(other, room, { name: 'Ben' })];
    for (const page of both) {
      await sees(page, '.tile[data-state="connected"][data-path^="direct"] .tile-name', page === both[0] ? 'Ben' : 'Ann');
      await run(page, () => document.getElementById('chat-toggle').click());
    }
    return both;
  };

  for (const [name, other] of [['chromium', 'firefox'], ['firefox', 'chromium']]) {
    it(`takes a dropped file that is larger than memory takes to the disk, pauses it, and leaves nothing behind (${other} to ${name})`, async () => {
      const browsers = { chromium, firefox };
      const [ann, ben] = await pair(`disk-${name}`, browsers[name], browsers[other]);
      // What a page left that is gone.
      await run(ann, async () => {
        delete globalThis.showSaveFilePicker;
        const all = await (await navigator.storage.getDirectory()).getDirectoryHandle('callbox', { create: true });
        await (await all.getDirectoryHandle('gone', { create: true })).getFileHandle('rest', { create: true });
        // As soon as it flows, a person pauses it.
        new MutationObserver((_, self) => {
          const pause = [...document.querySelectorAll('[data-event="file"] button:not([hidden])')].find((one) => one.textContent === 'Pause');
          if (pause) self.disconnect(), pause.click();
        }).observe(document.getElementById('chat-log'), { subtree: true, childList: true, attributes: true });
      });
      await limit(ann, { memory: SIZE - 1, keptFor: 0 });
      const digest = await drop(ben, 'large.bin', SIZE);
      await sees(ann, '[data-event="file"] button', 'Accept');
      await answer(ann, 'Accept');
      for (const page of [ann, ben]) await sees(page, '[data-event="file"] small', 'Paused');
      await answer(ben, 'Go on');
      await sees(ann, '[data-event="file"] a', 'Save');
      const got = await savedAs(name, /^large.*bin$/, ({ length }) => length === SIZE);
      assert.equal(createHash('sha256').update(got).digest('hex'), digest);
      assert.ok((await keptBy(ann))?.includes(SIZE), 'it lies on the disk');

      // A place that the person names, and a picker that is closed.
      await run(ann, () => {
        globalThis.showSaveFilePicker = async ({ suggestedName }) => {
          if (!globalThis.chosen) globalThis.dismissed = true;
          if (!globalThis.chosen) throw new DOMException('closed', 'AbortError');
          return (await navigator.storage.getDirectory()).getFileHandle(suggestedName, { create: true });
        };
      });
      await drop(ben, 'named.bin', SIZE);
      await sees(ann, '[data-event="file"] b', 'named.bin');
      await answer(ann, 'Accept');
      await ann.waitForFunction(() => globalThis.dismissed, { polling: 50 });
      await run(ann, () => (globalThis.chosen = true));
      await answer(ann, 'Accept');
      await sees(ann, '[data-event="file"] small', 'Saved as named.bin');
      assert.equal(await run(ann, async () => (await (await (await navigator.storage.getDirectory()).getFileHandle('named.bin')).getFile()).size), SIZE);

      // No room, and no disk at all.
      await run(ann, async () => {
        delete globalThis.showSaveFilePicker;
        await (await navigator.storage.getDirectory()).removeEntry('named.bin');
        const { storage } = navigator;
        globalThis.estimate = storage.estimate.bind(storage);
        storage.estimate = async () => ({ quota: 2_000_000, usage: 1_000_000 });
      });
      await drop(ben, 'full.bin', SIZE);
      await sees(ann, '[data-event="file"] b', 'full.bin');
      await answer(ann, 'Accept');
      await sees(ann, '[data-event="file"] small', 'The disk is full: the file has 3.0 MB, and the browser takes 1.0 MB more.');
      await run(ann, async () => {
        navigator.storage.estimate = globalThis.estimate;
        globalThis.OwnWorker = Worker;
        globalThis.Worker = class {
          constructor() {
            throw new DOMException('none here', 'SecurityError');
          }
        };
      });
      await answer(ann, 'Accept');
      await sees(ann, '[data-event="file"] small', 'This page may not write to the disk');
      await limit(ann, { memory: SIZE });
      await answer(ann, 'Accept');
      await savedAs(name, /^full.*bin$/, ({ length }) => length === SIZE);

      // A recording without a disk ends at the bound; one with a disk is there whole, without its pause.
      const record = (id) => run(ann, (id) => document.getElementById(id).click(), id);
      await limit(ann, { memory: 1 });
      await giveSound(ann);
      await record('record');
      await sees(ann, '[data-event="record"]', 'its memory takes no more');
      await run(ann, () => (globalThis.Worker = globalThis.OwnWorker));
      await record('record');
      await sees(ann, '#recording-text', 'kB');
      await record('recording-pause');
      await sees(ann, '#recording-pause', 'Go on');
      await record('recording-pause');
      await sees(ann, '#recording-pause', 'Pause');
      await record('recording-stop');
      await sees(ann, '[data-event="record"]', 'Recording saved');
      // WebM begins with the mark of EBML.
      const recorded = await savedAs(name, /^callbox-.*webm$/, ({ length }) => length > 1_000);
      assert.equal(recorded.subarray(0, 4).toString('hex'), '1a45dfa3');

      await record('leave');
      await ann.waitForSelector('#lobby:not([hidden])');
      await until(async () => (await keptBy(ann))?.length === 1, 'only what another page left stays');
      await ann.reload();
      await until(async () => (await keptBy(ann))?.length === 0, 'what another page left goes');
      await close(ann, ben);
    });
  }

  it('says that the disk became full in the middle of a file and of a recording, and saves what there is of the recording', async () => {
    const [ann, ben] = await pair('quota', chromium, firefox);
    const session = await ann.createCDPSession();
    const bound = (quotaSize) => session.send('Storage.overrideQuotaForOrigin', { origin: new URL(ann.url()).origin, quotaSize });
    // The estimate says that there is room.
    await run(ann, () => {
      navigator.storage.estimate = async () => ({ quota: 1e12, usage: 0 });
    });
    await bound(1_000_000);
    await drop(ben, 'half.bin', SIZE);
    await sees(ann, '[data-event="file"] button', 'Accept');
    await answer(ann, 'Accept');
    await sees(ann, '[data-event="file"] small', 'The disk is full: the file was not saved');
    await sees(ben, '[data-event="file"] small', 'Not transferred');
    await bound(1_000_000_000);
    // The browser takes space from the disk in large pieces, so this disk is full after two of the recording's.
    await run(ann, () => {
      let pieces = 0;
      globalThis.Worker = class extends Worker {
        postMessage(question) {
          if (question.chunk && ++pieces > 2) this.onmessage({ data: { name: 'QuotaExceededError', message: 'full' } });
          else super.postMessage(question);
        }
      };
    });
    for (const one of readdirSync(saved.chromium)) rmSync(join(saved.chromium, one));
    await run(ann, () => document.getElementById('record').click());
    await sees(ann, '[data-event="record"]', 'The disk is full: the recording ended');
    const recorded = await savedAs('chromium', /^callbox-.*webm$/, ({ length }) => length > 1_000);
    assert.equal(recorded.subarray(0, 4).toString('hex'), '1a45dfa3');
    await close(ann, ben);
  });

  it('goes on while the box is killed and started again, and says nothing that is not so', async () => {
    const [ann, ben] = await pair('killed', chromium, firefox);
    const before = await run(ann, () => {
      globalThis.said = [];
      new MutationObserver(() => globalThis.said.push(document.getElementById('notice').textContent)).observe(document.getElementById('notice'), { childList: true });
      globalThis.tile = document.querySelector('.tile:not(.local)');
      return globalThis.tile.querySelector('video').getVideoPlaybackQuality().totalVideoFrames;
    });
    await box.kill();
    await sees(ann, '#signal', 'Reconnecting');
    await ann.waitForFunction((before) => globalThis.tile.querySelector('video').getVideoPlaybackQuality().totalVideoFrames > before + 5, { polling: 50 }, before);
    await box.start();
    for (const page of [ann, ben]) await sees(page, '#signal', 'Connected');
    await says(ann, 'still here');
    await sees(ben, '#chat-log', 'still here');
    assert.deepEqual(await run(ann, () => [globalThis.said, globalThis.tile.isConnected, document.querySelectorAll('.tile').length]), [[], true, 2]);
    await close(ann, ben);
  });

  it('made no page throw or log an error', () =>
    // The box that was killed did not answer.
    assert.deepEqual([...chromium.faults, ...firefox.faults].filter((fault) => !/WebSocket|ERR_CONNECTION|can.t establish a connection|NetworkError|Failed to load resource/.test(fault)), []));
});
