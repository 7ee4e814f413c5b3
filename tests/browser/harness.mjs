// A box of one's own on ephemeral loopback ports, a headless Chromium, and people who join a call with it.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, request as call } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

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

/** Starts `$CALLBOX_BIN` and resolves to `{url, stop}` once its banner names the page's address. */
export async function startBox(environment = {}) {
  const program = process.env.CALLBOX_BIN;
  if (!program) throw new Error('CALLBOX_BIN names the callbox program to test');
  const box = spawn(program, ['serve'], {
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
      if (!found) return;
      clearTimeout(timer);
      resolve(found[0]);
    };
    createInterface({ input: box.stdout }).on('line', read);
    createInterface({ input: box.stderr }).on('line', (line) => said.push(line));
  });
  const served = { url, stop };
  return process.env.CALLBOX_WEB && url.startsWith('http:') ? servePages(served, process.env.CALLBOX_WEB) : served;
}

/** Serves the pages of $CALLBOX_WEB in place of the embedded ones, so that a change to them needs no build. */
async function servePages(box, folder) {
  const target = new URL(box.url);
  const types = { js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml', html: 'text/html; charset=utf-8' };
  const named = { '/': 'web/index.html', '/check': 'web/check.html', '/admin': 'web/admin.html', '/sdk/v1/callbox.js': 'sdk/js/dist/callbox.mjs' };
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, target);
    const file = named[pathname] ?? (pathname.startsWith('/assets/') ? `web/${pathname.slice(8)}` : null);
    if (file) return response.writeHead(200, { 'Content-Type': types[file.split('.').at(-1).replace('mjs', 'js')] }).end(readFileSync(join(folder, file)));
    const { method, headers } = request;
    const upstream = call({ host: target.hostname, port: target.port, path: request.url, method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    upstream.on('error', () => response.destroy());
    request.pipe(upstream);
  });
  server.on('upgrade', (request, socket) => {
    const upstream = connect(target.port, target.hostname, () => {
      upstream.write(`GET ${request.url} HTTP/1.1\r\n${Object.entries(request.headers).map(([name, value]) => `${name}: ${value}`).join('\r\n')}\r\n\r\n`);
      upstream.pipe(socket).pipe(upstream);
    });
    for (const end of [socket, upstream]) end.on('error', () => (socket.destroy(), upstream.destroy()));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${server.address().port}/`, stop: () => (server.close(), box.stop()) };
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
    page.on('console', (message) => message.type() === 'error' && faults.push(message.text()));
    await prepare?.(page);
    return page;
  };
  const stop = async () => {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
  };
  return { open, stop, faults };
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
