// One participant of a call, in a Chromium of its own: person.mjs URL TRUSTED FOLDER ROOM NAME OTHER PATH. Joins, waits for the
// other's moving picture over PATH (`direct`, or how `relay-…` begins), says what the page says, and leaves when the
// other has seen it too. With PATH `check`, reads the page's verdict about the network instead.

import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { Person, startBrowser } from '../browser/harness.mjs';

const [url, trusted, folder, room, name, other, path] = process.argv.slice(2);
const browser = await startBrowser({ args: [`--ignore-certificate-errors-spki-list=${trusted}`] });
try {
  if (path === 'check') {
    const page = await browser.open();
    await page.goto(`${url}check`);
    const verdict = page.locator('#verdict:not([data-result=""])');
    // Each URL that nothing comes back from takes its time.
    await verdict.waitFor({ timeout: 90_000 });
    console.log(await verdict.getAttribute('data-nat'), await verdict.getAttribute('data-result'));
  } else {
    const person = await Person.arrive(browser, { url }, { name, room });
    await person.inRoom();
    const tile = person.tile(other);
    await tile.and(person.page.locator(`.tile[data-state="connected"][data-path^="${path}"]`)).waitFor();
    await person.seesMoving(other, 60);
    const seen = await tile.getAttribute('data-path');
    if (!seen.startsWith(path)) throw new Error(`the path was ${path} and became ${seen}`);
    console.log(seen);
    writeFileSync(join(folder, name), seen);
    while (!existsSync(join(folder, other))) await pause(100);
  }
} finally {
  await browser.stop();
}
