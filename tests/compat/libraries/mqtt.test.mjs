// mqtt.js against callbox and, the same tests, against mosquitto.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import mqtt from 'mqtt';
import { SOON, startBox, startMosquitto } from './harness.mjs';

const servers = [
  ['callbox', startBox, 'ws', '/mqtt'],
  ['mosquitto', startMosquitto, 'mqtt', '/'],
];

for (const [name, start, scheme, path] of servers) {
  for (const protocolVersion of [4, 5]) {
    describe(`MQTT ${protocolVersion === 4 ? '3.1.1' : '5'} at ${name}`, { timeout: SOON }, () => {
      let server;
      const clients = [];
      const connect = async (options = {}) => {
        const url = `${scheme}://${server.host}:${server.port}${path}`;
        const client = mqtt.connect(url, { protocolVersion, reconnectPeriod: 0, ...options });
        clients.push(client);
        await once(client, 'connect');
        return client;
      };
      const next = async (client) => {
        const [topic, payload] = await once(client, 'message');
        return [topic, payload.toString()];
      };
      before(async () => {
        server = await start();
      });
      after(async () => {
        for (const client of clients) client.end(true);
        server.stop();
      });

      for (const qos of [0, 1, 2]) {
        test(`a message of QoS ${qos} reaches the subscriber, and the sender if it is one`, async () => {
          const [a, b] = [await connect(), await connect()];
          const topic = `room/q${qos}/signaling`;
          const [granted] = await b.subscribeAsync(topic, { qos });
          assert.ok(granted.qos <= qos);
          await a.subscribeAsync(topic, { qos });
          const both = Promise.all([next(a), next(b)]);
          const text = JSON.stringify({ type: 'offer', sdp: 'v=0\r\n', from: 'a' });
          await a.publishAsync(topic, text, { qos });
          assert.deepEqual(await both, [
            [topic, text],
            [topic, text],
          ]);
          await b.unsubscribeAsync(topic);
        });
      }

      test('a will is published when the socket is lost, and not after a farewell', async () => {
        const watcher = await connect();
        await watcher.subscribeAsync(['left/lost', 'left/politely']);
        const will = (what) => ({ topic: `left/${what}`, payload: 'gone', qos: 1, retain: false });
        const polite = await connect({ will: will('politely') });
        await polite.endAsync();
        const lost = await connect({ will: will('lost') });
        const received = next(watcher);
        lost.stream.destroy();
        assert.deepEqual(await received, ['left/lost', 'gone']);
      });

      test('a second connection of a client takes over', async () => {
        const options = { clientId: `twice-${protocolVersion}` };
        const first = await connect(options);
        const closed = once(first, 'close');
        const second = await connect(options);
        await closed;
        await second.subscribeAsync('still/here');
      });

      test('a large message passes and a burst of small ones keeps its order', async () => {
        const client = await connect();
        await client.subscribeAsync('order', { qos: 1 });
        const numbers = [];
        const all = new Promise((resolve) => {
          client.on('message', (_, payload) => numbers.push(payload.toString()) === 201 && resolve());
        });
        await client.publishAsync('order', 'x'.repeat(50_000), { qos: 1 });
        await Promise.all(
          Array.from({ length: 200 }, (_, n) => client.publishAsync('order', String(n), { qos: 1 })),
        );
        await all;
        assert.equal(numbers[0].length, 50_000);
        assert.deepEqual(numbers.slice(1), Array.from({ length: 200 }, (_, n) => String(n)));
      });
    });
  }
}

describe('what callbox adds', { timeout: SOON }, () => {
  let box;
  before(async () => {
    box = await startBox();
  });
  after(() => box.stop());

  test('credentials come on a topic of the server, and nobody else writes there', async () => {
    const url = `ws://${box.host}:${box.port}/`;
    const client = mqtt.connect(url, { protocolVersion: 5, reconnectPeriod: 0 });
    const [connack] = await once(client, 'connect');
    assert.ok(JSON.parse(connack.properties.userProperties['ice-servers']).iceServers.length > 0);
    const received = once(client, 'message');
    await client.subscribeAsync('$callbox/ice');
    const [topic, payload] = await received;
    assert.equal(topic, '$callbox/ice');
    assert.ok(JSON.parse(payload).iceServers.some((server) => server.credential));
    await assert.rejects(client.publishAsync('$callbox/ice', 'evil', { qos: 1 }), /Not authorized/);
    client.end(true);
  });
});
