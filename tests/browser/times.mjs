// How long it takes from the click on "Join" to the first frame of somebody who is there already: five times direct, five
// times relayed. Prints each and the medians; a machine that does nothing else gives figures to compare.
// Needs what call.mjs needs.

import { Person, startBox, startBrowser } from './harness.mjs';

const TIMES = 5;

/** Notes the click and the first frame that a tile of somebody else shows. */
function clock(page) {
  return page.addInitScript(() => {
    addEventListener('click', ({ target }) => target.closest?.('#join-button') && (globalThis.clickedAt ??= performance.now()), true);
    new MutationObserver(() => {
      for (const video of document.querySelectorAll('.tile:not(.local) video')) {
        if (video.watched) continue;
        video.watched = true;
        video.requestVideoFrameCallback((now) => (globalThis.seenAt ??= now));
      }
    }).observe(document, { childList: true, subtree: true });
  });
}

async function measure(browser, box, relayOnly, n) {
  const room = `times-${relayOnly}-${n}`;
  const ann = await (await Person.arrive(browser, box, { name: 'Ann', room, relayOnly })).inRoom();
  const page = await browser.open(clock);
  try {
    await page.goto(`${box.url}#${room}`);
    await page.getByLabel('Your name').fill('Ben');
    const relay = page.getByRole('switch', { name: 'Relay only' });
    if ((await relay.isChecked()) !== relayOnly) await page.locator('label.switch').click();
    // The camera is on in the lobby, as it is for who was here before.
    await page.locator('.preview[data-video="true"]').waitFor();
    await page.getByRole('button', { name: 'Join', exact: true }).click();
    await page.waitForFunction(() => globalThis.seenAt);
    return await page.evaluate(() => Math.round(globalThis.seenAt - globalThis.clickedAt));
  } finally {
    await Promise.all([page, ann.page].map((one) => one.close()));
  }
}

const box = await startBox();
const browser = await startBrowser();
try {
  // The first call of a browser loads what later ones have.
  await measure(browser, box, false, 'first');
  for (const relayOnly of [false, true]) {
    const all = [];
    for (let n = 0; n < TIMES; n++) all.push(await measure(browser, box, relayOnly, n));
    const median = all.toSorted((a, b) => a - b)[TIMES >> 1];
    console.log(`click to first remote frame, ${relayOnly ? 'relayed' : 'direct'}: median ${median} ms of ${all.join(', ')}`);
  }
} finally {
  await browser.stop();
  box.stop();
}
