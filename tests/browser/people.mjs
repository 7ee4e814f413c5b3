// What people do in a call with each other and with its page: invitations, what a host may do, the stage, links, keys and settings,
// and that nothing hides a face. Needs what call.mjs needs.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { after, afterEach, before, describe, it } from 'node:test';
import { mint, Person, startBox, startBrowser } from './harness.mjs';

const SECRET = 'a secret of this test alone, 32 bytes and more';
const WEB = new URL('../../web/', import.meta.url);

/** Small pictures, and few of them: several people who send to each other are much for two cores. */
const smallCamera = (page) =>
  page.addInitScript(() => {
    const { mediaDevices } = navigator;
    const getUserMedia = mediaDevices?.getUserMedia.bind(mediaDevices);
    globalThis.asked = [];
    if (getUserMedia) mediaDevices.getUserMedia = (wanted) => (globalThis.asked.push(wanted), getUserMedia({ ...wanted, ...(wanted.video && { video: { ...wanted.video, width: 320, height: 180, frameRate: 5 } }) }));
  });

/** Every `RTCPeerConnection` of the page is in `connections`. */
const keepConnections = (page) =>
  page.addInitScript(() => {
    globalThis.connections = [];
    globalThis.RTCPeerConnection = class extends RTCPeerConnection {
      constructor(...given) {
        super(...given);
        globalThis.connections.push(this);
      }
    };
  });

describe('the modules of the call page', () => {
  it('leave signaling and connections to the library', () => {
    const page = readFileSync(new URL('index.html', WEB), 'utf8');
    const names = [...page.matchAll(/assets\/([\w-]+\.js)/g)].map(([, name]) => name);
    // Each module that one of these imports is among them, so that the browser loads them all at once.
    const texts = new Map(readdirSync(WEB).filter((name) => name.endsWith('.js')).map((name) => [name, readFileSync(new URL(name, WEB), 'utf8')]));
    for (const name of names) for (const [, imported] of texts.get(name).matchAll(/from '\.\/([\w-]+\.js)'/g)) assert.ok(names.includes(imported), `${name} imports ${imported}, which index.html does not name`);
    const own = /new (?:globalThis\.)?(?:RTCPeerConnection|WebSocket|EventSource)|createOffer|createAnswer|set(?:Local|Remote)Description|addIceCandidate|createDataChannel|['"`][\w./:-]*v1\/sessions/;
    for (const name of new Set(names)) assert.ok(!own.test(texts.get(name)), `${name}: ${own.exec(texts.get(name))}`);
    assert.match(texts.get('call.js'), /from '\.\.\/sdk\/v1\/callbox\.js'/);
  });
});

let browser;
before(async () => {
  browser = await startBrowser({ args: ['--use-fake-device-for-media-stream=device-count=2'] });
  const { open } = browser;
  browser.open = (prepare) => open((page) => Promise.all([smallCamera(page), prepare?.(page)]));
});
after(() => browser?.stop());

describe('people in a call', { timeout: 300_000 }, () => {
  let box;
  before(async () => {
    box = await startBox();
  });
  afterEach(() => browser?.clear());
  after(() => box?.stop());
  const arrive = (name, room, prepare) => Person.arrive(browser, box, { name, room, prepare }).then((person) => person.inRoom());
  const people = async (person, act) => {
    await person.page.locator('.controls [data-dialog="people"]').click();
    await act(person.page.locator('#people'));
    await person.page.keyboard.press('Escape');
  };

  it('meet in the room of the link that the box prints', async () => {
    const link = await box.room();
    assert.match(link, /#room=[\w-]+$/);
    for (const name of ['Ann', 'Ben']) {
      const page = await browser.open();
      await page.goto(link);
      await page.getByLabel('Your name').fill(name);
      await page.getByRole('button', { name: 'Join', exact: true }).click();
      if (name === 'Ben') await new Person(page, name).seesTile('Ann', { state: 'connected' });
    }
  });

  it('are let in by the settings that a room was made with, and by those that a host sets later', async () => {
    const ann = new Person(await browser.open(), 'Ann');
    await ann.page.goto(`${box.url}#made`);
    await ann.page.getByLabel('Your name').fill('Ann');
    await ann.page.locator('#lobby-settings').click();
    await ann.page.waitForFunction(() => document.getElementById('level').value > 0.05);
    await ann.page.keyboard.press('Escape');
    await ann.page.locator('details.more-options summary').click();
    await ann.page.locator('#max-peers').fill('3');
    await ann.page.locator('#make-relay-only').check();
    await ann.page.locator('#show-password').click();
    await ann.page.locator('#password').fill('sesame');
    await ann.page.getByRole('button', { name: 'Join', exact: true }).click();
    await ann.inRoom();
    await people(ann, async (panel) => {
      await panel.getByText('The room has a password.').waitFor();
      assert.equal(await panel.locator('#new-max').inputValue(), '3');
      await panel.locator('#new-max').fill('1');
      await panel.locator('#set-max').click();
      await ann.page.locator('#notice.shown', { hasText: 'Done.' }).waitFor({ state: 'attached' });
    });
    await ann.page.locator('#more-toggle').click();
    assert.ok(await ann.page.locator('#relay-toggle').isDisabled(), 'the room is relay only');
    await ann.page.keyboard.press('Escape');
    const { page } = await Person.arrive(browser, box, { name: 'Ben', room: 'made' });
    await page.getByText('This room has a password.').waitFor();
    await page.locator('#password').fill('sesame');
    await page.keyboard.press('Enter');
    await page.getByText('The room is full.').waitFor();
    await people(ann, async (panel) => {
      await panel.locator('#new-max').fill('2');
      await panel.locator('#set-max').click();
      await ann.page.waitForFunction(() => document.getElementById('live').textContent === 'Done.');
    });
    await page.getByRole('button', { name: 'Join', exact: true }).click();
    await new Person(page, 'Ben').inRoom();
    await ann.seesTile('Ben', { state: 'connected', path: 'relay' });
  });

  it('are muted by a host, and become hosts', async () => {
    const [ann, ben] = [await arrive('Ann', 'mutes'), await arrive('Ben', 'mutes')];
    await ann.seesTile('Ben', { muted: 'false' });
    await people(ann, (panel) => panel.getByRole('button', { name: 'Mute: Ben' }).click());
    await ann.seesTile('Ben', { muted: 'true' });
    await ben.readsInLog('Ann asked you to mute.');
    await ben.page.getByRole('button', { name: 'Unmute mic', exact: true }).waitFor();
    await people(ann, (panel) => panel.getByRole('button', { name: 'Make host: Ben' }).click());
    await people(ben, (panel) => panel.locator('#host-tools').waitFor());
  });

  it('make links of addresses and of nothing else, and give the chat to who comes later', async () => {
    const ann = await arrive('Ann', 'links');
    await ann.says('see https://example.org/a?b=c&d, http://example.net. not javascript:alert(1) nor <a href="https://x.example">x</a>');
    const links = (page) => page.locator('#chat-log a').evaluateAll((all) => all.map(({ href, rel, target }) => [href, rel, target]));
    const wanted = ['https://example.org/a?b=c&d', 'http://example.net/', 'https://x.example/'].map((href) => [href, 'noopener noreferrer nofollow', '_blank']);
    assert.deepEqual(await links(ann.page), wanted);
    const ben = await arrive('Ben', 'links');
    await ben.readsInLog('Written before, as Ann says:');
    await ben.readsInLog('not javascript:alert(1)');
    assert.deepEqual(await links(ben.page), wanted);
  });

  it('fill the screen with one picture, lift it out, and move their own to another corner', async () => {
    const ann = await arrive('Ann', 'stage', (page) =>
      page.addInitScript(() => {
        // A browser without a display has no window for it.
        Object.defineProperty(document, 'pictureInPictureEnabled', { value: true });
        HTMLVideoElement.prototype.requestPictureInPicture = async function () {
          globalThis.lifted = this;
          Object.defineProperty(document, 'pictureInPictureElement', { configurable: true, value: this });
        };
        document.exitPictureInPicture = async () => Object.defineProperty(document, 'pictureInPictureElement', { configurable: true, value: null });
      }),
    );
    const { page } = ann;
    await arrive('Ben', 'stage');
    await ann.seesMoving('Ben', 3);
    await page.bringToFront();
    const tile = ann.tile('Ben');
    await tile.hover();
    await tile.getByRole('button', { name: 'Full screen: Ben' }).click();
    await page.waitForFunction(() => document.fullscreenElement?.querySelector('.tile-name').textContent === 'Ben');
    await page.evaluate(() => document.exitFullscreen());
    await page.waitForFunction(() => !document.fullscreenElement);
    await tile.hover();
    const pip = tile.getByRole('button', { name: 'Picture in picture: Ben' });
    await pip.click();
    assert.ok(await page.evaluate(() => globalThis.lifted?.closest('.tile').querySelector('.tile-name').textContent === 'Ben'));
    await pip.click();
    assert.ok(await page.evaluate(() => !document.pictureInPictureElement));

    const own = page.locator('.tile.local');
    const corner = async () => {
      const [a, b] = [await own.boundingBox(), await page.locator('#stage').boundingBox()];
      return `${a.y + a.height / 2 < b.y + b.height / 2 ? 'top' : 'bottom'}-${a.x + a.width / 2 < b.x + b.width / 2 ? 'left' : 'right'}`;
    };
    assert.equal(await corner(), 'bottom-right');
    const [from, stage] = [await own.boundingBox(), await page.locator('#stage').boundingBox()];
    await page.mouse.move(from.x + from.width / 2, from.y + from.height / 2);
    await page.mouse.down();
    await page.mouse.move(stage.x + 60, stage.y + 60, { steps: 4 });
    await page.mouse.up();
    assert.equal(await corner(), 'top-left');
    await own.focus();
    for (const [key, where] of [['ArrowDown', 'bottom-left'], ['ArrowRight', 'bottom-right'], ['ArrowUp', 'top-right']]) {
      await page.keyboard.press(key);
      assert.equal(await corner(), where);
    }
  });

  it('share a screen with the sound of the system', async () => {
    const ann = await arrive('Ann', 'sound', (page) =>
      page.addInitScript(() => {
        navigator.mediaDevices.getDisplayMedia = async (wanted) => {
          globalThis.wanted = wanted;
          const canvas = Object.assign(document.createElement('canvas'), { width: 320, height: 180 });
          setInterval(() => canvas.getContext('2d').fillRect(0, 0, Math.random() * 320, 180), 100);
          const sound = new AudioContext().createMediaStreamDestination();
          return new MediaStream([...canvas.captureStream(10).getTracks(), ...sound.stream.getTracks()]);
        };
      }),
    );
    const ben = await arrive('Ben', 'sound');
    await ann.press('Share');
    await ben.page.locator('.tile.shared.large').waitFor();
    assert.deepEqual(await ann.page.evaluate(() => [globalThis.wanted.systemAudio, globalThis.wanted.audio.echoCancellation]), ['include', false]);
    await ben.page.waitForFunction(() => document.querySelector('.tile.shared video').srcObject.getTracks().map(({ kind }) => kind).sort().join() === 'audio,video');
  });

  it('read what may be in the way where there is no path, and no more once there is one', async () => {
    const [ann, ben] = [await arrive('Ann', 'paths', keepConnections), await arrive('Ben', 'paths')];
    await ann.seesTile('Ben', { state: 'connected' });
    const fails = (state) =>
      ann.page.evaluate((state) => {
        const pc = globalThis.connections.findLast(({ signalingState }) => signalingState !== 'closed');
        Object.defineProperty(pc, 'connectionState', { configurable: true, value: state });
        pc.dispatchEvent(new Event('connectionstatechange'));
      }, state);
    await fails('failed');
    await ann.page.locator('#warning', { hasText: 'No path to Ben yet' }).waitFor();
    assert.match(await ann.page.locator('#warning a').getAttribute('href'), /check$/);
    await fails('connected');
    await ann.page.locator('#warning').waitFor({ state: 'hidden' });
    await ben.page.close();
  });

  it('use keys and settings: shortcuts, devices that are remembered, a level, a budget, a graph', async () => {
    const [ann, ben] = [await arrive('Ann', 'keys', keepConnections), await arrive('Ben', 'keys')];
    const { page } = ann;
    await ann.seesMoving('Ben', 3);
    await page.bringToFront();
    await page.locator('#stage').click({ position: { x: 5, y: 5 } });
    for (const [key, attributes] of [['m', { muted: 'true' }], ['m', { muted: 'false' }], ['v', { video: 'false' }], ['v', { video: 'true' }], ['h', { hand: 'true' }]]) {
      await page.keyboard.press(key);
      await ben.seesTile('Ann', attributes);
    }
    await page.keyboard.press('c');
    await page.waitForFunction(() => document.activeElement?.id === 'chat-text');
    await page.keyboard.type('m is a letter here');
    assert.equal(await page.locator('#chat-text').inputValue(), 'm is a letter here');
    await page.keyboard.press('Escape');
    await page.keyboard.press('p');
    await page.locator('#people[open]').waitFor();
    await page.keyboard.press('Escape');

    await ann.press('Settings');
    await page.waitForFunction(() => document.getElementById('level').value > 0.05);
    const speaker = await page.locator('#choose-speaker option').last().getAttribute('value');
    await page.locator('#choose-speaker').selectOption(speaker);
    await page.waitForFunction((id) => document.querySelector('.tile:not(.local) video').sinkId === id, speaker);
    await page.locator('#choose-video option').nth(1).waitFor({ state: 'attached' });
    const second = await page.locator('#choose-video option').nth(1).getAttribute('value');
    await page.locator('#choose-video').selectOption(second);
    await page.waitForFunction((id) => globalThis.asked.at(-1).video?.deviceId?.ideal === id, second);
    const bits = () => page.evaluate(() => globalThis.connections.flatMap((pc) => pc.getSenders()).filter(({ track }) => track?.kind === 'video').map((sender) => sender.getParameters().encodings[0]?.maxBitrate));
    for (const [budget, wanted] of [['low', 600_000], ['high', 10_000_000], ['low', 600_000]]) {
      await page.locator('#budget').selectOption(budget);
      const end = Date.now() + 20_000;
      while ((await bits())[0] !== wanted) assert.ok(Date.now() < end, `${await bits()} for ${budget}`);
    }
    await page.locator('#shortcuts').uncheck();
    await page.keyboard.press('Escape');
    await page.keyboard.press('m');
    await ann.press('Connection');
    await page.waitForFunction(() => (document.querySelector('#quality-rows polyline')?.getAttribute('points').split(' ').length ?? 0) >= 2);
    const row = await page.locator('#quality-rows tr').innerText();
    assert.match(row, /^Ben\s+Direct\s+\d+\sms\s+[\d.]+\s%\s+[\d.]+\sMbit\/s\s↑\s[\d.]+\sMbit\/s\s↓/);
    await page.keyboard.press('Escape');
    await ben.seesTile('Ann', { muted: 'false' });

    // All of it is remembered, and a reload comes back into the call.
    await page.reload();
    await ann.inRoom();
    await ann.seesTile('Ben', { state: 'connected' });
    assert.equal(await page.evaluate(() => globalThis.asked.find(({ video }) => video).video.deviceId?.ideal), second);
    await ann.press('Settings');
    assert.deepEqual([await page.locator('#budget').inputValue(), await page.locator('#shortcuts').isChecked()], ['low', false]);
  });

  it('hide no face: no tile, notice, bar or panel lies over another, on a phone and on a desk', async () => {
    const ann = await arrive('Ann', 'faces');
    const { page } = ann;
    await page.emulateMedia({ reducedMotion: 'reduce' });
    /** Which things that are shown share a piece of the screen. */
    const overlaps = () =>
      page.evaluate(() => {
        const shown = ['.tile', '#notice.shown', '#recording', '#warning', '#invite', '.controls', '.top', '#chat'].flatMap((selector) => [...document.querySelectorAll(selector)]).filter((one) => one.getClientRects().length);
        const name = (one) => one.id || one.querySelector('.tile-name')?.textContent || one.className;
        const small = document.getElementById('stage').matches('[data-others="1"]:not(.focused)');
        const found = [];
        const stage = document.getElementById('stage').getBoundingClientRect();
        /** What there is to be seen of it: a stage with too many for it can be scrolled. */
        const seen = (one) => {
          const { left, right, top, bottom } = one.getBoundingClientRect();
          return one.closest('#stage') ? { left: Math.max(left, stage.left), right: Math.min(right, stage.right), top: Math.max(top, stage.top), bottom: Math.min(bottom, stage.bottom) } : { left, right, top, bottom };
        };
        shown.forEach((one, index) =>
          shown.slice(index + 1).forEach((other) => {
            // On a phone the chat is a sheet over the lower part, which is closed again by a touch.
            if (one.matches('.controls') && other.id === 'chat' && innerWidth < innerHeight) return;
            // Of two people, one's own picture is small and can be moved.
            if (small && one.matches('.tile') && other.matches('.tile')) return;
            const [a, b] = [seen(one), seen(other)];
            const [width, height] = [Math.min(a.right, b.right) - Math.max(a.left, b.left), Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top)];
            if (width > 1 && height > 1) found.push(`${name(one)} and ${name(other)}: ${Math.round(width)} × ${Math.round(height)}`);
          }),
        );
        for (const tile of shown.filter((one) => one.matches('.tile'))) {
          const { width, height } = tile.getBoundingClientRect();
          if (width < 80 || height < 60) found.push(`${name(tile)} is ${Math.round(width)} × ${Math.round(height)}`);
        }
        const first = seen(document.querySelector('.tile.large') ?? document.querySelector('.tile:not(.local)') ?? document.querySelector('.tile'));
        if (first.bottom - first.top < 60) found.push(`the first picture has ${Math.round(first.bottom - first.top)} lines`);
        return found;
      });
    const PHONE = [{ width: 390, height: 844 }, { width: 844, height: 390 }];
    const DESK = [{ width: 1280, height: 800 }];
    const look = async (what, viewports = [...PHONE, ...DESK]) => {
      for (const viewport of viewports) {
        await page.setViewportSize(viewport);
        await page.evaluate(async () => {
          document.getElementById('notice').textContent = 'A long notice of what somebody did, which is longer than the line of a phone is wide';
          document.getElementById('notice').classList.add('shown');
          await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
        });
        const found = await overlaps();
        if (found.length && process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/faces-${what}-${viewport.width}.png` });
        assert.deepEqual(found, [], `${what} at ${viewport.width}`);
      }
    };
    await page.bringToFront();
    await ann.press('Turn camera off');
    await page.locator('.tile.local[data-video="false"]').waitFor();
    await look('alone');
    // Who comes needs no picture to have a tile.
    const others = await browser.open();
    await others.goto(`${box.url}check`);
    await page.bringToFront();
    for (const [n, name] of ['Ben', 'Carl', 'Dai', 'Eve'].entries()) {
      await others.evaluate(async ([ws, identity]) => {
        const { Signal } = await import('/sdk/v1/callbox.js');
        await new Signal(ws).join({ roomId: 'faces', identity });
      }, [new URL('ws', box.url).href.replace(/^http/, 'ws'), name]);
      await ann.tile(name).waitFor();
      await look(`${n + 2} people`, n === 3 ? undefined : PHONE);
    }
    await ann.press('Record');
    await page.locator('#recording-text', { hasText: 'B' }).waitFor();
    await look('recording');
    await page.locator('.tile', { hasText: 'Eve' }).hover();
    await page.locator('.tile', { hasText: 'Eve' }).getByRole('button', { name: 'Pin' }).click();
    await look('pinned');
    await page.locator('#chat-toggle').click();
    await look('chat');
    await page.locator('#recording-stop').click();
    await page.waitForFunction(() => document.activeElement?.id === 'more-toggle');
  });

  it('made no page throw or log an error', () => assert.deepEqual(browser.faults, []));
});

describe('a guest', { timeout: 120_000 }, () => {
  let box;
  before(async () => {
    box = await startBox({ CALLBOX_AUTH__MODE: 'jwt', CALLBOX_AUTH__SECRET: SECRET });
  });
  after(() => box?.stop());

  it('comes by the link that a host made, as what the host chose', async () => {
    const host = new Person(await browser.open(), 'Ann');
    await host.page.goto(`${box.url}?token=${mint(SECRET, { sub: 'ann', role: 'host', room: 'club' })}#club`);
    await host.page.getByRole('button', { name: 'Join', exact: true }).click();
    await host.inRoom();
    const ways = [];
    for (const role of ['viewer', 'member']) {
      await host.press('Invite');
      await host.page.locator('#guest-role').selectOption(role);
      await host.page.locator('#guest-ttl').selectOption('900');
      const before = await host.page.locator('#guest-link').inputValue();
      await host.page.locator('#make-invite').click();
      await host.page.waitForFunction((before) => document.getElementById('guest-link').value !== before, before);
      await host.page.getByText('This link is valid until').waitFor();
      assert.ok(await host.page.locator('#guest-qr svg path').count());
      const link = await host.page.locator('#guest-link').inputValue();
      await host.page.keyboard.press('Escape');
      // Another person's browser: the token of the host is not in it.
      const page = await browser.open();
      await page.goto(link);
      assert.ok(!page.url().includes('token'));
      await page.getByRole('button', { name: 'Join', exact: true }).click();
      await new Person(page, role).inRoom();
      await page.locator('.controls [data-dialog="people"]').click();
      ways.push(await page.locator('#people-list li').first().locator('small').innerText());
      assert.ok(await page.locator('#host-tools').isHidden());
      await page.keyboard.press('Escape');
    }
    assert.deepEqual(ways, ['Viewer', 'Member']);
  });

  it('made no page throw or log an error', () => assert.deepEqual(browser.faults, []));
});
