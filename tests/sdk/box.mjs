// A box of one's own on loopback ports, that can be killed and started again on the same ports, and a proxy that cuts.

import { spawn } from 'node:child_process';
import { createServer, connect } from 'node:net';
import { createInterface } from 'node:readline';

/** Milliseconds: a debug build on a busy two-core machine still starts within these. */
const START_WITHIN = 60_000;

/** Boxes that run. A test that fails does not come to `stop`: its box ends with the tests, and keeps nobody waiting. */
const running = new Set();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));

/** Starts `$CALLBOX_BIN`; resolves to `{url, ws, port, stop, kill, restart}` once its banner names the page's address. */
export async function startBox(environment = {}) {
  const program = process.env.CALLBOX_BIN;
  if (!program) throw new Error('CALLBOX_BIN names the callbox program to test');
  const settings = {
    CALLBOX_HTTP__LISTEN: '["127.0.0.1:0"]',
    CALLBOX_HTTP__ALLOWED_ORIGINS: '["*"]',
    CALLBOX_TURN__UDP: '["127.0.0.1:0"]',
    CALLBOX_TURN__TCP: '["127.0.0.1:0"]',
    ...environment,
  };
  const box = {};
  const run = async () => {
    const child = spawn(program, ['serve'], { env: { PATH: process.env.PATH, ...settings }, stdio: ['ignore', 'pipe', 'pipe'] });
    box.child = child;
    running.add(child);
    child.on('exit', () => running.delete(child));
    const said = [];
    box.said = said;
    box.url = await new Promise((resolve, reject) => {
      const giveUp = (why) => {
        child.kill('SIGKILL');
        reject(new Error(`${program}: ${why}\n${said.join('\n')}`));
      };
      const timer = setTimeout(() => giveUp('no page address in its output'), START_WITHIN);
      child.on('error', (error) => giveUp(error.message));
      child.on('exit', (code) => giveUp(`ended with ${code}`));
      createInterface({ input: child.stdout }).on('line', (line) => {
        said.push(line);
        const found = /https?:\/\/[\d.]+:[1-9]\d*\//.exec(line);
        if (!found) return;
        clearTimeout(timer);
        resolve(found[0]);
      });
      createInterface({ input: child.stderr }).on('line', (line) => said.push(line));
    });
    for (const held of [child, child.stdout, child.stderr]) held.unref();
    box.port = Number(new URL(box.url).port);
    box.ws = `${box.url.replace(/^http/, 'ws')}ws`;
  };
  await run();
  const ended = () => new Promise((resolve) => (box.child.ref(), box.child.exitCode !== null || box.child.signalCode ? resolve() : box.child.once('exit', resolve)));
  box.kill = async (signal = 'SIGKILL') => {
    box.child.kill(signal);
    await ended();
  };
  box.signal = (signal) => box.child.kill(signal);
  box.ended = ended;
  box.stop = () => box.child.kill('SIGKILL');
  /** The same port again: clients know no other. The relay's ports may be new. */
  box.start = async () => {
    settings.CALLBOX_HTTP__LISTEN = `["127.0.0.1:${box.port}"]`;
    await run();
  };
  return box;
}

/** A TCP proxy to the box: it can cut its connections, hold everything back without closing, and refuse. */
export async function startProxy(port) {
  const pairs = new Set();
  const proxy = { held: false, refusing: false, connections: 0 };
  const server = createServer((client) => {
    client.on('error', () => {});
    if (proxy.refusing) return client.destroy();
    proxy.connections++;
    const upstream = connect(port, '127.0.0.1');
    upstream.on('error', () => client.destroy());
    const pair = { client, upstream };
    pairs.add(pair);
    client.on('data', (data) => proxy.held || upstream.write(data));
    upstream.on('data', (data) => proxy.held || client.write(data));
    client.on('close', () => (upstream.destroy(), pairs.delete(pair)));
    upstream.on('close', () => proxy.held || client.destroy());
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  server.unref();
  proxy.port = server.address().port;
  proxy.ws = `ws://127.0.0.1:${proxy.port}/ws`;
  proxy.cut = () => pairs.forEach(({ client, upstream }) => (client.destroy(), upstream.destroy()));
  proxy.stop = () => (proxy.cut(), server.close());
  return proxy;
}
