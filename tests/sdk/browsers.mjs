// The library between Chromium and Firefox, against a real box: calls that outlive signaling, relays, screens, data,
// files, encryption, recording, direct calls.
// Needs CALLBOX_BIN and, unless they are in /usr/bin, CHROMIUM and FIREFOX.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startBox, startProxy } from './box.mjs';
import { giveSound, prepare, startBrowser, startPages } from './pages.mjs';

const ADMIN = 'an admin token of this test alone';
let pages, chromium, firefox;

before(async () => {
  pages = await startPages();
  [chromium, firefox] = await Promise.all([startBrowser('chromium'), startBrowser('firefox')]);
});
after(async () => {
  await Promise.all([chromium?.stop(), firefox?.stop()]);
  pages?.stop();
});

/** A page with the library, in that browser. */
async function open(browser) {
  return prepare(await browser.open(pages.url));
}

/** Runs in the page, with `t` for what `prepare` put there. */
const run = (page, work, ...given) => page.evaluate(work, ...given);
const enter = (page, url, options) => page.evaluate((url, options) => t.enter(url, options), url, options);
const moving = (page, name, label) => page.evaluate((name, label) => t.moving(name, label), name, label);
const events = (page) => page.evaluate(() => t.events);

describe('a call between Chromium and Firefox', { timeout: 300_000 }, () => {
  let box, proxy, ann, ben;
  before(async () => {
    box = await startBox();
    proxy = await startProxy(box.port);
    [ann, ben] = [await open(chromium), await open(firefox)];
  });
  after(async () => {
    await Promise.all([ann?.close(), ben?.close()]);
    proxy?.stop();
    box?.stop();
  });

  it('carries video both ways, and names the path', async () => {
    await enter(ann, proxy.ws, { room: 'mixed', name: 'Ann' });
    await run(ann, () => {
      t.offers = 0;
      t.room.signaling.on('offer', () => t.offers++);
    });
    await enter(ben, box.ws, { room: 'mixed', name: 'Ben' });
    await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
    // What both send is in the first offer and its answer.
    assert.equal(await run(ann, () => t.offers), 1);
    for (const [page, other] of [[ann, 'Ben'], [ben, 'Ann']]) {
      const path = await run(page, (other) => t.wait(() => t.peer(other).path), other);
      assert.match(path.kind, /^direct/);
      assert.equal(typeof path.rtt, 'number');
    }
  });

  it('shares a screen beside the camera, and ends it', async () => {
    await run(ann, async () => {
      t.shared = await t.room.publish(t.canvas(), { label: 'screen', contentHint: 'detail' });
    });
    await moving(ben, 'Ann', 'screen');
    await moving(ben, 'Ann');
    await run(ann, () => t.shared.unpublish());
    await run(ben, () => t.wait(() => t.peer('Ann').streams.size === 1));
    // A second time: the line of the first is used again.
    await run(ben, () => delete t.videos['Ann screen']);
    await run(ann, async () => {
      t.shared = await t.room.publish(t.canvas(), { label: 'screen' });
    });
    await moving(ben, 'Ann', 'screen');
    const lines = await run(ben, () => t.peer('Ann').link.pc.getTransceivers().length);
    assert.equal(lines, 3);
    await run(ann, () => t.shared.unpublish());
    await moving(ben, 'Ann');
  });

  it('survives offers that cross, and an ICE restart after that', async () => {
    for (let n = 0; n < 3; n++) {
      await Promise.all([ann, ben].map((page) => run(page, () => void (t.both = t.room.publish(t.canvas(), { label: 'screen' })))));
      await Promise.all([moving(ann, 'Ben', 'screen'), moving(ben, 'Ann', 'screen')]);
      // Firefox's receivers would not survive this after a rollback.
      await run(n % 2 ? ben : ann, () => [...t.room.peers.values()].forEach(({ link }) => link.restart()));
      await run(ann, () => t.wait(() => t.peer('Ben').link.pc.signalingState === 'stable'));
      await new Promise((resolve) => setTimeout(resolve, 500));
      await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann'), moving(ann, 'Ben', 'screen'), moving(ben, 'Ann', 'screen')]);
      await Promise.all([ann, ben].map((page) => run(page, async () => (await t.both).unpublish())));
      await Promise.all([[ann, 'Ben'], [ben, 'Ann']].map(([page, other]) => run(page, (other) => t.wait(() => t.peer(other).streams.size === 1), other)));
      for (const [page, other] of [[ann, 'Ben'], [ben, 'Ann']]) await run(page, (other) => delete t.videos[`${other} screen`], other);
    }
  });

  it('comes together again when both sides begin anew at once', async () => {
    for (let n = 0; n < 4; n++) {
      await Promise.all([ann, ben].map((page) => run(page, () => [...t.room.peers.values()].forEach(({ link }) => link.reset()))));
      await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
    }
    // One right after the other, so that the second gives up the connection that got the first one's offer.
    for (let n = 0; n < 4; n++) {
      for (const page of [ann, ben]) await run(page, () => [...t.room.peers.values()].forEach(({ link }) => link.reset()));
      await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
    }
  });

  it('turns a camera off and on without negotiating', async () => {
    const offers = await run(ann, async () => {
      let offers = 0;
      t.room.signaling.on('answer', () => offers++);
      const [publication] = t.room.publications;
      t.own.getVideoTracks()[0].stop();
      await publication.replace('video', null);
      const fresh = await t.camera();
      await publication.replace('video', fresh.getVideoTracks()[0]);
      return offers;
    });
    assert.equal(offers, 0);
    await moving(ben, 'Ann');
  });

  it('carries data by name, both ways, and what is large with back-pressure', async () => {
    await run(ben, () => {
      t.cursor = [];
      t.room.channel('cursor').on('message', (data, peer) => t.cursor.push([data, peer.name]));
    });
    await run(ann, () => t.room.channel('cursor').send({ x: 1, y: 2 }));
    assert.deepEqual(await run(ben, () => t.wait(() => t.cursor[0])), [{ x: 1, y: 2 }, 'Ann']);
    await run(ann, () => {
      t.bytes = 0;
      t.room.channel('bulk').on('message', (data) => (t.bytes += data.byteLength));
    });
    const most = await run(ben, async () => {
      const channel = t.room.channel('bulk');
      let most = 0;
      for (let n = 0; n < 128; n++) {
        await channel.send(new Uint8Array(64 * 1024));
        const { link } = t.peer('Ann');
        most = Math.max(most, link.pc.sctp ? 1 : 0);
      }
      // Who does not wait is refused before a megabyte waits.
      const refused = await Promise.allSettled(Array.from({ length: 64 }, () => channel.send(new Uint8Array(64 * 1024))));
      return refused.filter(({ reason }) => reason?.code === 'backpressure').length;
    });
    assert.ok(most > 0);
    await run(ann, () => t.wait(() => t.bytes >= 128 * 64 * 1024));
  });

  it('says who wrote a message, and keeps state for who comes later', async () => {
    await run(ann, () => t.room.setState({ hand: true, nested: { a: 1, b: 2 } }));
    await run(ann, () => t.room.setState({ nested: { a: null } }));
    await run(ben, () => {
      t.received = [];
      t.room.on('message', (content, peer) => t.received.push([content, peer.name]));
    });
    await run(ann, () => t.room.send({ text: 'hello' }));
    assert.deepEqual(await run(ben, () => t.wait(() => t.received[0])), [{ text: 'hello' }, 'Ann']);
    assert.deepEqual(await run(ben, () => t.wait(() => t.peer('Ann').state.hand && t.peer('Ann').state.nested)), { b: 2 });
  });

  it('sends a file, with a cut in the middle, and proves it by its digest', async () => {
    const size = 24 * 1024 * 1024;
    await run(ben, () => {
      t.room.on('file', (file) => {
        t.file = file;
        t.statuses = [];
        file.on('status', (status) => t.statuses.push(status));
        file.accept();
      });
    });
    await run(ann, async (size) => {
      const bytes = new Uint8Array(size);
      for (let n = 0; n < size; n += 65_536) crypto.getRandomValues(bytes.subarray(n, Math.min(size, n + 65_536)));
      t.digest = await crypto.subtle.digest('SHA-256', bytes).then((sum) => Array.from(new Uint8Array(sum)).join());
      t.sending = t.room.sendFile(new Blob([bytes], { type: 'application/x-test' }), t.peer('Ben'), { name: '../evil/holiday.bin' });
    }, size);
    await run(ben, (size) => t.wait(() => t.file?.bytes > size / 8), size);
    // The whole connection is made anew, and the channel is gone with it.
    await run(ann, () => t.peer('Ben').link.reset());
    const got = await run(ben, async () => {
      const file = await t.file.done;
      const sum = await crypto.subtle.digest('SHA-256', await file.arrayBuffer());
      return { digest: Array.from(new Uint8Array(sum)).join(), size: file.size, name: file.name, type: file.type, statuses: t.statuses };
    });
    assert.equal(got.digest, await run(ann, () => t.digest));
    assert.deepEqual([got.size, got.name, got.type], [size, '.._evil_holiday.bin', 'application/x-test']);
    assert.ok(got.statuses.includes('waiting'), `it was cut: ${got.statuses}`);
    await run(ann, () => t.sending.done);
    await moving(ben, 'Ann');
  });

  it('pauses a file, and tells a refusal', async () => {
    const code = await run(ann, async () => {
      const sending = t.room.sendFile(new Blob(['x'.repeat(1000)]), t.peer('Ben'), { name: 'a' });
      await sending.done;
      return sending.status;
    });
    assert.equal(code, 'done');
    await run(ben, () => t.room.on('file', (file) => file.name === 'unwanted' && file.reject()));
    const refused = await run(ann, () => t.room.sendFile(new Blob(['y']), t.peer('Ben'), { name: 'unwanted' }).done.then(() => 'taken', ({ code }) => code));
    assert.match(refused, /rejected|taken/);
  });

  it('records everybody into a file that plays', async () => {
    for (const page of [ann, ben]) {
      await giveSound(page);
      const recorded = await run(page, async () => {
        const recording = t.room.record({ width: 640, height: 360, frameRate: 10 });
        await new Promise((resolve) => setTimeout(resolve, 2_500));
        recording.pause();
        recording.resume();
        const blob = await recording.stop();
        const video = Object.assign(document.createElement('video'), { muted: true, src: URL.createObjectURL(blob) });
        document.body.append(video);
        await video.play();
        await t.wait(() => video.currentTime > 0.3);
        return { size: blob.size, type: blob.type, width: video.videoWidth };
      });
      assert.ok(recorded.size > 5_000, `${recorded.size} bytes`);
      assert.equal(recorded.width, 640);
    }
  });

  it('records one track alone, as pieces that stream away', async () => {
    for (const [page, other] of [[ann, 'Ben'], [ben, 'Ann']]) {
      for (const kind of ['video', 'audio']) {
        const recorded = await run(page, async (other, kind) => {
          const pieces = [];
          const sink = new WritableStream({ write: (piece) => void pieces.push(piece) });
          const track = t.peer(other).stream.getTracks().find((one) => one.kind === kind);
          const recording = t.room.record({ track, sink });
          await new Promise((resolve) => setTimeout(resolve, 1_500));
          const left = await recording.stop();
          const element = Object.assign(document.createElement(kind), { muted: true, src: URL.createObjectURL(new Blob(pieces, { type: recording.mimeType })) });
          document.body.append(element);
          await element.play();
          await t.wait(() => element.currentTime > 0.2);
          return { left: left.size, type: recording.mimeType, live: track.readyState };
        }, other, kind);
        assert.deepEqual([recorded.left, recorded.type.split('/')[0], recorded.live], [0, kind, 'live']);
      }
    }
  });

  it('keeps media and tiles while signaling is cut, and the same peer', async () => {
    const before = await run(ben, () => t.peer('Ann').id);
    await run(ann, () => (t.events.length = 0));
    proxy.refusing = true;
    proxy.cut();
    await run(ann, () => t.wait(() => t.room.status === 'reconnecting'));
    await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
    proxy.refusing = false;
    await run(ann, () => t.wait(() => t.room.status === 'online'));
    assert.equal(await run(ben, () => t.peer('Ann').id), before);
    assert.deepEqual(await events(ann), ['reconnecting', 'online']);
  });

  it('moves to the relay on demand, and both sides at once', async () => {
    await run(ann, () => (t.room.relayOnly = true));
    await run(ann, () => t.wait(() => t.peer('Ben').path?.kind.startsWith('relay-')));
    await moving(ben, 'Ann');
    await Promise.all([run(ann, () => (t.room.relayOnly = false)), run(ben, () => (t.room.relayOnly = true))]);
    await run(ben, () => t.wait(() => t.peer('Ann').path?.kind.startsWith('relay-')));
    await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
    await run(ben, () => (t.room.relayOnly = false));
    await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
  });

  it('tells leaving from being gone', async () => {
    await run(ben, () => t.room.leave());
    await run(ann, () => t.wait(() => t.events.includes('left Ben left')));
    assert.ok((await events(ben)).includes('closed left'));
    assert.equal(await run(ben, () => t.room.peers.size), 0);
  });
});

describe('a page that goes away', { timeout: 120_000 }, () => {
  it('is gone for the others at once, in both browsers', async () => {
    const box = await startBox();
    const watch = await open(chromium);
    try {
      await enter(watch, box.ws, { room: 'gone', name: 'Watch', camera: false });
      for (const browser of [chromium, firefox]) {
        const page = await open(browser);
        await enter(page, box.ws, { room: 'gone', name: 'Ann' });
        await moving(watch, 'Ann');
        await page.goto('about:blank');
        // The resume window of thirty seconds is not waited for.
        await run(watch, () => t.wait(() => t.events.includes('left Ann left'), 15_000));
        await run(watch, () => ((t.events.length = 0), delete t.videos['Ann camera']));
        await page.close();
      }
    } finally {
      await watch.close();
      box.stop();
    }
  });
});

describe('a box that is killed under a call', { timeout: 240_000 }, () => {
  let box, ann, ben;
  before(async () => {
    box = await startBox();
    [ann, ben] = [await open(chromium), await open(firefox)];
  });
  after(async () => {
    await Promise.all([ann?.close(), ben?.close()]);
    box?.stop();
  });

  it('loses no second of direct media, and keeps the tiles', async () => {
    await enter(ann, box.ws, { room: 'killed', name: 'Ann' });
    await enter(ben, box.ws, { room: 'killed', name: 'Ben' });
    await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
    const before = await Promise.all([run(ann, () => t.peer('Ben').id), run(ben, () => t.peer('Ann').id)]);
    for (const page of [ann, ben]) await run(page, () => (t.events.length = 0));
    // The longest pause between two frames is what a person would see. First: how long it is on this machine anyway.
    const sides = [[ann, 'Ben'], [ben, 'Ann']];
    for (const [page, other] of sides) await run(page, (other) => t.watchPauses(other), other);
    await Promise.all(sides.map(([page, other]) => run(page, (other) => t.moving(other, 'camera', 60), other)));
    const usual = await Promise.all(sides.map(([page]) => run(page, () => Math.round(t.pause))));
    for (const [page] of sides) await run(page, () => (t.pause = 0));
    await box.kill();
    await run(ann, () => t.wait(() => t.room.status === 'reconnecting'));
    await moving(ben, 'Ann');
    await box.start();
    for (const page of [ann, ben]) await run(page, () => t.wait(() => t.room.status === 'online'));
    await run(ann, () => t.wait(() => t.peer('Ben')?.connection === 'online'));
    await run(ben, () => t.wait(() => t.peer('Ann')?.connection === 'online'));
    await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
    const after = await Promise.all([run(ann, () => t.peer('Ben').id), run(ben, () => t.peer('Ann').id)]);
    assert.deepEqual(after, before);
    for (const page of [ann, ben]) assert.deepEqual(await events(page), ['reconnecting', 'online']);
    const pauses = await Promise.all(sides.map(([page]) => run(page, () => Math.round(t.pause))));
    console.log(`# while the box was killed and started: pauses of ${pauses} ms at most, and of ${usual} ms before`);
    for (const [index, pause] of pauses.entries()) assert.ok(pause < Math.max(1_000, 2 * usual[index]), `pauses of ${pauses} ms, and of ${usual} ms before`);
    // Signaling reaches the same peer under its new address.
    await run(ben, () => t.room.on('message', (content) => (t.word = content)));
    await run(ann, () => t.room.send('still here', t.peer('Ben')));
    assert.equal(await run(ben, () => t.wait(() => t.word)), 'still here');
  });

  it('brings relayed media back soon after the box, in the same tiles', async () => {
    for (const page of [ann, ben]) await run(page, () => (t.room.relayOnly = true));
    await run(ann, () => t.wait(() => t.peer('Ben').path?.kind.startsWith('relay-')));
    await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
    for (const page of [ann, ben]) await run(page, () => (t.events.length = 0));
    await box.kill();
    await box.start();
    const began = Date.now();
    const back = async (page, name) => {
      await run(page, async (name) => {
        await t.wait(() => t.room.status === 'online');
        await t.moving(name);
      }, name);
      return Date.now() - began;
    };
    const took = await Promise.all([back(ann, 'Ben'), back(ben, 'Ann')]);
    console.log(`# relayed media was back ${took} ms after the box`);
    // Three seconds are the goal; a loaded machine adds some.
    assert.ok(Math.max(...took) < 8_000, `${took} ms`);
    for (const page of [ann, ben]) assert.deepEqual((await events(page)).filter((event) => /^(left|came|stream)/.test(event)), []);
  });
});

describe('end-to-end encryption', { timeout: 180_000 }, () => {
  let box, ann, ben, eve;
  before(async () => {
    box = await startBox();
    [ann, ben, eve] = [await open(chromium), await open(firefox), await open(chromium)];
  });
  after(async () => {
    await Promise.all([ann?.close(), ben?.close(), eve?.close()]);
    box?.stop();
  });

  it('shows and tells those with the key everything, and a third without it nothing', async () => {
    const secret = { passphrase: 'a horse that staples batteries' };
    await enter(ann, box.ws, { room: 'sealed', name: 'Ann', encryption: secret });
    await enter(ben, box.ws, { room: 'sealed', name: 'Ben', encryption: secret });
    await enter(eve, box.ws, { room: 'sealed', name: 'Eve', encryption: { passphrase: 'another' } });
    await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
    await run(ann, () => t.wait(() => t.peer('Ben').encrypted));
    await run(ben, () => t.wait(() => t.peer('Ann').encrypted));
    await run(eve, () => t.wait(() => t.peer('Ann').status === 'connected' && t.peer('Ben').status === 'connected'));
    for (const page of [ben, eve]) {
      await run(page, () => {
        t.received = [];
        t.room.on('message', (content) => t.received.push(content));
        t.room.signaling.on('message', ({ content }) => (t.raw = JSON.stringify(content)));
      });
    }
    await run(ann, () => t.room.send({ text: 'between us' }));
    assert.deepEqual(await run(ben, () => t.wait(() => t.received[0])), { text: 'between us' });
    assert.ok(!(await run(eve, () => t.wait(() => t.raw))).includes('between us'));
    assert.deepEqual(await run(eve, async () => [t.received, await t.frames('Ann'), await t.frames('Ben'), t.peer('Ann').encrypted]), [[], 0, 0, false]);
  });

  it('keeps channels and files from who has no key, and in order', async () => {
    const secret = { passphrase: 'a horse that staples batteries' };
    for (const page of [ann, ben, eve]) await run(page, () => t.room.leave());
    await run(ann, () => {
      t.addresses = 0;
      const { createObjectURL, revokeObjectURL } = URL;
      URL.createObjectURL = (blob) => (t.addresses++, createObjectURL.call(URL, blob));
      URL.revokeObjectURL = (url) => (t.addresses--, revokeObjectURL.call(URL, url));
    });
    await enter(ann, box.ws, { room: 'closed', name: 'Ann', encryption: secret, camera: false });
    await enter(ben, box.ws, { room: 'closed', name: 'Ben', encryption: secret, camera: false });
    await enter(eve, box.ws, { room: 'closed', name: 'Eve', camera: false });
    for (const page of [ann, ben, eve]) {
      await run(page, () => {
        t.got = [];
        const text = new TextDecoder('latin1');
        t.notes = t.room.channel('notes').on('message', (data, { name }) => t.got.push(data instanceof ArrayBuffer ? `${name} bytes ${text.decode(data)}` : `${name} ${JSON.stringify(data)}`));
        t.room.on('file', async (file) => (t.file = await file.accept()));
      });
    }
    await run(ann, () => t.wait(() => ['Ben', 'Eve'].every((name) => t.peer(name) && t.notes.isOpen(t.peer(name)))));
    await run(eve, () => t.wait(() => t.peer('Ben') && t.notes.isOpen(t.peer('Ben'))));
    const sent = await run(ann, async () => {
      for (let n = 0; n < 100; n++) void t.notes.send({ n, safe: '4711' });
      await t.notes.send(new TextEncoder().encode('bytes of the safe'));
      // Of several parts, and larger than what waits at a time.
      const part = crypto.getRandomValues(new Uint8Array(65_536));
      const blob = new Blob(Array.from({ length: 64 }, () => part));
      await t.room.sendFile(blob, t.peer('Ben'), { name: 'safe.bin' }).done;
      return Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', await blob.arrayBuffer())));
    });
    const file = await run(ben, () => t.wait(async () => t.file && [t.file.name, t.file.size, Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', await t.file.arrayBuffer())))]));
    assert.deepEqual(file, ['safe.bin', 4_194_304, sent]);
    const wanted = [...Array.from({ length: 100 }, (_, n) => `Ann {"n":${n},"safe":"4711"}`), 'Ann bytes bytes of the safe'];
    assert.deepEqual(await run(ben, () => t.wait(() => t.got.length > 100 && t.got)), wanted);
    // What has no key is sent sealed bytes, and what it says itself reaches nobody who has one.
    await run(eve, () => t.wait(() => t.got.length > 100));
    assert.ok(!/4711|safe/.test(await run(eve, () => t.got.join())));
    await run(eve, () => t.notes.send('me too'));
    await run(ann, () => t.notes.send('the last'));
    await run(ben, () => t.wait(() => t.got.includes('Ann "the last"')));
    assert.ok(!(await run(ben, () => t.got.join())).includes('me too'));
    // The worker's address is given up once it runs.
    await run(ann, () => t.wait(() => t.addresses === 0));
  });

  it('opens a message once, and from its sender alone', async () => {
    for (const page of [ann, ben, eve]) await run(page, () => t.room.leave());
    // A key of the application's own.
    const secret = { key: Array.from({ length: 16 }, (_, n) => n * 7) };
    await enter(ann, box.ws, { room: 'once', name: 'Ann', encryption: secret, camera: false, media: false });
    await enter(ben, box.ws, { room: 'once', name: 'Ben', encryption: secret, camera: false, media: false });
    await run(ben, () => {
      t.got = [];
      t.room.on('message', (content, { name }) => t.got.push(`${name}: ${content}`));
    });
    // Eve writes down what the server shows, and says it again: in her own name, then with what Ann's library is known by.
    await run(eve, async (url) => {
      t.written = [];
      const eve = (t.signal = new t.callbox.Signal(url));
      eve.on('message', ({ content }) => t.written.push(content));
      const { peers } = await eve.join({ roomId: 'once', identity: 'Eve' });
      t.copied = peers.find(({ identity }) => identity === 'Ann').metadata;
    }, box.ws);
    await run(ann, async () => {
      for (const text of ['pay 10', 'pay 20']) await t.room.send(text);
    });
    await run(eve, async (url) => {
      await t.wait(() => t.written.length === 2);
      for (const content of t.written) await t.signal.request('message', { content });
      t.signal.leave();
      const again = new t.callbox.Signal(url);
      await again.join({ roomId: 'once', identity: 'Eva', metadata: t.copied });
      for (const content of t.written.slice(0, 2)) await again.request('message', { content });
      again.leave();
    }, box.ws);
    await run(ann, () => t.room.send('the last'));
    await run(ben, () => t.wait(() => t.got.includes('Ann: the last')));
    assert.deepEqual(await run(ben, () => t.got), ['Ann: pay 10', 'Ann: pay 20', 'Ann: the last']);
  });
});

describe('a direct call', { timeout: 120_000 }, () => {
  it('rings, is accepted, carries video, outlives the box, and ends', async () => {
    const box = await startBox({ CALLBOX_AUTH__ADMIN_TOKEN: ADMIN });
    const [ann, ben] = [await open(chromium), await open(firefox)];
    try {
      await run(ben, async (url) => {
        t.phone = await t.callbox.register(url, { identity: 'ben' });
        t.phone.on('call', async (call) => {
          t.call = call;
          call.on('stream', (stream) => (t.video = t.show(stream)));
          call.on('end', (reason) => (t.ended = reason));
          await call.accept({ stream: await t.camera() });
        });
      }, box.ws);
      await run(ann, async (url) => {
        t.phone = await t.callbox.register(url, { identity: 'ann' });
        t.call = await t.phone.call('ben', { stream: await t.camera(), metadata: { video: true } });
        t.call.on('stream', (stream) => (t.video = t.show(stream)));
      }, box.ws);
      for (const page of [ann, ben]) await run(page, () => t.wait(async () => t.call?.status === 'connected' && t.video && (await t.decoded(t.call.peer.link.pc, t.video.srcObject)) > 10));
      assert.deepEqual(await run(ben, () => [t.call.identity, t.call.metadata, t.call.incoming]), ['ann', { video: true }, true]);
      // The application's own metadata and no more: what the library adds stays its own.
      assert.deepEqual(await run(ann, () => [t.call.metadata, t.call.peer.sameLibrary]), [null, true]);
      const metrics = async () => (await fetch(`${box.url}metrics`, { headers: { Authorization: `Bearer ${ADMIN}` } })).text();
      for (const end = Date.now() + 20_000; !/signal_reports_total\{[^}]*path="direct"[^}]*\} 2/.test(await metrics()); ) {
        assert.ok(Date.now() < end, 'both sides report how the connection went');
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
      assert.match(await metrics(), /report_loss_ratio_count 2\n/, 'and what was lost');

      // The box forgets every call. The media goes on, and the two sides find each other again without a ring.
      await run(ben, () => ((t.rings = 0), t.phone.on('call', () => t.rings++)));
      const before = await run(ann, () => t.call.id);
      await box.kill();
      await run(ann, () => t.wait(() => t.phone.signaling.status === 'reconnecting'));
      await box.start();
      for (const page of [ann, ben]) await run(page, () => t.wait(() => t.call.peer.connection === 'online' && t.phone.signaling.status === 'online'));
      await run(ann, (before) => t.wait(() => t.call.id !== before), before);
      await run(ben, (before) => t.wait(() => t.call.id !== before), before);
      for (const page of [ann, ben]) {
        assert.equal(await run(page, () => t.call.status), 'connected');
        await run(page, async () => {
          const from = await t.decoded(t.call.peer.link.pc, t.video.srcObject);
          await t.wait(async () => (await t.decoded(t.call.peer.link.pc, t.video.srcObject)) > from + 10);
        });
      }
      await run(ben, () => t.call.on('message', (content) => (t.word = content)));
      await run(ann, () => t.call.send('still here'));
      assert.deepEqual(await run(ben, async () => [await t.wait(() => t.word), t.rings]), ['still here', 0]);

      await run(ann, () => t.call.hangup());
      assert.equal(await run(ben, () => t.wait(() => t.ended)), 'hangup');
      assert.equal(await run(ann, () => t.phone.call('nobody').then(() => 'rings', ({ code }) => code)), 'no-such-peer');
    } finally {
      await Promise.all([ann.close(), ben.close()]);
      box.stop();
    }
  });
});

describe('a direct call whose page goes away', { timeout: 120_000 }, () => {
  it('ends at once for the other side, in both browsers', async () => {
    const box = await startBox();
    const stays = await open(chromium);
    try {
      await run(stays, async (url) => {
        t.phone = await t.callbox.register(url, { identity: 'stays' });
        t.phone.on('call', (call) => {
          t.call = call;
          t.ended = '';
          call.on('end', (reason) => (t.ended = reason));
          void call.accept();
        });
      }, box.ws);
      for (const browser of [chromium, firefox]) {
        const goes = await open(browser);
        await run(goes, async (url) => {
          t.phone = await t.callbox.register(url, { identity: 'goes' });
          t.call = await t.phone.call('stays', { stream: await t.camera() });
          await t.wait(() => t.call.status === 'connected');
        }, box.ws);
        await run(stays, () => t.wait(() => t.call?.status === 'connected'));
        await goes.goto('about:blank');
        // The resume window of thirty seconds is not waited for.
        assert.match(await run(stays, () => t.wait(() => t.ended, 15_000)), /^(hangup|disconnected)$/);
        await goes.close();
      }
    } finally {
      await stays.close();
      box.stop();
    }
  });
});

it('made no page throw, log an error, or leave a rejection unhandled', () => {
  // Each attempt to reach a killed box is an error line of the browser itself.
  const own = [...chromium.faults, ...firefox.faults].filter((fault) => !/WebSocket|ERR_CONNECTION|can.t establish a connection|NetworkError|Failed to load resource/.test(fault));
  assert.deepEqual(own, []);
});
