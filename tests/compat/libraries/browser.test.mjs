// PeerJS, y-webrtc and trystero over MQTT in headless Chromium: the same tests against callbox and
// against the servers that the libraries bring, or a broker.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  SOON,
  servePage,
  startAedes,
  startBox,
  startBrowser,
  startPeerServer,
  startProxy,
  startRelay,
  startYWebrtc,
} from './harness.mjs';

const LIBRARIES = `
  import { Peer } from 'peerjs';
  import * as Y from 'yjs';
  import { WebrtcProvider } from 'y-webrtc';
  import { joinRoom } from '@trystero-p2p/mqtt';
  import { createTopicStrategy } from '@trystero-p2p/core';
  // The package of the strategy ws-relay is not published: its frames, on the core of the published one.
  const handlers = new Map();
  const joinRelayRoom = createTopicStrategy({
    init: ({ relayUrl }) =>
      new Promise((resolve, reject) => {
        const socket = new WebSocket(relayUrl);
        socket.onopen = () => resolve(socket);
        socket.onerror = reject;
        socket.onmessage = ({ data }) => {
          const { topic, payload } = JSON.parse(data);
          handlers.get(topic)?.(topic, payload);
        };
      }),
    subscribeTopic: (socket, topic, onPayload) => {
      handlers.set(topic, onPayload);
      socket.send(JSON.stringify({ type: 'subscribe', topic }));
      return () => {
        handlers.delete(topic);
        socket.send(JSON.stringify({ type: 'unsubscribe', topic }));
      };
    },
    publishTopic: (socket, topic, payload) => {
      socket.send(JSON.stringify({ type: 'publish', topic, payload }));
    },
  });
  Object.assign(window, { Peer, Y, WebrtcProvider, joinRoom, joinRelayRoom });
`;

let page, browser;
before(async () => {
  page = await servePage(LIBRARIES);
  browser = await startBrowser();
});
after(async () => {
  await browser?.stop();
  page?.stop();
});

/** Runs in a page: a Peer that keeps what it receives. */
const openPeer = ([id, options]) =>
  new Promise((resolve, reject) => {
    const peer = id ? new window.Peer(id, options) : new window.Peer(options);
    Object.assign(window, { peer, received: [], errors: [] });
    peer.on('open', resolve);
    peer.on('error', (error) => {
      window.errors.push(error.type);
      reject(new Error(error.type));
    });
    peer.on('connection', (connection) => {
      connection.on('data', (data) => {
        window.received.push(data);
        connection.send('echo ' + data);
      });
    });
  });

/** Runs in a page: connects, sends, and resolves with the answer. */
const talk = ([to, text]) =>
  new Promise((resolve, reject) => {
    const connection = window.peer.connect(to, { reliable: true });
    connection.on('open', () => connection.send(text));
    connection.on('data', resolve);
    connection.on('error', reject);
  });

for (const [name, start] of [
  ['callbox', () => startBox({ CALLBOX_HTTP__ALLOWED_ORIGINS: '["*"]' })],
  ['its own server', startPeerServer],
]) {
  describe(`PeerJS at ${name}`, { timeout: 3 * SOON }, () => {
    let server, options;
    before(async () => {
      server = await start();
      options = { host: server.host, port: server.port, path: '/peerjs', config: { iceServers: [] } };
    });
    after(() => server.stop());

    test('two pages connect by id and exchange data', async () => {
      const [a, b] = [await browser.open(page.url), await browser.open(page.url)];
      const id = await a.evaluate(openPeer, [null, options]);
      assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
      await b.evaluate(openPeer, ['bob', options]);
      assert.equal(await b.evaluate(talk, [id, 'hello']), 'echo hello');
      await a.close();
      await b.close();
    });

    test('a taken id and an absent peer are errors, and an id is free when its page is closed', async () => {
      const [a, b] = [await browser.open(page.url), await browser.open(page.url)];
      await a.evaluate(openPeer, ['carol', options]);
      await assert.rejects(b.evaluate(openPeer, ['carol', options]), /unavailable-id/);
      await b.evaluate(openPeer, ['dave', options]);
      const absent = await b.evaluate(
        () =>
          new Promise((resolve) => {
            window.peer.on('error', (error) => resolve(error.type));
            window.peer.connect('nobody');
          }),
      );
      assert.equal(absent, 'peer-unavailable');
      await a.close();
      const later = await browser.open(page.url);
      await later.evaluate(openPeer, ['carol', options]);
      await later.close();
      await b.close();
    });
  });
}

describe('what callbox does that the server of PeerJS does not', { timeout: 3 * SOON }, () => {
  let box, options;
  before(async () => {
    box = await startBox({ CALLBOX_HTTP__ALLOWED_ORIGINS: '["*"]' });
    options = { host: box.host, port: box.port, path: '/' };
  });
  after(() => box.stop());

  test('two pages connect behind the relay only, with credentials from the box', async () => {
    const [a, b] = [await browser.open(page.url), await browser.open(page.url)];
    const base = `http://${box.host}:${box.port}`;
    for (const [tab, id] of [[a, 'relay-a'], [b, 'relay-b']]) {
      await tab.evaluate(
        async ([base, id, options]) => {
          const { iceServers } = await (await fetch(`${base}/peerjs/ice-servers`)).json();
          window.config = { iceServers, iceTransportPolicy: 'relay' };
          window.openOptions = [id, { ...options, config: window.config }];
        },
        [base, id, options],
      );
      await tab.evaluate(openPeer, await tab.evaluate(() => window.openOptions));
    }
    assert.equal(await b.evaluate(talk, ['relay-a', 'by relay']), 'echo by relay');
    const types = await b.evaluate(async () => {
      const [connection] = Object.values(window.peer.connections).flat();
      const stats = [...(await connection.peerConnection.getStats()).values()];
      const pair = stats.find((report) => report.type === 'candidate-pair' && report.nominated);
      return [pair.localCandidateId, pair.remoteCandidateId].map(
        (id) => stats.find((report) => report.id === id).candidateType,
      );
    });
    assert.deepEqual(types, ['relay', 'relay']);
    await a.close();
    await b.close();
  });
});

for (const [name, start, path] of [
  ['callbox', () => startBox({ CALLBOX_HTTP__ALLOWED_ORIGINS: '["*"]' }), '/y-webrtc'],
  ['its own server', startYWebrtc, '/'],
]) {
  describe(`y-webrtc at ${name}`, { timeout: 3 * SOON }, () => {
    let server, proxy;
    before(async () => {
      server = await start();
      proxy = await startProxy(server.port);
    });
    after(() => {
      proxy.stop();
      server.stop();
    });

    for (const password of [null, 'secret']) {
      test(`two documents converge after a cut, ${password ? 'with' : 'without'} a password`, async () => {
        const tabs = [await browser.open(page.url), await browser.open(page.url)];
        const room = `room-${password}`;
        const url = `ws://127.0.0.1:${proxy.port}${path}`;
        for (const tab of tabs) {
          await tab.evaluate(
            ([room, url, password]) => {
              const doc = new window.Y.Doc();
              const options = { signaling: [url], peerOpts: { config: { iceServers: [] } }, filterBcConns: false };
              if (password) options.password = password;
              // Two pages of one browser would find each other without any server.
              window.BroadcastChannel = undefined;
              const provider = new window.WebrtcProvider(room, doc, options);
              Object.assign(window, { doc, provider, text: doc.getText('t') });
            },
            [room, url, password],
          );
        }
        const says = (tab, text) =>
          tab.waitForFunction((expected) => window.text.toString() === expected, text, { timeout: SOON });
        const webrtcPeers = (tab) =>
          tab.waitForFunction(() => window.provider.room?.webrtcConns.size === 1, null, { timeout: SOON });
        await Promise.all(tabs.map(webrtcPeers));
        await tabs[0].evaluate(() => window.text.insert(0, 'one'));
        await says(tabs[1], 'one');
        // The signaling is cut; then a page leaves, writes alone, and comes back.
        proxy.cut();
        await tabs[1].evaluate(() => {
          window.provider.disconnect();
          window.text.insert(3, ' two');
        });
        await tabs[0].evaluate(() => window.text.insert(0, 'zero '));
        await tabs[1].evaluate(() => window.provider.connect());
        await Promise.all(tabs.map((tab) => says(tab, 'zero one two')));
        for (const tab of tabs) await tab.close();
      });
    }
  });
}

const openBox = () => startBox({ CALLBOX_HTTP__ALLOWED_ORIGINS: '["*"]' });
for (const [name, start, path, join] of [
  ['over MQTT at callbox', openBox, '/mqtt', 'joinRoom'],
  ['over MQTT at a broker', startAedes, '/', 'joinRoom'],
  ['over ws-relay at callbox', openBox, '/trystero', 'joinRelayRoom'],
  ['over ws-relay at a plain relay', startRelay, '/', 'joinRelayRoom'],
]) {
  describe(`trystero ${name}`, { timeout: 3 * SOON }, () => {
    let server;
    before(async () => {
      server = await start();
    });
    after(() => server.stop());

    test('two pages find each other and exchange data', async () => {
      const tabs = [await browser.open(page.url), await browser.open(page.url)];
      const url = `ws://${server.host}:${server.port}${path}`;
      for (const tab of tabs) {
        await tab.evaluate(([url, join]) => {
          const config = {
            relayUrl: url,
            appId: 'callbox',
            password: 'a secret',
            relayConfig: { urls: [url] },
            rtcConfig: { iceServers: [] },
          };
          const room = window[join](config, 'room');
          window.received = [];
          const action = room.makeAction('say', { onMessage: (data) => void window.received.push(data) });
          Object.assign(window, { room, say: (data) => action.send(data) });
        }, [url, join]);
      }
      const meets = (tab) =>
        tab.waitForFunction(() => Object.keys(window.room.getPeers()).length === 1, null, { timeout: 2 * SOON });
      await Promise.all(tabs.map(meets));
      await tabs[0].evaluate(() => window.say('hello'));
      await tabs[1].waitForFunction(() => window.received.includes('hello'), null, { timeout: SOON });
      for (const tab of tabs) await tab.close();
    });
  });
}
