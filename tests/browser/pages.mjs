// The check page's verdict and report, and the operator's dashboard. Needs what call.mjs needs.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Person, startBox, startBrowser } from './harness.mjs';

const ADMIN = 'an admin token of this test alone';

describe('what candidates say about a network', () => {
  let nat;
  before(async () => {
    // The page's own module; web/ has no package that would say what its files are.
    const text = readFileSync(new URL('../../web/nat.js', import.meta.url), 'utf8');
    nat = await import(`data:text/javascript,${encodeURIComponent(text)}`);
  });
  const host = { type: 'host', address: '192.168.1.5', port: 5000 };
  const seen = (address, port, relatedPort = 5000) => ({ type: 'srflx', address, port, relatedAddress: '192.168.1.5', relatedPort });

  it('tells the kinds of NAT apart', () => {
    const of = (answered, ...candidates) => nat.natOf({ answered, candidates });
    assert.equal(of(2, host), 'none');
    assert.equal(of(2, host, { ...seen('192.168.1.5', 5000) }), 'none');
    assert.equal(of(2, host, seen('203.0.113.7', 40_000)), 'same');
    assert.equal(of(2, host, seen('203.0.113.7', 40_000), seen('203.0.113.7', 40_001)), 'symmetric');
    // Two networks of one machine are not one that changes its port.
    assert.equal(of(2, host, seen('203.0.113.7', 40_000), seen('198.51.100.9', 6_000, 5001)), 'same');
    // Where the browser hides local addresses, one public address with two ports is all that shows.
    assert.equal(of(2, seen('203.0.113.7', 40_000, 0), seen('203.0.113.7', 40_001, 0)), 'symmetric');
    assert.equal(of(0, host), 'blocked');
    assert.equal(of(1, host, seen('203.0.113.7', 40_000)), 'unknown');
    assert.equal(of(null, host), 'unknown');
    assert.equal(of(null, host, seen('203.0.113.7', 40_000)), 'same');
  });

  it('puts everything into one verdict', () => {
    const of = (nat_, relays, more = {}) => nat.verdictOf({ socket: true, servers: true, nat: nat_, relays, ...more });
    assert.deepEqual(of('none', { udp: 'ok' }), { result: 'ok', key: 'verdict.none' });
    assert.deepEqual(of('same', { udp: 'bad' }), { result: 'warn', key: 'verdict.sameAlone' });
    assert.deepEqual(of('symmetric', { udp: 'ok' }), { result: 'ok', key: 'verdict.symmetric' });
    assert.deepEqual(of('symmetric', { udp: 'bad', tcp: 'bad' }), { result: 'bad', key: 'verdict.symmetricAlone' });
    assert.deepEqual(of('blocked', { udp: 'bad', tls: 'ok' }), { result: 'warn', key: 'verdict.blocked' });
    assert.deepEqual(of('blocked', { udp: 'bad' }), { result: 'bad', key: 'verdict.nothing' });
    assert.deepEqual(of('none', {}, { socket: false }), { result: 'bad', key: 'verdict.signaling' });
    assert.deepEqual(of('none', { udp: 'ok' }, { socket: false, http: true }), { result: 'warn', key: 'verdict.http' });
    assert.deepEqual(of('blocked', { udp: 'bad' }, { socket: false, http: true }), { result: 'bad', key: 'verdict.nothing' });
    assert.deepEqual(of(null, {}, { servers: false }), { result: 'warn', key: 'verdict.token' });
    // Each verdict has its words.
    const words = readFileSync(new URL('../../web/i18n.js', import.meta.url), 'utf8');
    for (const kind of ['none', 'same', 'symmetric', 'unknown']) for (const end of ['', 'Alone', '.title', 'Alone.title']) {
      assert.equal(words.split(`'verdict.${kind}${end}':`).length, 3, `${kind}${end} in two languages`);
    }
  });

  it('looks at IPv4 and IPv6 apart', () => {
    const silent = (address) => ({ errorCode: 701, address });
    const of4 = seen('203.0.113.7', 40_000);
    const of6 = { type: 'srflx', address: '2001:db8::7', port: 40_000 };
    const of = (candidates, errors) => nat.familiesOf({ candidates, errors }).map(({ family, result }) => `${family} ${result}`);
    assert.deepEqual(of([host, of4, of6], []), ['IPv4 ok', 'IPv6 ok']);
    assert.deepEqual(of([host, of4], [silent('[2001:db8:0:0:x:x:x:x]')]), ['IPv4 ok', 'IPv6 bad']);
    assert.deepEqual(of([of6], [silent('192.168.1.x')]), ['IPv4 bad', 'IPv6 ok']);
    // A machine without IPv6 asks nobody over it. Where nothing answers, UDP is blocked, and no family is to blame.
    assert.deepEqual(of([host, of4], []), ['IPv4 ok']);
    assert.deepEqual(of([host], [silent('192.168.1.x'), silent('[2001:db8:0:0:x:x:x:x]')]), []);
  });

  it('counts loss and jitter of echoes', () => {
    const { rtt, loss, jitter } = nat.echoFigures([10, 10, null, 10, 42]);
    assert.deepEqual([rtt, loss, jitter], [10, 0.19999999999999996, 2]);
    assert.deepEqual(nat.echoFigures([null, null]), { rtt: null, loss: 1, jitter: null });
  });
});

describe('the check page', { timeout: 120_000 }, () => {
  let box, browser;
  before(async () => {
    box = await startBox({ CALLBOX_TURN__UDP: '["127.0.0.1:0", "127.0.0.1:0"]' });
    browser = await startBrowser();
  });
  after(async () => {
    await browser?.stop();
    box?.stop();
  });

  it('gives a verdict, and loss and jitter of each relay', async () => {
    const page = await browser.open();
    await page.goto(`${box.url}check`);
    await page.locator('#verdict[data-result="ok"]').waitFor();
    // A browser that hides the addresses of this machine cannot tell no NAT from one that keeps ports.
    assert.match(await page.locator('#verdict').getAttribute('data-nat'), /^(none|same)$/);
    assert.match(await page.locator('#verdict').innerText(), /Calls work, (mostly )?directly/);
    const rows = await page.locator('.rows li[data-url^="turn:"]').evaluateAll((all) => all.map(({ innerText }) => innerText));
    assert.equal(rows.length, 2);
    for (const row of rows) assert.match(row, /in [\d.]+ ms, loss [\d.]+ %, jitter [\d.]+ ms/);
    await page.close();
  });

  it('says that calls work where HTTP carries signaling, and that nobody can be called where neither does', async () => {
    for (const [blocked, result, title] of [['**/none', 'warn', 'Calls work, with signaling over HTTP'], ['**/v1/sessions', 'bad', 'Signaling does not work from here']]) {
      const page = await browser.open((opened) =>
        opened.addInitScript(() => {
          // A network that lets no WebSocket through.
          globalThis.WebSocket = class {
            constructor() {
              setTimeout(() => this.onclose?.({ code: 1006, reason: '' }));
            }
            close() {}
          };
        }),
      );
      await page.route(blocked, (route) => route.fulfill({ status: 502, body: '' }));
      const faults = browser.faults.length;
      await page.goto(`${box.url}check`);
      await page.locator(`#verdict[data-result="${result}"]`).waitFor();
      assert.equal(await page.locator('#verdict-title').innerText(), title);
      // The browser itself writes down the answer 502.
      assert.ok(browser.faults.splice(faults).every((fault) => /502/.test(fault)));
      await page.close();
    }
  });

  it('shows a family of addresses that gets no answer', async () => {
    const page = await browser.open((opened) =>
      opened.addInitScript(() => {
        // A machine with both families, at a box that its IPv6 does not reach.
        globalThis.RTCPeerConnection = class extends RTCPeerConnection {
          set onicecandidate(listener) {
            super.onicecandidate = listener;
            setTimeout(() => {
              const candidate = { type: 'srflx', protocol: 'udp', address: '203.0.113.7', port: 40_000, relatedAddress: '0.0.0.0', relatedPort: 9 };
              this.onicecandidateerror?.({ errorCode: 701, errorText: 'timed out', url: 'stun:box.example:3478', address: '[2001:db8:0:0:x:x:x:x]' });
              listener({ candidate });
            });
          }
        };
      }),
    );
    await page.goto(`${box.url}check`);
    await page.locator('.rows li[data-result="warn"]', { hasText: 'IPv6 by itself' }).waitFor();
    await page.locator('.rows li[data-result="ok"]', { hasText: 'IPv4 by itself' }).getByText('203.0.113.7').waitFor();
    await page.close();
  });

  it('copies a report without credentials', async () => {
    const page = await browser.open();
    await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
    await page.goto(`${box.url}check`);
    await page.getByRole('button', { name: 'Copy as JSON' }).click();
    const json = await page.evaluate(() => navigator.clipboard.readText());
    const report = JSON.parse(json);
    assert.match(report.verdict, /^(none|same)$/);
    assert.ok(report.rows.every(({ result }) => result === 'ok'), json);
    const relay = report.rows.find(({ url }) => url?.startsWith('turn:'));
    assert.equal(typeof relay.rttMs, 'number');
    assert.equal(relay.family, 'IPv4');
    const { iceServers } = await page.evaluate(() => fetch('v1/ice-servers').then((answer) => answer.json()));
    const { username } = iceServers.find((server) => server.username);
    assert.ok(!json.includes(username.split(':')[0]) && !json.includes('credential'));
    await page.getByRole('button', { name: 'Copy as text' }).click();
    assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^callbox: Calls work, (mostly )?directly\n/);
    await page.close();
  });

  it('made no page throw or log an error', () => assert.deepEqual(browser.faults, []));
});

describe('the dashboard', { timeout: 120_000 }, () => {
  let box, browser;
  before(async () => {
    box = await startBox({ CALLBOX_AUTH__ADMIN_TOKEN: ADMIN, CALLBOX_AUTH__SECRET: 'a secret of this test alone, 32 bytes and more' });
    browser = await startBrowser();
  });
  after(async () => {
    await browser?.stop();
    box?.stop();
  });
  const enter = async () => {
    const page = await browser.open();
    await page.goto(`${box.url}admin`);
    await page.getByLabel('Admin token').fill(ADMIN);
    await page.getByRole('button', { name: 'Open' }).click();
    await page.getByRole('heading', { name: 'Now', exact: true }).waitFor();
    return page;
  };

  it('refuses a wrong token, and says which is meant', async () => {
    const page = await browser.open();
    await page.goto(`${box.url}admin`);
    await page.getByLabel('Admin token').fill('wrong');
    await page.getByRole('button', { name: 'Open' }).click();
    await page.getByText('That token was not accepted.').waitFor();
    assert.ok(await page.locator('#dashboard').isHidden());
    await page.close();
    // The browser itself logs each refused request.
    browser.faults.splice(0);
  });

  it('shows rooms, people and relays as they come, and removes them', async () => {
    const page = await enter();
    await page.getByText('No rooms.').waitFor();
    const ann = await (await Person.arrive(browser, box, { name: 'Ann', room: 'watched', relayOnly: true })).inRoom();
    const ben = await (await Person.arrive(browser, box, { name: 'Ben', room: 'watched', relayOnly: true })).inRoom();
    await ann.seesTile('Ben', { state: 'connected', path: 'relay' });
    const room = page.locator('#rooms tr', { hasText: 'watched' });
    await room.waitFor();
    await page.locator('#relays tr', { hasText: 'Ann' }).first().waitFor();
    await page.getByRole('button', { name: 'Show: watched' }).click();
    await page.locator('#rooms tr.member', { hasText: 'Ben' }).filter({ hasText: 'relayed' }).waitFor();
    // A page that opens later sees what was reported before.
    const late = await enter();
    await late.getByRole('button', { name: 'Show: watched' }).click();
    await late.locator('#rooms tr.member', { hasText: 'Ben' }).filter({ hasText: 'relayed' }).waitFor();
    await late.close();
    // A person without media has no path, though its browser may take an allocation.
    const alone = await (await Person.arrive(browser, box, { name: 'Zoe', room: 'alone' })).inRoom();
    await page.getByRole('button', { name: 'Show: alone' }).click();
    await page.locator('#rooms tr.member', { hasText: 'Zoe' }).filter({ hasText: '–' }).waitFor();
    const other = await Person.arrive(browser, box, { name: 'Yan', room: 'alone' });
    await other.page.locator('.tile[data-path^="direct"]').waitFor();
    for (const name of ['Zoe', 'Yan']) {
      const member = page.locator('#rooms tr.member', { hasText: name });
      await member.filter({ hasText: 'direct' }).waitFor();
      assert.doesNotMatch(await member.innerText(), /relayed/);
    }
    await Promise.all([alone, other].map((one) => one.press('Leave')));
    await page.getByRole('button', { name: 'Remove: Ben' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Remove' }).click();
    await ben.page.getByText('The operator of this box removed you from the room.').waitFor();
    await page.getByRole('button', { name: 'Close: watched' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Close' }).click();
    await ann.page.getByText('The room was closed.').waitFor();
    await page.getByText('No rooms.').waitFor();
    await Promise.all([page, ann.page, ben.page, alone.page, other.page].map((one) => one.close()));
  });

  it('mints a token whose link opens the call page', async () => {
    const page = await enter();
    await page.locator('#mint').getByLabel('Identity').fill('Zoe');
    await page.locator('#mint').getByLabel('Room', { exact: true }).fill('minted');
    await page.getByRole('button', { name: 'Token and link' }).click();
    await page.waitForFunction(() => document.getElementById('minted').value);
    const [url, , token] = (await page.getByLabel('Made').inputValue()).split('\n');
    assert.ok(url.includes('minted') && url.includes(token));
    assert.equal(JSON.parse(Buffer.from(token.split('.')[1], 'base64url')).sub, 'Zoe');
    await page.close();
  });

  it('names refusals, shows the load, revokes a user, mints credentials, and drains', async () => {
    const page = await enter();
    // What an act comes to, as the box answers it.
    const acts = async (method, path, button, confirm) => {
      const answered = page.waitForResponse((response) => response.request().method() === method && path.test(response.url()));
      await button.click();
      if (confirm) await page.getByRole('dialog').getByRole('button', { name: confirm }).click();
      return (await answered).status();
    };
    await page.evaluate(async (url) => {
      const socket = new WebSocket(url);
      await new Promise((resolve) => (socket.onopen = resolve));
      socket.send(JSON.stringify({ type: 'message', content: 'to nobody' }));
    }, `${box.url.replace(/^http/, 'ws')}ws`);
    await page.locator('#refusals').getByText('signaling not-in-room').waitFor();
    const facts = page.locator('#box');
    for (const fact of [/Version/, /Certificate\s*no TLS/, /Relay worker 0\s*\d+ %/]) await facts.filter({ hasText: fact }).waitFor();
    const ann = await (await Person.arrive(browser, box, { name: 'Ann', room: 'revoked', relayOnly: true })).inRoom();
    const ben = await (await Person.arrive(browser, box, { name: 'Ben', room: 'revoked', relayOnly: true })).inRoom();
    const relay = page.locator('#relays tr', { hasText: 'Ann' }).first();
    await relay.waitFor();
    assert.match(await relay.innerText(), /revoked\s+(UDP|TCP)\s+\S+:\d+\s+[\d.]+ \S*B\s+[\d.]+ \S*B/);
    assert.equal(await acts('DELETE', /v1\/relays\//, relay.getByRole('button', { name: 'Revoke: Ann' }), 'Revoke'), 204);
    await Promise.all([ann, ben].map((one) => one.page.close()));
    await page.locator('#mint').getByLabel('Identity').fill('printer');
    assert.equal(await acts('POST', /v1\/credentials$/, page.getByRole('button', { name: 'TURN credentials' })), 200);
    await page.waitForFunction(() => document.getElementById('minted').value);
    const [server] = JSON.parse(await page.getByLabel('Made').inputValue()).filter(({ credential }) => credential);
    assert.match(server.username, /^\d+:printer$/);
    assert.ok([200, 202, 204].includes(await acts('POST', /v1\/drain$/, page.getByRole('button', { name: 'Drain' }), 'Drain')));
    await page.close();
  });

  it('made no page throw or log an error', () => assert.deepEqual(browser.faults.filter((fault) => !/404|Failed to load resource|ERR_CONNECTION/.test(fault)), []));
});

describe('the dashboard of several operators', { timeout: 120_000 }, () => {
  let box, browser, folder;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'callbox-operators-'));
    const config = join(folder, 'callbox.toml');
    writeFileSync(
      config,
      ['[auth.admin_tokens.grafana]', 'token = "a token that reads, of this test alone"', 'scope = "read"', '[auth.admin_tokens.backend]', 'token = "a token that mints, of this test alone"', 'scope = "mint"', ''].join('\n'),
      { mode: 0o600 },
    );
    box = await startBox({}, ['--config', config]);
    browser = await startBrowser();
  });
  after(async () => {
    await browser?.stop();
    box?.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  const enter = async (token) => {
    const page = await browser.open();
    await page.goto(`${box.url}admin`);
    await page.getByLabel('Admin token').fill(token);
    await page.getByRole('button', { name: 'Open' }).click();
    return page;
  };

  it('follows events live with a token that only reads, and says which scope an act lacks', async () => {
    const page = await enter('a token that reads, of this test alone');
    await page.locator('#live[data-status="online"]').waitFor();
    const ann = await (await Person.arrive(browser, box, { name: 'Ann', room: 'scoped' })).inRoom();
    // The event itself, and the room that the page looks for because of it.
    await page.locator('#events [data-event="peer"]').first().waitFor();
    await page.locator('#rooms tr', { hasText: 'scoped' }).waitFor();
    await page.getByRole('button', { name: 'Close: scoped' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Close' }).click();
    await page.locator('#error', { hasText: 'the token grafana lacks the scope act' }).waitFor();
    await page.getByRole('button', { name: 'Token and link' }).click();
    await page.locator('#error', { hasText: 'the token grafana lacks the scope mint' }).waitFor();
    // Nothing was closed, and the page goes on.
    assert.equal(await ann.page.locator('#lobby').isVisible(), false);
    assert.ok(await page.locator('#dashboard').isVisible());
    await ann.press('Leave');
    await page.locator('#rooms tr', { hasText: 'scoped' }).waitFor({ state: 'detached' });
    await Promise.all([page, ann.page].map((one) => one.close()));
  });

  it('tells the bearer of a token that may not read what it lacks', async () => {
    const page = await enter('a token that mints, of this test alone');
    await page.locator('#refused', { hasText: 'the token backend lacks the scope read' }).waitFor();
    assert.ok(await page.locator('#dashboard').isHidden());
    await page.close();
  });

  // The browser itself logs each refused request.
  it('made no page throw or log another error', () => assert.deepEqual(browser.faults.filter((fault) => !/40[34]/.test(fault)), []));
});
