// Rooms in Node against peers that are slow, absent, clumsy or hostile: files, channels, and who is who. Data channels are two ends in
// this process that carry what they are given one after the other, as a browser's do; signaling is a real box.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { WebSocket } from 'ws';
import { join, Room, Signal } from '../../sdk/js/dist/callbox.mjs';
import { startBox, startProxy } from './box.mjs';

const WITHIN = 20_000;
const until = async (what, why) => {
  for (const end = Date.now() + WITHIN; ; ) {
    const value = what();
    if (value) return value;
    assert.ok(Date.now() < end, `not in time: ${why ?? what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};
const settled = (promise) => promise.then(() => 'done', ({ code }) => code);
/** Lets what is under way happen. */
const quiescence = () => new Promise((resolve) => setTimeout(resolve, 50));

/** One end of a data channel. */
class End extends EventTarget {
  readyState = 'connecting';
  bufferedAmount = 0;
  bufferedAmountLowThreshold = 0;
  #way = Promise.resolve();
  onmessage = null;
  onclose = null;
  constructor(label, { protocol = '' } = {}) {
    super();
    Object.assign(this, { label, protocol });
  }
  opened() {
    if (this.readyState !== 'connecting') return;
    this.readyState = 'open';
    this.dispatchEvent(new Event('open'));
  }
  send(data) {
    if (this.readyState !== 'open') throw new Error('InvalidStateError');
    const copy = typeof data === 'string' ? data : new Uint8Array(data).slice().buffer;
    const size = copy.byteLength ?? copy.length;
    this.bufferedAmount += size;
    this.#then(() => {
      this.other.onmessage?.({ data: copy });
      const before = this.bufferedAmount;
      this.bufferedAmount -= size;
      if (before > this.bufferedAmountLowThreshold && this.bufferedAmount <= this.bufferedAmountLowThreshold) this.dispatchEvent(new Event('bufferedamountlow'));
    });
  }
  #then(work) {
    this.#way = this.#way.then(() => new Promise((resolve) => setImmediate(resolve))).then(work);
  }
  close() {
    if (this.readyState === 'closed') return;
    this.readyState = 'closed';
    // What was sent before comes before.
    this.#then(() => [this, this.other].forEach((end) => ((end.readyState = 'closed'), end.onclose?.({}))));
  }
}

/** Two rooms with a connection between them. Each has the other as `peer`; `opened` counts the channels that it opened. */
function connected(count = 2) {
  const rooms = Array.from({ length: count }, (_, n) => new Room('ws://127.0.0.1:1/ws', { room: 'r', name: `P${n}`, WebSocket }));
  const sides = rooms.map((room) => ({ room, peers: [], opened: 0, offers: [] }));
  for (const [n, side] of sides.entries()) {
    for (const [m, other] of sides.entries()) {
      if (n === m) continue;
      const peer = { id: `p${m}`, peerId: `p${m}`, status: 'connected', ends: new Set() };
      const openChannel = (label, init) => {
        side.opened++;
        const [near, far] = [new End(label, init), new End(label, init)];
        [near.other, far.other] = [far, near];
        peer.ends.add(near);
        setImmediate(() => {
          other.room.channelOpened(other.peers[n], far);
          // The end that a peer opened may open a moment later here.
          far.opened();
          near.opened();
        });
        return near;
      };
      peer.link = { state: 'connected', openChannel };
      side.peers[m] = peer;
      side.room.peers.set(peer.id, peer);
    }
  }
  return sides;
}
/** Waits until nothing is on its way between these. */
const drained = async (...sides) => {
  const ends = () => sides.flatMap(({ peers }) => peers).flatMap(({ ends }) => [...ends]).flatMap((end) => [end, end.other]);
  await quiescence();
  await until(() => ends().every(({ bufferedAmount }) => !bufferedAmount));
};
const blob = (size, fill = 7) => new Blob([new Uint8Array(size).fill(fill)]);

describe('files', { timeout: 120_000 }, () => {
  it('of which there are many wait for their turn, and all arrive', async () => {
    const [ann, ben] = connected();
    const open = new Set();
    let most = 0;
    ben.room.on('file', (file) => {
      open.add(file);
      most = Math.max(most, open.size);
      file.done.then(() => open.delete(file));
    });
    const files = Array.from({ length: 40 }, (_, n) => ann.room.sendFile(blob(100 + n), ann.peers[1], { name: `f${n}` }));
    await until(() => open.size === 32);
    await quiescence();
    assert.deepEqual([open.size, ann.opened], [32, 32]);
    ben.room.on('file', (file) => void file.accept());
    await Promise.all(files.map(({ done }) => done));
    assert.ok(most <= 32, `${most} at a time`);
    assert.equal(ann.opened, 40);
  });

  it('are given up where the peer closes every channel', async () => {
    const [ann, ben] = connected();
    ben.room.channelOpened = (_, channel) => channel.close();
    const file = ann.room.sendFile(blob(10), ann.peers[1]);
    assert.equal(await settled(file.done), 'rejected');
    assert.ok(ann.opened <= 4, `${ann.opened} channels`);
  });

  it('are declined once, also in the listener itself', async () => {
    const [ann, ben] = connected();
    let offers = 0;
    ben.room.on('file', (file) => (offers++, file.reject()));
    assert.equal(await settled(ann.room.sendFile(blob(10), ann.peers[1]).done), 'rejected');
    await quiescence();
    assert.deepEqual([offers, ann.opened], [1, 1]);
  });

  it('stay paused for as long as a person wants, whatever the disk says, and the disk is nobody else\'s matter', async () => {
    const [ann, ben] = connected();
    const written = [];
    let release = [];
    const sink = new WritableStream({ write: (part) => (written.push(part.length), new Promise((resolve) => release.push(resolve))) });
    const drain = () => release.splice(0).forEach((resolve) => resolve());
    let file;
    ben.room.on('file', (offered) => void (file = offered).accept(sink));
    const outgoing = ann.room.sendFile(blob(6 << 20), ann.peers[1]);
    const statuses = [];
    outgoing.on('status', (status) => statuses.push(status));
    // The disk is behind: the sender waits, and nobody is said to have paused.
    await until(() => file?.bytes > 1 << 20);
    await drained(ann, ben);
    const held = file.bytes;
    assert.ok(held < 3 << 20, `${held} bytes wait for a disk that takes none`);
    assert.deepEqual(statuses, ['flowing']);
    file.pause();
    await until(() => outgoing.status === 'paused');
    const draining = setInterval(drain, 1);
    await drained(ann, ben);
    await drained(ann, ben);
    assert.deepEqual([file.status, outgoing.status], ['paused', 'paused']);
    assert.equal(file.bytes, held);
    // Either side goes on.
    outgoing.resume();
    await file.done;
    await outgoing.done;
    clearInterval(draining);
    assert.deepEqual(statuses, ['flowing', 'paused', 'flowing', 'done']);
    assert.equal(written.reduce((a, b) => a + b, 0), 6 << 20);
  });

  for (const who of ['the sender', 'the receiver']) {
    it(`stay paused over a cut, and ${who} goes on`, async () => {
      const [ann, ben] = connected();
      let file;
      ben.room.on('file', (offered) => void (file = offered).accept());
      const outgoing = ann.room.sendFile(blob(8 << 20), ann.peers[1]);
      await until(() => file?.bytes > 1 << 20);
      file.pause();
      await until(() => outgoing.status === 'paused');
      await drained(ann, ben);
      const before = file.bytes;
      assert.ok(before < 8 << 20);
      for (const end of ann.peers[1].ends) end.close();
      await until(() => ann.opened === 2, 'the file is offered anew');
      await quiescence();
      assert.deepEqual([file.status, file.bytes], ['paused', before]);
      (who === 'the sender' ? outgoing : file).resume();
      assert.equal((await file.done).size, 8 << 20);
      await outgoing.done;
    });
  }

  it('that are whole stay so where the last word was lost: they are offered once', async () => {
    const [ann, ben] = connected();
    let offers = 0;
    let got = 0;
    ben.room.on('file', (file) => {
      offers++;
      file.accept().then(() => got++);
    });
    const peer = ann.peers[1];
    const { openChannel } = peer.link;
    let lost = 0;
    peer.link.openChannel = (...given) => {
      const channel = openChannel(...given);
      const deliver = (event) => channel.heard?.(event);
      Object.defineProperty(channel, 'onmessage', {
        set: (heard) => (channel.heard = heard),
        get: () => (event) => {
          if (!lost && String(event.data).includes('"ok"')) return void (lost++, channel.close());
          deliver(event);
        },
      });
      return channel;
    };
    const file = ann.room.sendFile(new Blob(['hello']), peer);
    await file.done;
    assert.deepEqual([offers, got, lost, ann.opened, file.status], [1, 1, 1, 2, 'done']);
  });

  it('that arrive damaged, or longer than they were said to be, are given to nobody, and both sides say so', async () => {
    for (const change of [(bytes) => (bytes[0] ^= 1, bytes), (bytes) => Uint8Array.from([...bytes, 0])]) {
      const [ann, ben] = connected();
      const peer = ann.peers[1];
      const { openChannel } = peer.link;
      peer.link.openChannel = (...given) => {
        const channel = openChannel(...given);
        const { send } = channel;
        channel.send = (data) => send.call(channel, typeof data === 'string' ? data : change(Uint8Array.from(data)));
        return channel;
      };
      let file;
      ben.room.on('file', (offered) => void (file = offered).accept());
      const outgoing = ann.room.sendFile(blob(1000), peer);
      assert.equal(await settled(outgoing.done), 'file');
      assert.match(await file.done.catch(({ message }) => message), /damaged/);
      assert.deepEqual([file.status, outgoing.status, ann.opened], ['failed', 'failed', 1]);
    }
  });

  it('show the ending that they have', async () => {
    const [ann, ben] = connected();
    const names = [];
    ben.room.on('file', (file) => (names.push(file.name), file.reject()));
    for (const name of ['photo\u202Egpj.exe', 'a\u2066b\u2069c\u200F', '../../etc/passwd', 'a\0b', 'Ferien – été 日本.txt']) await settled(ann.room.sendFile(blob(1), ann.peers[1], { name }).done);
    assert.deepEqual(names, ['photo_gpj.exe', 'a_b_c_', '.._.._etc_passwd', 'a_b', 'Ferien – été 日本.txt']);
  });
});

describe('channels', { timeout: 120_000 }, () => {
  it('that one peer opens are opened to nobody else, bounded, and forgotten with the peer', async () => {
    const [ann, ben, eve] = connected(3);
    const news = [];
    ben.room.on('channel', ({ name }) => news.push(name));
    for (let n = 0; n < 1000; n++) eve.peers[1].link.openChannel(`s${n}`);
    for (let n = 0; n < 100; n++) eve.peers[1].link.openChannel('s0');
    await quiescence();
    assert.deepEqual([ben.opened, ann.opened], [0, 0]);
    assert.equal(news.length, 64);
    const same = () => [...eve.peers[1].ends].filter(({ label, readyState }) => label === 's0' && readyState === 'open').length;
    await until(() => same() <= 8);
    await until(() => news.length >= 64);
    // The application asks for one of them, and then everybody is on it.
    ben.room.channel('s1');
    await quiescence();
    assert.equal(ben.opened, 1);
    const again = () => {
      const late = [];
      const listener = ({ name }) => late.push(name);
      ben.room.on('channel', listener).off('channel', listener);
      return late.length;
    };
    assert.equal(again(), 63);
    Object.assign(ben.peers[2], { streams: new Map(), close() {} });
    ben.room.left(ben.peers[2]);
    assert.equal(again(), 0);
  });

  it('send to who is there, and wait for nobody who is not', async () => {
    const [ann, ben] = connected();
    const got = [];
    ben.room.channel('k').on('message', (data) => got.push(data));
    const silent = { id: 'bot', peerId: 'bot', status: 'new', link: { state: 'new', openChannel: (label, init) => new End(label, init) } };
    ann.room.peers.set('bot', silent);
    const channel = ann.room.channel('k');
    await channel.send('first');
    for (let n = 0; n < 30; n++) await channel.send('y'.repeat(60_000));
    await until(() => got.length === 31);
    // Who was connected and is not any more holds nobody up either.
    const [one, two] = connected();
    const dead = { id: 'dead', peerId: 'dead', status: 'connected', outcome: () => null, link: { state: 'connected', pc: {}, openChannel: (label, init) => new End(label, init) } };
    one.room.peers.set('dead', dead);
    two.room.channel('k').on('message', (data) => got.push(data));
    const sent = one.room.channel('k').send('while it fails');
    assert.equal(await Promise.race([sent.then(() => 'done'), quiescence().then(() => 'waits')]), 'waits');
    dead.status = dead.link.state = 'failed';
    one.room.linkChanged(dead);
    await sent;
    assert.equal(got.at(-1), 'while it fails');
  });

  it('that are not reliable drop what cannot go at once, and reject nothing', async () => {
    const [ann, ben] = connected();
    const got = [];
    ben.room.channel('cursor', { reliable: false }).on('message', (data) => got.push(data));
    const channel = ann.room.channel('cursor', { reliable: false });
    // Nothing is open yet.
    for (let n = 0; n < 1000; n++) await channel.send({ n, fill: 'x'.repeat(1000) });
    await until(() => channel.isOpen(ann.peers[1]));
    await quiescence();
    assert.deepEqual(got, []);
    await channel.send('now');
    await until(() => got.length);
    // The network takes nothing for a while.
    const ends = [...ann.peers[1].ends, ...[...ben.peers[0].ends].map(({ other }) => other)];
    for (const end of ends) end.bufferedAmount += 20_000;
    await channel.send('late');
    for (const end of ends) end.bufferedAmount -= 20_000;
    await channel.send('fresh');
    await until(() => got.length === 2);
    assert.deepEqual(got, ['now', 'fresh']);
  });
});

const NONSENSE = [null, true, 0, -1, 1e308, '', 'x', '\u202E', 'x'.repeat(2000), [], [null], [[]], {}, { a: null }, { toString: 1 }, { __proto__: null, length: 1e9 }];

describe('a hostile peer', { timeout: 120_000 }, () => {
  it('sends nonsense in every field over every channel, and nothing throws', async () => {
    const [ann, ben] = connected();
    const peer = ann.peers[1];
    let offered = 0;
    ben.room.on('file', (file) => {
      // Half of them are taken.
      if (offered++ % 2) void file.accept().catch(() => {});
    });
    const told = [];
    ben.room.channel('app').on('message', (data) => told.push(data));
    const fields = ['id', 'name', 'size', 'mime'];
    const words = ['pause', 'go', 'cancel', 'no', 'bad', 'ok', 'at', 'end', 'sha256', 'full', 'room'];
    let id = 0;
    const files = [];
    const offer = (protocol) => {
      const channel = peer.link.openChannel('callbox.file', { protocol: typeof protocol === 'string' ? protocol : JSON.stringify(protocol) });
      files.push(channel);
      return channel;
    };
    const whole = () => ({ id: `i${id++}`, name: 'n', size: 5, mime: 'text/plain' });
    const talk = (channel, messages) =>
      channel.addEventListener('open', () => {
        for (const message of messages) if (channel.readyState === 'open') channel.send(message);
      });
    for (const value of NONSENSE) {
      offer(value);
      offer(String(JSON.stringify(value)));
      for (const field of fields) talk(offer({ ...whole(), [field]: value }), [JSON.stringify({ end: true, sha256: value })]);
      talk(offer(whole()), [JSON.stringify(value), 'no JSON', ...words.map((word) => JSON.stringify({ [word]: value }))]);
      for (const word of words) talk(offer(whole()), [JSON.stringify({ [word]: value }), new Uint8Array(3), JSON.stringify({ end: value }), new Uint8Array(300)]);
      await drained(ann, ben);
      files.splice(0).forEach((channel) => channel.close());
      talk(peer.link.openChannel('app'), [JSON.stringify(value), '{', new Uint8Array(2)]);
    }
    await quiescence();
    assert.ok(offered > NONSENSE.length && told.length > NONSENSE.length);
    // The room does what it did before: also with what this side sends, whatever is answered.
    for (const value of NONSENSE) {
      const pairs = ['pause', 'go', 'no', 'bad', 'ok', 'at', 'full', 'room', 'cancel'].map((word) => {
        const [near, far] = connected();
        far.room.channelOpened = (_, channel) => talk(channel, [JSON.stringify(value), JSON.stringify({ [word]: value }), new Uint8Array(5)]);
        return [near, far, near.room.sendFile(blob(5), near.peers[1])];
      });
      await drained(...pairs.flatMap(([near, far]) => [near, far]));
      for (const [, , file] of pairs) file.cancel();
    }
    assert.equal(typeof ben.room.status, 'string');
  });
});

describe('who is who, against a box', { timeout: 120_000 }, () => {
  let box, proxy;
  const rooms = new Set();
  const enter = async (options, ws = box.ws) => {
    const room = await join(ws, { mesh: false, WebSocket, ...options });
    rooms.add(room);
    return room;
  };
  before(async () => {
    box = await startBox({ CALLBOX_AUTH__ADMIN_TOKEN: 'the operator of this test' });
    proxy = await startProxy(box.port);
  });
  after(() => {
    rooms.forEach((room) => room.leave());
    proxy?.stop();
    box?.stop();
  });

  it('shows a member that copied the library\'s name of another one', async () => {
    const ann = await enter({ room: 'copied', name: 'Ann' });
    const spy = new Signal(box.ws, { WebSocket });
    await spy.join({ roomId: 'copied', identity: 'look' });
    const [{ metadata }] = (await spy.request('list')).peers.filter(({ identity }) => identity === 'Ann');
    assert.equal(typeof metadata.callbox.instance, 'string');
    const copy = new Signal(box.ws, { WebSocket });
    await copy.join({ roomId: 'copied', identity: 'copy', metadata });
    await until(() => [...ann.peers.values()].some(({ name }) => name === 'copy'));
    spy.leave();
    copy.leave();
  });

  it('does not show an earlier session of its own', async () => {
    const ann = await enter({ room: 'earlier', name: 'Ann' }, proxy.ws);
    const before = ann.peerId;
    const seen = [];
    ann.on('peer', ({ name }) => seen.push(name));
    // The session cannot be resumed; the box keeps it for as long as it could have been.
    WebSocket.prototype.sendTruly ??= WebSocket.prototype.send;
    WebSocket.prototype.send = function (text, ...more) {
      return this.sendTruly(String(text).replace(/"resumeToken":"[^"]+"/, '"resumeToken":"AAAAAAAAAAAAAAAAAAAAAA"'), ...more);
    };
    try {
      proxy.cut();
      await until(() => ann.status === 'online' && ann.peerId !== before);
    } finally {
      WebSocket.prototype.send = WebSocket.prototype.sendTruly;
    }
    assert.deepEqual([seen, ann.peers.size], [[], 0]);
  });

  for (const end of ['kicked', 'room-closed']) {
    it(`stays out after it was ended while its connection was lost (${end})`, async () => {
      const host = await enter({ room: end, name: 'Host' });
      const ben = await enter({ room: end, name: 'Ben' }, proxy.ws);
      const peer = await until(() => [...host.peers.values()][0]);
      proxy.refusing = true;
      proxy.cut();
      await until(() => peer.connection === 'away');
      if (end === 'kicked') await host.kick(peer);
      else assert.equal((await fetch(`${box.url}v1/rooms/${end}`, { method: 'DELETE', headers: { Authorization: 'Bearer the operator of this test' } })).status, 204);
      proxy.refusing = false;
      await until(() => ben.status === 'closed');
      assert.equal(ben.reason, end);
      assert.equal(host.peers.size, 0);
    });
  }
});
