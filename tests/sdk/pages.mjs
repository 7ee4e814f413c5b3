// Chromium and Firefox with fake cameras, and an empty page of an origin of its own that has the library.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { after, before } from 'node:test';
import puppeteer from 'puppeteer-core';
import { startBox } from './box.mjs';

const DIST = new URL('../../sdk/js/dist/', import.meta.url);
const FILES = { '/sdk/v1/callbox.js': 'callbox.mjs', '/sdk/v1/callbox.umd.js': 'callbox.umd.js' };

/** Milliseconds: a busy two-core machine still connects within these. */
export const WITHIN = Number(process.env.W ?? 40_000);

export const run = (page, work, ...given) => page.evaluate(work, ...given);
export const close = (...pages) => Promise.all(pages.map((page) => page.close()));

/**
 * Firefox runs no AudioContext on a machine without a sound device, and gives what is recorded with one's track late, or not at all:
 * there a page records the sound of the microphone in place of everybody's.
 */
export const giveSound = (page) =>
  run(page, async () => {
    if (new AudioContext().state === 'running' || !navigator.userAgent.includes('Firefox')) return;
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    globalThis.AudioContext = class {
      createMediaStreamDestination = () => ({ stream: stream.clone() });
      createMediaStreamSource = () => ({ connect() {}, disconnect() {} });
      resume = async () => {};
      close = async () => {};
    };
  });

/** Small pictures, and few of them: what two browsers code beside each other is much for two cores. */
export const smallCamera = (page) =>
  page.evaluateOnNewDocument(() => {
    const { mediaDevices } = navigator;
    const getUserMedia = mediaDevices?.getUserMedia.bind(mediaDevices);
    if (getUserMedia) mediaDevices.getUserMedia = (wanted) => getUserMedia({ ...wanted, ...(wanted.video && { video: { width: 320, height: 180, frameRate: 5 } }) });
  });

/** Both browsers, and empty pages: started once, and there until all tests of the process are done. */
let shared = null;
const startShared = async () => {
  const pages = await startPages();
  const [chromium, firefox] = await Promise.all(['chromium', 'firefox'].map((name) => startBrowser(name)));
  return { pages, browsers: { chromium, firefox } };
};
after(async () => {
  const { pages, browsers } = (await shared?.catch(() => null)) ?? {};
  await Promise.all(Object.values(browsers ?? {}).map((one) => one.stop()));
  pages?.stop();
});

/** For the tests of a `describe`: a box, empty pages, and both browsers; `open(name)` gives a page with the library. */
export function useBrowsers(environment = {}) {
  const used = { open: async (name) => prepare(await used.browsers[name].open(used.pages.url)), faults: () => Object.values(used.browsers).flatMap(({ faults }) => faults) };
  before(async () => {
    used.box = await startBox(environment);
    shared ??= startShared();
    Object.assign(used, await shared);
    // Each answers for its own pages.
    for (const { faults } of Object.values(used.browsers)) faults.length = 0;
  });
  after(() => used.box?.stop());
  return used;
}

/** Serves an empty page, the library, and what a test puts under other names. */
export async function startPages(extra = {}, host = '127.0.0.1') {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://x');
    const file = FILES[pathname];
    const text = file ? readFileSync(new URL(file, DIST)) : (extra[pathname] ?? '<!doctype html><meta charset="utf-8"><title>empty</title><link rel="icon" href="data:,"><body>');
    const type = pathname.endsWith('.js') ? 'text/javascript' : 'text/html; charset=utf-8';
    response.writeHead(200, { 'Content-Type': type }).end(text);
  });
  await new Promise((resolve) => server.listen(0, host, resolve));
  // A test that fails does not come to `stop`, and has to end all the same.
  server.unref();
  return { url: `http://${host}:${server.address().port}/`, stop: () => server.close() };
}

const CHROMIUM = {
  browser: 'chrome',
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    // Without it Chromium offers no candidates on a machine whose only interface is loopback.
    '--allow-loopback-in-peer-connection',
    '--autoplay-policy=no-user-gesture-required',
    '--use-fake-ui-for-media-stream',
    '--use-fake-device-for-media-stream',
    '--auto-select-desktop-capture-source=Entire screen',
    '--disable-renderer-backgrounding',
    '--disable-backgrounding-occluded-windows',
  ],
};

const FIREFOX = {
  browser: 'firefox',
  executablePath: process.env.FIREFOX ?? '/usr/bin/firefox-esr',
  extraPrefsFirefox: {
    'media.navigator.streams.fake': true,
    'media.navigator.permission.disabled': true,
    'media.peerconnection.ice.loopback': true,
    'media.peerconnection.ice.obfuscate_host_addresses': false,
    'media.autoplay.default': 0,
    'media.autoplay.blocking_policy': 0,
    'media.devices.insecure.enabled': true,
    'app.update.enabled': false,
    'datareporting.policy.dataSubmissionEnabled': false,
    'network.lna.enabled': false,
  },
};

/** Chromium gives up what it loads when an interface of this machine comes or goes, whatever address it loads from. */
const NETWORK_CHANGED = /ERR_NETWORK_CHANGED/;

/** What makes Firefox save without a question. */
const savesInto = (folder) => ({
  'browser.download.folderList': 2,
  'browser.download.dir': folder,
  'browser.download.useDownloadDir': true,
  'browser.download.alwaysOpenPanel': false,
  'browser.download.always_ask_before_handling_new_types': false,
});

/**
 * Starts one of the browsers; `open(url)` gives a page, `faults` is what pages threw or logged as errors. What pages save goes into
 * the folder `downloads`.
 */
export async function startBrowser(name, { args = [], downloads, ...more } = {}) {
  const settings = name === 'firefox' ? { ...FIREFOX, extraPrefsFirefox: { ...FIREFOX.extraPrefsFirefox, ...(downloads && savesInto(downloads)) } } : CHROMIUM;
  const browser = await puppeteer.launch({ ...settings, headless: true, timeout: 120_000, protocolTimeout: 120_000, ...more, args: [...(settings.args ?? []), ...args] });
  if (downloads && name !== 'firefox') {
    const session = await browser.target().createCDPSession();
    await session.send('Browser.setDownloadBehavior', { behavior: 'allow', downloadPath: downloads });
  }
  const faults = [];
  const open = async (url, prepare) => {
    const page = await browser.newPage();
    await prepare?.(page);
    page.setDefaultTimeout(WITHIN);
    page.on('pageerror', (error) => faults.push(`${name}: ${error.message}`));
    page.on('console', (message) => {
      if (process.env.VERBOSE) console.log(`[${name}] ${message.type()}: ${message.text()}`);
      if (message.type() === 'error' && !NETWORK_CHANGED.test(message.text())) faults.push(`${name}: ${message.text()}`);
    });
    let lost = 0;
    page.on('requestfailed', (request) => (lost += NETWORK_CHANGED.test(request.failure()?.errorText)));
    for (let before = -1; before !== lost; ) {
      before = lost;
      await page.goto(url).catch((error) => {
        if (!NETWORK_CHANGED.test(error.message)) throw error;
        lost++;
      });
    }
    await page.evaluate(() => addEventListener('unhandledrejection', ({ reason }) => console.error(`unhandled: ${reason?.stack ?? reason}`)));
    return page;
  };
  return { name, open, faults, stop: () => browser.close() };
}

/** What every page of a test can use: `enter`, and looks at what a peer shows. */
export async function prepare(page) {
  await page.evaluate(async () => {
    const callbox = await import('/sdk/v1/callbox.js');
    const t = (globalThis.t = { callbox, events: [], peersSeen: [] });
    t.wait = async (what, within = 40_000) => {
      const end = Date.now() + within;
      for (;;) {
        const value = await what();
        if (value) return value;
        if (Date.now() > end) throw new Error(`not within ${within} ms: ${what}\n${JSON.stringify(t.events)}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    };
    t.camera = () => navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 320, height: 240, frameRate: 15 } });
    /** A screen that needs no picker: a canvas that moves. */
    t.canvas = () => {
      const canvas = Object.assign(document.createElement('canvas'), { width: 200, height: 120 });
      const context = canvas.getContext('2d');
      let n = 0;
      setInterval(() => {
        context.fillStyle = `hsl(${n++ * 7} 80% 50%)`;
        context.fillRect(0, 0, 200, 120);
      }, 60);
      return canvas.captureStream(15);
    };
    t.show = (stream) => {
      const video = Object.assign(document.createElement('video'), { muted: true, autoplay: true, playsInline: true, srcObject: stream });
      document.body.append(video);
      video.play().catch(() => {});
      return video;
    };
    t.enter = async (url, { camera = true, ...options }) => {
      // What a test hands to a page is JSON.
      if (options.encryption?.key) options.encryption = { key: Uint8Array.from(options.encryption.key) };
      t.own = camera ? await t.camera() : null;
      const room = (t.room = await callbox.join(url, { ...options, ...(t.own && { streams: [t.own] }) }));
      const follow = (peer) => {
        t.events.push(`came ${peer.name}`);
        peer.on('stream', (stream, label) => shown(peer, stream, label));
      };
      const shown = (peer, stream, label) => {
        t.events.push(`stream ${peer.name} ${label}`);
        t.videos ??= {};
        t.videos[`${peer.name} ${label}`] = t.show(stream);
      };
      for (const peer of room.peers.values()) follow(peer);
      room.on('peer', follow);
      room.on('leave', (peer, reason) => t.events.push(`left ${peer.name} ${reason}`));
      room.on('status', (status, reason) => t.events.push(reason ? `${status} ${reason}` : status));
      return { peerId: room.peerId, role: room.role };
    };
    t.peer = (name) => [...t.room.peers.values()].find((peer) => peer.name === name);
    /** Frames that were decoded of a stream: what the browser received, could read, and would show. */
    t.decoded = async (pc, stream) => {
      let frames = 0;
      for (const track of stream?.getVideoTracks() ?? []) {
        const report = await pc.getStats(track).catch(() => new Map());
        report.forEach((stats) => stats.type === 'inbound-rtp' && (frames += stats.framesDecoded ?? 0));
      }
      return frames;
    };
    t.frames = (name, label = 'camera') => t.decoded(t.peer(name)?.link.pc, t.videos?.[`${name} ${label}`]?.srcObject);
    /** Keeps in `t.pause` the longest pause between two frames, in milliseconds: what a person would see. */
    t.watchPauses = (name, label = 'camera') => {
      let last = performance.now();
      t.pause = 0;
      const video = t.videos[`${name} ${label}`];
      const look = () => {
        const now = performance.now();
        t.pause = Math.max(t.pause, now - last);
        last = now;
        video.requestVideoFrameCallback(look);
      };
      video.requestVideoFrameCallback(look);
    };
    t.moving = async (name, label = 'camera', count = 10) => {
      await t.wait(() => t.videos?.[`${name} ${label}`] && t.peer(name));
      let last = await t.frames(name, label);
      let seen = 0;
      await t.wait(async () => {
        const now = await t.frames(name, label);
        // A connection that was made anew counts from zero.
        if (now > last) seen += now - last;
        last = now;
        return seen >= count;
      });
      return true;
    };
  });
  return page;
}
