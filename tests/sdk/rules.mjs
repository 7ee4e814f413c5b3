// Rules of the library that only a page shows: what wakes it, fresh credentials, the browser's Back button, a worker.
// Needs what browsers.mjs needs.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { close, run, useBrowsers } from './pages.mjs';

describe('rules of the library', { timeout: 180_000 }, () => {
  const used = useBrowsers();

  /** A page whose WebSockets are in `t.sockets`, and the types of what it sent in `t.sent`. */
  const open = async (name) => {
    const page = await used.open(name);
    await run(page, () => {
      t.sockets = [];
      t.sent = [];
      globalThis.WebSocket = class extends WebSocket {
        constructor(...given) {
          super(...given);
          t.sockets.push(this);
        }
        send(text) {
          t.sent.push(JSON.parse(text).type);
          super.send(text);
        }
      };
    });
    return page;
  };
  const enter = (page, room, name) => run(page, (url, room, name) => t.enter(url, { room, name, camera: false, media: false }), used.box.ws, room, name);

  for (const [name, other] of [['chromium', 'firefox'], ['firefox', 'chromium']]) {
    it(`asks the box at once when the network or the page comes back (${name})`, async () => {
      const page = await open(name);
      await enter(page, `wakes-${name}`, 'Ann');
      const asked = await run(page, async () => {
        const asked = [];
        // Alone in a room nothing depends on the session, so the next question of its own is far away.
        for (const [target, event] of [[window, new Event('online')], [document, new Event('visibilitychange')], [window, new PageTransitionEvent('pageshow')]]) {
          t.sent.length = 0;
          target.dispatchEvent(event);
          asked.push(t.sent.filter((type) => type === 'ping').length);
          // The answer to this question, before the next one.
          let answered = false;
          t.room.signaling.once('pong', () => (answered = true));
          await t.wait(() => answered);
          await new Promise((resolve) => setTimeout(resolve, 2_600));
        }
        return asked;
      });
      assert.deepEqual(asked, [1, 1, 1]);
      await close(page);
    });

    it(`gives pushed credentials to every connection, and none that a peer wrote (${name})`, async () => {
      const [ann, ben] = [await open(name), await open(other)];
      await enter(ann, `fresh-${name}`, 'Ann');
      await enter(ben, `fresh-${name}`, 'Ben');
      await run(ann, () => t.wait(() => t.peer('Ben')?.status === 'connected'));
      const names = await run(ann, async () => {
        const push = (frame) => t.sockets.at(-1).onmessage({ data: JSON.stringify({ iceServers: [{ urls: ['turn:127.0.0.1:3478'], username: frame.type, credential: 'x' }], iceTransportPolicy: 'all', ttl: 60, expiresAt: 1, ...frame }) });
        const inUse = () => t.peer('Ben').link.pc.getConfiguration().iceServers.map(({ username }) => username);
        push({ type: 'message', from: t.peer('Ben').peerId, fromIdentity: 'Ben', content: 'x' });
        const first = inUse();
        push({ type: 'ice-servers' });
        return [first.includes('message'), inUse()];
      });
      assert.deepEqual(names, [false, ['ice-servers']]);
      await close(ann, ben);
    });

    it(`comes back into the room when the browser shows a page again that it kept (${name})`, async () => {
      const [ann, ben] = [await open(name), await open(other)];
      await enter(ann, `kept-${name}`, 'Ann');
      await enter(ben, `kept-${name}`, 'Ben');
      await run(ann, () => t.wait(() => t.peer('Ben')?.status === 'connected'));
      await run(ann, () => dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true })));
      await run(ben, () => t.wait(() => t.events.includes('left Ann left')));
      assert.equal(await run(ann, () => t.room.status), 'reconnecting');
      await run(ann, () => dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true })));
      await run(ann, () => t.wait(() => t.room.status === 'online' && t.peer('Ben')?.status === 'connected'));
      await run(ben, () => t.wait(() => t.peer('Ann')?.status === 'connected'));
      await close(ann, ben);
    });

    it(`signals in a worker (${name})`, async () => {
      const page = await used.browsers[name].open(used.pages.url);
      const joined = await run(page, (box, ws) => {
        const lines = `
          import { Signal } from '${box}sdk/v1/signal.js';
          const signal = new Signal('${ws}');
          const { peerId, roomId } = await signal.join({ roomId: 'worker', identity: 'W' });
          await signal.request('message', { content: 'alone' }).catch(() => {});
          postMessage([roomId, signal.status, typeof peerId]);
          signal.leave();`;
        const worker = new Worker(URL.createObjectURL(new Blob([lines], { type: 'text/javascript' })), { type: 'module' });
        return new Promise((resolve, reject) => {
          worker.onmessage = ({ data }) => resolve(data);
          worker.onerror = ({ message }) => reject(new Error(message));
        });
      }, used.box.url, used.box.ws);
      assert.deepEqual(joined, ['worker', 'online', 'string']);
      await close(page);
    });
  }

  it('made no page throw, log an error, or leave a rejection unhandled', () => assert.deepEqual(used.faults(), []));
});
