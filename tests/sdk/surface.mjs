// What an application may rely on of Signal, in Node: its whole surface, requests that wait where the server asks for it, the
// runtime's own WebSocket, timers that come late, and that the types name every frame, field and error code of the server.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { WebSocket, WebSocketServer } from 'ws';
import { Signal } from '../../sdk/js/dist/signal.mjs';
import { startBox, startProxy } from './box.mjs';

const WITHIN = 60_000;
const open = new Set();
const client = (url, options = {}) => {
  const signal = new Signal(url, { WebSocket, ...options });
  open.add(signal);
  return signal;
};
const next = (signal, type) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${type} came`)), WITHIN);
    signal.once(type, (detail) => (clearTimeout(timer), resolve(detail)));
  });
after(() => open.forEach((signal) => signal.leave()));

describe('what Signal offers, against a box', { timeout: 480_000 }, () => {
  let box;
  before(async () => {
    box = await startBox({ CALLBOX_SIGNAL__CANDIDATE_RATE: '5/s' });
  });
  after(() => box?.stop());

  it('registers a name, calls, and takes fresh credentials from the answer to its own request', async () => {
    const [ann, ben] = [client(box.ws), client(box.ws)];
    assert.equal((await ann.register({ identity: 'ann' })).identity, 'ann');
    await ben.register({ identity: 'ben' });
    const rings = next(ben, 'call');
    const { callId } = await ann.request('call', { to: 'ben' });
    assert.equal((await rings).callId, callId);
    const fresh = next(ben, 'ice');
    const { iceServers } = await ben.request('accept', { callId });
    assert.ok(iceServers.length);
    assert.deepEqual((await fresh).iceServers, iceServers);
    assert.deepEqual(ben.ice.iceServers, iceServers);
  });

  it('stops calling a listener: after one event, by off, and by what on returned', async () => {
    const [ann, ben] = [client(box.ws), client(box.ws)];
    await ann.join({ roomId: 'listeners' });
    await ben.join({ roomId: 'listeners' });
    const got = [];
    const off = ({ content }) => got.push(`off ${content}`);
    ben.once('message', ({ content }) => got.push(`once ${content}`));
    ben.on('message', off);
    const stop = ben.on('message', ({ content }) => got.push(`on ${content}`));
    const say = async (content) => {
      const came = next(ben, 'message');
      await ann.request('message', { content });
      await came;
    };
    await say(1);
    ben.off('message', off);
    await say(2);
    stop();
    await say(3);
    assert.deepEqual(got, ['once 1', 'off 1', 'on 1', 'on 2']);
  });

  it('sends candidates again that came too fast, in their order, and ends no connection', async () => {
    const [ann, ben] = [client(box.ws), client(box.ws)];
    await ann.join({ roomId: 'fast' });
    await ben.join({ roomId: 'fast' });
    const got = [];
    ben.on('candidate', ({ candidate }) => got.push(candidate.n));
    let refusals = 0;
    let lost = 0;
    ann.on('error', ({ code }) => code === 'rate-limited' && refusals++);
    ann.on('status', () => lost++);
    // A burst of fifty passes.
    const send = (n) => ann.request('candidate', { candidate: { candidate: '', n }, to: ben.peerId }, { patient: true });
    const sent = Array.from({ length: 60 }, (_, n) => send(n));
    await Promise.race([sent.at(-1), next(ann, 'error')]);
    // What is sent meanwhile waits behind them.
    sent.push(send(60), send(61));
    await Promise.all(sent);
    while (got.length < 62) await next(ben, 'candidate');
    assert.deepEqual(got, Array.from({ length: 62 }, (_, n) => n));
    assert.ok(refusals > 0, 'the box refused some');
    assert.equal(lost, 0);
  });

  it('tells who does not wait when to come again', async () => {
    const [ann, ben] = [client(box.ws), client(box.ws)];
    await ann.join({ roomId: 'told' });
    await ben.join({ roomId: 'told' });
    const all = await Promise.allSettled(Array.from({ length: 60 }, () => ann.request('candidate', { candidate: null, to: ben.peerId })));
    const refused = all.find(({ status }) => status === 'rejected');
    assert.equal(refused?.reason.code, 'rate-limited');
    assert.equal(refused.reason.name, 'CallboxError');
    assert.ok(refused.reason.retryAfter > 0, String(refused.reason.retryAfter));
  });

  it('refuses at once what is no JSON, and says what is wrong', async () => {
    const ann = client(box.ws);
    await ann.join({ roomId: 'json' });
    const circle = {};
    circle.circle = circle;
    for (const content of [1n, circle]) await assert.rejects(ann.request('message', { content }), { code: 'invalid-message' });
    assert.equal((await ann.request('list')).type, 'peers');
  });

  it('fails a message that is too large, and goes on, over a WebSocket and over HTTP', async () => {
    for (const transport of ['websocket', 'http']) {
      const ann = client(box.ws, { transport });
      await ann.join({ roomId: `large-${transport}` });
      const { peerId } = ann;
      const list = ann.request('message', { content: 'x'.repeat(70_000) });
      const small = ann.request('list');
      await assert.rejects(list, { code: 'too-large' });
      assert.equal((await small).type, 'peers');
      assert.equal(ann.peerId, peerId);
    }
  });

  it('says what may be wrong where nothing answers, where there is no WebSocket, and what an address is', async () => {
    const nowhere = client('ws://127.0.0.1:9/ws', { transport: 'websocket' });
    await assert.rejects(nowhere.join({ roomId: 'r' }, { timeout: 400 }), ({ code, message }) => code === 'timeout' && /ws:\/\/127.0.0.1:9\/ws cannot be reached.*allowed_origins/.test(message));
    await assert.rejects(client('').join({ roomId: 'r' }), ({ code, message }) => code === 'unsupported' && /not the address of a box/.test(message));
    assert.throws(() => new Signal(), { code: 'unsupported' });
    const own = globalThis.WebSocket;
    delete globalThis.WebSocket;
    try {
      await assert.rejects(new Signal(box.ws, { transport: 'websocket' }).join({ roomId: 'r' }), ({ code, message }) => code === 'unsupported' && /WebSocket/.test(message));
      // Without one it speaks HTTP.
      const ann = new Signal(box.ws);
      open.add(ann);
      assert.equal((await ann.join({ roomId: 'none' })).roomId, 'none');
    } finally {
      if (own) globalThis.WebSocket = own;
    }
  });

  it('uses the WebSocket of the runtime by itself', async () => {
    const library = fileURLToPath(new URL('../../sdk/js/dist/signal.mjs', import.meta.url));
    const lines = `
      import { Signal } from ${JSON.stringify(library)};
      const signal = new Signal(${JSON.stringify(box.ws)});
      const { roomId } = await signal.join({ roomId: 'own' });
      console.log(roomId, signal.status);
      signal.leave();`;
    // Node has had one behind this option since 20.10, and without it since 22.
    const words = [...(process.allowedNodeEnvironmentFlags.has('--experimental-websocket') ? ['--experimental-websocket'] : []), '--no-warnings', '--input-type=module', '-e', lines];
    const { stdout } = await promisify(execFile)(process.execPath, words, { timeout: WITHIN });
    assert.equal(stdout.trim(), 'own online');
    for (const [program, ...before] of [['deno', 'eval', '--ext=mjs'], ['bun', '-e']]) {
      const found = (process.env.PATH ?? '').split(':').some((folder) => existsSync(`${folder}/${program}`));
      if (!found) continue;
      const { stdout } = await promisify(execFile)(program, [...before, lines], { timeout: WITHIN });
      assert.equal(stdout.trim(), 'own online', program);
    }
  });

  it('keeps a connection whose answer is there, though the timer that waits for it comes late', async () => {
    const ann = client(box.ws);
    await ann.join({ roomId: 'late' });
    const statuses = [];
    ann.on('status', (status) => statuses.push(status));
    ann.probe(600);
    // As a page whose timers the browser held back: when they run, the answer has not been read yet.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2_500);
    await ann.request('list');
    assert.deepEqual(statuses, []);
  });
});

describe('a token in the address', { timeout: 60_000 }, () => {
  it('opens a session over HTTP as over a WebSocket', async () => {
    const secret = 'a secret of this test alone, 32 bytes and more';
    const box = await startBox({ CALLBOX_AUTH__MODE: 'jwt', CALLBOX_AUTH__SECRET: secret });
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: 'ann', room: 'r', exp: Math.floor(Date.now() / 1000) + 600 })}`;
    const token = `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
    try {
      for (const transport of ['websocket', 'http']) {
        const ann = client(`${box.ws}?token=${token}`, { transport });
        assert.equal((await ann.join({ roomId: 'r' })).identity, 'ann');
        ann.leave();
      }
    } finally {
      box.stop();
    }
  });
});

describe('a connection that falls silent while a call runs', () => {
  it('is found within five seconds, whenever it does', async (test) => {
    test.mock.timers.enable({ apis: ['setTimeout', 'setInterval', 'Date'] });
    const soon = async () => {
      for (let n = 0; n < 10; n++) await Promise.resolve();
    };
    let worst = 0;
    for (let phase = 0; phase < 1_600; phase += 50) {
      let silent = false;
      const sockets = [];
      class Played {
        readyState = 1;
        constructor() {
          sockets.push(this);
        }
        say(frame) {
          if (!silent) this.onmessage({ data: JSON.stringify(frame) });
        }
        send(text) {
          const { type, id } = JSON.parse(text);
          if (type === 'join') this.say({ type: 'joined', seq: 1, id, peerId: 'me', peers: [], room: {}, resumeToken: 't', resumeWindow: 30 });
          if (type === 'ping') this.say({ type: 'pong', id });
        }
        close() {}
      }
      const ann = new Signal('ws://box.example/ws', { WebSocket: Played, transport: 'websocket' });
      const joined = ann.join({ roomId: 'r' });
      sockets[0].say({ type: 'welcome', peerId: 'me', protocol: 1, heartbeat: 25, serverTime: 0 });
      await soon();
      await joined;
      ann.attentive = true;
      test.mock.timers.tick(3_000 + phase);
      // The last that came over it; then nothing does.
      sockets[0].say({ type: 'notify', content: 0 });
      silent = true;
      let ms = 0;
      while (ann.status === 'online' && ms < 20_000) {
        test.mock.timers.tick(10);
        ms += 10;
      }
      worst = Math.max(worst, ms);
      ann.leave();
    }
    assert.ok(worst <= 5_000, `${worst} ms`);
  });
});

describe('a short resume window', { timeout: 60_000 }, () => {
  it('sees several attempts, and the same session again', async () => {
    const box = await startBox({ CALLBOX_SIGNAL__RESUME_WINDOW: '3s' });
    const proxy = await startProxy(box.port);
    try {
      const ann = client(proxy.ws);
      await ann.join({ roomId: 'short' });
      const { peerId } = ann;
      const resumed = next(ann, 'resumed');
      proxy.refusing = true;
      proxy.cut();
      await new Promise((resolve) => setTimeout(resolve, 1_500));
      proxy.refusing = false;
      const from = Date.now();
      await resumed;
      assert.equal(ann.peerId, peerId);
      assert.ok(Date.now() - from < 1_400, 'the next attempt comes well within the window');
      ann.leave();
    } finally {
      proxy.stop();
      box.stop();
    }
  });
});

describe('requests that wait, against a scripted server', { timeout: 60_000 }, () => {
  it('go one after the other once the time has passed, and are sent anew on another connection', async () => {
    const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
    await once(server, 'listening');
    const seen = [];
    let connections = 0;
    let refuse = 2;
    server.on('connection', (socket) => {
      const n = ++connections;
      const say = (frame) => socket.send(JSON.stringify(frame));
      say({ type: 'welcome', peerId: 'me', protocol: 1, heartbeat: 25, serverTime: 0 });
      socket.on('message', (data) => {
        const { type, id, n: number } = JSON.parse(data);
        const session = { peerId: 'me', identity: 'me', iceServers: [], resumeToken: 't', resumeWindow: 30, peers: [], room: {} };
        if (type === 'join') return say({ type: 'joined', seq: 1, id, ...session });
        if (type === 'resume') return say({ type: 'resumed', id, ...session, replayed: 0, gap: false });
        if (type !== 'offer') return;
        seen.push([n, number, Date.now()]);
        if (refuse-- > 0) return say({ type: 'error', id, code: 'rate-limited', message: 'too many requests', retryAfter: 400 });
        if (number === 4 && n === 1) return socket.close(1012);
        say({ type: 'ack', id });
      });
    });
    const ann = client(`ws://127.0.0.1:${server.address().port}/ws`, { transport: 'websocket' });
    try {
      await ann.join({ roomId: 'r' });
      const send = (n) => ann.request('offer', { n }, { patient: true });
      const began = Date.now();
      const refused = new Promise((resolve) => {
        let n = 0;
        ann.on('error', () => ++n === 2 && resolve());
      });
      const sent = [send(1), send(2)];
      await refused;
      sent.push(send(3), send(4), send(5));
      await Promise.all(sent);
      assert.deepEqual(seen.map(([connection, n]) => `${connection}: ${n}`), ['1: 1', '1: 2', '1: 1', '1: 2', '1: 3', '1: 4', '2: 4', '2: 5']);
      assert.ok(seen[2][2] - began >= 390, 'it waits as long as it was told');
    } finally {
      ann.leave();
      server.close();
    }
  });
});

describe('what seals frames and messages', { timeout: 60_000 }, () => {
  const bytes = (hex) => Uint8Array.from(Buffer.from(hex, 'hex'));
  const hex = (data) => Buffer.from(data).toString('hex');
  let SFrame;
  before(async () => {
    const { transform } = await import('../../sdk/js/node_modules/esbuild/lib/main.js');
    const { code } = await transform(readFileSync(new URL('../../sdk/js/src/sframe.ts', import.meta.url), 'utf8'), { loader: 'ts', format: 'esm' });
    ({ SFrame } = await import(`data:text/javascript,${encodeURIComponent(code)}`));
  });

  it('opens the test vector of RFC 9605, appendix C.3, for AES_128_GCM_SHA256_128', async () => {
    const sframe = new SFrame();
    sframe.setKey(bytes('000102030405060708090a0b0c0d0e0f'));
    const metadata = '4945544620534672616d65205747';
    const sealed = '9901234567b7412c2513a1b66dbb48841bbaf17f598751176ad847681a69c6d0b091c07018ce4adb34eb';
    const opened = await sframe.open(bytes(metadata + sealed), metadata.length / 2);
    assert.equal(hex(opened), `${metadata}64726166742d696574662d736672616d652d656e63`);
  });

  it('opens what it sealed, under every counter, and nothing that was changed or has another key', async () => {
    const [ann, ben, eve] = [new SFrame(), new SFrame(), new SFrame()];
    for (const one of [ann, ben]) one.setKey(bytes('00'.repeat(16)));
    eve.setKey(bytes('11'.repeat(16)));
    for (let n = 0; n < 300; n++) {
      const sealed = await ann.seal(bytes('abcd'), bytes('01'));
      assert.equal(hex(await ben.open(sealed, 1)), '01abcd');
      if (n % 100) continue;
      await assert.rejects(eve.open(sealed, 1));
      for (let at = 0; at < sealed.length; at++) {
        const changed = Uint8Array.from(sealed);
        changed[at] ^= 1;
        await assert.rejects(ben.open(changed, 1), undefined, `byte ${at}`);
      }
    }
    // The key before the present one still opens; the one before that does not.
    const old = await ann.seal(bytes('abcd'));
    ben.setKey(bytes('22'.repeat(16)));
    assert.equal(hex(await ben.open(old)), 'abcd');
    ben.setKey(bytes('33'.repeat(16)));
    await assert.rejects(ben.open(old));
  });
});

describe('the types', { timeout: 60_000 }, () => {
  const text = readFileSync(new URL('../../sdk/js/dist/callbox.d.ts', import.meta.url), 'utf8');
  const interfaces = new Map(
    [...text.matchAll(/^export interface (\w+)(?: extends ([\w, ]+))? \{\n([\s\S]*?)^\}/gm)].map(([, name, parents = '', body]) => [name, { parents: parents.split(/, */).filter(Boolean), body }]),
  );
  /** The fields that a type has: of an interface with what it extends, or of an intersection. */
  const fieldsOf = (type) => promisesOf(type).map(([name]) => name);
  /** The same, each with whether it is always there. */
  const promisesOf = (type, partial = false) =>
    type.split('&').flatMap((part) => {
      const { parents, body } = interfaces.get(/\w+/.exec(part)?.[0]) ?? { parents: [], body: /\{([\s\S]*)\}/.exec(part)?.[1] ?? '' };
      const named = /^\s*Partial<(\w+)>/.exec(part);
      if (named) return promisesOf(named[1], true);
      const own = body.matchAll(/(?:^|;|\{)\s*(?:\/\*\*[^*]*\*\/\s*)?'?([\w-]+)'?(\??):/gm);
      return [...parents.flatMap((parent) => promisesOf(parent, partial)), ...[...own].map(([, name, mark]) => [name, !partial && !mark])];
    });

  let schema;
  before(async () => {
    const box = await startBox();
    schema = await fetch(`${box.url}v1/schema.json`).then((answer) => answer.json());
    box.stop();
  });

  it('name every frame of the server, with each of its fields', () => {
    const frames = new Map([...interfaces.get('Frames').body.matchAll(/^ {4}'?([\w-]+)'?: ([\s\S]*?);\n(?= {4}['\w]|$)/gm)].map(([, type, fields]) => [type, fields]));
    const missing = [];
    for (const [name, { properties }] of Object.entries(schema.$defs)) {
      const [side, type] = name.split('.');
      if (side !== 'server') continue;
      const fields = frames.has(type) ? fieldsOf(frames.get(type)) : [];
      for (const field of Object.keys(properties)) if (!fields.includes(field)) missing.push(`${type}.${field}`);
    }
    assert.deepEqual(missing, []);
    for (const [described, typed] of [['Peer', 'PeerInfo'], ['Room', 'RoomInfo']]) {
      assert.deepEqual(Object.keys(schema.$defs[described].properties).sort(), fieldsOf(typed).sort(), typed);
    }
  });

  it('promise no field that a frame may lack, and name none that it cannot have', () => {
    const frames = [...interfaces.get('Frames').body.matchAll(/^ {4}'?([\w-]+)'?: ([\s\S]*?);\n(?= {4}['\w]|$)/gm)].map(([, type, fields]) => [`server.${type}`, fields]);
    assert.ok(frames.length > 25, 'the frames were read');
    for (const [described, typed] of [...frames, ['Peer', 'PeerInfo'], ['Room', 'RoomInfo']]) {
      const { properties, required } = schema.$defs[described];
      for (const [field, isPromised] of promisesOf(typed)) {
        assert.ok(field in properties, `${described}.${field} is not in the schema`);
        assert.ok(!isPromised || required.includes(field), `${described}.${field} may be absent`);
      }
    }
  });

  it('name what a client may say to enter', () => {
    for (const [described, typed] of [['client.join', 'JoinFields'], ['client.register', 'RegisterFields'], ['RoomSettings', 'CreateRoom']]) {
      const fields = Object.keys(schema.$defs[described].properties).filter((field) => !['type', 'id'].includes(field));
      assert.deepEqual(fieldsOf(typed).sort(), fields.sort(), typed);
    }
  });

  it('name every error code and every reason of leaving', () => {
    const union = (name) => [...new RegExp(`type ${name} = ([^;]*);`).exec(text)[1].matchAll(/'([\w-]+)'/g)].map(([, one]) => one).sort();
    assert.deepEqual(union('ErrorCode'), [...schema.$defs.ErrorCode.enum].sort());
    assert.deepEqual(union('LeaveReason'), [...schema.$defs.LeaveReason.enum].sort());
    assert.deepEqual(union('Role'), [...schema.$defs.Role.enum].sort());
  });
});
