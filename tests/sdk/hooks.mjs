// verifyHook of the library: against the vector of the server's own test, against forgeries, and against what a box POSTs.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { describe, it } from 'node:test';
import { WebSocket } from 'ws';
import * as module from '../../sdk/js/dist/hooks.mjs';
import { Signal } from '../../sdk/js/dist/signal.mjs';
import { startBox } from './box.mjs';

const { verifyHook } = module;
const WITHIN = 60_000;
const SECRET = 'a secret of this test alone, 32 bytes and more';

/** The header that the server's test expects of `{}` with the key `key`; OpenSSL made its digest. */
const VECTOR = /"(t=\d+,v1=[\da-f]{64})"/.exec(readFileSync(new URL('../../src/hooks/signature.rs', import.meta.url), 'utf8'))[1];
const THEN = { now: Number(/\d+/.exec(VECTOR)[0]) * 1000 };

describe('verifyHook', { timeout: 180_000 }, () => {
  it('takes what the server signs, as text and as bytes, by import and by require', async () => {
    const bytes = new TextEncoder().encode('{}');
    for (const { verifyHook } of [module, createRequire(import.meta.url)('../../sdk/js/dist/hooks.cjs')]) {
      assert.equal(await verifyHook('key', VECTOR, '{}', THEN), true);
      assert.equal(await verifyHook(new TextEncoder().encode('key'), VECTOR, bytes, THEN), true);
      assert.equal(await verifyHook('key', VECTOR, bytes.buffer, THEN), true);
      assert.equal(await verifyHook('key', VECTOR, Buffer.from('x{}').subarray(1), THEN), true);
    }
    assert.equal(await verifyHook('key', VECTOR.replace(',', ' , '), '{}', THEN), true);
    const own = Object.getOwnPropertyDescriptor(globalThis, 'crypto');
    Object.defineProperty(globalThis, 'crypto', { value: undefined, configurable: true });
    try {
      assert.equal(await verifyHook('key', VECTOR, '{}', THEN), true, 'as in Node 18');
    } finally {
      if (own) Object.defineProperty(globalThis, 'crypto', own);
      else delete globalThis.crypto;
    }
  });

  it('refuses another body, key, time and digest', async () => {
    const refused = (secret, header, body, options = THEN) => verifyHook(secret, header, body, options).then((is) => assert.equal(is, false, header));
    await refused('key', VECTOR, '{ }');
    await refused('kez', VECTOR, '{}');
    await refused('key', VECTOR.replace('t=1', 't=2'), '{}', { ...THEN, tolerance: Infinity });
    for (let at = VECTOR.indexOf('v1=') + 3; at < VECTOR.length; at++) {
      const other = VECTOR[at] === '0' ? '1' : '0';
      await refused('key', VECTOR.slice(0, at) + other + VECTOR.slice(at + 1), '{}');
    }
  });

  it('refuses what is older or newer than the tolerance', async () => {
    const at = (seconds, tolerance) => verifyHook('key', VECTOR, '{}', { now: THEN.now + seconds * 1000, tolerance });
    assert.deepEqual(await Promise.all([at(300), at(301), at(-300), at(-301), at(5, 4), at(9e9, Infinity), at(0, NaN)]), [true, false, true, false, false, true, false]);
    assert.equal(await verifyHook('key', VECTOR, '{}'), false, 'years ago');
  });

  it('answers nonsense with false, and no secret with an error', async () => {
    const [t, v1] = VECTOR.split(',');
    const nonsense = [undefined, null, '', 7, [VECTOR], 't=', t, v1, `${t},v1=`, `${t},v1=zz`, `${VECTOR}00`, `${t}.0,${v1}`, `t=-1,${v1}`, `t=1e9,${v1}`, `${t},${VECTOR}`, `${VECTOR},v1=${'0'.repeat(64)}`, '='.repeat(100_000), `t=${' '.repeat(100_000)}x`];
    for (const header of nonsense) assert.equal(await verifyHook('key', header, '{}', THEN), false, String(header).slice(0, 80));
    for (const secret of ['', undefined, new Uint8Array()]) await assert.rejects(verifyHook(secret, VECTOR, '{}', THEN), TypeError);
  });

  it('takes every event and question of a box', async () => {
    const came = [];
    let stop;
    const done = new Promise((resolve, reject) => {
      stop = resolve;
      setTimeout(() => reject(new Error(`no peer-left came: ${JSON.stringify(came)}`)), WITHIN).unref();
    });
    const backend = createServer(async (request, response) => {
      const body = Buffer.concat(await request.toArray());
      const header = request.headers['callbox-signature'];
      came.push({ is: await verifyHook(SECRET, header, body), other: await verifyHook(`${SECRET}.`, header, body), url: request.url });
      response.end(request.url === '/authorize' ? '{"allow": true}' : '');
      if (body.includes('peer-left')) stop();
    });
    await new Promise((resolve) => backend.listen(0, '127.0.0.1', resolve));
    backend.unref();
    const url = `http://127.0.0.1:${backend.address().port}`;
    const box = await startBox({ CALLBOX_HOOKS__URL: `${url}/events`, CALLBOX_HOOKS__AUTHORIZE: `${url}/authorize`, CALLBOX_HOOKS__SECRET: SECRET, CALLBOX_HOOKS__ALLOW_PRIVATE: 'true' });
    try {
      const ann = new Signal(box.ws, { WebSocket });
      await ann.join({ roomId: 'hooks', identity: 'Änn' });
      ann.leave();
      await done;
      assert.ok(came.every(({ is, other }) => is && !other), JSON.stringify(came));
      assert.deepEqual([...new Set(came.map(({ url }) => url))].sort(), ['/authorize', '/events']);
      const served = await fetch(`${box.url}sdk/v1/hooks.js`);
      assert.equal(await served.text(), readFileSync(new URL('../../sdk/js/dist/hooks.mjs', import.meta.url), 'utf8'));
    } finally {
      box.stop();
      backend.closeAllConnections();
      backend.close();
    }
  });
});
