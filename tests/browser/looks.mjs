// Every state of the pages, wide and narrow, light and dark: axe finds nothing, nothing reaches beyond the sides. SHOTS=folder
// keeps a picture of each. Then a whole call by the keyboard alone. Needs what call.mjs needs.

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { Person, startBox, startBrowser } from './harness.mjs';

const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const SIZES = { wide: { width: 1280, height: 800 }, narrow: { width: 390, height: 844 } };
const ADMIN = 'an admin token of this test alone';
const { SHOTS } = process.env;
if (SHOTS) mkdirSync(SHOTS, { recursive: true });

/** Looks at the page as it is: wide and light, narrow and dark, and in all four looks where pictures are kept. */
async function look(page, name) {
  const found = [];
  for (const [size, viewport] of Object.entries(SIZES)) {
    await page.setViewportSize(viewport);
    for (const colorScheme of SHOTS ? ['light', 'dark'] : [size === 'wide' ? 'light' : 'dark']) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await page.mouse.move(0, 0);
      // The page settles: an animation frame after the media query changed.
      await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
      if (SHOTS) await page.screenshot({ path: join(SHOTS, `${name}-${size}-${colorScheme}.png`) });
      if (!(await page.evaluate(() => 'axe' in globalThis))) {
        // A page that runs nothing inline lets a test do so over the debugger.
        await page.context().newCDPSession(page).then(async (session) => {
          const { readFileSync } = await import('node:fs');
          await session.send('Runtime.evaluate', { expression: readFileSync(AXE, 'utf8') });
          await session.detach();
        });
      }
      const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
      for (const { id, nodes } of violations) found.push(`${name} ${size} ${colorScheme}: ${id}: ${nodes.map(({ html, failureSummary }) => `${html.slice(0, 120)} ${failureSummary}`).join(' | ').slice(0, 600)}`);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
      if (wide) found.push(`${name} ${size} ${colorScheme}: reaches beyond the sides`);
      const cut = await page.evaluate(() => [...document.querySelectorAll('.dialog .table-scroll')].some((one) => one.scrollWidth > one.clientWidth));
      if (cut) found.push(`${name} ${size} ${colorScheme}: a table is cut off`);
    }
  }
  await page.setViewportSize(SIZES.wide);
  await page.emulateMedia({ colorScheme: 'light', reducedMotion: 'reduce' });
  assert.deepEqual(found, []);
}

/** Puts `holdSockets()` into the page: its WebSocket is lost, and no other one opens. */
function holdSockets(page) {
  return page.addInitScript(() => {
    const all = [];
    let held = false;
    globalThis.WebSocket = class extends WebSocket {
      constructor(url, ...given) {
        super(held ? 'ws://127.0.0.1:9/' : url, ...given);
        all.push(this);
      }
    };
    globalThis.holdSockets = () => {
      held = true;
      for (const socket of all) socket.close(4999);
    };
    const { fetch } = globalThis;
    globalThis.fetch = (...given) => (held ? Promise.reject(new TypeError('held back')) : fetch(...given));
  });
}

/** Small pictures, and few of them: four people who send to each other are much for two cores. */
function smallCamera(page) {
  return page.addInitScript(() => {
    const { mediaDevices } = navigator;
    const getUserMedia = mediaDevices?.getUserMedia.bind(mediaDevices);
    if (getUserMedia) mediaDevices.getUserMedia = (wanted) => getUserMedia({ ...wanted, ...(wanted.video && { video: { width: 320, height: 180, frameRate: 5 } }) });
  });
}

/** A screen that needs no picker: a canvas that moves. */
function drawnScreen(page) {
  return page.addInitScript(() => {
    navigator.mediaDevices.getDisplayMedia = async () => {
      const canvas = Object.assign(document.createElement('canvas'), { width: 1280, height: 720 });
      const context = canvas.getContext('2d');
      let n = 0;
      setInterval(() => {
        context.fillStyle = '#f7f7f2';
        context.fillRect(0, 0, 1280, 720);
        context.fillStyle = '#22433c';
        context.font = '64px sans-serif';
        for (let line = 0; line < 8; line++) context.fillText(`A line of a shared document, ${line + (n >> 4)}`, 60, 90 + line * 82);
        n++;
      }, 80);
      return canvas.captureStream(12);
    };
  });
}

describe('what is seen', { timeout: 600_000 }, () => {
  let box, browser;
  before(async () => {
    box = await startBox({ CALLBOX_AUTH__ADMIN_TOKEN: ADMIN, CALLBOX_TURN__UDP: '["127.0.0.1:0", "127.0.0.1:0"]' });
    browser = await startBrowser();
    const { open } = browser;
    browser.open = (prepare) => open((page) => Promise.all([smallCamera(page), prepare?.(page)]));
  });
  afterEach(() => browser?.clear());
  after(async () => {
    await browser?.stop();
    box?.stop();
  });

  it('the lobby, its options and what it says when it is refused', async () => {
    const page = await browser.open();
    await page.goto(`${box.url}#looks`);
    await page.locator('.preview[data-video="true"]').waitFor();
    await look(page, 'lobby');
    await page.locator('details.more-options summary').click();
    await page.getByRole('button', { name: 'Set a room password' }).click();
    await look(page, 'lobby-options');
    await page.close();
  });

  it('a call of one, two and four, its panels, chat and a shared screen', async () => {
    const ann = await (await Person.arrive(browser, box, { name: 'Ann', room: 'looks' })).inRoom();
    const { page } = ann;
    await look(page, 'alone');
    const ben = await (await Person.arrive(browser, box, { name: 'Ben', room: 'looks' })).inRoom();
    await ann.seesMoving('Ben');
    await look(page, 'two');
    await ann.says('hello, see https://example.org/');
    await ben.says('你好');
    await ann.readsInLog('你好');
    await look(page, 'chat');
    await page.locator('#chat-close').click();
    for (const name of ['Carla', 'Dai']) await (await Person.arrive(browser, box, { name, room: 'looks' })).inRoom();
    await ann.seesTile('Dai', { state: 'connected' });
    await look(page, 'four');
    await ben.press('Raise hand');
    await ben.press('Turn camera off');
    await ann.seesTile('Ben', { video: 'false', hand: 'true' });
    await look(page, 'camera-off');
    await page.locator('.tile', { hasText: 'Dai' }).hover();
    await page.locator('.tile', { hasText: 'Dai' }).getByRole('button', { name: 'Pin' }).click();
    await look(page, 'pinned');
    await page.locator('.tile.large').hover();
    await page.locator('.tile.large').getByRole('button', { name: 'Unpin' }).click();
    await ann.press('Record');
    await page.locator('#recording').waitFor();
    await look(page, 'recording');
    await page.locator('#recording-stop').click();
    await page.locator('#recording').waitFor({ state: 'hidden' });
    await page.locator('#more-toggle').click();
    await look(page, 'more');
    for (const [button, name] of [['Connection', 'quality'], ['Invite', 'invite'], ['Settings', 'settings']]) {
      if (await page.locator('#more').isHidden()) await page.locator('#more-toggle').click();
      await page.locator('#more').getByRole('button', { name: button, exact: true }).click();
      await look(page, name);
      await page.keyboard.press('Escape');
    }
    await page.locator('.controls [data-dialog="people"]').click();
    await look(page, 'people');
    await page.keyboard.press('Escape');
    await Promise.all(page.context().pages().filter((one) => one !== page && one.url() !== 'about:blank').map((one) => one.close()));
    await page.close();
  });

  it('a screen that is shared, a file on its way, relay only, a lost connection, and somebody who is away', async () => {
    const ann = await (await Person.arrive(browser, box, { name: 'Ann', room: 'states', prepare: (page) => Promise.all([holdSockets(page), drawnScreen(page)]) })).inRoom();
    const ben = await (await Person.arrive(browser, box, { name: 'Ben', room: 'states', prepare: holdSockets })).inRoom();
    const { page } = ann;
    await ann.seesMoving('Ben');
    await ann.press('Share');
    await ben.page.locator('.tile.shared.large').waitFor();
    await look(ben.page, 'screen-seen');
    await look(page, 'screen-shared');
    await ann.press('Share');
    await ben.page.locator('.tile.shared').waitFor({ state: 'detached' });
    await ben.page.locator('#chat-toggle').click();
    await page.locator('#chat-files').setInputFiles({ name: 'a picture of the garden with a rather long name.jpg', mimeType: 'image/jpeg', buffer: Buffer.alloc(3_000_000, 7) });
    await ben.page.getByRole('button', { name: 'Accept', exact: true }).waitFor();
    await look(ben.page, 'file-offered');
    await page.locator('#chat-toggle').click();
    await look(page, 'file-waits');
    await ben.page.getByRole('button', { name: 'Accept', exact: true }).click();
    await ben.page.locator('#chat-log [data-event="file"] a').waitFor();
    await look(ben.page, 'file-arrived');
    for (const one of [ann, ben]) await one.page.locator('#chat-close').click();
    await ann.press('Relay');
    await ann.seesTile('Ben', { state: 'connected', path: 'relay' });
    await look(page, 'relay-only');
    await ben.page.evaluate(() => globalThis.holdSockets());
    await ben.page.locator('#signal[data-status="reconnecting"]').waitFor();
    await look(ben.page, 'reconnecting');
    await page.locator('.controls [data-dialog="people"]').click();
    await page.locator('#people-list li', { hasText: 'away' }).waitFor();
    await look(page, 'somebody-away');
    await Promise.all([page, ben.page].map((one) => one.close()));
  });

  it('what is said to who is refused, removed, alone without devices, or without an answer', async () => {
    const host = await (await Person.arrive(browser, box, { name: 'Ann', room: 'doors' })).inRoom();
    const change = async (set) => {
      await host.page.locator('.controls [data-dialog="people"]').click();
      await set(host.page.locator('#people'));
      await host.page.keyboard.press('Escape');
    };
    await change(async (people) => {
      await people.locator('#new-password').fill('sesame');
      await people.locator('#set-password').click();
      await people.getByText('has a password').waitFor();
    });
    const { page } = await Person.arrive(browser, box, { name: 'Ben', room: 'doors' });
    await page.locator('#join-note').waitFor();
    await look(page, 'password-needed');
    await page.locator('#password').fill('wrong');
    await page.keyboard.press('Enter');
    await page.locator('#password[aria-invalid="true"]').waitFor();
    await look(page, 'password-wrong');
    await page.locator('#password').fill('sesame');
    await page.keyboard.press('Enter');
    await new Person(page, 'Ben').inRoom();
    await host.page.locator('.controls [data-dialog="people"]').click();
    await look(host.page, 'host-tools');
    await host.page.getByRole('button', { name: 'Remove: Ben' }).click();
    await page.locator('#join-note').waitFor();
    await look(page, 'kicked');
    await host.page.locator('#lock').check();
    await page.getByRole('button', { name: 'Join', exact: true }).click();
    await page.locator('#join-note', { hasText: 'lock' }).waitFor();
    await look(page, 'locked');
    await host.page.keyboard.press('Escape');
    await Promise.all([page, host.page].map((one) => one.close()));

    const bare = await startBrowser({ devices: false });
    const silent = await browser.open(holdSockets);
    const plain = await browser.open((page) => page.addInitScript(() => Object.defineProperty(globalThis, 'isSecureContext', { value: false })));
    try {
      const dora = await (await Person.arrive(bare, box, { name: 'Dora', room: 'bare' })).inRoom();
      await dora.page.locator('#warning').waitFor();
      await look(dora.page, 'no-devices');
      await silent.goto(`${box.url}#silent`);
      await silent.evaluate(() => globalThis.holdSockets());
      await silent.getByRole('button', { name: 'Join', exact: true }).click();
      await silent.locator('#join-note').waitFor();
      await look(silent, 'waiting');
      await plain.goto(`${box.url}#plain`);
      await plain.locator('#warning').waitFor();
      await look(plain, 'insecure');
    } finally {
      await Promise.all([silent.close(), plain.close(), bare.stop()]);
    }

    const tokens = await startBox({ CALLBOX_AUTH__MODE: 'jwt', CALLBOX_AUTH__SECRET: 'a secret of this test alone, 32 bytes and more' });
    try {
      const { page } = await Person.arrive(browser, tokens, { name: 'Ann', room: 'closed' });
      await page.locator('#token-field').waitFor();
      await look(page, 'token-needed');
      await page.locator('#token').fill('garbage');
      await page.keyboard.press('Enter');
      await page.locator('#token[aria-invalid="true"]').waitFor();
      await look(page, 'token-wrong');
      await page.close();
    } finally {
      tokens.stop();
    }
  });

  it('what is said when the host ends the call for all', async () => {
    const ann = await (await Person.arrive(browser, box, { name: 'Ann', room: 'over' })).inRoom();
    const { page } = await (await Person.arrive(browser, box, { name: 'Ben', room: 'over' })).inRoom();
    await ann.page.locator('.controls [data-dialog="people"]').click();
    await ann.page.locator('#people-list li', { hasText: 'Ben' }).waitFor();
    await ann.page.locator('#end-for-all').click();
    await page.locator('#join-note').waitFor();
    await look(page, 'ended');
    await Promise.all([page, ann.page].map((one) => one.close()));
  });

  it('the check page', async () => {
    const page = await browser.open();
    await page.goto(`${box.url}check`);
    await page.locator('#report').waitFor();
    await look(page, 'check');
    await page.close();
  });

  it('the dashboard, before and after the token', async () => {
    const ann = await (await Person.arrive(browser, box, { name: 'Ann', room: 'watched', relayOnly: true })).inRoom();
    const ben = await (await Person.arrive(browser, box, { name: 'Ben', room: 'watched', relayOnly: true })).inRoom();
    await ann.seesTile('Ben', { state: 'connected', path: 'relay' });
    const page = await browser.open();
    await page.goto(`${box.url}admin`);
    await look(page, 'admin-entrance');
    await page.getByLabel('Admin token').fill(ADMIN);
    await page.keyboard.press('Enter');
    await page.locator('#relays tr', { hasText: 'Ann' }).first().waitFor();
    await page.getByRole('button', { name: 'Show: watched' }).click();
    await page.locator('#rooms tr.member', { hasText: 'Ben' }).waitFor();
    await look(page, 'admin');
    await page.getByRole('button', { name: 'Close: watched' }).click();
    await look(page, 'admin-sure');
    await page.keyboard.press('Escape');
    await Promise.all([page, ann.page, ben.page].map((one) => one.close()));
  });

  it('made no page throw or log an error', () => assert.deepEqual(browser.faults.filter((fault) => !/404|WebSocket connection to/.test(fault)), []));
});

describe('a whole call by the keyboard alone', { timeout: 180_000 }, () => {
  let box, browser;
  before(async () => {
    box = await startBox();
    browser = await startBrowser();
  });
  after(async () => {
    await browser?.stop();
    box?.stop();
  });

  /** Presses Tab until the focus is on what that selector names, and is visible. */
  async function tabTo(page, selector, most = 60) {
    for (let n = 0; n < most; n++) {
      if (await page.evaluate((selector) => document.activeElement?.matches(selector), selector)) {
        const shown = await page.evaluate(() => {
          const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
          return outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2;
        });
        assert.ok(shown, `${selector} shows its focus`);
        return;
      }
      await page.keyboard.press('Tab');
    }
    assert.fail(`Tab never came to ${selector}: ${await page.evaluate(() => document.activeElement?.outerHTML.slice(0, 200))}`);
  }

  it('joins, mutes, writes, looks at people, and leaves', async () => {
    const ben = await (await Person.arrive(browser, box, { name: 'Ben', room: 'keys' })).inRoom();
    const page = await browser.open();
    await page.goto(`${box.url}#keys`);
    await tabTo(page, '#name');
    await page.keyboard.type('Ann');
    await page.keyboard.press('Enter');
    const ann = await new Person(page, 'Ann').inRoom();
    await ann.seesMoving('Ben');
    await ben.seesMoving('Ann');
    await tabTo(page, '.controls [data-toggle="audio"]');
    await page.keyboard.press('Space');
    await ben.seesTile('Ann', { muted: 'true' });
    await page.keyboard.press('Space');
    await ben.seesTile('Ann', { muted: 'false' });
    await tabTo(page, '#chat-toggle');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => document.activeElement?.id === 'chat-text');
    await page.keyboard.type('typed');
    await page.keyboard.press('Enter');
    await ben.readsInLog('typed');
    await ben.page.locator('#chat-files').setInputFiles({ name: 'note.txt', mimeType: 'text/plain', buffer: Buffer.from('by the keyboard') });
    await page.getByRole('button', { name: 'Accept', exact: true }).waitFor();
    await tabTo(page, '[data-event="file"] .primary');
    await page.keyboard.press('Enter');
    await page.locator('[data-event="file"] a').waitFor();
    assert.ok(await page.evaluate(() => document.activeElement.closest('#chat-log')), 'the focus stays in the chat');
    await tabTo(page, '#chat-text');
    await page.keyboard.press('Escape');
    await page.waitForFunction(() => document.getElementById('chat').hidden && document.activeElement?.id === 'chat-toggle');
    await tabTo(page, '.controls [data-dialog="people"]');
    await page.keyboard.press('Enter');
    await page.locator('#people[open]').waitFor();
    await page.keyboard.press('Escape');
    await page.waitForFunction(() => document.activeElement?.dataset.dialog === 'people');
    await tabTo(page, '#more-toggle');
    await page.keyboard.press('Enter');
    await tabTo(page, '#hand');
    await page.keyboard.press('Enter');
    await ben.seesTile('Ann', { hand: 'true' });
    await tabTo(page, '#more-toggle');
    await page.keyboard.press('Enter');
    await tabTo(page, '#record');
    await page.keyboard.press('Enter');
    await page.locator('#recording').waitFor();
    await tabTo(page, '#recording-stop');
    await page.keyboard.press('Enter');
    await page.locator('#recording').waitFor({ state: 'hidden' });
    await page.waitForFunction(() => document.activeElement?.id === 'more-toggle');
    await tabTo(page, '.tile:not(.local)');
    await tabTo(page, '.tile:not(.local) .pin');
    await page.keyboard.press('Enter');
    await page.locator('.tile.large').waitFor();
    await tabTo(page, '#leave');
    await page.keyboard.press('Enter');
    await page.locator('#lobby').waitFor();
    await page.waitForFunction(() => document.activeElement?.id === 'join-button');
    await ben.readsInLog('Ann left');
    await Promise.all([page, ben.page].map((one) => one.close()));
  });
});
