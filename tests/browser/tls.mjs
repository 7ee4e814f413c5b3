// A call where nothing but `turns:` on the TLS port gets through: the network that lets only HTTPS out.
// Needs what call.mjs needs, and openssl.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Person, startBox, startBrowser } from './harness.mjs';

describe('a call through the TLS port alone', { timeout: 120_000 }, () => {
  let files, box, browser;

  before(async () => {
    files = mkdtempSync(join(tmpdir(), 'callbox-tls-'));
    const [cert, key] = [join(files, 'cert.pem'), join(files, 'key.pem')];
    execFileSync('openssl', [
      'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
      '-subj', '/CN=callbox', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert,
    ], { stdio: 'ignore' });
    box = await startBox({
      CALLBOX_HTTP__LISTEN: '[]',
      CALLBOX_TURN__UDP: '[]',
      CALLBOX_TURN__TCP: '[]',
      CALLBOX_TLS__LISTEN: '127.0.0.1:0',
      CALLBOX_TLS__CERT: cert,
      CALLBOX_TLS__KEY: key,
    });
    const spki = new X509Certificate(readFileSync(cert)).publicKey.export({ type: 'spki', format: 'der' });
    const trusted = createHash('sha256').update(spki).digest('base64');
    browser = await startBrowser({ args: [`--ignore-certificate-errors-spki-list=${trusted}`] });
  });
  after(async () => {
    await browser?.stop();
    box?.stop();
    rmSync(files, { recursive: true, force: true });
  });

  it('hands out one address, and it is turns:', async () => {
    const page = await browser.open();
    await page.goto(`${box.url}check`);
    const { iceServers } = await page.evaluate(() => fetch('v1/ice-servers').then((answer) => answer.json()));
    const port = new URL(box.url).port;
    assert.deepEqual(iceServers.flatMap(({ urls }) => urls), [`turns:127.0.0.1:${port}?transport=tcp`]);
    await page.close();
  });

  it('names no address for a page without https, since none is listened on', async () => {
    const page = await browser.open((page) => page.addInitScript(() => Object.defineProperty(globalThis, 'isSecureContext', { value: false })));
    await page.goto(`${box.url}#plain`);
    const words = await page.locator('#warning').innerText();
    assert.match(words, /Open it over https\. You can still join/);
    assert.doesNotMatch(words, /https?:\/\/|localhost|127\.|::1/);
    await page.close();
  });

  it('carries video both ways', async () => {
    const ann = await (await Person.arrive(browser, box, { name: 'Ann', room: 'tls', relayOnly: true })).inRoom();
    const ben = await Person.arrive(browser, box, { name: 'Ben', room: 'tls', relayOnly: true });
    for (const [one, other] of [[ann, 'Ben'], [ben, 'Ann']]) {
      await one.seesTile(other, { state: 'connected', path: 'relay-tls', video: 'true' });
      await one.seesMoving(other, 30);
    }
  });

  it('made no page throw or log an error', () => assert.deepEqual(browser.faults, []));
});
