// Socket.IO's clients 2, 3 and 4, by every way that they know, against callbox and, the same tests, against
// its own server.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { io as io4 } from 'socket.io-client';
import io2 from 'socket.io-client-2';
import client3 from 'socket.io-client-3';
import { SOON, freePort, servePage, startBox, startBrowser, startSocketIo } from './harness.mjs';

const clients = { 2: io2, 3: client3.io ?? client3, 4: io4 };
const ways = { polling: ['polling'], websocket: ['websocket'], 'polling, then websocket': ['polling', 'websocket'] };

/** Everything that a socket receives. */
function listen(socket) {
  const received = [];
  const waiting = [];
  const take = () => {
    for (const wait of [...waiting]) {
      const at = received.findIndex(([name]) => name === wait.name);
      if (at < 0) continue;
      waiting.splice(waiting.indexOf(wait), 1);
      wait.resolve(received.splice(at, 1)[0].slice(1));
    }
  };
  for (const name of ['room-users', 'user-connected', 'user-joined', 'user-left', 'offer', 'chat', 'file', 'ice-servers']) {
    socket.on(name, (...rest) => {
      received.push([name, ...rest]);
      take();
    });
  }
  return {
    received,
    next: (name) =>
      new Promise((resolve) => {
        waiting.push({ name, resolve });
        take();
      }),
  };
}

for (const [name, start] of [
  ['callbox', startBox],
  ['its own server', startSocketIo],
]) {
  describe(`Socket.IO at ${name}`, { timeout: 6 * SOON }, () => {
    let server;
    const sockets = [];
    const dial = async (io, transports) => {
      const url = `http://${server.host}:${server.port}`;
      const socket = io(url, { transports, reconnection: false, forceNew: true });
      sockets.push(socket);
      const ears = listen(socket);
      await new Promise((resolve, reject) => {
        socket.on('connect', resolve);
        socket.on('connect_error', reject);
      });
      return { socket, ...ears };
    };
    const join = (client, room) => new Promise((resolve) => client.socket.emit('join', room, resolve));
    before(async () => {
      server = await start();
    });
    after(() => {
      for (const socket of sockets) socket.close();
      server.stop();
    });

    for (const [version, io] of Object.entries(clients)) {
      for (const [way, transports] of Object.entries(ways)) {
        test(`client ${version} by ${way}`, async () => {
          const room = `room ${version} ${way}`;
          const [a, b, c] = [await dial(io, transports), await dial(io4, ['websocket']), await dial(io, transports)];
          const [own] = [await join(a, room)];
          assert.deepEqual([own.ok, own.id, own.peers], [true, a.socket.id, []]);
          assert.deepEqual(await a.next('room-users'), [[]]);
          assert.deepEqual((await join(b, room)).peers, [a.socket.id]);
          assert.deepEqual(await a.next('user-connected'), [b.socket.id]);
          assert.equal((await a.next('user-joined'))[0].id, b.socket.id);
          await join(c, room);
          // To one, with the sender's id; whatever the client says it is.
          b.socket.emit('offer', { to: a.socket.id, sdp: 'v=0\r\n…💜', from: 'eve' });
          const [offer] = await a.next('offer');
          assert.deepEqual([offer.sdp, offer.from, offer.sender], ['v=0\r\n…💜', b.socket.id, b.socket.id]);
          const answered = new Promise((resolve) => a.socket.emit('offer', { to: b.socket.id, n: 1 }, resolve));
          assert.equal((await answered).ok, true);
          assert.equal((await b.next('offer'))[0].from, a.socket.id);
          // To all others.
          a.socket.emit('chat', 'hello', [1]);
          for (const other of [b, c]) assert.deepEqual(await other.next('chat'), ['hello', [1], a.socket.id]);
          // Bytes, both ways.
          a.socket.emit('file', { to: b.socket.id, name: 'x', bytes: Buffer.from([1, 2, 255]) });
          assert.deepEqual([...(await b.next('file'))[0].bytes], [1, 2, 255]);
          b.socket.emit('file', { to: a.socket.id, bytes: Buffer.from('hi') });
          assert.deepEqual([...new Uint8Array((await a.next('file'))[0].bytes)], [104, 105]);
          assert.equal(c.received.some(([event]) => event === 'offer' || event === 'file'), false, 'meant for another one');
          // Many at once keep their order.
          for (let n = 0; n < 50; n += 1) a.socket.emit('chat', { n });
          for (let n = 0; n < 50; n += 1) assert.equal((await b.next('chat'))[0].n, n);
          if (transports.length > 1) {
            while (a.socket.io.engine.transport.name !== 'websocket') await new Promise((resolve) => setTimeout(resolve, 20));
            a.socket.emit('chat', { n: 'after the upgrade' });
            assert.equal((await b.next('chat'))[0].n, 'after the upgrade');
          }
          // What is said before the connection is there goes out in one go. Socket.IO's own server lost it here in 19 of 25
          // tries of client 3 by WebSocket.
          if (name === 'callbox') {
            const d = io(`http://${server.host}:${server.port}`, { transports, reconnection: false, forceNew: true });
            sockets.push(d);
            d.emit('join', room);
            d.emit('chat', { n: 'in one go' });
            assert.equal((await b.next('chat'))[0].n, 'in one go');
          }
          const { id } = a.socket;
          a.socket.close();
          assert.deepEqual(await b.next('user-left'), [id]);
        });
      }
    }
  });
}

for (const [name, start] of [
  ['callbox', (port) => startBox({ CALLBOX_HTTP__LISTEN: `["127.0.0.1:${port}"]`, CALLBOX_DRAIN__GRACE: '1s' })],
  ['its own server', (port) => startSocketIo({ PORT: `${port}` })],
]) {
  test(`clients of Socket.IO come back to ${name} when it has been restarted`, { timeout: 4 * SOON }, async () => {
    const port = await freePort();
    let server = await start(port);
    const sockets = Object.entries(clients).flatMap(([version, io]) =>
      [['polling'], ['websocket']].map((transports) => {
        const options = { transports, forceNew: true, reconnectionDelay: 100, reconnectionDelayMax: 500 };
        return { name: `client ${version} by ${transports}`, socket: io(`http://127.0.0.1:${port}`, options) };
      }),
    );
    /** Waits until each has been connected `times` times and has joined a room. */
    const joined = async (times) => {
      const until = Date.now() + SOON;
      for (const one of sockets) {
        while ((one.joins ?? 0) < times) {
          assert.notEqual(one.reason, 'io server disconnect', one.name);
          assert.ok(Date.now() < until, `${one.name} is not back: ${one.reason}`);
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      }
    };
    try {
      for (const one of sockets) {
        one.socket.on('disconnect', (reason) => (one.reason = reason));
        one.socket.on('connect', () => one.socket.emit('join', 'r', () => (one.joins = (one.joins ?? 0) + 1)));
      }
      await joined(1);
      await server.end();
      server = await start(port);
      await joined(2);
    } finally {
      for (const { socket } of sockets) socket.close();
      server.stop();
    }
  });
}

describe('what callbox does that the server of Socket.IO does not', { timeout: 3 * SOON }, () => {
  let box;
  before(async () => {
    box = await startBox({ CALLBOX_HTTP__ALLOWED_ORIGINS: '["*"]' });
  });
  after(() => box.stop());

  test('joins bring ICE servers, and no client makes others believe in its own', async () => {
    const url = `http://${box.host}:${box.port}`;
    const [a, b] = [io4(url, { forceNew: true }), io4(url, { forceNew: true })];
    const [earsA, earsB] = [listen(a), listen(b)];
    for (const socket of [a, b]) {
      if (!socket.connected) await once(socket, 'connect');
      await new Promise((resolve) => socket.emit('join', 'r', resolve));
    }
    assert.ok((await earsA.next('ice-servers'))[0].iceServers.length > 0);
    await earsB.next('ice-servers');
    for (const own of ['ice-servers', 'user-joined', 'user-left', 'room-users']) a.emit(own, { iceServers: [], to: b.id });
    a.emit('chat', 'last');
    await earsB.next('chat');
    assert.equal(earsB.received.some(([name]) => name !== 'room-users'), false, JSON.stringify(earsB.received));
    a.close();
    b.close();
  });

  test('a client that the operator removes stays away', async () => {
    const guarded = await startBox({ CALLBOX_AUTH__ADMIN_TOKEN: 'sesame' });
    const base = `http://${guarded.host}:${guarded.port}`;
    const headers = { authorization: 'Bearer sesame' };
    const socket = io4(base, { forceNew: true, transports: ['websocket'], reconnectionDelay: 50 });
    try {
      const reason = new Promise((resolve, reject) => {
        socket.on('disconnect', resolve);
        setTimeout(() => reject(new Error('is not sent away')), SOON).unref();
      });
      if (!socket.connected) await once(socket, 'connect', { signal: AbortSignal.timeout(SOON) });
      await fetch(`${base}/v1/clients/${socket.id}`, { method: 'DELETE', headers });
      assert.equal(await reason, 'io server disconnect');
      assert.equal(socket.active, false);
    } finally {
      socket.close();
      guarded.stop();
    }
  });

  test('pages of client 2 meet in the lobby of the tutorial', async () => {
    const lobby = await startBox({ CALLBOX_COMPAT__ENABLED: '["tutorials"]' });
    const page = await servePage("import dial from 'socket.io-client-2';\nwindow.dial = dial;");
    const browser = await startBrowser();
    const enter = async () => {
      const tab = await browser.open(page.url);
      const id = await tab.evaluate(
        (url) =>
          new Promise((resolve, reject) => {
            const socket = window.dial(url);
            Object.assign(window, { socket, people: [], messages: [] });
            socket.on('connect_error', reject);
            socket.on('ready', (own, people) => {
              window.people = people;
              resolve(own);
            });
            socket.on('change', (people) => (window.people = people));
            socket.on('message', (message) => window.messages.push(message));
          }),
        `http://${lobby.host}:${lobby.port}`,
      );
      return { tab, id };
    };
    const sees = ({ tab }, others) =>
      tab.waitForFunction(
        (ids) => JSON.stringify(window.people.map(({ id }) => id).sort()) === ids,
        JSON.stringify(others.map(({ id }) => id).sort()),
      );
    try {
      const [a, b, c] = [await enter(), await enter(), await enter()];
      for (const one of [a, b, c]) await sees(one, [a, b, c]);
      await a.tab.evaluate((to) => window.socket.emit('message', { to, type: 'text', content: '你好', from: 'eve' }), b.id);
      await b.tab.waitForFunction(() => window.messages.length === 1);
      const [message] = await b.tab.evaluate(() => window.messages);
      assert.deepEqual([message.from, message.to, message.type, message.content], [a.id, b.id, 'text', '你好']);
      assert.match(message.time, /^\d+:\d+:\d+$/);
      await a.tab.waitForFunction(() => window.socket.io.engine.transport.name === 'websocket');
      await b.tab.close();
      for (const one of [a, c]) await sees(one, [a, c]);
      assert.deepEqual(await c.tab.evaluate(() => window.messages), [], 'meant for another one');
    } finally {
      await browser.stop();
      page.stop();
      lobby.stop();
    }
  });

  test('a page that loads the client from the box calls across origins with credentials', async () => {
    const page = await servePage('');
    const browser = await startBrowser();
    const tab = await browser.open(page.url);
    const url = `http://${box.host}:${box.port}`;
    const transport = await tab.evaluate(async (url) => {
      await new Promise((resolve, reject) => {
        const script = document.createElement('script');
        Object.assign(script, { src: `${url}/socket.io/socket.io.js`, onload: resolve, onerror: reject });
        document.head.append(script);
      });
      const socket = window.io(url, { withCredentials: true });
      await new Promise((resolve) => socket.emit('join', 'page', resolve));
      while (socket.io.engine.transport.name !== 'websocket') await new Promise((resolve) => setTimeout(resolve, 20));
      return socket.io.engine.transport.name;
    }, url);
    assert.equal(transport, 'websocket');
    await tab.close();
    await browser.stop();
    page.stop();
  });
});
