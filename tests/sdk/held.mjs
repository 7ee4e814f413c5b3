// What the library holds out against: peers that open too much or pretend, frames that are too large, pauses across
// a cut. Needs what browsers.mjs needs.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { close, run, useBrowsers } from './pages.mjs';

describe('what the library holds out against', { timeout: 300_000 }, () => {
  const used = useBrowsers();
  const { open } = used;
  const enter = (page, room, name, url = used.box.ws, more = {}) => run(page, (url, options) => t.enter(url, options), url, { room, name, camera: false, media: false, ...more });
  const met = (page, name) => run(page, (name) => t.wait(() => t.peer(name)?.status === 'connected'), name);

  for (const [name, other] of [['chromium', 'firefox'], ['firefox', 'chromium']]) {
    it(`sends as many files as somebody drops, some at a time, and knows a refusal (${name} to ${other})`, async () => {
      const [ann, ben] = [await open(name), await open(other)];
      await enter(ann, `files-${name}`, 'Ann');
      await enter(ben, `files-${name}`, 'Ben');
      await met(ann, 'Ben');
      await run(ben, () => {
        t.offers = [];
        t.room.on('file', (file) => {
          t.offers.push(file.name);
          // In the listener itself, before the channel may be open here.
          if (file.name === 'unwanted') file.reject();
          else if (t.offers.length > 32) void file.accept();
        });
        t.accept = () => t.room.on('file', (file) => void file.accept());
      });
      const done = await run(ann, async () => {
        let channels = 0;
        const { pc } = t.peer('Ben').link;
        const { createDataChannel } = pc;
        pc.createDataChannel = (...given) => (channels++, createDataChannel.apply(pc, given));
        t.sent = Array.from({ length: 40 }, (_, n) => t.room.sendFile(new Blob([`file ${n}`]), t.peer('Ben'), { name: `${n}.txt` }));
        await new Promise((resolve) => setTimeout(resolve, 2_500));
        return channels;
      });
      assert.ok(done <= 40, `${done} channels for forty files`);
      assert.equal(await run(ben, () => t.wait(() => t.offers.length === 32 && t.offers.length)), 32);
      await run(ben, () => t.accept());
      await run(ann, () => Promise.all(t.sent.map((one) => one.done)));
      const refused = await run(ann, () => t.room.sendFile(new Blob(['y']), t.peer('Ben'), { name: 'unwanted' }).done.then(() => 'taken', ({ code }) => code));
      assert.equal(refused, 'rejected');
      await new Promise((resolve) => setTimeout(resolve, 1_500));
      assert.equal(await run(ben, () => t.offers.filter((one) => one === 'unwanted').length), 1, 'it is offered once');
      await close(ann, ben);
    });

    it(`keeps a pause through a cut, from either side, and the file whole (${name} to ${other})`, async () => {
      const [ann, ben] = [await open(name), await open(other)];
      await enter(ann, `paused-${name}`, 'Ann');
      await enter(ben, `paused-${name}`, 'Ben');
      await met(ann, 'Ben');
      await run(ben, () => {
        t.room.on('file', (file) => {
          t.file = file;
          file.accept();
        });
      });
      const size = 6 * 1024 * 1024;
      await run(ann, async (size) => {
        const bytes = new Uint8Array(size);
        for (let n = 0; n < size; n += 65_536) crypto.getRandomValues(bytes.subarray(n, n + 65_536));
        t.digest = await crypto.subtle.digest('SHA-256', bytes).then((sum) => Array.from(new Uint8Array(sum)).join());
        t.sending = t.room.sendFile(new Blob([bytes]), t.peer('Ben'), { name: 'paused.bin' });
      }, size);
      await run(ben, () => t.wait(() => t.file?.bytes > 0));
      const still = async (pauses) => {
        assert.equal(await run(pauses, () => (t.sending ?? t.file).status), 'paused');
        const before = await run(ben, async () => (await new Promise((resolve) => setTimeout(resolve, 700)), t.file.bytes));
        const later = await run(ben, async () => (await new Promise((resolve) => setTimeout(resolve, 700)), t.file.bytes));
        assert.equal(later, before, 'nothing comes while it is paused');
      };
      for (const pauses of [ben, ann]) {
        // Several times, as a person who cannot decide: what is on its way is counted once.
        await run(pauses, async () => {
          const file = t.sending ?? t.file;
          for (let n = 0; n < 5; n++) {
            file.pause();
            await new Promise((resolve) => setTimeout(resolve, 5));
            file.resume();
          }
          file.pause();
        });
        if (await run(ben, (size) => t.file.bytes === size, size)) break;
        await still(pauses);
        await run(ann, () => t.peer('Ben').link.reset());
        await run(ann, () => t.wait(() => t.peer('Ben').status === 'connected'));
        await run(pauses, () => t.wait(() => (t.sending ?? t.file).status === 'paused'));
        await still(pauses);
        await run(pauses, () => (t.sending ?? t.file).resume());
        await run(ben, (before) => t.wait(() => t.file.status === 'done' || t.file.bytes > before), await run(ben, () => t.file.bytes));
      }
      await run(ann, () => t.sending.resume());
      await run(ben, () => t.file.resume());
      const digest = await run(ben, async () => {
        const file = await t.file.done;
        return crypto.subtle.digest('SHA-256', await file.arrayBuffer()).then((sum) => Array.from(new Uint8Array(sum)).join());
      });
      assert.equal(digest, await run(ann, () => t.digest));
      await close(ann, ben);
    });

    it(`opens nothing to others because a peer opens much, and takes a bounded number (${other} to ${name})`, async () => {
      const [ann, ben, carl] = [await open(name), await open(other), await open('chromium')];
      for (const [page, who] of [[ann, 'Ann'], [ben, 'Ben'], [carl, 'Carl']]) await enter(page, `labels-${name}`, who);
      await met(ann, 'Carl');
      await met(ben, 'Ann');
      await run(carl, () => {
        t.opened = 0;
        t.room.on('channel', () => t.opened++);
      });
      await run(ann, () => {
        t.names = [];
        t.room.on('channel', ({ name }) => t.names.push(name));
      });
      await run(ben, () => {
        const { link } = t.peer('Ann');
        for (let n = 0; n < 200; n++) link.openChannel(`label ${n}`);
      });
      await run(ann, () => t.wait(() => t.names.length === 64));
      // A channel that the application opens comes after all of them, in the order of the connection.
      await run(ann, () => t.room.channel('mine').send({ at: 'last' }));
      await run(carl, () => t.wait(() => t.opened === 1));
      assert.equal(await run(ann, () => t.names.length), 64);
      await close(ann, ben, carl);
    });

    it(`shows a peer that copies this side's own instance (${name})`, async () => {
      const [ann, ben] = [await open(name), await open(other)];
      await enter(ben, `copied-${name}`, 'Ben');
      await enter(ann, `copied-${name}`, 'Ann');
      const instance = await run(ben, () => t.wait(() => t.peer('Ann')?.metadata.callbox.instance));
      await run(ben, async (url, room, instance) => {
        t.ghost = new t.callbox.Signal(url);
        await t.ghost.join({ roomId: room, identity: 'Ghost', metadata: { callbox: { instance } } });
      }, used.box.ws, `copied-${name}`, instance);
      await run(ann, () => t.wait(() => t.peer('Ghost')));
      await run(ben, () => t.ghost.leave());
      await close(ann, ben);
    });

    it(`says that data for all was handed over, though one of them has no connection (${name})`, async () => {
      const [ann, ben] = [await open(name), await open(other)];
      await enter(ann, `bot-${name}`, 'Ann');
      await enter(ben, `bot-${name}`, 'Ben');
      await run(ben, async (url, room) => {
        t.bot = new t.callbox.Signal(url);
        await t.bot.join({ roomId: room, identity: 'Bot' });
        t.room.channel('data').on('message', (data) => (t.got = data));
      }, used.box.ws, `bot-${name}`);
      await met(ann, 'Ben');
      await run(ann, () => t.wait(() => t.peer('Bot')));
      await run(ann, () => t.room.channel('data').send({ to: 'all' }));
      assert.deepEqual(await run(ben, () => t.wait(() => t.got)), { to: 'all' });
      await run(ben, () => t.bot.leave());
      await close(ann, ben);
    });

    it(`fails a message that is too large, and nothing else (${name})`, async () => {
      const [ann, ben] = [await open(name), await open(other)];
      await enter(ann, `large-${name}`, 'Ann');
      await enter(ben, `large-${name}`, 'Ben');
      await run(ben, () => {
        t.words = [];
        t.room.on('message', (content) => t.words.push(content));
      });
      await run(ann, () => (t.events.length = 0));
      const code = await run(ann, () => t.room.send('x'.repeat(70_000)).then(() => 'sent', ({ code }) => code));
      assert.equal(code, 'too-large');
      await run(ann, () => t.room.send('short'));
      await run(ben, () => t.wait(() => t.words.includes('short')));
      assert.ok((await run(ann, () => t.events.filter((event) => event === 'reconnecting').length)) <= 1, 'one new connection at most');
      await close(ann, ben);
    });

    it(`comes back by rejoin with what was published, though what bounded the first join is over (${name})`, async () => {
      const page = await open(name);
      const after = await run(page, async (url, room) => {
        const sockets = [];
        globalThis.WebSocket = class extends WebSocket {
          constructor(...given) {
            super(...given);
            sockets.push(this);
          }
        };
        const first = new AbortController();
        const entered = await t.callbox.join(url, { room, name: 'Ann', signal: first.signal, timeout: 20_000 });
        await entered.publish(t.canvas(), { label: 'screen' });
        first.abort();
        // An end that nobody wished for, while this side is alone.
        sockets.at(-1).onclose({ code: 4001, reason: '' });
        const ended = [entered.status, entered.reason];
        await entered.rejoin();
        const back = [entered.status, entered.publications.length];
        entered.leave();
        return [...ended, ...back, entered.publications.length];
      }, used.box.ws, `again-${name}`);
      assert.deepEqual(after, ['closed', 'unauthorized', 'online', 1, 0]);
      await close(page);
    });

    it(`refuses words as a key of encryption, and leaves no rejection behind (${name})`, async () => {
      const page = await open(name);
      const codes = await run(page, async (url) => {
        const codes = [];
        for (const key of ['words of a passphrase', new Uint8Array(4), 7]) {
          codes.push(await t.callbox.join(url, { room: 'sealed', encryption: { key } }).then(() => 'joined', ({ code }) => code));
        }
        const room = await t.callbox.join(url, { room: 'sealed', encryption: { key: crypto.getRandomValues(new Uint8Array(16)) } });
        codes.push(room.status);
        room.leave();
        return codes;
      }, used.box.ws);
      assert.deepEqual(codes, ['unsupported', 'unsupported', 'unsupported', 'online']);
      await close(page);
    });
  }

  it('made no page throw, log an error, or leave a rejection unhandled', () => {
    const own = used.faults().filter((fault) => !/WebSocket|ERR_CONNECTION|can.t establish a connection|NetworkError|Failed to load resource/.test(fault));
    assert.deepEqual(own, []);
  });
});
