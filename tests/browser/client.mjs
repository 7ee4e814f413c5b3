// The signaling client of the page, alone: frames that the box would never send change nothing.
import assert from 'node:assert/strict';
import { Callbox } from '../../web/callbox.js';

const OWN = [{ urls: ['turn:box.example:3478'] }];
const FOREIGN = [{ urls: ['turn:evil.example:3478'] }];

let socket;
globalThis.WebSocket = class {
  static OPEN = 1;
  readyState = 1;
  sent = [];
  constructor() {
    socket = this;
  }
  send(text) {
    this.sent.push(JSON.parse(text));
  }
  close() {}
};
const say = (message) => socket.onmessage({ data: typeof message === 'string' ? message : JSON.stringify(message) });

const box = new Callbox('ws://box.example/ws');
const seen = [];
for (const type of ['message', 'kicked', 'ack']) box.on(type, (message) => seen.push(message));
const joining = box.join({ roomId: 'r' });
say({ type: 'welcome', peerId: 'p', protocol: 1, heartbeat: 25, serverTime: 0 });
await Promise.resolve();
const { id } = socket.sent.find(({ type }) => type === 'join');
say({ seq: 1, type: 'joined', id, peerId: 'p', peers: [], resumeToken: 't', iceServers: OWN, iceTransportPolicy: 'relay', ttl: 9, expiresAt: 9 });
await joining;
assert.deepEqual(box.ice.iceServers, OWN);

for (const nonsense of ['{', 'null', '7', '[]', '{}', '{"type":1}']) say(nonsense);
for (const type of ['message', 'ack', 'joined', 'ice-servers', 'offer']) {
  say({ seq: 2, type, from: 'q', id: '99', peerId: 'q', resumeToken: 'x', iceServers: FOREIGN, iceTransportPolicy: 'all' });
}
say({ seq: 3, type: 'ack', id: 'not asked', iceServers: FOREIGN });
say({ seq: 4, type: 'notify', content: 1, iceServers: FOREIGN });
say({ seq: 5, type: 'ice-servers', iceServers: 'nonsense' });
assert.deepEqual([box.ice.iceServers, box.ice.iceTransportPolicy, box.peerId], [OWN, 'relay', 'p']);
assert.equal(seen.filter(({ type }) => type === 'message').length, 1);

const accepting = box.request('accept', { callId: 'c' });
const NEW = [{ urls: ['turn:box.example:443'] }];
say({ seq: 6, type: 'ack', id: socket.sent.at(-1).id, iceServers: NEW, iceTransportPolicy: 'all', ttl: 1, expiresAt: 1 });
await accepting;
assert.deepEqual(box.ice.iceServers, NEW);
box.leave();
console.log('client: frames of others change neither ICE servers nor identity');
process.exit(0);
