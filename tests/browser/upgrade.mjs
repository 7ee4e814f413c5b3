// Two people in a relayed video call while the program of the box is upgraded: nobody sees anything of it.
// Needs CALLBOX_BIN (the program) and, unless it is /usr/bin/chromium, CHROMIUM.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { Person, startBox, startBrowser } from './harness.mjs';
import { moves, stoodStill, watchPicture, watched } from './watch.mjs';

/** What an ICE restart changes, and what has happened so far. */
const ice = (person) => person.page.evaluate(() => ({
  names: globalThis.seen.peers.map((peer) => [peer.localDescription, peer.remoteDescription]
    .map((description) => description?.sdp.match(/a=ice-ufrag:\S+/g)?.join()).join('|')),
  states: globalThis.seen.states.length,
  connected: globalThis.seen.peers.map((peer) => peer.iceConnectionState),
  closed: globalThis.seen.closed,
}));

describe('an upgrade under a relayed video call', { timeout: 240_000 }, () => {
  let box, browser, ann, ben;

  before(async () => {
    box = await startBox();
    browser = await startBrowser();
  });
  after(async () => {
    await browser?.stop();
    box?.stop();
  });

  it('is not seen: no frozen second, no ICE restart, the same WebSockets', async () => {
    ann = await Person.arrive(browser, box, { name: 'Ann', room: 'upgraded', relayOnly: true, prepare: watched });
    await ann.inRoom();
    ben = await Person.arrive(browser, box, { name: 'Ben', room: 'upgraded', relayOnly: true, prepare: watched });
    const both = [[ann, 'Ben'], [ben, 'Ann']];
    for (const [one, other] of both) {
      await one.seesTile(other, { state: 'connected', path: 'relay', video: 'true' });
      await one.seesMoving(other, 30);
      await watchPicture(one, other);
    }
    // How long a picture stands still on this machine anyway.
    await Promise.all(both.map(([one]) => moves(one, 90)));
    const usual = await Promise.all(both.map(([one]) => stoodStill(one)));
    const before = await Promise.all(both.map(([one]) => ice(one)));

    for (let upgrade = 0; upgrade < 2; upgrade++) {
      const { stdout } = await promisify(execFile)(process.env.CALLBOX_BIN, ['upgrade', '--wait', '--pid', String(box.pid)]);
      assert.match(stdout, /^ready: serving/);
    }
    await Promise.all(both.map(([one]) => moves(one, 90)));
    const frozen = await Promise.all(both.map(([one]) => stoodStill(one)));
    const later = await Promise.all(both.map(([one]) => ice(one)));
    assert.deepEqual(later, before);
    for (const [index, still] of frozen.entries()) {
      assert.ok(still < Math.max(1000, 2 * usual[index]), `the picture stood still for ${frozen} ms, and ${usual} ms before`);
    }
    console.log(`# two upgrades: pictures stood still for ${frozen} ms at most, and for ${usual} ms before`);
    await ann.says('still here');
    await ben.readsInLog('still here');
    assert.deepEqual(browser.faults, []);
  });
});
