// The clients of docs/clients in calls with a browser that has the library. $PYTHON names an interpreter with aiortc and
// websockets, $GO_CLIENT the compiled client in Go; without them that part says that it was not checked.
// Needs what browsers.mjs needs, of browsers only Chromium.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { WebSocket, WebSocketServer } from 'ws';
import { Signal } from '../../sdk/js/dist/signal.mjs';
import { startBox, startProxy } from './box.mjs';
import { prepare, startBrowser, startPages, WITHIN } from './pages.mjs';

const { PYTHON, GO_CLIENT } = process.env;
const run = (page, work, ...given) => page.evaluate(work, ...given);

describe('clients in other languages', { timeout: 180_000 }, () => {
  let box, pages, chromium;
  const running = new Set();
  before(async () => {
    box = await startBox();
    pages = await startPages();
    chromium = await startBrowser('chromium');
  });
  after(async () => {
    for (const client of running) client.kill('SIGKILL');
    await chromium?.stop();
    pages?.stop();
    box?.stop();
  });

  /** Starts a client; `says(words)` waits until its output has them once more than before. */
  const start = (program, ...words) => {
    const client = spawn(program, words, { stdio: ['ignore', 'pipe', 'pipe'] });
    running.add(client);
    let said = '';
    let read = 0;
    for (const stream of [client.stdout, client.stderr]) {
      stream.on('data', (data) => (said += data));
      stream.unref();
    }
    client.unref();
    const ended = new Promise((resolve) => client.once('close', resolve));
    const says = async (wanted) => {
      for (const end = Date.now() + WITHIN; ; ) {
        const found = said.indexOf(wanted, read);
        if (found >= 0) return (read = found + wanted.length);
        if (Date.now() > end) throw new Error(`the client did not say "${wanted}":\n${said}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    };
    return { says, ended, stop: () => (running.delete(client), client.kill('SIGKILL')) };
  };
  const CLIENT_PY = fileURLToPath(new URL('../../docs/clients/client.py', import.meta.url));
  const python = (room, url = box.ws, ...more) => start(PYTHON, CLIENT_PY, url, room, 'Py', ...more);
  const go = (room, url = box.ws, ...more) => start(GO_CLIENT, url, room, 'Go', ...more);
  const open = async () => prepare(await chromium.open(pages.url));
  const enter = (page, room) => run(page, (url, room) => t.enter(url, { room, name: 'Ann' }), box.ws, room);
  const echoes = (page, name) =>
    run(page, async (name) => {
      const channel = t.room.channel('echo');
      const words = [];
      channel.on('message', (data) => words.push(data));
      await channel.send({ word: 'back' }, await t.wait(() => t.peer(name)));
      await t.wait(() => words.length);
      // The page's connection is made anew: the client answers its offer by a new one too.
      t.peer(name).link.reset();
      await channel.send({ word: 'again' }, t.peer(name));
      await t.wait(() => words.length === 2);
      return words.map(({ word }) => word);
    }, name);

  /** Everything that a member can send to another one, wrong in each way. */
  const nonsense = async (room, name) => {
    const eve = new Signal(box.ws, { WebSocket });
    await eve.join({ roomId: room, identity: 'Eve' });
    const to = (await eve.request('list')).peers.find(({ identity }) => identity === name).peerId;
    const values = [null, 5, '', 'garbage', 'v=0', 'candidate:', 'candidate:x', [], {}, { sdp: 5 }, { type: 'offer', sdp: 'v=0' }, { candidate: 'x' }, { candidate: 5 }, { candidate: 'candidate:1 1 udp 1 999.1.1.1 1 typ host', sdpMid: 5 }];
    for (const type of ['offer', 'answer', 'candidate', 'message', 'mute', 'hangup', 'publish']) {
      for (const value of values) await eve.request(type, { to, sdp: value, candidate: value, content: value, kind: value, tracks: value }).catch(() => {});
    }
    eve.leave();
  };

  it('Python sends picture and data back to who offers, and to whom it offers', async (test) => {
    if (!PYTHON) return test.skip('PYTHON names no interpreter with aiortc');
    // The page is there first: Python offers.
    const ann = await open();
    await enter(ann, 'py-second');
    const client = python('py-second');
    await run(ann, () => t.moving('Py'));
    await nonsense('py-second', 'Py');
    assert.deepEqual(await echoes(ann, 'Py'), ['back', 'again']);
    await run(ann, () => t.moving('Py'));
    client.stop();
    await ann.close();
    // Python is there first: the page offers.
    python('py-first');
    const ben = await open();
    await run(ben, async (url) => {
      const look = await t.callbox.join(url, { room: 'py-first', name: 'Look', mesh: false });
      await t.wait(() => look.peers.size);
      look.leave();
    }, box.ws);
    await enter(ben, 'py-first');
    await run(ben, () => t.moving('Py'));
    assert.deepEqual(await echoes(ben, 'Py'), ['back', 'again']);
    await ben.close();
  });

  it('Go echoes data of who offers, and of whom it offers to', async (test) => {
    if (!GO_CLIENT) return test.skip('GO_CLIENT names no compiled client');
    const [ann, ben] = [await open(), await open()];
    await enter(ann, 'go');
    go('go');
    await run(ann, () => t.wait(() => t.peer('Go')));
    await nonsense('go', 'Go');
    assert.deepEqual(await echoes(ann, 'Go'), ['back', 'again']);
    await enter(ben, 'go');
    assert.deepEqual(await echoes(ben, 'Go'), ['back', 'again']);
    await Promise.all([ann.close(), ben.close()]);
  });

  /** A member that only writes: each client answers a message by what was in it. */
  const asks = async (signal, name) => {
    const { peers } = await signal.request('list');
    const { peerId } = peers.find(({ identity }) => identity === name);
    const word = `word ${Math.random()}`;
    const echo = new Promise((resolve, reject) => {
      const stop = signal.on('message', ({ from, content }) => content.echo === word && (stop(), resolve(from)));
      setTimeout(reject, WITHIN, new Error(`${name} did not answer`)).unref();
    });
    await signal.request('message', { to: peerId, content: word });
    assert.equal(await echo, peerId);
    return peerId;
  };

  const outlives = async (client, room, name) => {
    const proxy = await startProxy(box.port);
    const eve = new Signal(box.ws, { WebSocket });
    const ann = await open();
    try {
      const running = client(room, proxy.ws);
      await running.says('joined');
      await eve.join({ roomId: room, identity: 'Eve' });
      const before = await asks(eve, name);
      // A cut: the same session goes on.
      proxy.cut();
      await running.says('resumed');
      assert.equal(await asks(eve, name), before);
      // A new box: there is nothing to resume. It joins anew, and connects to who is there.
      await box.kill();
      await box.start();
      await running.says('joined');
      await eve.request('list').catch(() => eve.join({ roomId: room, identity: 'Eve' }));
      assert.notEqual(await asks(eve, name), before);
      await enter(ann, room);
      assert.deepEqual(await echoes(ann, name), ['back', 'again']);
      running.stop();
    } finally {
      eve.leave();
      proxy.stop();
      await ann.close();
    }
  };

  /** What a box says is scripted here, as no box can be had to say all of it. */
  const followsCloseCodes = async (client, name) => {
    const http = createServer().listen(0, '127.0.0.1').unref();
    const server = new WebSocketServer({ server: http });
    await once(http, 'listening');
    const within = () => ({ signal: AbortSignal.timeout(WITHIN) });
    const comes = async () => {
      const [socket] = await once(server, 'connection', within());
      const received = [];
      socket.on('message', (text) => received.push(JSON.parse(text)));
      const heard = async () => {
        while (!received.length) await once(socket, 'message', within());
        return received.shift();
      };
      return { socket, heard, say: (frame) => socket.send(JSON.stringify(frame)) };
    };
    const running = client('script', `ws://127.0.0.1:${http.address().port}/ws`, 'a token');
    try {
      let script = await comes();
      const join = await script.heard();
      const { type, roomId, identity, token } = join;
      assert.deepEqual({ type, roomId, identity, token }, { type: 'join', roomId: 'script', identity: name, token: 'a token' });
      const joined = { type: 'joined', roomId: 'script', peerId: 'p', resumeToken: 't', peers: [], iceServers: [] };
      script.say({ seq: 1, ...joined, id: join.id });
      script.say({ seq: 2, type: 'message', from: 'q', content: 'word' });
      const echo = await script.heard();
      assert.deepEqual(echo.content, { echo: 'word' });
      for (const code of [1012, 1013]) {
        const next = comes();
        script.socket.close(code);
        script = await next;
        const resume = await script.heard();
        assert.deepEqual([resume.type, resume.resumeToken, resume.seq], ['resume', 't', 2]);
        script.say({ ...joined, type: 'resumed', id: resume.id });
        // Nobody has acknowledged it: it goes again under its old id.
        assert.deepEqual(await script.heard(), echo);
      }
      // A session that is gone is made anew, with the token.
      const next = comes();
      script.socket.terminate();
      script = await next;
      const resume = await script.heard();
      script.say({ type: 'error', id: resume.id, code: 'resume-failed', message: 'gone' });
      const again = await script.heard();
      assert.deepEqual([again.type, again.token], ['join', 'a token']);
      assert.notEqual(again.id, resume.id);
      script.say({ seq: 1, ...joined, id: again.id });
      script.socket.close(4002);
      await running.says('4002');
      await running.ended;
    } finally {
      running.stop();
      server.clients.forEach((socket) => socket.terminate());
      http.close();
    }
  };

  for (const [language, name, client, missing] of [
    ['Python', 'Py', python, !PYTHON && 'PYTHON names no interpreter with aiortc'],
    ['Go', 'Go', go, !GO_CLIENT && 'GO_CLIENT names no compiled client'],
  ]) {
    it(`${language} resumes after a cut, and joins anew where the session is gone`, async (test) => (missing ? test.skip(missing) : outlives(client, `cut-${name}`, name)));
    it(`${language} does what close codes ask`, async (test) => (missing ? test.skip(missing) : followsCloseCodes(client, name)));
  }
});
