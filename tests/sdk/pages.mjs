// Chromium and Firefox with fake cameras, and an empty page of an origin of its own that has the library.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import puppeteer from 'puppeteer-core';

const DIST = new URL('../../sdk/js/dist/', import.meta.url);
const FILES = { '/sdk/v1/callbox.js': 'callbox.mjs', '/sdk/v1/callbox.umd.js': 'callbox.umd.js' };

/** Milliseconds: a busy two-core machine still connects within these. */
export const WITHIN = 40_000;

/** Serves an empty page, the library, and what a test puts under other names. */
export async function startPages(extra = {}) {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://x');
    const file = FILES[pathname];
    const text = file ? readFileSync(new URL(file, DIST)) : (extra[pathname] ?? '<!doctype html><meta charset="utf-8"><title>empty</title><link rel="icon" href="data:,"><body>');
    const type = pathname.endsWith('.js') ? 'text/javascript' : 'text/html; charset=utf-8';
    response.writeHead(200, { 'Content-Type': type }).end(text);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${server.address().port}/`, stop: () => server.close() };
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

/** Starts one of the browsers; `open(url)` gives a page, `faults` is what pages threw or logged as errors. */
export async function startBrowser(name) {
  const browser = await puppeteer.launch({ ...(name === 'firefox' ? FIREFOX : CHROMIUM), headless: true, protocolTimeout: 90_000 });
  const faults = [];
  const open = async (url) => {
    const page = await browser.newPage();
    page.setDefaultTimeout(WITHIN);
    page.on('pageerror', (error) => faults.push(`${name}: ${error.message}`));
    page.on('console', (message) => {
      if (process.env.VERBOSE) console.log(`[${name}] ${message.type()}: ${message.text()}`);
      if (message.type() === 'error') faults.push(`${name}: ${message.text()}`);
    });
    await page.goto(url);
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
      t.own = camera ? await t.camera() : null;
      const room = (t.room = await callbox.join(url, { ...options, ...(t.own && { streams: [t.own] }) }));
      const follow = (peer) => {
        t.events.push(`came ${peer.name}`);
        for (const stream of peer.streams.values()) shown(peer, stream, peer.labelOf(stream));
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
