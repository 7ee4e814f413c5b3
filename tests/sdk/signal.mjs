// The signaling class of the library, in Node, against a real box and against a scripted server where a box never says
// what is to be tried.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { WebSocket, WebSocketServer } from 'ws';
import { CallboxError, Signal } from '../../sdk/js/dist/signal.mjs';
import { startBox, startProxy } from './box.mjs';

const WITHIN = 20_000;
const SECRET = 'a secret of this test alone, 32 bytes and more';
const unhandled = [];
process.on('unhandledRejection', (error) => unhandled.push(error));
const open = new Set();

/** A client that is closed at the end. */
function client(url, options = {}) {
  const signal = new Signal(url, { WebSocket, ...options });
  open.add(signal);
  return signal;
}

/** Resolves to the next event of that type. */
function next(signal, type, accept = () => true) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${type} came`)), WITHIN);
    const stop = signal.on(type, (detail) => {
      if (!accept(detail)) return;
      clearTimeout(timer);
      stop();
      resolve(detail);
    });
  });
}

const status = (signal, wanted) => (signal.status === wanted ? Promise.resolve() : next(signal, 'status', (one) => one === wanted));

describe('Signal against a box', { timeout: 240_000 }, () => {
  let box, proxy;
  before(async () => {
    box = await startBox();
    proxy = await startProxy(box.port);
  });
  after(() => {
    for (const signal of open) signal.leave();
    proxy?.stop();
    box?.stop();
  });

  it('joins, answers requests, passes messages on', async () => {
    const [ann, ben] = [client(box.ws), client(box.ws)];
    const joined = await ann.join({ roomId: 'first', identity: 'Ann' });
    assert.equal(joined.roomId, 'first');
    assert.equal(ann.peerId, joined.peerId);
    assert.ok(ann.ice.iceServers.length);
    await ben.join({ roomId: 'first', identity: 'Ben' });
    const received = next(ann, 'message');
    const { type } = await ben.request('message', { content: { text: 'hello' } });
    assert.equal(type, 'ack');
    assert.deepEqual((await received).content, { text: 'hello' });
    await assert.rejects(ben.request('kick', { peerId: 'nobody' }), CallboxError);
  });

  it('resumes under the same peer id, and misses nothing', async () => {
    const [ann, ben] = [client(proxy.ws), client(box.ws)];
    await ann.join({ roomId: 'resumed', identity: 'Ann' });
    await ben.join({ roomId: 'resumed', identity: 'Ben' });
    const { peerId } = ann;
    const [resumed, received] = [next(ann, 'resumed'), next(ann, 'message')];
    proxy.cut();
    await ben.request('message', { content: 'while you were away' });
    assert.equal((await resumed).gap, false);
    assert.equal((await received).content, 'while you were away');
    assert.equal(ann.peerId, peerId);
  });

  it('answers a request that was under way when the connection broke, once', async () => {
    const [ann, ben] = [client(proxy.ws), client(box.ws)];
    await ann.join({ roomId: 'once', identity: 'Ann' });
    await ben.join({ roomId: 'once', identity: 'Ben' });
    const got = [];
    ben.on('message', ({ content }) => got.push(content));
    const sent = ann.request('message', { content: 'exactly once' });
    proxy.cut();
    await sent;
    await ann.request('message', { content: 'and this' });
    await status(ben, 'online');
    while (got.length < 2) await next(ben, 'message');
    assert.deepEqual(got, ['exactly once', 'and this']);
  });

  it('keeps the first session where a second join is refused', async () => {
    const [ann, ben] = [client(proxy.ws), client(box.ws)];
    await ben.join({ roomId: 'guarded', create: { password: 'open sesame' } });
    await ann.join({ roomId: 'mine' });
    const { peerId } = ann;
    await assert.rejects(ann.join({ roomId: 'guarded', password: 'wrong' }), { code: 'bad-password' });
    const resumed = next(ann, 'resumed');
    proxy.cut();
    assert.equal((await resumed).roomId, 'mine');
    assert.equal(ann.peerId, peerId);
  });

  it('may try another password on the same client', async () => {
    const [ann, ben] = [client(box.ws), client(box.ws)];
    await ben.join({ roomId: 'again', create: { password: 'right' } });
    await assert.rejects(ann.join({ roomId: 'again', password: 'wrong' }), { code: 'bad-password' });
    assert.equal((await ann.join({ roomId: 'again', password: 'right' })).roomId, 'again');
  });

  it('lets a listener throw without harm to others', async () => {
    const ann = client(box.ws);
    const seen = [];
    const { error } = console;
    console.error = () => {};
    ann.on('joined', () => {
      throw new Error('an application has bugs');
    });
    ann.on('joined', async () => {
      throw new Error('in promises too');
    });
    ann.on('joined', () => seen.push('joined'));
    await ann.join({ roomId: 'thrown' });
    await ann.request('list');
    console.error = error;
    assert.deepEqual(seen, ['joined']);
  });

  it('finds a silent connection within five seconds while calls depend on it', async () => {
    const held = await startProxy(box.port);
    const ann = client(held.ws);
    await ann.join({ roomId: 'silent' });
    ann.attentive = true;
    held.held = true;
    const began = Date.now();
    await status(ann, 'reconnecting');
    const took = Date.now() - began;
    held.held = false;
    held.stop();
    // Five seconds are promised; a loaded machine adds some.
    assert.ok(took < 8_000, `${took} ms`);
    ann.leave();
  });

  it('joins anew, with a token that it asks for again, when the session is gone', async () => {
    const guarded = await startBox({ CALLBOX_AUTH__MODE: 'jwt', CALLBOX_AUTH__SECRET: SECRET });
    try {
      let asked = 0;
      const ann = client(guarded.ws, { token: async () => mint({ sub: `ann-${++asked}`, room: '*' }) });
      assert.equal((await ann.join({ roomId: 'tokens' })).identity, 'ann-1');
      const again = next(ann, 'joined');
      await guarded.kill();
      await guarded.start();
      assert.equal((await again).identity, 'ann-2');
      ann.leave();
    } finally {
      guarded.stop();
    }
  });

  it('says that it left, and why it was closed', async () => {
    const [ann, ben] = [client(box.ws), client(box.ws)];
    await ann.join({ roomId: 'ended' });
    await ben.join({ roomId: 'ended' });
    const [closed, left] = [next(ben, 'closed'), next(ann, 'closed')];
    const list = ann.request('kick', { peerId: ben.peerId });
    assert.deepEqual(await closed, { code: 4002, reason: 'kicked' });
    await list;
    const late = ann.request('list');
    ann.leave();
    assert.deepEqual(await left, { code: 1000, reason: 'left' });
    await assert.rejects(late, { code: 'closed' });
    await assert.rejects(ann.request('list'), { code: 'closed' });
  });

  describe('over HTTP, where WebSockets do not pass', () => {
    /** A WebSocket that a network breaks. */
    class Broken {
      readyState = 0;
      constructor() {
        setTimeout(() => this.onclose?.({ code: 1006, reason: '' }), 5);
      }
      send() {}
      close() {}
    }

    it('falls back by itself, and does all that a WebSocket does', async () => {
      const [ann, ben] = [client(box.ws, { WebSocket: Broken }), client(box.ws)];
      const joined = await ann.join({ roomId: 'http', identity: 'Ann' });
      assert.equal(joined.identity, 'Ann');
      await ben.join({ roomId: 'http', identity: 'Ben' });
      const received = next(ben, 'message');
      assert.equal((await ann.request('message', { content: { text: 'by POST' } })).type, 'ack');
      assert.deepEqual((await received).content, { text: 'by POST' });
      const back = next(ann, 'message');
      await ben.request('message', { content: 'by an event' });
      assert.equal((await back).content, 'by an event');
      for (let n = 0; n < 20; n++) void ann.request('message', { content: n });
      const order = [];
      ben.on('message', ({ content }) => order.push(content));
      while (order.length < 20) await next(ben, 'message');
      assert.deepEqual(order, Array.from({ length: 20 }, (_, n) => n), 'in the order in which they were sent');
      const gone = next(ben, 'peer-left');
      ann.leave();
      assert.equal((await gone).reason, 'left');
    });

    it('polls where a proxy collects the events', async () => {
      const asked = [];
      const collecting = (url, init) => {
        asked.push(String(url).replace(/.*\/v1\/sessions/, '').replace(/^\/[^/]+/, '/ID'));
        if (!String(url).endsWith('/events')) return fetch(url, init);
        return new Promise((_, reject) => init.signal.addEventListener('abort', () => reject(init.signal.reason)));
      };
      const [ann, ben] = [client(box.ws, { transport: 'http', fetch: collecting }), client(box.ws)];
      await ann.join({ roomId: 'polled', identity: 'Ann' });
      assert.ok(asked.some((path) => path.startsWith('/ID/messages?wait=')), asked.join());
      await ben.join({ roomId: 'polled', identity: 'Ben' });
      const received = next(ann, 'message');
      await ben.request('message', { content: 'polled' });
      assert.equal((await received).content, 'polled');
    });

    it('resumes its session after the network was away, and misses nothing', async () => {
      let away = false;
      const flaky = async (url, init) => {
        if (away) throw new TypeError('network');
        return fetch(url.replace(box.url, `http://127.0.0.1:${proxy.port}/`), init);
      };
      const [ann, ben] = [client(box.ws, { transport: 'http', fetch: flaky }), client(box.ws)];
      await ann.join({ roomId: 'http-resumed', identity: 'Ann' });
      await ben.join({ roomId: 'http-resumed', identity: 'Ben' });
      const { peerId } = ann;
      away = true;
      const [resumed, received] = [next(ann, 'resumed'), next(ann, 'message')];
      proxy.cut();
      await status(ann, 'reconnecting');
      await ben.request('message', { content: 'while you were away' });
      away = false;
      assert.equal((await resumed).gap, false);
      assert.equal((await received).content, 'while you were away');
      assert.equal(ann.peerId, peerId);
    });

    it('is told why it was closed', async () => {
      const [host, ann] = [client(box.ws), client(box.ws, { transport: 'http' })];
      await host.join({ roomId: 'http-kicked' });
      await ann.join({ roomId: 'http-kicked' });
      const closed = next(ann, 'closed');
      await host.request('kick', { peerId: ann.peerId });
      assert.deepEqual(await closed, { code: 4002, reason: 'kicked' });
    });
  });

  it('settles what nobody answers', async () => {
    const ann = client('ws://127.0.0.1:9/ws', { transport: 'websocket' });
    await assert.rejects(ann.join({ roomId: 'nowhere' }, { timeout: 300 }), { code: 'timeout' });
    assert.equal(ann.status, 'closed');
    const ben = client('ws://127.0.0.1:9/ws', { transport: 'websocket' });
    const given = new AbortController();
    const joining = ben.join({ roomId: 'nowhere' }, { signal: given.signal });
    given.abort();
    await assert.rejects(joining, { code: 'aborted' });
  });
});

describe('Signal against a scripted server', { timeout: 120_000 }, () => {
  let server, url, connected;
  before(async () => {
    server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
    await once(server, 'listening');
    url = `ws://127.0.0.1:${server.address().port}/ws`;
  });
  after(() => server.close());

  /** Plays a server: `play(socket, frame, n)` sees each frame of connection n. */
  function script(play) {
    let connections = 0;
    connected = [];
    server.removeAllListeners('connection');
    server.on('connection', (socket) => {
      const n = ++connections;
      connected.push({ socket, at: Date.now() });
      const say = (frame) => socket.send(JSON.stringify(frame));
      say({ type: 'welcome', peerId: 'me', protocol: 1, heartbeat: 25, serverTime: 0 });
      socket.on('message', (data) => play({ socket, frame: JSON.parse(data), n, say }));
    });
  }
  const joined = (id, more = {}) => ({ type: 'joined', seq: 1, id, roomId: 'r', peerId: 'me', identity: 'me', role: 'host', peers: [], room: {}, iceServers: [{ urls: 'stun:own' }], iceTransportPolicy: 'all', ttl: 60, expiresAt: 1, resumeToken: 't', resumeWindow: 30, ...more });
  const peer = (peerId) => ({ peerId, identity: peerId, role: 'member', state: {}, metadata: null, joinedAt: 0, connection: 'online' });

  it('takes ICE servers from the server’s own frames only', async () => {
    script(({ frame, say }) => {
      if (frame.type !== 'join') return;
      say(joined(frame.id));
      say({ type: 'message', seq: 2, from: 'x', content: 1, iceServers: [{ urls: 'stun:evil' }], iceTransportPolicy: 'all' });
      say({ type: 'ack', seq: 3, id: 'not asked', iceServers: [{ urls: 'stun:evil' }] });
      say({ type: 'notify', seq: 4, content: 0 });
    });
    const ann = client(url);
    const last = next(ann, 'notify');
    await ann.join({ roomId: 'r' });
    await last;
    assert.equal(ann.ice.iceServers[0].urls, 'stun:own');
    ann.leave();
  });

  it('puts a list of peers together that comes in parts', async () => {
    script(({ frame, say }) => {
      if (frame.type !== 'join') return;
      say(joined(frame.id, { peers: [peer('a')], more: true }));
      say({ type: 'message', seq: 2, from: 'a', content: 'early' });
      say({ type: 'peers', seq: 3, peers: [peer('b')], more: true });
      say({ type: 'peers', seq: 4, peers: [peer('c')] });
    });
    const ann = client(url);
    const order = [];
    ann.on('joined', ({ peers }) => order.push(peers.length));
    ann.on('message', ({ content }) => order.push(content));
    const received = next(ann, 'message');
    const { peers } = await ann.join({ roomId: 'r' });
    await received;
    assert.deepEqual(peers.map(({ peerId }) => peerId), ['a', 'b', 'c']);
    assert.deepEqual(order, [3, 'early'], 'nothing overtakes the list');
    ann.leave();
  });

  it('counts the clock of a drain once', async () => {
    script(({ frame, say, socket, n }) => {
      if (frame.type === 'resume') say({ ...joined(frame.id), type: 'resumed', replayed: 0, gap: false });
      if (frame.type !== 'join' || n > 1) return;
      say(joined(frame.id));
      say({ type: 'draining', seq: 2, reconnectIn: 2_000 });
      setTimeout(() => socket.close(1001), 1_500);
    });
    const ann = client(url);
    const draining = next(ann, 'draining').then(() => Date.now());
    const resumed = next(ann, 'resumed');
    await ann.join({ roomId: 'r' });
    await resumed;
    const waited = connected[1].at - (await draining);
    assert.ok(waited >= 1_900 && waited < 3_400, `${waited} ms from the message, not from the close`);
    ann.leave();
  });

  it('comes back at once after 1012, with backoff after 1013, and never after 4001, 4002, 4004, 4007', async () => {
    let code = 1012;
    let refusals = 0;
    script(({ frame, say, socket }) => {
      if (frame.type === 'resume' && refusals) return refusals--, socket.close(code);
      if (frame.type === 'resume') say({ ...joined(frame.id), type: 'resumed', replayed: 0, gap: false });
      if (frame.type === 'join') say(joined(frame.id));
      if (frame.type === 'bye') socket.close(code);
    });
    const ann = client(url);
    await ann.join({ roomId: 'r' });
    const back = next(ann, 'resumed');
    const began = Date.now();
    ann.request('bye');
    await back;
    assert.ok(connected[1].at - began < 1_000, 'at once');
    ann.leave();

    code = 1013;
    refusals = 2;
    const ben = client(url);
    await ben.join({ roomId: 'r' });
    const from = connected.length;
    const resumed = next(ben, 'resumed');
    ben.request('bye');
    await resumed;
    const [first, second, third] = connected.slice(from).map(({ at }) => at);
    assert.ok(third - second >= 150 && second - first >= 80, 'it waits longer each time');
    ben.leave();

    for (const final of [4001, 4002, 4004, 4007]) {
      code = final;
      const carl = client(url);
      await carl.join({ roomId: 'r' });
      const before = connected.length;
      const closed = next(carl, 'closed');
      carl.request('bye');
      assert.equal((await closed).code, final);
      await new Promise((resolve) => setTimeout(resolve, 600));
      assert.equal(connected.length, before, `${final} is final`);
    }
  });

  it('survives frames that make no sense', async () => {
    script(({ frame, say, socket }) => {
      if (frame.type !== 'join') return;
      for (const nonsense of ['{', 'null', '[]', '7', '{"type":7}', '{"type":"ice-servers","iceServers":"all of them"}']) socket.send(nonsense);
      say(joined(frame.id, { iceServers: 'none' }));
    });
    const ann = client(url);
    await ann.join({ roomId: 'r' });
    assert.equal(ann.ice, null);
    ann.leave();
  });
});

it('left no rejection unhandled', () => assert.deepEqual(unhandled, []));

function mint(claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ exp: Math.floor(Date.now() / 1000) + 600, ...claims })}`;
  return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`;
}
