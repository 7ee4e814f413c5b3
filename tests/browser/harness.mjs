// A box of one's own on ephemeral loopback ports, a headless Chromium, and people who join a call with it.

import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';
import { servePages } from './served.mjs';

/** Milliseconds: a debug build on a busy two-core machine still starts and connects within these. */
const START_WITHIN = 20_000;
export const CONNECT_WITHIN = 30_000;

const QUIET = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  // Without it Chromium offers no candidates on a machine whose only interface is loopback.
  '--allow-loopback-in-peer-connection',
  '--autoplay-policy=no-user-gesture-required',
  '--use-fake-ui-for-media-stream',
];
const FAKE_DEVICES = '--use-fake-device-for-media-stream';

/** Starts `$CALLBOX_BIN` and resolves to `{url, stop, pid, room}` once its banner names the page's address. */
export async function startBox(environment = {}, words = []) {
  const program = process.env.CALLBOX_BIN;
  if (!program) throw new Error('CALLBOX_BIN names the callbox program to test');
  const box = spawn(program, ['serve', ...words], {
    env: {
      PATH: process.env.PATH,
      CALLBOX_HTTP__LISTEN: '["127.0.0.1:0"]',
      CALLBOX_TURN__UDP: '["127.0.0.1:0"]',
      CALLBOX_TURN__TCP: '["127.0.0.1:0"]',
      ...environment,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const said = [];
  const stop = () => box.kill('SIGKILL');
  let hash;
  const url = await new Promise((resolve, reject) => {
    const giveUp = (why) => {
      stop();
      reject(new Error(`${program}: ${why}\n${said.join('\n')}`));
    };
    const timer = setTimeout(() => giveUp('no page address in its output'), START_WITHIN);
    box.on('error', (error) => giveUp(error.message));
    box.on('exit', (code) => giveUp(`ended with ${code}`));
    const read = (line) => {
      said.push(line);
      const found = /https?:\/\/127\.0\.0\.1:[1-9]\d*\//.exec(line);
      const link = /^\s*room\s+\S+(#\S+)/.exec(line);
      if (link) hash = link[1];
      if (!found) return;
      clearTimeout(timer);
      resolve(found[0]);
    };
    createInterface({ input: box.stdout }).on('line', read);
    createInterface({ input: box.stderr }).on('line', (line) => said.push(line));
  });
  const own = { url, stop, pid: box.pid };
  const served = process.env.CALLBOX_WEB && url.startsWith('http:') ? await servePages(own, process.env.CALLBOX_WEB) : own;
  /** The link to a room that the box printed: its line comes after that of the page. */
  served.room = async () => {
    while (!hash) await new Promise((resolve) => setTimeout(resolve, 10));
    return served.url + hash;
  };
  return served;
}

/** Chromium gives up what it loads when an interface of this machine comes or goes, whatever address it loads from. */
const NETWORK_CHANGED = /ERR_NETWORK_CHANGED/;

/** Lets `goto` load a page again that was given up in the middle. */
function loadsAgain(page) {
  let lost = 0;
  page.on('requestfailed', (request) => (lost += NETWORK_CHANGED.test(request.failure()?.errorText)));
  const goto = page.goto.bind(page);
  page.goto = async (...given) => {
    for (;;) {
      const before = lost;
      const answer = await goto(...given).catch((error) => {
        if (!NETWORK_CHANGED.test(error.message)) throw error;
        lost++;
      });
      if (lost === before) return answer;
    }
  };
}

/** Starts Chromium with a profile of its own; `devices: false` is a machine without camera and microphone. */
export async function startBrowser({ devices = true, args = [] } = {}) {
  const profile = mkdtempSync(join(tmpdir(), 'callbox-browser-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [...QUIET, ...(devices ? [FAKE_DEVICES] : []), ...args],
    locale: 'en-GB',
    viewport: { width: 1280, height: 800 },
  });
  const faults = [];
  const open = async (prepare) => {
    const page = await context.newPage();
    page.setDefaultTimeout(CONNECT_WITHIN);
    // A refused inline script, a missing file and a thrown error all end here.
    page.on('pageerror', (error) => faults.push(error.message));
    page.on('console', (message) => message.type() === 'error' && !NETWORK_CHANGED.test(message.text()) && faults.push(message.text()));
    loadsAgain(page);
    await prepare?.(page);
    return page;
  };
  /** Closes every page, also those that a failed test left open. */
  const clear = () => Promise.all(context.pages().filter((page) => page.url() !== 'about:blank').map((page) => page.close()));
  const stop = async () => {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
  };
  return { open, clear, stop, faults };
}

/** One participant: a page of that browser, driven as a person would. */
export class Person {
  constructor(page, name) {
    this.page = page;
    this.name = name;
  }

  static async arrive(browser, box, { name, room, relayOnly = false, prepare }) {
    const person = new Person(await browser.open(prepare), name);
    await person.page.goto(`${box.url}#${room}`);
    await person.page.getByLabel('Your name').fill(name);
    const relay = person.page.getByRole('switch', { name: 'Relay only' });
    if ((await relay.isChecked()) !== relayOnly) await person.page.locator('label.switch').click();
    await person.page.getByRole('button', { name: 'Join', exact: true }).click();
    return person;
  }

  /** The tile of another participant, or one's own. */
  tile(name) {
    return this.page.locator('.tile', { has: this.page.locator('.tile-name', { hasText: new RegExp(`^${name}( \\(you\\))?$`) }) });
  }

  async inRoom() {
    await this.page.locator('.tile.local').waitFor();
    return this;
  }

  /** Waits until the picture of `name` has advanced by that many frames from here on. */
  async seesMoving(name, frames = 30) {
    const video = await this.tile(name).locator('video').elementHandle();
    const before = await video.evaluate((element) => element.getVideoPlaybackQuality().totalVideoFrames);
    await this.page.waitForFunction(
      ([element, target]) => element.getVideoPlaybackQuality().totalVideoFrames >= target && element.videoWidth > 0,
      [video, before + frames],
    );
  }

  /** Waits for the attributes of the tile of `name` to match; the browser chooses the transport of a `relay` path. */
  async seesTile(name, attributes) {
    const selector = Object.entries(attributes)
      .map(([key, value]) => `[data-${key}${value === 'relay' ? '^' : ''}="${value}"]`)
      .join('');
    await this.tile(name).and(this.page.locator(`.tile${selector}`)).waitFor();
  }

  async readsInLog(text) {
    await this.page.locator('#chat-log li', { hasText: text }).first().waitFor({ state: 'attached' });
  }

  async says(text) {
    if (await this.page.locator('#chat').isHidden()) await this.page.getByRole('button', { name: 'Chat', exact: true }).click();
    await this.page.getByRole('textbox', { name: 'Write a message' }).fill(text);
    await this.page.keyboard.press('Enter');
  }

  /** Presses a control, in the menu of further ones where it is there. */
  async press(button) {
    const found = this.page.locator('.controls').getByRole('button', { name: button, exact: true });
    const hidden = this.page.locator('#more button', { hasText: button });
    if ((await hidden.count()) && (await this.page.locator('#more').isHidden())) await this.page.locator('#more-toggle').click();
    await found.click();
  }
}

/** A token of those claims, for ten minutes. */
export function mint(secret, claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ exp: Math.floor(Date.now() / 1000) + 600, ...claims })}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}
