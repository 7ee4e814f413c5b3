// A session that the box does not take back ends no call: media that flows goes on, and the person is asked for a token. Needs
// CALLBOX_BIN and, unless it is /usr/bin/chromium, CHROMIUM.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startBox } from '../sdk/box.mjs';
import { mint, Person, startBrowser } from './harness.mjs';
import { servePages } from './served.mjs';

const SECRET = 'a secret of this test alone, 32 bytes and more';

describe('a session that the box does not take back', { timeout: 240_000 }, () => {
  let box, site, browser;
  before(async () => {
    box = await startBox({ CALLBOX_AUTH__MODE: 'jwt', CALLBOX_AUTH__SECRET: SECRET, CALLBOX_AUTH__LEEWAY: '0s' });
    site = process.env.CALLBOX_WEB ? await servePages(box, process.env.CALLBOX_WEB) : box;
    browser = await startBrowser();
  });
  after(async () => {
    await browser?.stop();
    box?.stop();
  });

  const arrive = async (link, name) => {
    const page = await browser.open();
    await page.goto(link);
    await page.getByLabel('Your name').fill(name);
    await page.getByRole('button', { name: 'Join', exact: true }).click();
    return new Person(page, name).inRoom();
  };
  const token = (claims) => mint(SECRET, { room: 'club', ...claims });
  const link = (claims) => `${site.url}#room=club&token=${token(claims)}`;
  /** The other tiles: whose they are, and whether the connection behind them stands. */
  const tiles = ({ page }) => page.locator('.tile:not(.local)').evaluateAll((all) => all.map((tile) => [tile.querySelector('.tile-name').textContent, tile.dataset.state]).sort());
  const lostBy = ({ page }, text) =>
    page
      .locator('#warning', { hasText: text })
      .waitFor()
      .catch(async () => assert.fail(`no “${text}”: ${await page.evaluate(() => document.body.innerText)}`));

  it('is an expired token or an invite of the box before: the call goes on, and a token brings the session back', async () => {
    const ann = await arrive(link({ sub: 'ann', role: 'host' }), 'Ann');
    await ann.page.evaluate(() => ['[data-dialog="invite-guest"]', '#make-invite'].forEach((button) => document.querySelector(button).click()));
    await ann.page.waitForFunction(() => /token/.test(document.getElementById('guest-link').value));
    const invited = await ann.page.locator('#guest-link').inputValue();
    await ann.page.keyboard.press('Escape');
    const gus = await arrive(site.url + new URL(invited).hash, 'Gus');
    const ben = await arrive(link({ sub: 'ben' }), 'Ben');
    const all = [ann, gus, ben];
    for (const { page } of all) await page.waitForFunction(() => document.querySelectorAll('.tile:not(.local)[data-state="connected"][data-path^="direct"]').length === 2);
    const before = await Promise.all(all.map(tiles));
    const notices = ({ page }) => page.evaluate(() => [...document.querySelectorAll('#chat-log [data-event="left"]')].map((one) => one.textContent));

    // The box knows no session any more, and no invite; the token of one of them has become too old.
    const expired = token({ sub: 'ben', exp: Math.floor(Date.now() / 1000) - 60 });
    await ben.page.evaluate((expired) => sessionStorage.setItem('callbox.token', expired), expired);
    await box.kill();
    await box.start();
    await lostBy(gus, 'The access token was not accepted');
    await lostBy(ben, 'The access token has expired');
    await ann.page.locator('#signal[data-status="online"]').waitFor();
    for (const one of all) for (const name of ['ann', 'ben'].filter((name) => name !== one.name.toLowerCase())) await one.seesMoving(name, 60);
    assert.deepEqual(await Promise.all(all.map(tiles)), before);
    assert.deepEqual(await Promise.all(all.map(notices)), [[], [], []]);
    assert.ok(await ben.page.locator('#lobby').isHidden());

    // Refused once more, he is asked once more.
    const tries = async (key) => {
      await ben.page.locator('#rejoin-key').fill(key);
      await ben.page.getByRole('button', { name: 'Connect again' }).click();
    };
    await tries('garbage');
    await lostBy(ben, 'The access token was not accepted');
    await tries(token({ sub: 'ben' }));
    for (const state of ['#warning[hidden]', '#signal[data-status="online"]']) await ben.page.locator(state).waitFor({ state: 'attached' });
    await ben.says('still here');
    await ann.readsInLog('still here');
    assert.deepEqual(await tiles(ann), before[0]);
    assert.deepEqual(await notices(ann), []);

    // No session and no media: that is the end.
    await Promise.all([ann.page.close(), ben.page.close()]);
    await gus.page.locator('#join-note', { hasText: 'The access token was not accepted' }).waitFor();
  });
});
