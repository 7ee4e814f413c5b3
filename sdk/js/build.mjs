// Builds dist/ from src/; with --check compares instead and fails where dist/ is stale. `npm ci` first.
// dist/ is committed, so that building the server needs no Node.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { reference } from './reference.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const DIST = join(HERE, 'dist');
const REFERENCE = join(HERE, '../../docs/sdk-reference.md');
/** Bytes after gzip that a page may have to fetch. */
const LIMITS = { 'signal.mjs': 6 * 1024, 'callbox.mjs': 25 * 1024, 'hooks.mjs': 1024 };
/** What `dist/` depends on; a test of the server compares their digests. */
const INPUTS = ['build.mjs', 'reference.mjs', 'package-lock.json', 'tsconfig.json', ...readdirSync(join(HERE, 'src')).sort().map((name) => `src/${name}`)];

const check = process.argv.includes('--check');
const files = new Map();

const common = { absWorkingDir: HERE, bundle: true, minify: true, target: 'es2022', write: false, legalComments: 'none', charset: 'utf8' };
const worker = await build({ ...common, entryPoints: ['src/worker.ts'], format: 'esm' });
const define = { CALLBOX_WORKER: JSON.stringify(worker.outputFiles[0].text.trim()) };

await bundle('src/index.ts', 'callbox.mjs', { format: 'esm' });
await bundle('src/signal-entry.ts', 'signal.mjs', { format: 'esm' });
await bundle('src/hooks.ts', 'hooks.mjs', { format: 'esm' });
await bundle('src/hooks.ts', 'hooks.cjs', { format: 'cjs' });
await bundle('src/index.ts', 'callbox.umd.js', {
  format: 'iife',
  globalName: 'callbox',
  banner: {
    js: '(function(root,factory){if(typeof exports==="object"&&typeof module!=="undefined")module.exports=factory();else if(typeof define==="function"&&define.amd)define([],factory);else root.callbox=factory()})(typeof self!=="undefined"?self:globalThis,function(){',
  },
  footer: { js: 'return callbox});' },
});
const modules = ['errors', 'emitter', 'wire', 'transport', 'signal', 'path', 'link', 'publication', 'peer', 'channel', 'files', 'recording', 'encryption', 'room', 'calls'];
files.set('callbox.d.ts', declarations('index', modules));
files.set('signal.d.ts', declarations('signal-entry', modules.slice(0, modules.indexOf('signal') + 1)));
files.set('hooks.d.ts', declarations('hooks', ['hooks']));
checkTypes();
files.set('SOURCES', INPUTS.map((name) => `${digest(readFileSync(join(HERE, name)))}  ${name}\n`).join(''));

for (const [name, limit] of Object.entries(LIMITS)) {
  const size = gzipSync(files.get(name), { level: 9 }).length;
  console.log(`${name}: ${size} bytes after gzip, of ${limit}`);
  if (size > limit) fail(`${name} is ${size - limit} bytes too large`);
}

const manual = reference(files.get('callbox.d.ts') + files.get('hooks.d.ts'));
if (check) {
  if (readFileSync(REFERENCE, 'utf8') !== manual) fail('docs/sdk-reference.md is stale: run "npm ci && npm run build" in sdk/js and commit it');
  const present = readdirSync(DIST).sort();
  const stale = [...new Set([...present, ...files.keys()])].filter((name) => !present.includes(name) || readFileSync(join(DIST, name), 'utf8') !== files.get(name));
  if (stale.length) fail(`dist/ is stale (${stale.join(', ')}): run "npm ci && npm run build" in sdk/js and commit dist/`);
} else {
  rmSync(DIST, { recursive: true, force: true });
  mkdirSync(DIST);
  for (const [name, text] of files) writeFileSync(join(DIST, name), text);
  writeFileSync(REFERENCE, manual);
}

async function bundle(entry, name, options) {
  const { outputFiles } = await build({ ...common, ...options, define, entryPoints: [entry], outfile: join(DIST, name), sourcemap: 'linked', sourcesContent: true });
  for (const { path, text } of outputFiles) files.set(path.slice(DIST.length + 1), text);
}

/** One file of types: the declarations of every module one after the other, and exported what the entry exports. */
function declarations(entry, modules) {
  const out = mkdtempSync(join(tmpdir(), 'callbox-types-'));
  try {
    execFileSync(join(HERE, 'node_modules/.bin/tsc'), ['-p', HERE, '--outDir', out], { stdio: ['ignore', 'inherit', 'inherit'] });
    const index = readFileSync(join(out, `${entry}.d.ts`), 'utf8');
    const exported = new Set([...index.matchAll(/export (?:type )?\{([^}]*)\}/g)].flatMap(([, names]) => names.split(',').map((name) => name.trim())));
    const bodies = modules.map((module) => {
      const text = readFileSync(join(out, `${module}.d.ts`), 'utf8')
        .replace(/^import [^;]*;\n/gm, '')
        .replace(/^export \{\};\n/gm, '')
        // What a room and a call are to their peers is no part of the types.
        .replace(/ implements (PeerHost|Publisher)\b/g, '');
      return text.replace(/^export (declare )?((?:abstract )?(?:class|interface|type|const|function) (\w+))/gm, (_, declare = '', rest, name) =>
        exported.has(name) || ['wire', 'hooks'].includes(module) ? `export ${declare}${rest}` : `${declare}${rest}`,
      );
    });
    // The UMD file defines a global name.
    const global = entry === 'index' ? 'export as namespace callbox;\n' : '';
    return `// Types of callbox-client, generated from sdk/js/src.\n${global}${bodies.join('')}export {};\n`;
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
}

/** The types as an application's compiler sees them. */
function checkTypes() {
  const out = mkdtempSync(join(tmpdir(), 'callbox-types-'));
  try {
    const names = [...files.keys()].filter((name) => name.endsWith('.d.ts'));
    for (const name of names) writeFileSync(join(out, name), files.get(name));
    const words = ['--ignoreConfig', '--noEmit', '--strict', '--skipLibCheck', 'false', '--types', '', '--target', 'es2022', '--lib', 'es2023,dom,dom.iterable,dom.asynciterable', '--module', 'esnext', '--moduleResolution', 'bundler'];
    for (const name of names) execFileSync(join(HERE, 'node_modules/.bin/tsc'), [...words, join(out, name)], { stdio: ['ignore', 'inherit', 'inherit'] });
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
}

function digest(bytes) {
  return createHash('sha256').update(bytes).digest('hex');
}

function fail(why) {
  console.error(why);
  process.exit(1);
}
