// What takes long, or a network of its own: a file of 200 MB with a cut in the middle, and a side whose address changes.
// Needs what browsers.mjs needs; the network needs root and iproute2.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { startBox } from './box.mjs';
import { prepare, startBrowser, startPages } from './pages.mjs';

const run = (page, work, ...given) => page.evaluate(work, ...given);
const moving = (page, name) => page.evaluate((name) => t.moving(name), name);

describe('a file of 200 MB', { timeout: 420_000 }, () => {
  it('arrives whole though the connection was cut in the middle', async () => {
    const size = 200 * 1024 * 1024;
    const box = await startBox();
    const pages = await startPages();
    const [chromium, firefox] = await Promise.all([startBrowser('chromium'), startBrowser('firefox')]);
    try {
      const [ann, ben] = [await prepare(await chromium.open(pages.url)), await prepare(await firefox.open(pages.url))];
      await run(ann, (url) => t.enter(url, { room: 'large', name: 'Ann', camera: false, media: false }), box.ws);
      await run(ben, (url) => t.enter(url, { room: 'large', name: 'Ben', camera: false, media: false }), box.ws);
      await run(ben, () => {
        t.statuses = [];
        t.room.on('file', (file) => {
          t.file = file;
          file.on('status', (status) => t.statuses.push(status));
          file.accept();
        });
      });
      const began = Date.now();
      await run(ann, async (size) => {
        await t.wait(() => t.peer('Ben')?.status === 'connected');
        const part = 4 * 1024 * 1024;
        const parts = [];
        for (let n = 0; n < size; n += part) {
          const bytes = new Uint8Array(part);
          for (let m = 0; m < part; m += 65_536) crypto.getRandomValues(bytes.subarray(m, m + 65_536));
          parts.push(bytes);
        }
        const blob = new Blob(parts);
        t.digest = await crypto.subtle.digest('SHA-256', await blob.arrayBuffer()).then((sum) => Array.from(new Uint8Array(sum)).join());
        t.most = 0;
        t.sending = t.room.sendFile(blob, t.peer('Ben'), { name: 'large.bin' });
      }, size);
      const half = (page) => page.evaluate((size) => t.file?.bytes > size / 2, size);
      while (!(await half(ben))) await new Promise((resolve) => setTimeout(resolve, 500));
      await run(ann, () => t.peer('Ben').link.reset());
      for (;;) {
        const status = await run(ben, () => t.file.status);
        if (status === 'done') break;
        assert.notEqual(status, 'failed');
        await new Promise((resolve) => setTimeout(resolve, 500));
      }
      const got = await run(ben, async () => {
        const file = await t.file.done;
        const sum = await crypto.subtle.digest('SHA-256', await file.arrayBuffer());
        return { digest: Array.from(new Uint8Array(sum)).join(), size: file.size, statuses: t.statuses };
      });
      console.log(`# 200 MB, cut once, took ${Math.round((Date.now() - began) / 1000)} s`);
      assert.equal(got.digest, await run(ann, () => t.digest));
      assert.equal(got.size, size);
      assert.ok(got.statuses.includes('waiting'), `it was cut: ${got.statuses}`);
    } finally {
      await Promise.all([chromium.stop(), firefox.stop()]);
      pages.stop();
      box.stop();
    }
  });
});

describe('a box that is away for longer than the longest retry', { timeout: 300_000 }, () => {
  it('has relayed media back soon after it is there again, in the same tiles', async () => {
    const box = await startBox();
    const pages = await startPages();
    const [chromium, firefox] = await Promise.all([startBrowser('chromium'), startBrowser('firefox')]);
    try {
      const [ann, ben] = [await prepare(await chromium.open(pages.url)), await prepare(await firefox.open(pages.url))];
      await run(ann, (url) => t.enter(url, { room: 'away', name: 'Ann', relayOnly: true }), box.ws);
      await run(ben, (url) => t.enter(url, { room: 'away', name: 'Ben', relayOnly: true }), box.ws);
      for (const away of [36_000, 41_000]) {
        await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
        for (const page of [ann, ben]) await run(page, () => (t.events.length = 0));
        await box.kill();
        await new Promise((resolve) => setTimeout(resolve, away));
        await box.start();
        const began = Date.now();
        const back = async (page, name) => {
          await run(page, () => t.wait(() => t.room.status === 'online'));
          const online = Date.now() - began;
          await moving(page, name);
          return [online, Date.now() - began];
        };
        const took = await Promise.all([back(ann, 'Ben'), back(ben, 'Ann')]);
        console.log(`# after ${away} ms without a box: sessions and relayed media were back after ${took.join(' and ')} ms`);
        for (const page of [ann, ben]) assert.deepEqual((await run(page, () => t.events)).filter((event) => /^(left|came|stream)/.test(event)), []);
        // Three seconds are the goal; a loaded machine adds some.
        assert.ok(Math.max(...took.flat()) < 6_000, `${took} ms`);
      }
    } finally {
      await Promise.all([chromium.stop(), firefox.stop()]);
      pages.stop();
      box.stop();
    }
  });
});

describe('a side whose address changes', { timeout: 180_000 }, () => {
  const NAME = 'callbox-sdk-a';
  const [HERE, FIRST, SECOND] = ['10.177.0.1', '10.177.0.2', '10.177.0.3'];
  const ip = (...words) => execFileSync('ip', words, { stdio: ['ignore', 'pipe', 'pipe'] });
  const inside = (...words) => ip('-n', NAME, ...words);
  let folder;
  let possible = false;

  before(() => {
    try {
      ip('netns', 'add', NAME);
      ip('link', 'add', 'cbsdk0', 'type', 'veth', 'peer', 'name', 'cbsdk1', 'netns', NAME);
      ip('addr', 'add', `${HERE}/24`, 'dev', 'cbsdk0');
      ip('link', 'set', 'cbsdk0', 'up');
      inside('link', 'set', 'lo', 'up');
      inside('addr', 'add', `${FIRST}/24`, 'dev', 'cbsdk1');
      inside('link', 'set', 'cbsdk1', 'up');
      inside('route', 'add', 'default', 'via', HERE);
      possible = true;
    } catch (error) {
      console.log(`!! CANNOT RUN HERE: a network of its own: ${error.message.split('\n')[0]}`);
      if (process.env.CI === 'true') throw error;
    }
    folder = mkdtempSync(join(tmpdir(), 'callbox-sdk-'));
  });
  after(() => {
    rmSync(folder, { recursive: true, force: true });
    try {
      ip('netns', 'del', NAME);
    } catch {
      // It was never made.
    }
    try {
      ip('link', 'del', 'cbsdk0');
    } catch {
      // It went with the network.
    }
  });

  it('has its media back within three seconds', async (test) => {
    if (!possible) return test.skip();
    const box = await startBox({ CALLBOX_HTTP__LISTEN: `["${HERE}:0"]`, CALLBOX_TURN__UDP: `["${HERE}:0"]`, CALLBOX_TURN__TCP: `["${HERE}:0"]`, CALLBOX_AUTH__MODE: 'open', CALLBOX_PUBLIC__ADDRESS: `["${HERE}"]` });
    const pages = await startPages({}, HERE);
    const wrapped = join(folder, 'chromium');
    writeFileSync(wrapped, `#!/bin/sh\nexec ip netns exec ${NAME} ${process.env.CHROMIUM ?? '/usr/bin/chromium'} "$@"\n`);
    chmodSync(wrapped, 0o755);
    const secure = [`--unsafely-treat-insecure-origin-as-secure=${new URL(pages.url).origin}`];
    const moves = await startBrowser('chromium', { executablePath: wrapped, pipe: true, args: secure });
    const stays = await startBrowser('chromium', { args: secure });
    try {
      const [ann, ben] = [await prepare(await moves.open(pages.url)), await prepare(await stays.open(pages.url))];
      await run(ann, (url) => t.enter(url, { room: 'moves', name: 'Ann' }), box.ws);
      await run(ben, (url) => t.enter(url, { room: 'moves', name: 'Ben' }), box.ws);
      await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
      for (const page of [ann, ben]) await run(page, () => (t.events.length = 0));
      // What a person sees: the longest pause between two frames.
      for (const [page, other] of [[ann, 'Ben'], [ben, 'Ann']]) await run(page, (other) => t.watchPauses(other), other);
      await run(ann, () => {
        t.steps = [];
        const began = performance.now();
        const note = (what) => t.steps.push(`${Math.round(performance.now() - began)} ${what}`);
        t.room.on('status', note);
        t.peer('Ben').on('status', note);
        t.peer('Ben').link.pc.addEventListener('signalingstatechange', ({ target }) => note(target.signalingState));
        t.peer('Ben').link.pc.addEventListener('iceconnectionstatechange', ({ target }) => note(`ice ${target.iceConnectionState}`));
      });
      const began = Date.now();
      inside('addr', 'add', `${SECOND}/24`, 'dev', 'cbsdk1');
      inside('addr', 'del', `${FIRST}/24`, 'dev', 'cbsdk1');
      inside('addr', 'replace', `${SECOND}/24`, 'dev', 'cbsdk1');
      inside('route', 'replace', 'default', 'via', HERE);
      // What was under way by the old address is over within this.
      await new Promise((resolve) => setTimeout(resolve, 300));
      await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
      const took = Date.now() - began;
      const pauses = await Promise.all([ann, ben].map((page) => run(page, () => Math.round(t.pause))));
      console.log(`# the pictures stood still for ${pauses.join(' and ')} ms; ten frames of each were counted ${took} ms after the address changed`);
      console.log(`# at the side that moved: ${(await run(ann, () => t.steps)).join(', ')}`);
      // Three seconds are the goal, and two are usual: Chromium takes them to see that it has another address. A loaded machine
      // adds some.
      assert.ok(Math.max(...pauses) < 5_000, `${pauses} ms`);
      assert.ok(took < 9_000, `${took} ms`);
      for (const page of [ann, ben]) assert.deepEqual((await run(page, () => t.events)).filter((event) => /^(left|came|stream)/.test(event)), []);
    } finally {
      await Promise.all([moves.stop(), stays.stop()]);
      pages.stop();
      box.stop();
    }
  });
});
