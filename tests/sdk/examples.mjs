// Every example of sdk/examples, used as a person would, Chromium with Firefox. Needs what browsers.mjs needs, and the
// React example built.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startBox } from './box.mjs';
import { startBrowser, WITHIN } from './pages.mjs';

const FOLDER = new URL('../../sdk/examples/', import.meta.url);
const TYPES = { html: 'text/html; charset=utf-8', css: 'text/css', js: 'text/javascript' };

let box, site, chromium, firefox;

before(async () => {
  box = await startBox({ CALLBOX_HTTP__ROOT: fileURLToPath(FOLDER) });
  const server = createServer((request, response) => {
    const name = new URL(request.url, 'http://x').pathname.slice(1);
    const file = new URL(name.endsWith('/') ? `${name}index.html` : name, FOLDER);
    if (!existsSync(file)) return response.writeHead(404).end();
    response.writeHead(200, { 'Content-Type': TYPES[file.pathname.split('.').at(-1)] }).end(readFileSync(file));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  site = { url: `http://127.0.0.1:${server.address().port}/`, stop: () => server.close() };
  [chromium, firefox] = await Promise.all([startBrowser('chromium'), startBrowser('firefox')]);
});
after(async () => {
  await Promise.all([chromium?.stop(), firefox?.stop()]);
  site?.stop();
  box?.stop();
});

const at = (name, query = '') => `${site.url}${name}?box=${encodeURIComponent(box.url)}${query}`;
const within = { timeout: WITHIN };
const reads = (page, selector, text) =>
  page.waitForFunction((selector, text) => document.querySelector(selector)?.textContent.includes(text), within, selector, text);
const plays = (page, selector) =>
  page.waitForFunction(
    (selector) => {
      const video = document.querySelector(selector);
      return video && video.videoWidth > 0 && video.currentTime > 0.3;
    },
    within,
    selector,
  );
/** Opens an example in both browsers. */
const both = (name, ...queries) => Promise.all([chromium, firefox].map((browser, n) => browser.open(at(name, queries[n] ?? ''))));
const close = (...pages) => Promise.all(pages.map((page) => page.close()));

describe('the examples', { timeout: 240_000 }, () => {
  it('call.html: two see each other, a third is told', async () => {
    const ann = await chromium.open(at('call.html'));
    await reads(ann, '#status', 'Waiting');
    const ben = await firefox.open(at('call.html'));
    await Promise.all([plays(ann, '#theirs'), plays(ben, '#theirs')]);
    const eve = await chromium.open(at('call.html'));
    await reads(eve, '#status', 'Two are talking already');
    await ann.bringToFront();
    await ann.click('#camera');
    await ann.waitForFunction(() => document.getElementById('camera').getAttribute('aria-pressed') === 'false', within);
    await ann.click('#camera');
    await plays(ben, '#theirs');
    await ben.click('#hangup');
    await reads(ann, '#status', 'The other side left');
    await close(ann, ben, eve);
  });

  it('room.html: tiles, paths, mute', async () => {
    const [ann, ben] = await both('room.html', '&name=Ann', '&name=Ben');
    await Promise.all([plays(ann, '#tiles figure:not(#own) video'), plays(ben, '#tiles figure:not(#own) video')]);
    await reads(ann, '#status', '2 here');
    await reads(ann, '#tiles figure:not(#own) figcaption', 'Ben · direct');
    await ben.click('#mute');
    await reads(ann, '#tiles figure:not(#own) figcaption', '(muted)');
    await ben.click('#leave');
    await ann.waitForFunction(() => document.querySelectorAll('#tiles figure').length === 1, within);
    await close(ann, ben);
  });

  it('chat.html: messages without peer connections', async () => {
    const [ann, ben] = await both('chat.html', '&name=Ann', '&name=Ben');
    await Promise.all([reads(ann, '#here', 'Ben'), reads(ben, '#here', 'Ann')]);
    await ann.type('#text', 'hello <b>there</b>');
    await ann.keyboard.press('Enter');
    await reads(ben, '#log', 'Ann: hello <b>there</b>');
    await reads(ann, '#log', 'Ann: hello <b>there</b>');
    await close(ann, ben);
  });

  it('files.html: a file by drop arrives whole', async () => {
    const [ann, ben] = await both('files.html');
    await Promise.all([reads(ann, '#status', '1 to send to'), reads(ben, '#status', '1 to send to')]);
    const sum = await ann.evaluate(async () => {
      const bytes = crypto.getRandomValues(new Uint8Array(60_000));
      const transfer = new DataTransfer();
      transfer.items.add(new File([bytes], 'holiday.bin'));
      document.getElementById('drop').dispatchEvent(new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true }));
      return Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))).join();
    });
    await ben.waitForSelector('#files a[download="holiday.bin"]', within);
    const got = await ben.evaluate(async () => {
      const bytes = await fetch(document.querySelector('#files a').href).then((answer) => answer.arrayBuffer());
      return Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))).join();
    });
    assert.equal(got, sum);
    await reads(ann, '#files', 'done');
    await close(ann, ben);
  });

  it('screen.html: a screen with its sound comes and goes', async () => {
    const [ann, ben] = await both('screen.html');
    await Promise.all([reads(ann, '#status', 'online'), reads(ben, '#status', 'online')]);
    await ann.evaluate(() => {
      // A screen that needs no picker.
      navigator.mediaDevices.getDisplayMedia = async () => {
        const canvas = Object.assign(document.createElement('canvas'), { width: 320, height: 180 });
        let n = 0;
        setInterval(() => {
          canvas.getContext('2d').fillStyle = `hsl(${n++ * 9} 80% 50%)`;
          canvas.getContext('2d').fillRect(0, 0, 320, 180);
        }, 60);
        const sound = new AudioContext();
        const tone = new OscillatorNode(sound);
        const out = new MediaStreamAudioDestinationNode(sound);
        tone.connect(out);
        tone.start();
        return new MediaStream([...canvas.captureStream(15).getTracks(), ...out.stream.getTracks()]);
      };
    });
    await ann.click('#share');
    await plays(ben, '#screens video');
    assert.deepEqual(await ben.evaluate(() => document.querySelector('#screens video').srcObject.getTracks().map(({ kind }) => kind).sort()), ['audio', 'video']);
    await ann.click('#share');
    await ben.waitForFunction(() => !document.querySelector('#screens video'), within);
    await close(ann, ben);
  });

  it('phone.html: rings, is accepted, ends; declines; knows who is not there', async () => {
    const [ann, ben] = await both('phone.html');
    for (const [page, name] of [[ann, 'ann'], [ben, 'ben']]) {
      await page.type('#own', name);
      await page.keyboard.press('Enter');
      await reads(page, '#status', `You are ${name}`);
    }
    const dial = async (name) => {
      await ann.evaluate(() => (document.getElementById('whom').value = ''));
      await ann.type('#whom', name);
      await ann.keyboard.press('Enter');
    };
    await dial('nobody');
    await reads(ann, '#status', 'Nobody of that name is here');
    await dial('ben');
    await reads(ben, '#status', 'ann calls');
    await ben.click('#decline');
    await reads(ann, '#status', 'Over: rejected');
    await dial('ben');
    await reads(ben, '#status', 'ann calls');
    await ben.click('#accept');
    await Promise.all([plays(ann, '#theirs'), plays(ben, '#theirs')]);
    await ann.click('#hangup');
    await reads(ben, '#status', 'Over: hangup');
    await close(ann, ben);
  });

  it('react/: joins once though React mounts twice, shows people, leaves with the component', async () => {
    const [ann, ben] = await both('react/', '&name=Ann', '&name=Ben');
    await Promise.all([plays(ann, '.theirs video'), plays(ben, '.theirs video')]);
    await reads(ann, '[role=status]', 'online, 2 here');
    await reads(ann, '.theirs figcaption', 'Ben (camera) direct');
    await ben.goto('about:blank');
    await reads(ann, '[role=status]', '1 here');
    await close(ann, ben);
  });

  it('say it where they are not let in', async () => {
    // A box that wants a token, which none of them has.
    const closed = await startBox({ CALLBOX_AUTH__MODE: 'jwt', CALLBOX_AUTH__SECRET: 'x'.repeat(32) });
    const unfit = (name) => `${site.url}${name}?box=${encodeURIComponent(closed.url)}`;
    for (const [name, selector] of [['call.html', '#status'], ['room.html', '#status'], ['chat.html', '#here'], ['files.html', '#status'], ['screen.html', '#status']]) {
      const page = await chromium.open(unfit(name));
      await reads(page, selector, 'token');
      await page.close();
    }
    const phone = await chromium.open(unfit('phone.html'));
    await phone.type('#own', 'ann');
    await phone.keyboard.press('Enter');
    await reads(phone, '#status', 'Not registered: ');
    await phone.close();
    closed.stop();
  });

  it('are served by the box itself under http.root', async () => {
    const ann = await chromium.open(`${box.url}chat.html?box=/&name=Ann`);
    await reads(ann, '#here', 'Ann');
    await close(ann);
  });

  it('made no page throw or log an error', () => assert.deepEqual([...chromium.faults, ...firefox.faults], []));
});
