// Replays docs/transcripts against a box, holds every frame against /v1/schema.json, and lets the clients of docs/clients
// speak with the library. Python's needs websockets: $PYTHON names an interpreter that has it.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import Ajv from 'ajv/dist/2020.js';
import { WebSocket } from 'ws';
import { Signal } from '../../sdk/js/dist/signal.mjs';
import { startBox, startProxy } from './box.mjs';

const FOLDER = new URL('../../docs/transcripts/', import.meta.url);
const WITHIN = 20_000;

/** One connection, whose frames wait until they are asked for. */
class Connection {
  constructor(url, seen) {
    this.socket = new WebSocket(url);
    this.frames = [];
    this.waiting = [];
    this.socket.on('error', () => {});
    this.socket.on('message', (data) => {
      const frame = JSON.parse(data);
      seen(frame);
      const next = this.waiting.shift();
      if (next) next(frame);
      else this.frames.push(frame);
    });
    this.opened = new Promise((resolve, reject) => {
      this.socket.once('open', resolve);
      this.socket.once('error', reject);
    });
  }

  next() {
    if (this.frames.length) return Promise.resolve(this.frames.shift());
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('no frame came')), WITHIN);
      this.waiting.push((frame) => (clearTimeout(timer), resolve(frame)));
    });
  }
}

/** Holds a frame against what is expected of it, and remembers what `$name` stands for. */
function match(expected, got, names, at) {
  if (typeof expected === 'string' && expected.startsWith('$')) {
    names[expected] ??= got;
    return assert.equal(got, names[expected], at);
  }
  if (Array.isArray(expected)) {
    assert.equal(got?.length, expected.length, at);
    return expected.forEach((one, n) => match(one, got[n], names, `${at}[${n}]`));
  }
  if (typeof expected === 'object' && expected !== null) {
    for (const [key, value] of Object.entries(expected)) match(value, got?.[key], names, `${at}.${key}`);
    return undefined;
  }
  return assert.deepEqual(got, expected, at);
}

const filled = (value, names) => JSON.parse(JSON.stringify(value), (_, one) => (typeof one === 'string' && one in names ? names[one] : one));

describe('transcripts', { timeout: 120_000 }, () => {
  let box, fits;
  before(async () => {
    box = await startBox();
    const schema = await fetch(`${box.url}v1/schema.json`).then((answer) => answer.json());
    const ajv = new Ajv({ strict: false, allErrors: true });
    ajv.addSchema(schema, 'callbox');
    fits = (side, frame) => {
      const validate = ajv.getSchema(`callbox#/$defs/${side}.${frame.type}`);
      assert.ok(validate, `${side}.${frame.type} is in the schema`);
      assert.ok(validate(frame), `${JSON.stringify(frame)}: ${ajv.errorsText(validate.errors)}`);
    };
  });
  after(() => box?.stop());

  for (const file of readdirSync(FOLDER).filter((name) => name.endsWith('.jsonl'))) {
    it(file, async () => {
      const lines = readFileSync(new URL(file, FOLDER), 'utf8').trim().split('\n').map((line) => JSON.parse(line));
      const connections = {};
      const names = {};
      try {
        for (const [n, { open, send, receive, cut }] of lines.entries()) {
          const at = `${file}:${n + 1}`;
          if (open) {
            connections[open] = new Connection(box.ws, (frame) => fits('server', frame));
            await connections[open].opened;
          } else if (send) {
            const frame = filled(send[1], names);
            if (!('target' in frame)) fits('client', frame);
            connections[send[0]].socket.send(JSON.stringify(frame));
          } else if (receive) {
            const frame = await connections[receive[0]].next();
            match(receive[1], frame, names, `${at}: ${JSON.stringify(frame)}`);
            for (const name of receive[2]?.without ?? []) assert.ok(!(name in frame), `${at}: ${name}`);
          } else if (cut) {
            connections[cut].socket.terminate();
          }
        }
      } finally {
        for (const { socket } of Object.values(connections)) socket.terminate();
      }
    });
  }

  it('the AsyncAPI document is of version 3 and refers to nothing that is absent', async () => {
    const text = await fetch(`${box.url}v1/asyncapi.json`).then((answer) => answer.text());
    const document = JSON.parse(text);
    assert.match(document.asyncapi, /^3\./);
    for (const [, path] of text.matchAll(/"\$ref":"#\/([^"]+)"/g)) {
      assert.ok(path.split('/').reduce((at, name) => at?.[name], document), path);
    }
  });

  it('a client in Python speaks with the library, and resumes', async (test) => {
    const { PYTHON } = process.env;
    if (!PYTHON) return test.skip('PYTHON names no interpreter with websockets');
    const proxy = await startProxy(box.port);
    const client = spawn(PYTHON, [fileURLToPath(new URL('../../docs/clients/client.py', import.meta.url)), proxy.ws, 'python', 'Py'], { stdio: ['ignore', 'pipe', 'inherit'] });
    const said = [];
    createInterface({ input: client.stdout }).on('line', (line) => said.push(line));
    const says = async (what) => {
      for (const end = Date.now() + WITHIN; !said.some((line) => what.test(line)); ) {
        assert.ok(Date.now() < end && client.exitCode === null, `${what} in ${said}`);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    };
    const ann = new Signal(box.ws, { WebSocket });
    const echo = () => new Promise((resolve) => ann.once('message', ({ content, fromIdentity }) => resolve([content, fromIdentity])));
    try {
      await says(/^joined python as/);
      await ann.join({ roomId: 'python', identity: 'Ann' });
      const first = echo();
      await ann.request('message', { content: { over: 'and back' } });
      assert.deepEqual(await first, [{ echo: { over: 'and back' } }, 'Py']);
      const second = echo();
      proxy.cut();
      await ann.request('message', { content: 'while it was away' });
      assert.deepEqual(await second, [{ echo: 'while it was away' }, 'Py']);
      await says(/^resumed python as/);
    } finally {
      ann.leave();
      client.kill('SIGKILL');
      proxy.stop();
    }
  });
});
