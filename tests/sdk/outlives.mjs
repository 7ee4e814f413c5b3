// Calls that outlive their signaling in each way that it ends, what ends them at once, and what makes the library look. One peer
// connection alone, without a server. Needs what browsers.mjs needs.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startBox, startProxy } from './box.mjs';
import { prepare, startBrowser, startPages } from './pages.mjs';

const run = (page, work, ...given) => page.evaluate(work, ...given);
const moving = (page, name) => page.evaluate((name) => t.moving(name), name);
const close = (...all) => Promise.all(all.map((one) => one.close()));

let pages;
const browsers = {};
before(async () => {
  pages = await startPages();
  await Promise.all(['chromium', 'firefox'].map(async (name) => (browsers[name] = await startBrowser(name))));
});
after(async () => {
  await Promise.all(Object.values(browsers).map((one) => one.stop()));
  pages?.stop();
});
const open = async (name) => prepare(await browsers[name].open(pages.url));
const enter = (page, url, options) => run(page, (url, options) => t.enter(url, options), url, options);
/** What a person would notice: somebody who leaves, comes or begins to send. */
const noticed = async (page) => (await run(page, () => t.events)).filter((event) => /^(left|came|stream)/.test(event));

describe('a call outlives its signaling', { timeout: 240_000 }, () => {
  /** Two in a call, Ann behind a proxy, who have seen each other move; from then on events count. */
  async function call(box, room) {
    const proxy = await startProxy(box.port);
    const [ann, ben] = [await open('chromium'), await open('firefox')];
    await enter(ann, proxy.ws, { room, name: 'Ann' });
    await enter(ben, box.ws, { room, name: 'Ben' });
    await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
    for (const [page, other] of [[ann, 'Ben'], [ben, 'Ann']]) {
      await run(page, (other) => {
        t.events.length = 0;
        t.first = t.peer(other);
        t.pcs = [t.first.link.pc];
        t.first.link.on('reset', () => t.pcs.push(t.first.link.pc));
      }, other);
    }
    return { ann, ben, proxy };
  }
  /** The same tiles, the same peers, the same connections, and signaling that reaches under the new address. */
  async function went(ann, ben) {
    await run(ann, () => t.wait(() => t.room.status === 'online' && t.peer('Ben')?.connection === 'online'));
    await run(ben, () => t.wait(() => t.room.status === 'online' && t.peer('Ann')?.connection === 'online'));
    await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
    for (const [page, other] of [[ann, 'Ben'], [ben, 'Ann']]) {
      assert.deepEqual(await noticed(page), []);
      assert.deepEqual(await run(page, (other) => [t.peer(other) === t.first, t.pcs.length, t.room.peers.size], other), [true, 1, 1]);
    }
    await run(ben, () => t.room.on('message', (content) => (t.word = content)));
    await run(ann, () => t.room.send('still here', t.peer('Ben')));
    assert.equal(await run(ben, () => t.wait(() => t.word)), 'still here');
  }

  it('that is away for longer than the resume window; the other side keeps the peer for as long as its media flows', async () => {
    const box = await startBox({ CALLBOX_SIGNAL__RESUME_WINDOW: '2s' });
    const { ann, ben, proxy } = await call(box, 'window');
    try {
      await run(ben, () => {
        t.reasons = [];
        t.room.signaling.on('peer-left', ({ reason }) => t.reasons.push(reason));
      });
      proxy.refusing = true;
      proxy.cut();
      // The box says that she is gone, and she is not.
      await run(ben, () => t.wait(() => t.reasons.length && t.peer('Ann').connection === 'lost'));
      await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
      assert.deepEqual(await run(ben, () => t.reasons), ['disconnected']);
      proxy.refusing = false;
      await went(ann, ben);

      // Gone in earnest: the media stops too.
      proxy.refusing = true;
      proxy.cut();
      await run(ben, () => t.wait(() => t.peer('Ann').connection === 'lost'));
      await run(ann, () => t.peer('Ben').link.pc.close());
      await run(ben, () => t.wait(() => t.events.includes('left Ann disconnected')));
    } finally {
      await close(ann, ben);
      proxy.stop();
      box.stop();
    }
  });

  it('whose WebSocket swallows everything, found within five seconds', async () => {
    const box = await startBox();
    const { ann, ben, proxy } = await call(box, 'held');
    try {
      await run(ann, () => t.room.on('status', (status) => status === 'reconnecting' && (t.found = Date.now())));
      const began = Date.now();
      proxy.held = true;
      const took = (await run(ann, () => t.wait(() => t.found))) - began;
      console.log(`# a WebSocket that swallows everything was found after ${took} ms`);
      // A question every 1.5 s, and 2.5 s for its answer; a busy machine's timers are late.
      assert.ok(took < 5_000, `${took} ms`);
      proxy.held = false;
      proxy.cut();
      await went(ann, ben);
    } finally {
      await close(ann, ben);
      proxy.stop();
      box.stop();
    }
  });

  it('on a box that drains, ends, and is started anew', async () => {
    const box = await startBox({ CALLBOX_DRAIN__GRACE: '2s' });
    const { ann, ben, proxy } = await call(box, 'drained');
    try {
      const draining = run(ann, () => new Promise((resolve) => t.room.on('draining', resolve)));
      box.signal('SIGTERM');
      assert.equal(typeof (await draining), 'number');
      await box.ended();
      await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
      await box.start();
      await went(ann, ben);
    } finally {
      await close(ann, ben);
      proxy.stop();
      box.stop();
    }
  });

  it('but not a kick, nor the end of the room', async () => {
    const admin = 'an admin token of this test alone';
    const box = await startBox({ CALLBOX_AUTH__ADMIN_TOKEN: admin });
    const { ann, ben, proxy } = await call(box, 'over');
    try {
      await run(ann, () => t.room.kick(t.peer('Ben')));
      await run(ann, () => t.wait(() => t.events.includes('left Ben kicked')));
      assert.equal(await run(ann, () => t.first.link.state), 'closed');
      await run(ben, () => t.wait(() => t.events.includes('closed kicked')));
      assert.equal(await run(ben, () => t.first.link.state), 'closed');
      const answer = await fetch(`${box.url}v1/rooms/over`, { method: 'DELETE', headers: { Authorization: `Bearer ${admin}` } });
      assert.ok(answer.ok);
      await run(ann, () => t.wait(() => t.events.includes('closed room-closed')));
    } finally {
      await close(ann, ben);
      proxy.stop();
      box.stop();
    }
  });
});

describe('a call by a relay that nobody reaches', { timeout: 120_000 }, () => {
  it('counts as failed where Chromium itself says nothing, is reported, and connects when it may go another way', async () => {
    const admin = 'an admin token of this test alone';
    const box = await startBox({ CALLBOX_AUTH__ADMIN_TOKEN: admin, CALLBOX_PUBLIC__ICE_URLS: '["turn:127.0.0.1:9?transport=udp"]', CALLBOX_AUTH__MODE: 'open' });
    const [ann, ben] = [await open('chromium'), await open('chromium')];
    try {
      for (const [page, name] of [[ann, 'Ann'], [ben, 'Ben']]) await enter(page, box.ws, { room: 'unreached', name, relayOnly: true });
      for (const [page, other] of [[ann, 'Ben'], [ben, 'Ann']]) {
        await run(page, (other) => t.wait(() => t.peer(other)?.status === 'failed' && t.peer(other).link.pc.iceConnectionState === 'new'), other);
      }
      const failed = async () => /signal_reports_total\{[^}]*path="failed"[^}]*\} 2/.test(await (await fetch(`${box.url}metrics`, { headers: { Authorization: `Bearer ${admin}` } })).text());
      for (const end = Date.now() + 10_000; !(await failed()); ) {
        assert.ok(Date.now() < end, 'both sides report that there is no path');
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      for (const page of [ann, ben]) await run(page, () => (t.room.relayOnly = false));
      await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
      for (const [page, other] of [[ann, 'Ben'], [ben, 'Ann']]) assert.equal(await run(page, (other) => t.peer(other).status, other), 'connected');
    } finally {
      await close(ann, ben);
      box.stop();
    }
  });
});

describe('over HTTP from a page of another origin', { timeout: 120_000 }, () => {
  it('carries a call where WebSockets do not pass, in both browsers', async () => {
    const box = await startBox();
    const [ann, ben] = [await open('chromium'), await open('firefox')];
    try {
      for (const page of [ann, ben]) {
        await run(page, () => {
          globalThis.WebSocket = class {
            readyState = 0;
            constructor() {
              setTimeout(() => this.onclose?.({ code: 1006, reason: '' }), 5);
            }
            send() {}
            close() {}
          };
        });
      }
      await enter(ann, box.ws, { room: 'http', name: 'Ann' });
      await enter(ben, box.ws, { room: 'http', name: 'Ben' });
      await Promise.all([moving(ann, 'Ben'), moving(ben, 'Ann')]);
      await run(ben, () => t.room.leave());
      await run(ann, () => t.wait(() => t.events.includes('left Ben left')));
    } finally {
      await close(ann, ben);
      box.stop();
    }
  });
});

describe('a connection', { timeout: 180_000 }, () => {
  for (const [name, other] of [['chromium', 'firefox'], ['firefox', 'chromium']]) {
    it(`sends by preference: bits a second, codec, what a picture is, one layer (${name} to ${other})`, async () => {
      const box = await startBox();
      const [ann, ben] = [await open(name), await open(other)];
      try {
        await enter(ben, box.ws, { room: 'wishes', name: 'Ben' });
        await enter(ann, box.ws, { room: 'wishes', name: 'Ann', videoBudget: 900_000 });
        await moving(ben, 'Ann');
        const sent = await run(ann, async () => {
          const stream = t.canvas();
          await t.room.publish(stream, { label: 'screen', maxBitrate: 200_000, contentHint: 'detail', codecs: ['video/VP9'] });
          const { pc } = t.peer('Ben').link;
          const of = (track) => pc.getSenders().find((sender) => sender.track === track);
          const codec = async (sender) => {
            const report = await sender.getStats();
            let id, found;
            report.forEach((stats) => stats.type === 'outbound-rtp' && stats.framesEncoded && (id = stats.codecId));
            report.forEach((stats) => stats.id === id && (found = stats.mimeType));
            return found;
          };
          const [screen, camera] = [of(stream.getVideoTracks()[0]), of(t.own.getVideoTracks()[0])];
          await t.wait(() => screen.getParameters().encodings[0]?.maxBitrate && camera.getParameters().encodings[0]?.maxBitrate);
          await t.wait(() => codec(screen));
          return { codec: await codec(screen), hint: stream.getVideoTracks()[0].contentHint, encodings: [screen, camera].map((sender) => sender.getParameters().encodings.map(({ maxBitrate }) => maxBitrate)) };
        });
        assert.deepEqual(sent.encodings, [[200_000], [900_000]]);
        assert.match(sent.codec, /^video\/VP9$/i);
        // Firefox has no hints for tracks.
        assert.ok(sent.hint === 'detail' || sent.hint === undefined, sent.hint);
      } finally {
        await close(ann, ben);
        box.stop();
      }
    });

    it(`begins with a picture that fits the first bits a second, and sends the whole one soon (${name} to ${other})`, async () => {
      const box = await startBox();
      const [ann, ben] = [await open(name), await open(other)];
      try {
        await enter(ben, box.ws, { room: 'begins', name: 'Ben', camera: false });
        const scales = await run(ann, async (url) => {
          const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 1280, height: 720 } });
          t.room = await t.callbox.join(url, { room: 'begins', name: 'Ann', streams: [stream] });
          const { pc } = (await t.wait(() => t.peer('Ben'))).link;
          const scale = () => pc.getSenders().find(({ track }) => track?.kind === 'video')?.getParameters().encodings[0]?.scaleResolutionDownBy ?? 1;
          const { width, height } = stream.getVideoTracks()[0].getSettings();
          const first = await t.wait(() => (scale() > 1 ? scale() : t.peer('Ben').status === 'connected' && 1));
          await t.wait(() => t.peer('Ben').status === 'connected' && scale() === 1);
          return [width * height, first];
        }, box.ws);
        const [pixels, first] = scales;
        assert.ok(pixels / first ** 2 <= 640 * 360 * 1.5, `${pixels} pixels, scaled down by ${first}`);
        await run(ben, () => t.moving('Ann'));
      } finally {
        await close(ann, ben);
        box.stop();
      }
    });

    it(`looks at once when its path or the network changes (${name})`, async () => {
      const box = await startBox();
      const [ann, ben] = [await open(name), await open(other)];
      try {
        await run(ann, () => {
          t.sent = [];
          t.unanswered = 0;
          globalThis.WebSocket = class extends WebSocket {
            constructor(...given) {
              super(...given);
              this.addEventListener('message', ({ data }) => (t.unanswered -= JSON.parse(data).type === 'pong'));
            }
            send(text) {
              const { type } = JSON.parse(text);
              t.sent.push(type);
              t.unanswered += type === 'ping';
              super.send(text);
            }
          };
          globalThis.RTCPeerConnection = class extends RTCPeerConnection {
            get iceConnectionState() {
              return t.broken ? 'disconnected' : super.iceConnectionState;
            }
          };
        });
        await enter(ann, box.ws, { room: 'looks', name: 'Ann', camera: false });
        await enter(ben, box.ws, { room: 'looks', name: 'Ben', camera: false });
        await run(ann, () => t.wait(() => t.peer('Ben')?.status === 'connected'));
        const asked = await run(ann, async () => {
          const asked = {};
          const { pc } = t.peer('Ben').link;
          // Not while another question is under way: that one's answer is waited for.
          const ask = async (what, act) => {
            while (t.unanswered) await new Promise((resolve) => setTimeout(resolve, 20));
            t.sent.length = 0;
            act();
            asked[what] = t.sent.includes('ping');
          };
          await ask('path', () => {
            t.broken = true;
            pc.oniceconnectionstatechange(new Event('iceconnectionstatechange'));
            t.broken = false;
          });
          asked.network = true;
          if (navigator.connection) await ask('network', () => navigator.connection.dispatchEvent(new Event('change')));
          return asked;
        });
        assert.deepEqual(asked, { path: true, network: true });
      } finally {
        await close(ann, ben);
        box.stop();
      }
    });

    it(`works by itself: candidates before their description, as strings, of mDNS, and their end (${name})`, async () => {
      const page = await open(name);
      const got = await run(page, async () => {
        const { Link } = t.callbox;
        const ends = {};
        const early = [];
        let described = false;
        const deliver = (to, message) => setTimeout(() => ends[to].receive(message));
        const make = (own, peer, offers) => {
          ends[own] = new Link({
            polite: offers,
            offers,
            config: {},
            control: true,
            receive: [],
            send: (type, fields) => {
              // The answerer gets every candidate before the offer, and as other clients write them.
              if (type === 'candidate' && !described) early.push(fields);
              else deliver(peer, { type, ...fields });
            },
          });
        };
        make('b', 'a', false);
        make('a', 'b', true);
        const offer = await new Promise((resolve) => {
          const { receive } = ends.b;
          ends.b.receive = (message) => (message.type === 'offer' ? resolve(message) : receive.call(ends.b, message));
          ends.b.original = receive;
        });
        await t.wait(() => early.some(({ candidate }) => candidate === null));
        delete ends.b.receive;
        ends.b.receive({ type: 'candidate', candidate: { candidate: 'candidate:1 1 udp 2113937151 6e8ab2f4-0000-4000-8000-000000000000.local 50000 typ host', sdpMid: '0', sdpMLineIndex: 0 } });
        for (const { candidate } of early) ends.b.receive({ type: 'candidate', candidate: candidate?.candidate ?? candidate });
        described = true;
        ends.b.receive(offer);
        await t.wait(() => ends.a.state === 'connected' && ends.b.state === 'connected');
        const alive = await ends.a.alive();
        const opened = new Promise((resolve) => ends.b.on('channel', (channel) => (channel.onmessage = ({ data }) => resolve(data))));
        const channel = ends.a.openChannel('words');
        channel.onopen = () => channel.send('by itself');
        const word = await opened;
        await t.wait(() => ends.a.path());
        const { kind } = await ends.a.path();
        const bye = new Promise((resolve) => ends.b.on('bye', resolve));
        ends.a.close();
        return [alive, word, kind, await bye, ends.a.state];
      });
      assert.equal(got[0], true);
      assert.equal(got[1], 'by itself');
      assert.match(got[2], /^direct/);
      assert.deepEqual(got.slice(3), [true, 'closed']);
      await close(page);
    });

    it(`begins anew where ICE stands still though each side has the other's description, with a peer of another library too (${name})`, async () => {
      const page = await open(name);
      const got = await run(page, async () => {
        const { Link } = t.callbox;
        /** Nothing but the descriptions arrives before the side that acts first has tried again. */
        const still = async (control) => {
          const ends = {};
          let offers = 0;
          const make = (own, peer, first) => {
            ends[own] = new Link({
              polite: !first,
              offers: first,
              config: {},
              control,
              receive: ['audio'],
              send: (type, fields) => {
                if (type === 'offer') offers++;
                if (offers < 2 && type === 'candidate') return;
                const sdp = offers < 2 ? fields.sdp?.replace(/^a=candidate:.*\r\n/gm, '') : fields.sdp;
                setTimeout(() => ends[peer].receive({ type, ...fields, ...(sdp && { sdp }) }));
              },
            });
          };
          make('b', 'a', false);
          make('a', 'b', true);
          const first = ends.a.pc;
          await t.wait(() => ends.a.state === 'connected' && ends.b.state === 'connected');
          const anew = ends.a.pc !== first;
          ends.a.close();
          ends.b.close();
          return [offers, anew];
        };
        return Promise.all([still(true), still(false)]);
      });
      // Nothing could connect before the second offer; on a loaded machine that one may stand still too.
      for (const [offers] of got) assert.ok(offers >= 2 && offers <= 4, `${offers} offers`);
      assert.deepEqual(got.map(([, anew]) => anew), [true, false]);
      await close(page);
    });
  }
});

it('made no page throw, log an error, or leave a rejection unhandled', () => {
  const own = Object.values(browsers).flatMap(({ faults }) => faults).filter((fault) => !/WebSocket|ERR_CONNECTION|can.t establish a connection|NetworkError|Failed to load resource/.test(fault));
  assert.deepEqual(own, []);
});
