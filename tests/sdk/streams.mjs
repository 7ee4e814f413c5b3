// What streams are called in a direct call, recordings that end by themselves or whose sink fails, and clients without the library: one
// that begins anew, and one whose peer changes its path. Needs what browsers.mjs needs.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { close, run, useBrowsers } from './pages.mjs';

describe('streams, recordings and connections that begin anew', { timeout: 240_000 }, () => {
  const used = useBrowsers();
  const { open } = used;

  for (const [name, other] of [['chromium', 'firefox'], ['firefox', 'chromium']]) {
    it(`says what a stream of a direct call is (${name} to ${other})`, async () => {
      const [ann, ben] = [await open(name), await open(other)];
      await run(ben, async (url, identity) => {
        t.phone = await t.callbox.register(url, { identity });
        t.labels = [];
        t.phone.on('call', async (call) => {
          t.call = call;
          call.on('stream', (stream, label) => t.labels.push(label));
          await call.accept({ stream: await t.camera() });
        });
      }, used.box.ws, `ben-${name}`);
      await run(ann, async (url, identity) => {
        t.phone = await t.callbox.register(url, {});
        t.call = await t.phone.call(identity, { stream: await t.camera() });
        t.labels = [];
        t.call.on('stream', (stream, label) => t.labels.push(label));
        await t.wait(() => t.call.status === 'connected');
        await t.call.publish(t.canvas(), { label: 'screen' });
      }, used.box.ws, `ben-${name}`);
      assert.deepEqual(await run(ben, () => t.wait(() => t.labels.length === 2 && t.labels)), ['camera', 'screen']);
      // The side that was called says it as well.
      await run(ben, () => t.call.publish(t.canvas(), { label: 'whiteboard' }));
      assert.deepEqual(await run(ann, () => t.wait(() => t.labels.length === 2 && t.labels)), ['camera', 'whiteboard']);
      await close(ann, ben);
    });

    it(`records until a track ends by itself, and says when a sink fails (${name})`, async () => {
      const page = await open(name);
      const [ended, failed, leaks] = await run(page, async () => {
        const follow = (recording) => {
          const heard = [];
          recording.on('error', () => heard.push('error')).on('status', (status) => heard.push(status));
          return heard;
        };
        const { Recording } = t.callbox;
        const [first] = (await t.camera()).getVideoTracks();
        const whole = new Recording(() => [], { track: first });
        const said = follow(whole);
        await t.wait(() => whole.bytes);
        const ms = whole.ms;
        first.stop();
        // Firefox ends a recording with its tracks, but not in the same moment.
        await t.wait(() => whole.status === 'stopped' && said.includes('stopped'));
        const later = whole.ms;
        await new Promise((resolve) => setTimeout(resolve, 200));
        const ended = [said, whole.ms >= ms, whole.ms === later, (await whole.stop()).size > 0];

        const [second] = (await t.camera()).getVideoTracks();
        const full = new Recording(() => [], { track: second, sink: new WritableStream({ write: () => Promise.reject(new Error('disk full')) }) });
        const heard = follow(full);
        await t.wait(() => heard.includes('stopped'));
        const failed = [heard, await full.stop().then(() => 'whole', ({ name, code, message }) => [name, code, message.includes('disk full')])];
        second.stop();

        // Nothing is kept of a recording that never began.
        let contexts = 0;
        const Context = AudioContext;
        globalThis.AudioContext = class extends Context {
          constructor(...given) {
            super(...given);
            contexts++;
          }
        };
        const sink = new WritableStream();
        const refused = await Promise.resolve().then(() => new Recording(() => [], { mimeType: 'video/nonsense', sink })).catch(({ code }) => code);
        globalThis.AudioContext = Context;
        return [ended, failed, [refused, contexts, sink.locked]];
      });
      assert.deepEqual(ended, [['stopped'], true, true, true]);
      assert.deepEqual(failed, [['error', 'stopped'], ['CallboxError', 'file', true]]);
      assert.deepEqual(leaks, ['unsupported', 0, false]);
      await close(page);
    });

    it(`opens its channels anew to a client without the library that hung up and begins again (${name})`, async () => {
      const [ann, plain] = [await open(name), await open(other)];
      await run(ann, (url, room) => t.enter(url, { room, name: 'Ann', camera: false, media: false }), used.box.ws, `anew-${name}`);
      await run(ann, () => t.room.channel('board'));
      await run(plain, async (url, room) => {
        const signal = new t.callbox.Signal(url);
        t.labels = [];
        let pc;
        const begin = async (to) => {
          pc?.close();
          const own = (pc = new RTCPeerConnection());
          own.onicecandidate = ({ candidate }) => void signal.request('candidate', { to, candidate: candidate?.toJSON() ?? null }).catch(() => {});
          own.ondatachannel = ({ channel }) => own === pc && t.labels.push(channel.label);
          own.createDataChannel('own');
          await own.setLocalDescription();
          await signal.request('offer', { to, sdp: own.localDescription.sdp });
        };
        signal.on('answer', ({ sdp }) => pc.setRemoteDescription({ type: 'answer', sdp: sdp.sdp ?? sdp }));
        signal.on('candidate', ({ candidate }) => candidate && pc.addIceCandidate(candidate).catch(() => {}));
        // What the library asks for after the first answer.
        signal.on('offer', async ({ sdp, from }) => {
          await pc.setRemoteDescription({ type: 'offer', sdp: sdp.sdp ?? sdp });
          await pc.setLocalDescription();
          await signal.request('answer', { to: from, sdp: pc.localDescription.sdp });
        });
        const { peers } = await signal.join({ roomId: room, identity: 'Plain' });
        const to = peers[0].peerId;
        await begin(to);
        t.again = async () => {
          t.labels.length = 0;
          await signal.request('hangup', { to });
          await begin(to);
        };
      }, used.box.ws, `anew-${name}`);
      await run(plain, () => t.wait(() => t.labels.includes('board')));
      await run(plain, () => t.again());
      // Nobody sends anything: the channel is there all the same.
      await run(plain, () => t.wait(() => t.labels.includes('board')));
      await close(ann, plain);
    });

    it(`changes its path, and the call with a client without the library goes on (${name} with ${other})`, async () => {
      const [ann, plain] = [await open(name), await open(other)];
      await run(ann, (url, room) => t.enter(url, { room, name: 'Ann' }), used.box.ws, `path-${name}`);
      await run(plain, async (url, room) => {
        const camera = await t.camera();
        const socket = new WebSocket(url);
        const send = (message) => socket.readyState === 1 && socket.send(JSON.stringify(message));
        Object.assign(t, { hangups: 0, connections: 0 });
        let pc, peer, iceServers;
        const connect = () => {
          pc?.close();
          const own = (t.pc = pc = new RTCPeerConnection({ iceServers }));
          t.connections++;
          own.onicecandidate = ({ candidate }) => own === pc && send({ type: 'candidate', to: peer, candidate: candidate?.toJSON() ?? null });
          own.ontrack = ({ streams: [stream] }) => own === pc && (t.seen = stream);
          for (const track of camera.getTracks()) own.addTrack(track, camera);
        };
        const fingerprint = (sdp) => /^a=fingerprint:.*$/m.exec(sdp)?.[0];
        const text = ({ sdp }) => sdp.sdp ?? sdp;
        const answers = {
          async joined(message) {
            ({ iceServers } = message);
            peer = message.peers[0].peerId;
            connect();
            await pc.setLocalDescription();
            send({ type: 'offer', to: peer, sdp: pc.localDescription.sdp });
          },
          answer: (message) => pc.setRemoteDescription({ type: 'answer', sdp: text(message) }),
          async offer(message) {
            const sdp = text(message);
            // Another certificate is another connection, as docs/protocol.md says.
            if (fingerprint(sdp) !== fingerprint(pc.remoteDescription.sdp)) connect();
            await pc.setRemoteDescription({ type: 'offer', sdp });
            await pc.setLocalDescription();
            send({ type: 'answer', to: peer, sdp: pc.localDescription.sdp });
          },
          candidate: ({ candidate }) => candidate && pc.addIceCandidate(candidate).catch(() => {}),
          // That is the end of a call for such a client.
          hangup: () => (t.hangups++, pc.close()),
        };
        let done = Promise.resolve();
        socket.onmessage = ({ data }) => {
          const message = JSON.parse(data);
          done = done.then(() => answers[message.type]?.(message));
        };
        socket.onopen = () => send({ type: 'join', roomId: room, identity: 'Plain' });
        t.sees = async () => {
          const [before, own] = [await t.decoded(t.pc, t.seen), t.pc];
          return t.wait(async () => t.pc === own && (await t.decoded(t.pc, t.seen)) >= before + 10);
        };
      }, used.box.ws, `path-${name}`);
      const bothSee = async () => {
        await run(ann, () => t.moving('Plain'));
        await run(plain, () => t.sees());
      };
      await bothSee();
      const id = await run(ann, () => t.peer('Plain').id);
      for (const [on, connections] of [[true, 2], [false, 3]]) {
        await run(ann, (on) => void (t.room.relayOnly = on), on);
        await run(plain, (connections) => t.wait(() => t.connections === connections && t.pc.connectionState === 'connected'), connections);
        await run(ann, (on) => t.wait(() => t.peer('Plain').path?.kind.startsWith('relay-') === on), on);
        await bothSee();
      }
      assert.deepEqual(await run(plain, () => [t.hangups, t.connections, t.pc.connectionState]), [0, 3, 'connected']);
      assert.equal(await run(ann, () => t.peer('Plain').id), id);
      assert.deepEqual(await run(ann, () => t.events.filter((event) => event.startsWith('left'))), []);
      await close(ann, plain);
    });
  }

  it('made no page throw, log an error, or leave a rejection unhandled', () => assert.deepEqual(used.faults(), []));
});
