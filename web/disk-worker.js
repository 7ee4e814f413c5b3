/**
 * Writes one file of the browser's own storage, in place: what was written stays where the disk becomes full. It takes
 * `{open: [folder…, name]}`, then `{chunk}` as often as needed, then `{close}`, and answers each with `{length}` or `{name, message}`.
 */

let file = null;
let length = 0;

onmessage = async ({ data }) => {
  try {
    if (data.open) await open(data.open);
    else if (data.chunk) write(data.chunk instanceof Blob ? new Uint8Array(await data.chunk.arrayBuffer()) : data.chunk);
    else close();
    postMessage({ length });
  } catch ({ name, message }) {
    postMessage({ name, message });
  }
};

async function open(path) {
  let folder = await navigator.storage.getDirectory();
  for (const name of path.slice(0, -1)) folder = await folder.getDirectoryHandle(name, { create: true });
  const handle = await folder.getFileHandle(path.at(-1), { create: true });
  file = await handle.createSyncAccessHandle();
}

function write(bytes) {
  for (let at = 0; at < bytes.length; ) {
    const written = file.write(bytes.subarray(at), { at: length });
    if (!written) throw new DOMException('the disk takes nothing more', 'QuotaExceededError');
    at += written;
    length += written;
  }
}

function close() {
  try {
    file.flush();
  } finally {
    file.close();
  }
}
