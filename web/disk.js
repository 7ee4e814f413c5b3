/**
 * Where received files and recordings go: into a file that the person names, where the browser can write to one; else into the browser's own storage, from
 * where they are saved, and which is emptied afterwards; else into memory, up to a bound.
 */

/** An object, so that a test can lower them. */
export const limits = {
  /** Bytes of one file or recording that memory takes where there is no disk. A larger file asks where it is to be saved. */
  memory: 256 * 1024 * 1024,
  /** Milliseconds after a call for which what came in it stays: the browser may still copy it to where it is saved. */
  keptFor: 60_000,
};

/** The folder of all pages; each page has one of its own in it, and a lock of that name for as long as it lives. */
const FOLDER = 'callbox';
const lockName = (name) => `callbox.disk.${name}`;

/** Files of this page in the browser's own storage. */
let kept = [];
let ownFolder = null;

/** Why a file is not taken: `dismissed` (the person closed the picker), `full` or `memory` (too large for it). */
export class Refusal extends Error {
  constructor(reason, free) {
    super(reason);
    this.reason = reason;
    /** Bytes that the disk would take. */
    this.free = free;
  }
}

/**
 * A place for a file of a known size. Null is memory. Else `{sink, file(), reason, isNamed}`: `file()` gives what was written, `isNamed` says that it lies
 * where the person wanted it, `reason` is `full` or `failed` once the sink failed. Throws a `Refusal`. Call it in a click.
 */
export async function placeFor(name, size) {
  if (size > limits.memory && globalThis.showSaveFilePicker) {
    const place = await askWhere(name);
    if (place) return place;
  }
  const { quota, usage } = (await navigator.storage?.estimate?.().catch(() => null)) ?? {};
  const place = await ownPlace();
  if (!place) {
    if (size > limits.memory) throw new Refusal('memory');
    return null;
  }
  if (size > quota - usage) {
    place.remove();
    throw new Refusal('full', quota - usage);
  }
  return place;
}

/** A place in the browser's own storage; null where there is none. */
export async function ownPlace() {
  const place = await openOwn().catch(() => null);
  if (place) kept.push(place);
  return place;
}

/** The call is over: what came in it goes, once the browser has had the time to save it. */
export function emptySoon() {
  const leaving = kept;
  kept = [];
  if (leaving.length) setTimeout(() => leaving.forEach((place) => place.remove()), limits.keptFor);
}

/** Removes what pages left that are gone. */
export async function sweep() {
  const all = await navigator.storage?.getDirectory?.().then((root) => root.getDirectoryHandle(FOLDER), () => null).catch(() => null);
  if (!all || !navigator.locks) return;
  const names = [];
  for await (const name of all.keys()) names.push(name);
  for (const name of names) {
    await navigator.locks.request(lockName(name), { ifAvailable: true }, (lock) => lock && all.removeEntry(name, { recursive: true }).catch(() => {}));
  }
}

/** A file that the person names; null where the browser asks for none. */
async function askWhere(suggestedName) {
  let handle;
  try {
    handle = await globalThis.showSaveFilePicker({ suggestedName });
  } catch ({ name }) {
    if (name === 'AbortError') throw new Refusal('dismissed');
    return null;
  }
  const writable = await handle.createWritable();
  const place = { isNamed: true, reason: null, name: handle.name, file: () => handle.getFile(), remove: () => handle.remove?.().catch(() => {}) };
  place.sink = sinkOf(place, {
    write: (chunk) => writable.write(chunk),
    close: () => writable.close(),
    abort: () => writable.abort().then(place.remove),
  });
  return place;
}

async function openOwn() {
  ownFolder ??= holdFolder();
  const path = [FOLDER, await ownFolder, crypto.randomUUID()];
  const worker = new Worker(new URL('disk-worker.js', import.meta.url));
  let last = Promise.resolve();
  /** One question after the other. */
  const ask = (question) =>
    (last = last.catch(() => {}).then(
      () =>
        new Promise((resolve, reject) => {
          worker.onmessage = ({ data }) => (data.name ? reject(new DOMException(data.message, data.name)) : resolve(data.length));
          worker.onerror = () => reject(new DOMException('the worker does not start', 'NotSupportedError'));
          worker.postMessage(question);
        }),
    ));
  await ask({ open: path }).catch((error) => {
    worker.terminate();
    throw error;
  });
  let closing = null;
  const close = () => (closing ??= ask({ close: true }).finally(() => worker.terminate()));
  const place = {
    isNamed: false,
    reason: null,
    async file() {
      await close().catch(() => {});
      return (await (await folderOf(path)).getFileHandle(path.at(-1))).getFile();
    },
    async remove() {
      await close().catch(() => {});
      await folderOf(path).then((folder) => folder.removeEntry(path.at(-1))).catch(() => {});
    },
  };
  place.sink = sinkOf(place, { write: (chunk) => ask({ chunk }), close, abort: () => place.remove() });
  return place;
}

/** A stream of bytes or blobs that remembers why it failed. */
function sinkOf(place, { write, close, abort }) {
  const noted = (work) => async (...given) => {
    try {
      await work(...given);
    } catch (error) {
      place.reason ??= error.name === 'QuotaExceededError' ? 'full' : 'failed';
      throw error;
    }
  };
  return new WritableStream({ write: noted(write), close: noted(close), abort });
}

/** The name of this page's folder. Its lock goes with the page, however that ends. */
async function holdFolder() {
  const name = crypto.randomUUID();
  await new Promise((held, refused) => {
    const forever = new Promise(() => {});
    navigator.locks.request(lockName(name), () => (held(), forever)).catch(refused);
  });
  return name;
}

async function folderOf(path) {
  let folder = await navigator.storage.getDirectory();
  for (const name of path.slice(0, -1)) folder = await folder.getDirectoryHandle(name);
  return folder;
}
