// callbox-react in Chromium: what its hooks give when their arguments change. Needs what browsers.mjs needs, and sdk/react built.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startBox } from './box.mjs';
import { startBrowser, startPages } from './pages.mjs';

const FOLDER = fileURLToPath(new URL('../../sdk/react/', import.meta.url));
/** A component that joins the room that `go` was given last, and writes what the hook gives. */
const COMPONENT = `
  import { useRoom } from 'callbox-react';
  import { createElement, useState } from 'react';
  import { createRoot } from 'react-dom/client';
  const url = new URLSearchParams(location.search).get('url');
  function App() {
    const [name, go] = useState(null);
    const { room, status } = useRoom(url, { room: name, mesh: false });
    Object.assign(globalThis, { go, rooms: (globalThis.rooms ?? new Set()).add(room) });
    return createElement('p', null, status + ' ' + (room?.id ?? 'none'));
  }
  createRoot(document.body.appendChild(document.createElement('div'))).render(createElement(App));
`;

describe('useRoom', { timeout: 120_000 }, () => {
  it('gives no room where none is asked for any more', async () => {
    const script = execFileSync(`${FOLDER}node_modules/.bin/esbuild`, ['--bundle', '--format=iife', '--alias:callbox-react=./dist/index.js', '--define:process.env.NODE_ENV="development"'], {
      cwd: FOLDER,
      input: COMPONENT,
      encoding: 'utf8',
      maxBuffer: 64 * 1024 * 1024,
      env: { ...process.env, NODE_PATH: `${FOLDER}node_modules` },
    });
    const box = await startBox();
    const pages = await startPages({ '/react.js': script, '/react': '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><body><script src="/react.js"></script>' });
    const chromium = await startBrowser('chromium');
    try {
      const page = await chromium.open(`${pages.url}react?url=${encodeURIComponent(box.ws)}`);
      const reads = (text) => page.waitForFunction((text) => document.querySelector('p')?.textContent === text, { polling: 100 }, text);
      await reads('connecting none');
      await page.evaluate(() => globalThis.go('a'));
      await reads('online a');
      await page.evaluate(() => globalThis.go(null));
      await reads('connecting none');
      assert.deepEqual(await page.evaluate(() => [...globalThis.rooms].map((room) => room?.status ?? null)), [null, 'closed']);
      await page.evaluate(() => globalThis.go('b'));
      await reads('online b');
      assert.deepEqual(chromium.faults, []);
    } finally {
      await chromium.stop();
      pages.stop();
      box.stop();
    }
  });
});
