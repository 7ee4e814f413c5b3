// A box on ephemeral loopback ports, the libraries' own servers, and pages that load the libraries.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { connect as connectTcp, createServer as createTcp } from 'node:net';
import { Aedes } from 'aedes';
import { build } from 'esbuild';
import { chromium } from 'playwright-core';
import { WebSocketServer, createWebSocketStream } from 'ws';

/** Milliseconds: a debug build on a busy two-core machine still does everything within these. */
export const SOON = 45_000;

/** A port that was free a moment ago, for servers that cannot say which one they took. */
export async function freePort() {
  const server = createTcp().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/**
 * Starts a server that cannot say which port it took, by `start(port)`. Servers say that they run before they listen:
 * where somebody else has taken the port meanwhile, another port is tried.
 */
async function onFreePort(start) {
  for (let tries = 5; tries > 0; tries -= 1) {
    const port = await freePort();
    const server = await start(port);
    for (let waits = 100; waits > 0 && !server.hasEnded(); waits -= 1) {
      const socket = connectTcp(port, '127.0.0.1');
      const answer = await new Promise((resolve) => {
        socket.on('connect', () => resolve('open'));
        socket.on('error', () => resolve('closed'));
      });
      socket.destroy();
      if (answer === 'open' && !server.hasEnded()) return { host: '127.0.0.1', port, stop: server.stop };
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    server.stop();
  }
  throw new Error('no server got a port');
}

function run(program, args, environment, ready) {
  const child = spawn(program, args, {
    env: { PATH: process.env.PATH, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const said = [];
  const stop = () => child.kill('SIGKILL');
  /** Ends it as a service manager does, and resolves when it is gone. */
  const end = async () => {
    const gone = once(child, 'exit');
    child.kill('SIGTERM');
    const timer = setTimeout(stop, SOON);
    await gone;
    clearTimeout(timer);
  };
  return new Promise((resolve, reject) => {
    const giveUp = (why) => {
      stop();
      reject(new Error(`${program}: ${why}\n${said.join('\n')}`));
    };
    const timer = setTimeout(() => giveUp('is not ready'), SOON);
    const read = (line) => {
      said.push(line);
      const found = ready(line);
      if (!found) return;
      clearTimeout(timer);
      resolve({ found, stop, end, hasEnded: () => child.exitCode !== null || child.signalCode !== null });
    };
    child.on('error', (error) => giveUp(error.message));
    child.on('exit', (code) => giveUp(`ended with ${code}`));
    createInterface({ input: child.stdout }).on('line', read);
    createInterface({ input: child.stderr }).on('line', read);
  });
}

/** `$CALLBOX_BIN` with everything on: `{host, port, stop, end}`. */
export async function startBox(environment = {}) {
  const program = process.env.CALLBOX_BIN;
  if (!program) throw new Error('CALLBOX_BIN names the callbox program to test');
  const { found, stop, end } = await run(
    program,
    ['serve'],
    {
      CALLBOX_HTTP__LISTEN: '["127.0.0.1:0"]',
      CALLBOX_TURN__UDP: '["127.0.0.1:0"]',
      CALLBOX_TURN__TCP: '["127.0.0.1:0"]',
      CALLBOX_COMPAT__ENABLED: '["peerjs","y-webrtc","trystero","mqtt","socketio"]',
      ...environment,
    },
    (line) => /http:\/\/127\.0\.0\.1:([1-9]\d*)\//.exec(line),
  );
  return { host: '127.0.0.1', port: Number(found[1]), stop, end };
}

/** The `server.js` that y-webrtc brings. */
export async function startYWebrtc() {
  return onFreePort((port) =>
    run(
      process.execPath,
      ['node_modules/y-webrtc/bin/server.js'],
      { PORT: String(port), HOST: '127.0.0.1' },
      (line) => /running/.test(line),
    ),
  );
}

/** The server of PeerJS. */
export async function startPeerServer() {
  return onFreePort((port) =>
    run(
      process.execPath,
      ['node_modules/peer/dist/bin/peerjs.js', '--port', String(port), '--host', '127.0.0.1', '--path', '/peerjs'],
      {},
      (line) => /[Ss]tarted/.test(line),
    ),
  );
}

/** Socket.IO's own server with the few rules of an application on it. */
export async function startSocketIo(environment = {}) {
  const { found, stop, end } = await run(
    process.execPath,
    ['socketio-server.mjs'],
    environment,
    (line) => /^port (\d+)$/.exec(line),
  );
  return { host: '127.0.0.1', port: Number(found[1]), stop, end };
}

/** mosquitto over TCP: its WebSocket listener does not start without IPv6. */
export async function startMosquitto() {
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), 'callbox-mosquitto-'));
  const file = join(folder, 'mosquitto.conf');
  writeFileSync(file, `listener ${port} 127.0.0.1\nallow_anonymous true\n`);
  const program = process.env.MOSQUITTO ?? '/usr/sbin/mosquitto';
  const { stop } = await run(program, ['-c', file], {}, (line) => /running/.test(line));
  return {
    host: '127.0.0.1',
    port,
    stop: () => {
      stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A broker of MQTT over WebSocket. */
export async function startAedes() {
  const broker = await Aedes.createBroker();
  const http = createServer();
  const sockets = new WebSocketServer({ server: http, handleProtocols: () => 'mqtt' });
  sockets.on('connection', (socket, request) => broker.handle(createWebSocketStream(socket), request));
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  return {
    host: '127.0.0.1',
    port: http.address().port,
    stop: () => {
      for (const socket of sockets.clients) socket.terminate();
      broker.close();
      http.close();
    },
  };
}

/** What the strategy ws-relay of trystero wants of a server: topics. */
export async function startRelay() {
  const topics = new Map();
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  server.on('connection', (socket) => {
    socket.on('message', (data) => {
      const { type, topic, payload } = JSON.parse(data);
      const subscribers = topics.get(topic) ?? new Set();
      topics.set(topic, subscribers);
      if (type === 'subscribe') subscribers.add(socket);
      if (type === 'unsubscribe') subscribers.delete(socket);
      if (type === 'publish') for (const other of subscribers) other.send(JSON.stringify({ topic, payload }));
    });
    socket.on('close', () => topics.forEach((subscribers) => subscribers.delete(socket)));
  });
  await once(server, 'listening');
  return {
    host: '127.0.0.1',
    port: server.address().port,
    stop: () => {
      for (const socket of server.clients) socket.terminate();
      server.close();
    },
  };
}

/** A TCP proxy whose connections can be cut: what a lost network looks like to both sides. */
export async function startProxy(port) {
  const pairs = new Set();
  const server = createTcp((socket) => {
    const other = connectTcp(port, '127.0.0.1');
    const pair = { socket, other };
    pairs.add(pair);
    socket.pipe(other).pipe(socket);
    for (const end of [socket, other]) {
      end.on('error', () => {});
      end.on('close', () => {
        pairs.delete(pair);
        socket.destroy();
        other.destroy();
      });
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: server.address().port,
    cut: () => pairs.forEach(({ socket, other }) => (socket.destroy(), other.destroy())),
    stop: () => server.close(),
  };
}

/** Serves one page whose script is `source` with the libraries bundled in; resolves to its URL. */
export async function servePage(source) {
  const bundle = await build({
    stdin: { contents: source, resolveDir: import.meta.dirname, loader: 'js' },
    bundle: true,
    write: false,
    format: 'iife',
    platform: 'browser',
    logLevel: 'error',
  });
  const script = bundle.outputFiles[0].text;
  const server = createServer((request, response) => {
    const isScript = request.url === '/page.js';
    response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
    response.end(isScript ? script : '<!doctype html><script src="/page.js"></script>');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${server.address().port}/`, stop: () => server.close() };
}

/** Headless Chromium with a profile of its own. */
export async function startBrowser() {
  const profile = mkdtempSync(join(tmpdir(), 'callbox-compat-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--allow-loopback-in-peer-connection',
    ],
  });
  return {
    open: async (url) => {
      const page = await context.newPage();
      page.setDefaultTimeout(SOON);
      page.on('pageerror', (error) => console.error('page:', error.message));
      await page.goto(url);
      return page;
    },
    stop: async () => {
      await context.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}
