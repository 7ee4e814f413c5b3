// Pages that wait for something, as a camera, between `join` and `on`: what came meanwhile comes to the first listener.
// Needs what browsers.mjs needs.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startBox } from './box.mjs';
import { prepare, startBrowser, startPages } from './pages.mjs';

const ADMIN = 'an admin token of this test alone';
const run = (page, work, ...given) => page.evaluate(work, ...given);

describe('a page that listens late', { timeout: 180_000 }, () => {
  let box, pages, chromium, firefox;
  before(async () => {
    box = await startBox({ CALLBOX_AUTH__ADMIN_TOKEN: ADMIN });
    pages = await startPages();
    [chromium, firefox] = await Promise.all([startBrowser('chromium'), startBrowser('firefox')]);
  });
  after(async () => {
    await Promise.all([chromium?.stop(), firefox?.stop()]);
    pages?.stop();
    box?.stop();
  });
  const open = async (browser) => prepare(await browser.open(pages.url));

  for (const [first, second] of [['chromium', 'firefox'], ['firefox', 'chromium']]) {
    it(`gets everything of a room once (${second})`, async () => {
      const browsers = { chromium, firefox };
      const [ann, ben] = [await open(browsers[first]), await open(browsers[second])];
      const room = `late-${second}`;
      await run(ann, (url, room) => t.enter(url, { room, name: 'Ann', camera: false, media: false }), box.ws, room);
      await run(ben, async (url, room) => {
        t.room = await t.callbox.join(url, { room, name: 'Ben', media: false });
        t.frames = [];
        t.room.signaling.on('frame', ({ type }) => t.frames.push(type));
        t.channels = 0;
        t.peer('Ann').link.pc.addEventListener('datachannel', () => t.channels++);
      }, box.ws, room);
      await run(ann, async () => {
        const ben = await t.wait(() => t.peer('Ben'));
        await t.room.send({ text: 'to all' });
        await t.room.send({ text: 'to Ben' }, ben);
        for (const [kind, muted] of [['video', true], ['audio', true], ['audio', false]]) await t.room.mute(ben, kind, muted);
        await t.wait(() => ben.status === 'connected');
        await t.room.channel('board').send({ line: 1 });
        t.sending = t.room.sendFile(new Blob(['some words']), ben, { name: 'early.txt' });
      });
      const said = await fetch(`${box.url}v1/rooms/${room}/notify`, { method: 'POST', headers: { Authorization: `Bearer ${ADMIN}`, 'Content-Type': 'application/json' }, body: JSON.stringify('soon over') });
      assert.ok(said.ok, await said.text());
      await run(ben, () => t.wait(() => t.frames.includes('notify') && t.channels === 2));

      const got = await run(ben, async () => {
        const got = [];
        // One listener takes one message, the next what is left, and a third nothing.
        t.room.once('message', (content, peer) => got.push(`once ${content.text} of ${peer.name}`));
        t.peer('Ann').on('message', (content) => got.push(`then ${content.text}`));
        t.room.on('message', () => got.push('a message twice'));
        t.room.on('mute', (kind) => got.push(`mute ${kind}`)).on('unmute', (kind) => got.push(`unmute ${kind}`));
        t.room.on('notify', (content) => got.push(`notify ${content}`));
        const files = [];
        t.room.on('file', (file) => files.push(file));
        await t.wait(() => files.length);
        t.room.on('file', (file) => file === files[0] && got.push(`offered ${file.name}`));
        got.push(await (await files[0].accept()).text());
        t.room.on('file', () => got.push('a file that was answered'));
        t.room.on('channel', (channel) => channel.on('message', (data) => got.push(`${channel.name} ${data.line}`)));
        await t.wait(() => got.some((one) => /^board/.test(one)));
        t.room.channel('board').on('open', (peer) => got.push(`open ${peer.name}`)).on('message', () => got.push('data twice'));
        t.room.on('channel', () => got.push('a channel that was asked for'));
        return got;
      });
      assert.deepEqual(got, ['once to all of Ann', 'then to Ben', 'mute video', 'unmute audio', 'notify soon over', 'offered early.txt', 'some words', 'board 1', 'open Ann']);

      await run(ann, () => t.room.kick(t.peer('Ben'), 'a reason'));
      await run(ben, () => t.wait(() => t.room.status === 'closed'));
      const end = await run(ben, () => {
        const end = [];
        t.room.on('kicked', (why) => end.push(`kicked: ${why}`)).on('status', (status, reason) => end.push(`${status}: ${reason}`));
        return end;
      });
      assert.deepEqual(end, ['kicked: a reason', 'closed: kicked']);
      await Promise.all([ann.close(), ben.close()]);
    });

    it(`gets the calls that ring, what was said, and the end (${second})`, async () => {
      const browsers = { chromium, firefox };
      const [ann, ben] = [await open(browsers[first]), await open(browsers[second])];
      await run(ben, async (url) => {
        t.phone = await t.callbox.register(url, { identity: 'ben' });
        t.frames = [];
        t.phone.signaling.on('frame', ({ type }) => t.frames.push(type));
      }, box.ws);
      await run(ann, async (url) => {
        t.phone = await t.callbox.register(url, { identity: 'ann' });
        t.call = await t.phone.call('ben', { stream: await t.camera() });
      }, box.ws);
      await run(ben, () => t.wait(() => t.frames.includes('call')));
      assert.equal(
        await run(ben, async () => {
          t.phone.on('call', (call) => (t.call = call));
          const { identity } = t.call;
          await t.call.accept();
          return identity;
        }),
        'ann',
      );
      await run(ann, async () => {
        await t.wait(() => t.call.status === 'connected');
        await t.call.send('early');
      });
      await run(ben, () => t.wait(() => t.frames.includes('message') && t.call.peer.streams.size));
      const got = await run(ben, () => {
        const got = [];
        t.call.on('stream', (stream, label) => got.push(label)).on('message', (content) => got.push(content)).on('end', () => got.push('too early'));
        t.phone.on('call', () => got.push('a call that was taken'));
        return got;
      });
      assert.deepEqual(got, ['camera', 'early']);
      await run(ann, () => t.call.hangup());
      await run(ben, () => t.wait(() => t.call.status === 'ended'));
      assert.deepEqual(
        await run(ben, () => {
          const end = [];
          t.call.on('end', (reason) => end.push(reason)).on('status', (status) => end.push(status));
          t.phone.close();
          t.phone.on('status', (status, reason) => end.push(`${status} ${reason}`));
          return end;
        }),
        ['hangup', 'ended', 'closed left'],
      );
      await run(ann, () => t.phone.close());
      await Promise.all([ann.close(), ben.close()]);
    });
  }

  it('made no page throw, log an error, or leave a rejection unhandled', () => assert.deepEqual([...chromium.faults, ...firefox.faults], []));
});
