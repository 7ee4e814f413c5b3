// Two people in a video call whose pages come from two nodes of a cluster; the home of their room is killed.
// Needs CALLBOX_BIN (the program), redis-server and, unless it is /usr/bin/chromium, CHROMIUM.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CONNECT_WITHIN, Person, startBox, startBrowser } from './harness.mjs';
import { moves, stoodStill, watchPicture, watched } from './watch.mjs';

/** Milliseconds: `cluster.lease`, and what a machine that is busy with two browsers may take besides. */
const [LEASE, BUSY] = [10_000, 15_000];

const ADMIN = 'an admin token of this test alone';

const startRedis = async () => {
  const folder = mkdtempSync(join(tmpdir(), 'callbox-redis-'));
  const socket = join(folder, 'redis.sock');
  const words = ['--port', '0', '--unixsocket', socket, '--dir', folder, '--save', '', '--daemonize', 'no'];
  const server = spawn('redis-server', words, { stdio: 'ignore' });
  const deadline = Date.now() + CONNECT_WITHIN;
  while (!existsSync(socket)) {
    if (server.exitCode !== null || Date.now() > deadline) throw new Error('redis-server does not start');
    await sleep(20);
  }
  const stop = () => (server.kill('SIGKILL'), rmSync(folder, { recursive: true, force: true }));
  return { url: `unix:${socket}`, stop };
};

/** A balancer that leads to the first of these nodes that takes a connection. */
const startBalancer = async (nodes) => {
  const server = createServer((client) => {
    client.on('error', () => {});
    const dial = ([node, ...others]) => {
      if (!node) return client.destroy();
      const upstream = connect(Number(new URL(node.url).port), '127.0.0.1');
      let isUp = false;
      upstream.on('connect', () => ((isUp = true), client.pipe(upstream).pipe(client)));
      upstream.on('error', () => (isUp ? client.destroy() : dial(others)));
      upstream.on('close', () => isUp && client.destroy());
      client.on('close', () => upstream.destroy());
    };
    dial(nodes);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${server.address().port}/`, stop: () => server.close() };
};

const hasRedis = !spawnSync('redis-server', ['--version']).error;
if (!hasRedis) console.error('!! CANNOT RUN HERE: a call over two nodes: redis-server is absent');
if (!hasRedis && process.env.CI === 'true') process.exit(1);

describe('a call over two nodes', { timeout: 240_000, skip: !hasRedis }, () => {
  const parts = [];
  let browser, boxes;
  const keep = (part) => (parts.push(part), part);

  before(async () => {
    const redis = keep(await startRedis());
    const node = async (name) => keep(await startBox({
      CALLBOX_AUTH__ADMIN_TOKEN: ADMIN,
      CALLBOX_TURN__SECRETS: '["0123456789abcdef0123456789abcdef"]',
      CALLBOX_CLUSTER__REDIS: redis.url,
      CALLBOX_CLUSTER__SECRET: 's'.repeat(32),
      CALLBOX_CLUSTER__NODE: name,
      CALLBOX_CLUSTER__LEASE: `${LEASE / 1000}s`,
    }));
    boxes = [await node('one'), await node('two')];
    for (const { url } of boxes) {
      const deadline = Date.now() + CONNECT_WITHIN;
      while (!(await fetch(`${url}readyz`)).ok) {
        if (Date.now() > deadline) throw new Error('a node is never ready');
        await sleep(50);
      }
    }
    browser = keep(await startBrowser());
  });
  after(async () => {
    for (const part of parts.reverse()) await part.stop();
  });

  it('shows the nodes, and the paths of a room at the other node, on the dashboard of one', async () => {
    const [one, two] = boxes;
    const people = [];
    for (const name of ['Ann', 'Ben']) people.push(await (await Person.arrive(browser, two, { name, room: 'shown' })).inRoom());
    await people[0].seesTile('Ben', { state: 'connected' });
    const page = await browser.open();
    await page.goto(`${one.url}admin`);
    await page.getByLabel('Admin token').fill(ADMIN);
    await page.getByRole('button', { name: 'Open' }).click();
    for (const name of ['one', 'two']) await page.locator('#nodes tr', { hasText: name }).filter({ hasText: 'rooms' }).waitFor();
    await page.getByRole('button', { name: 'Show: shown' }).click();
    for (const name of ['Ann', 'Ben']) await page.locator('#rooms tr.member', { hasText: name }).filter({ hasText: 'direct' }).waitFor();
    await Promise.all([page, ...people.map((one) => one.page)].map((open) => open.close()));
  });

  it('goes on when the home of the room is killed: media at once, chat after the lease', async () => {
    const [one, two] = boxes;
    const atOne = keep(await startBalancer([one, two]));
    const atTwo = keep(await startBalancer([two, one]));
    const ann = await Person.arrive(browser, atOne, { name: 'Ann', room: 'across', prepare: watched });
    await ann.inRoom();
    const ben = await Person.arrive(browser, atTwo, { name: 'Ben', room: 'across', prepare: watched });
    const both = [[ann, 'Ben'], [ben, 'Ann']];
    for (const [person, other] of both) {
      await person.seesTile(other, { state: 'connected', video: 'true' });
      await person.seesMoving(other, 30);
      await watchPicture(person, other);
    }
    await ann.says('before');
    await ben.readsInLog('before');
    await Promise.all(both.map(([person]) => moves(person, 60)));
    const usual = await Promise.all(both.map(([person]) => stoodStill(person)));
    const peers = (person) => person.page.evaluate(() => globalThis.seen.peers.length);
    const made = await Promise.all([peers(ann), peers(ben)]);

    const killed = Date.now();
    one.stop();
    await ann.says('to Ben');
    await ben.says('to Ann');
    ann.page.setDefaultTimeout(LEASE + CONNECT_WITHIN);
    ben.page.setDefaultTimeout(LEASE + CONNECT_WITHIN);
    const shown = ({ page }) => page.evaluate(() => JSON.stringify([globalThis.seen.closed, document.body.innerText]));
    await Promise.all([ben.readsInLog('to Ben'), ann.readsInLog('to Ann')]).catch(async (error) => {
      throw new Error(`${error.message}\nAnn: ${await shown(ann)}\nBen: ${await shown(ben)}`);
    });
    const took = Date.now() - killed;
    await Promise.all(both.map(([person]) => moves(person, 60)));
    const frozen = await Promise.all(both.map(([person]) => stoodStill(person)));

    console.log(`# the home is killed: chat arrives after ${(took / 1000).toFixed(1)} s of ${LEASE / 1000} s + 5 s; pictures stood still for ${frozen} ms at most, and for ${usual} ms before`);
    assert.ok(took < LEASE + BUSY, `chat arrived after ${took} ms`);
    for (const [index, still] of frozen.entries()) {
      assert.ok(still < Math.max(5000, 3 * usual[index]), `the picture stood still for ${frozen} ms, and ${usual} ms before`);
    }
    assert.deepEqual(await Promise.all([peers(ann), peers(ben)]), made, 'the same peer connections');
    for (const [person, other] of both) await person.seesTile(other, { state: 'connected', video: 'true' });
    // A WebSocket that finds its node gone is an error of the console, and nothing else is.
    const faults = browser.faults.filter((fault) => !/WebSocket connection|ERR_/.test(fault));
    assert.deepEqual(faults, []);
  });
});
