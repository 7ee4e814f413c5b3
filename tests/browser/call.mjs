// The call page and the check page, as people use them: two, then three, in headless Chromium, through the box's relay.
// Needs CALLBOX_BIN (the program) and, unless it is /usr/bin/chromium, CHROMIUM.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { mint, Person, startBox, startBrowser } from './harness.mjs';

describe('a call through the relay', { timeout: 240_000 }, () => {
  const room = 'studio';
  let box, browser, ann, ben, carla;

  before(async () => {
    box = await startBox();
    browser = await startBrowser();
  });
  after(async () => {
    await browser?.stop();
    box?.stop();
  });

  it('carries video both ways between two, and says that it is relayed', async () => {
    ann = await Person.arrive(browser, box, { name: 'Ann', room, relayOnly: true });
    await ann.inRoom();
    ben = await Person.arrive(browser, box, { name: 'Ben', room, relayOnly: true });
    for (const [one, other] of [[ann, 'Ben'], [ben, 'Ann']]) {
      await one.seesTile(other, { state: 'connected', path: 'relay', video: 'true' });
      await one.seesMoving(other, 30);
      assert.match(await one.tile(other).innerText(), /Relayed over (UDP|TCP) by this box/);
    }
    await ann.readsInLog('Ben joined');
    await ben.readsInLog('Here: Ann');
  });

  it('carries chat', async () => {
    await ann.says('hello <b>there</b>');
    await ben.readsInLog('hello <b>there</b>');
    await ben.says('你好');
    await ann.readsInLog('你好');
  });

  it('shows who is muted or has the camera off', async () => {
    await ann.press('Mute mic');
    await ben.seesTile('Ann', { muted: 'true' });
    await ann.press('Unmute mic');
    await ben.seesTile('Ann', { muted: 'false' });
    await ann.press('Turn camera off');
    await ben.seesTile('Ann', { video: 'false' });
    await ann.press('Turn camera on');
    await ben.seesTile('Ann', { video: 'true' });
    await ben.seesMoving('Ann');
  });

  it('takes a third, who sees both', async () => {
    carla = await Person.arrive(browser, box, { name: 'Carla', room, relayOnly: true, prepare: keepSockets });
    for (const name of ['Ann', 'Ben']) {
      await carla.seesTile(name, { state: 'connected', path: 'relay' });
      await carla.seesMoving(name);
    }
    await ann.seesMoving('Carla');
    await ben.seesMoving('Carla');
  });

  it('speaks Chinese too', async () => {
    await carla.page.getByRole('button', { name: '中文' }).click();
    await carla.tile('Ann').getByText(/由本服务器经 (UDP|TCP) 中继/).waitFor();
    await carla.page.getByRole('button', { name: 'English' }).click();
  });

  it('keeps the call when the signaling socket is lost', async () => {
    const peerId = (page) => page.tile('Carla').getAttribute('data-peer');
    const before = await peerId(ann);
    const lost = carla.page.locator('#signal:not([data-status="online"])').waitFor();
    await carla.page.evaluate(() => globalThis.sockets[0].close(4999));
    await lost;
    await carla.page.locator('#signal[data-status="online"]').waitFor();
    await carla.says('still here');
    await ann.readsInLog('still here');
    assert.equal(await peerId(ann), before);
    await ann.seesMoving('Carla');
  });

  it('lets somebody without camera and microphone watch', async () => {
    const bare = await startBrowser({ devices: false });
    try {
      const dora = await Person.arrive(bare, box, { name: 'Dora', room, relayOnly: true });
      await dora.seesMoving('Ann');
      assert.match(await dora.page.locator('#warning').innerText(), /Camera and microphone: none found/);
      await ann.seesTile('Dora', { state: 'connected', video: 'false' });
      // A closed tab says goodbye: nobody waits for a timeout.
      await dora.page.close();
      await ann.readsInLog('Dora left');
      assert.deepEqual(bare.faults, []);
    } finally {
      await bare.stop();
    }
  });

  it('says who left', async () => {
    await ben.press('Leave');
    await ben.page.getByRole('button', { name: 'Join', exact: true }).waitFor();
    for (const one of [ann, carla]) {
      await one.readsInLog('Ben left');
      await one.tile('Ben').waitFor({ state: 'detached' });
    }
    await carla.page.close();
    await ann.readsInLog('Carla left');
    await ann.page.getByText('You are the first one here.').waitFor();
  });

  it('moves a living call from a direct path to the relay', async () => {
    const [eve, finn] = [
      await (await Person.arrive(browser, box, { name: 'Eve', room: 'direct' })).inRoom(),
      await Person.arrive(browser, box, { name: 'Finn', room: 'direct' }),
    ];
    await eve.page.locator('.tile[data-path^="direct"]').waitFor();
    await finn.seesMoving('Eve');
    await eve.press('Relay');
    await eve.seesTile('Finn', { state: 'connected', path: 'relay' });
    await finn.seesMoving('Eve');
    // Both at once: their fresh offers cross.
    await Promise.all([eve.press('Relay'), finn.press('Relay')]);
    await finn.seesTile('Eve', { state: 'connected', path: 'relay' });
    await eve.seesMoving('Finn');
    await finn.seesMoving('Eve');
    await Promise.all([eve, finn].map((one) => one.page.close()));
  });

  it('follows a room that becomes relay only', async () => {
    const gus = await (await Person.arrive(browser, box, { name: 'Gus', room: 'strict', prepare: keepSockets })).inRoom();
    const hal = await Person.arrive(browser, box, { name: 'Hal', room: 'strict' });
    await gus.page.locator('.tile[data-path^="direct"]').waitFor();
    await gus.page.evaluate(() => globalThis.sockets[0].send('{"type":"room","relayOnly":true}'));
    for (const [one, other] of [[gus, 'Hal'], [hal, 'Gus']]) {
      await one.seesTile(other, { state: 'connected', path: 'relay' });
      await one.seesMoving(other);
      await one.page.locator('#more-toggle').click();
      assert.ok(await one.page.getByRole('button', { name: 'Relay', exact: true }).isDisabled());
    }
    await Promise.all([gus, hal].map((one) => one.page.close()));
  });

  it('shows the camera in the lobby with nothing before it, and an avatar while it is off', async () => {
    const page = await browser.open();
    await page.goto(`${box.url}#lobby`);
    // What lies in the middle of the preview, from the front to the back.
    const middle = () =>
      page.evaluate(() => {
        const { left, top, width, height } = document.getElementById('preview').getBoundingClientRect();
        return document.elementsFromPoint(left + width / 2, top + height / 2).filter((one) => one.matches('#preview *')).map(({ id }) => id);
      });
    await page.locator('.preview[data-video="true"]').waitFor();
    assert.deepEqual(await middle(), ['preview-video']);
    await page.locator('#preview [data-toggle="video"]').click();
    await page.locator('.preview[data-video="false"]').waitFor();
    assert.deepEqual(await middle(), ['preview-avatar']);
    await page.locator('#preview [data-toggle="video"]').click();
    await page.locator('.preview[data-video="true"]').waitFor();
    assert.deepEqual(await middle(), ['preview-video']);
    await page.close();
  });

  it('fits a phone, with targets that a finger hits', async () => {
    for (const width of [360, 412]) {
      const page = await browser.open();
      await page.setViewportSize({ width, height: 780 });
      await page.goto(`${box.url}#phone-${width}`);
      await assertFits(page);
      await page.getByRole('button', { name: 'Join', exact: true }).click();
      await page.locator('.tile.local').waitFor();
      await assertFits(page);
      await page.close();
    }
  });

  it('checks every address of the box on the check page', async () => {
    const page = await browser.open();
    await page.goto(`${box.url}check`);
    await page.locator('.rows li[data-url^="turn:"][data-result]').first().waitFor();
    await page.waitForFunction(() => [...document.querySelectorAll('.rows li')].every((row) => row.dataset.result));
    const rows = await page.locator('.rows li').evaluateAll((all) => all.map((row) => `${row.dataset.result} ${row.innerText}`));
    for (const row of rows) assert.match(row, /^ok /, rows.join('\n'));
    assert.match(rows.at(-1), /went through it and back/);
  });

  it('made no page throw or log an error', () => assert.deepEqual(browser.faults, []));
});

describe('a page that is used again, or without https', { timeout: 120_000 }, () => {
  let box, browser;
  before(async () => {
    box = await startBox();
    browser = await startBrowser();
  });
  after(async () => {
    await browser?.stop();
    box?.stop();
  });

  it('leaves without a word of a lost connection, and joins again on the same page', async () => {
    const gina = await (await Person.arrive(browser, box, { name: 'Gina', room: 'again', prepare: keepSockets })).inRoom();
    const hugo = await (await Person.arrive(browser, box, { name: 'Hugo', room: 'again' })).inRoom();
    const { page } = gina;
    const faults = browser.faults.length;
    for (let turn = 1; turn <= 3; turn++) {
      await gina.seesMoving('Hugo');
      await hugo.seesMoving('Gina');
      await gina.says(`turn ${turn}`);
      await hugo.readsInLog(`turn ${turn}`);
      await gina.press('Leave');
      await page.locator('#lobby').waitFor();
      await hugo.tile('Gina').waitFor({ state: 'detached' });
      // Whatever the page may say of the connection it says once that is closed.
      await page.waitForFunction(() => globalThis.sockets.every(({ readyState }) => readyState === WebSocket.CLOSED));
      await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(resolve)));
      assert.deepEqual([await page.locator('#join-note').isHidden(), await page.locator('#join-note-text').textContent()], [true, '']);
      await page.getByRole('button', { name: 'Join', exact: true }).click();
      await gina.inRoom();
    }
    await gina.seesMoving('Hugo');
    assert.deepEqual([await page.locator('.tile').count(), await hugo.page.locator('.tile').count()], [2, 2]);
    assert.deepEqual(browser.faults.slice(faults), []);
    await Promise.all([gina, hugo].map((one) => one.page.close()));
  });

  it('names, where the browser withholds camera and microphone, an address that this box listens on', async () => {
    const page = await browser.open((page) => page.addInitScript(() => Object.defineProperty(globalThis, 'isSecureContext', { value: false })));
    await page.goto(`${box.url}#plain`);
    const words = await page.locator('#warning').innerText();
    assert.deepEqual(words.match(/https?:\/\/[^\s,]+?(?=[.,]?\s)/g), [box.url], words);
    assert.match(words, /Open it over https, or on the box itself at/);
    await page.close();
  });

  it('made no page throw or log an error', () => assert.deepEqual(browser.faults, []));
});

describe('a box where people log in', { timeout: 120_000 }, () => {
  let box, browser, folder;

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'callbox-users-'));
    const users = join(folder, 'users.toml');
    // The hash of `sesame`.
    writeFileSync(users, 'ann = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$HxVFw+aKWINLDjXMNdQoWVf/mnvW6WGFJgmv8EvSGGw"\n', { mode: 0o600 });
    box = await startBox({
      CALLBOX_AUTH__MODE: 'jwt',
      CALLBOX_AUTH__SECRET: 'a secret of this test alone, 32 bytes and more',
      CALLBOX_AUTH__USERS_FILE: users,
    });
    browser = await startBrowser();
  });
  after(async () => {
    await browser?.stop();
    box?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  it('takes name and password at the lobby, and says when they are wrong', async () => {
    const { page } = await Person.arrive(browser, box, { name: 'ann', room: 'team' });
    await page.getByLabel('Your password').fill('sesam');
    await page.getByRole('button', { name: 'Join', exact: true }).click();
    await page.getByText('The name or the password is wrong.').waitFor();
    await page.getByLabel('Your password').fill('sesame');
    await page.getByRole('button', { name: 'Join', exact: true }).click();
    await page.locator('.tile.local', { hasText: 'ann (you)' }).waitFor();
    await page.close();
  });
});

describe('a box that asks for tokens', { timeout: 120_000 }, () => {
  const secret = 'a secret of this test alone, 32 bytes and more';
  let box, browser;

  before(async () => {
    box = await startBox({ CALLBOX_AUTH__MODE: 'jwt', CALLBOX_AUTH__SECRET: secret });
    browser = await startBrowser();
  });
  after(async () => {
    await browser?.stop();
    box?.stop();
  });

  it('makes the page ask for one, and take it from the address', async () => {
    const { page } = await Person.arrive(browser, box, { name: 'Ann', room: 'closed' });
    await page.getByText('This box asks for an access token.').waitFor();
    const wrong = [
      ['garbage', 'The access token was not accepted. Ask for a new one.'],
      [mint('another secret of this test alone, 32 bytes', { sub: 'ann', room: 'closed' }), 'The access token was not accepted. Ask for a new one.'],
      [mint(secret, { sub: 'ann', room: 'closed', exp: 1 }), 'The access token has expired; ask for a new one.'],
      [mint(secret, { sub: 'ann', room: 'elsewhere' }), 'The access token does not admit you to this room.'],
    ];
    for (const [given, words] of wrong) {
      await page.getByLabel('Access token').fill(given);
      await page.getByRole('button', { name: 'Join', exact: true }).click();
      await page.locator('#join-button:enabled').waitFor();
      await page.locator('#token[aria-invalid="true"]').waitFor();
      assert.equal(await page.locator('#join-note-text').textContent(), words);
    }
    await page.getByLabel('Access token').fill(mint(secret, { sub: 'ann', room: 'closed' }));
    await page.getByRole('button', { name: 'Join', exact: true }).click();
    await page.locator('.tile.local', { hasText: 'ann (you)' }).waitFor();

    const linked = await browser.open();
    await linked.goto(`${box.url}?token=${mint(secret, { sub: 'ben', room: 'closed' })}#closed`);
    await linked.getByRole('button', { name: 'Join', exact: true }).click();
    await linked.locator('.tile.local', { hasText: 'ben (you)' }).waitFor();
    assert.doesNotMatch(linked.url(), /token/);
    await linked.close();
    await page.close();
  });

  it('lets a viewer watch, who comes first or last', async () => {
    const arrive = async (sub, role) => {
      const page = await browser.open();
      await page.goto(`${box.url}?token=${mint(secret, { sub, role, room: 'stage' })}#stage`);
      await page.getByRole('button', { name: 'Join', exact: true }).click();
      return new Person(page, sub).inRoom();
    };
    const early = await arrive('early', 'viewer');
    await arrive('speaker', 'member');
    const late = await arrive('late', 'viewer');
    for (const viewer of [early, late]) {
      await viewer.seesMoving('speaker');
      assert.ok(await viewer.page.locator('.controls [data-toggle="video"]').isHidden());
    }
    await late.seesTile('early', { state: 'viewer' });
  });
});

/** Keeps every WebSocket that the page opens where a test can cut it. */
function keepSockets(page) {
  return page.addInitScript(() => {
    globalThis.sockets = [];
    globalThis.WebSocket = class extends WebSocket {
      constructor(...given) {
        super(...given);
        globalThis.sockets.push(this);
      }
    };
  });
}

/** Nothing reaches beyond the sides, and no button is smaller than 44 CSS pixels (WCAG 2.5.5). */
async function assertFits(page) {
  const found = await page.evaluate(() => {
    const small = [...document.querySelectorAll('button, .switch, .aside a')]
      .map((element) => ({ element, box: element.getBoundingClientRect() }))
      .filter(({ box }) => box.width > 0 && (box.width < 44 || box.height < 44 || box.right > innerWidth))
      .map(({ element }) => element.outerHTML.slice(0, 80));
    return { small, wide: document.documentElement.scrollWidth > innerWidth };
  });
  assert.deepEqual(found, { small: [], wide: false });
}
