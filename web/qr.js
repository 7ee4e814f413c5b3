/** QR codes (ISO/IEC 18004) of web addresses: bytes, error correction level L, versions 1 to 15, drawn as SVG. */

/** By version: bytes of data, blocks, and bytes of error correction for each block, at level L. */
const VERSIONS = [
  [19, 1, 7], [34, 1, 10], [55, 1, 15], [80, 1, 20], [108, 1, 26], [136, 2, 18], [156, 2, 20], [194, 2, 24],
  [232, 2, 30], [274, 4, 18], [324, 4, 20], [370, 4, 24], [428, 4, 26], [461, 4, 30], [523, 6, 22],
];
const ALIGNED = [
  [], [6, 18], [6, 22], [6, 26], [6, 30], [6, 34], [6, 22, 38], [6, 24, 42], [6, 26, 46], [6, 28, 50],
  [6, 30, 54], [6, 32, 58], [6, 34, 62], [6, 26, 46, 66], [6, 26, 48, 70],
];

/** Draws `text`; an address that is too long for it gives an empty element. */
export function qrCode(text) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('class', 'qr');
  svg.setAttribute('role', 'img');
  svg.setAttribute('aria-label', 'QR');
  const modules = encode(new TextEncoder().encode(text));
  if (!modules) return svg;
  const size = modules.length;
  svg.setAttribute('viewBox', `-4 -4 ${size + 8} ${size + 8}`);
  const path = document.createElementNS(svg.namespaceURI, 'path');
  path.setAttribute('d', modules.flatMap((row, y) => row.map((dark, x) => (dark ? `M${x} ${y}h1v1h-1z` : ''))).join(''));
  svg.append(path);
  return svg;
}

/** Rows of modules, true where dark; null where the bytes do not fit. */
export function encode(bytes) {
  const version = VERSIONS.findIndex(([capacity], index) => bytes.length + (index < 9 ? 2 : 3) <= capacity) + 1;
  if (!version) return null;
  const codewords = interleave(dataCodewords(bytes, version), version);
  const size = 17 + 4 * version;
  const modules = Array.from({ length: size }, () => Array(size).fill(false));
  const fixed = Array.from({ length: size }, () => Array(size).fill(false));
  const set = (x, y, dark) => {
    if (x < 0 || y < 0 || x >= size || y >= size) return;
    modules[y][x] = dark;
    fixed[y][x] = true;
  };
  for (let n = 0; n < size; n++) {
    set(6, n, n % 2 === 0);
    set(n, 6, n % 2 === 0);
  }
  for (const [cx, cy] of [[3, 3], [size - 4, 3], [3, size - 4]]) {
    for (let y = -4; y <= 4; y++) for (let x = -4; x <= 4; x++) {
      const ring = Math.max(Math.abs(x), Math.abs(y));
      set(cx + x, cy + y, ring !== 2 && ring !== 4);
    }
  }
  const centres = ALIGNED[version - 1];
  const last = centres.length - 1;
  centres.forEach((cy, i) => centres.forEach((cx, j) => {
    if ((i === 0 && j === 0) || (i === 0 && j === last) || (i === last && j === 0)) return;
    for (let y = -2; y <= 2; y++) for (let x = -2; x <= 2; x++) set(cx + x, cy + y, Math.max(Math.abs(x), Math.abs(y)) !== 1);
  }));
  if (version >= 7) {
    let rest = version;
    for (let n = 0; n < 12; n++) rest = (rest << 1) ^ ((rest >>> 11) * 0x1f25);
    const bits = (version << 12) | rest;
    for (let n = 0; n < 18; n++) {
      const dark = ((bits >>> n) & 1) === 1;
      const [a, b] = [size - 11 + (n % 3), Math.floor(n / 3)];
      set(a, b, dark);
      set(b, a, dark);
    }
  }
  writeFormat(set, size, 0);
  let bit = 0;
  for (let right = size - 1; right >= 1; right -= 2) {
    if (right === 6) right = 5;
    for (let step = 0; step < size; step++) for (let side = 0; side < 2; side++) {
      const x = right - side;
      const y = ((right + 1) & 2) === 0 ? size - 1 - step : step;
      if (fixed[y][x]) continue;
      const dark = bit < codewords.length * 8 && ((codewords[bit >> 3] >>> (7 - (bit & 7))) & 1) === 1;
      bit++;
      // Mask 0: a checkerboard.
      modules[y][x] = dark !== ((x + y) % 2 === 0);
    }
  }
  return modules;
}

function writeFormat(set, size, mask) {
  const data = (1 << 3) | mask; // level L
  let rest = data;
  for (let n = 0; n < 10; n++) rest = (rest << 1) ^ ((rest >>> 9) * 0x537);
  const bits = ((data << 10) | rest) ^ 0x5412;
  const dark = (n) => ((bits >>> n) & 1) === 1;
  for (let n = 0; n <= 5; n++) set(8, n, dark(n));
  set(8, 7, dark(6));
  set(8, 8, dark(7));
  set(7, 8, dark(8));
  for (let n = 9; n < 15; n++) set(14 - n, 8, dark(n));
  for (let n = 0; n < 8; n++) set(size - 1 - n, 8, dark(n));
  for (let n = 8; n < 15; n++) set(8, size - 15 + n, dark(n));
  set(8, size - 8, true);
}

function dataCodewords(bytes, version) {
  const [capacity] = VERSIONS[version - 1];
  const bits = [];
  const push = (value, length) => {
    for (let n = length - 1; n >= 0; n--) bits.push((value >>> n) & 1);
  };
  push(4, 4);
  push(bytes.length, version < 10 ? 8 : 16);
  for (const byte of bytes) push(byte, 8);
  push(0, Math.min(4, capacity * 8 - bits.length));
  while (bits.length % 8) bits.push(0);
  const words = [];
  for (let n = 0; n < bits.length; n += 8) words.push(parseInt(bits.slice(n, n + 8).join(''), 2));
  for (let pad = 0xec; words.length < capacity; pad ^= 0xec ^ 0x11) words.push(pad);
  return words;
}

/** Blocks get their error correction and are dealt out column by column. */
function interleave(words, version) {
  const [capacity, count, correction] = VERSIONS[version - 1];
  const short = Math.floor(capacity / count);
  const shorts = count - (capacity % count);
  const divisor = generator(correction);
  const blocks = [];
  for (let n = 0, at = 0; n < count; n++) {
    const data = words.slice(at, (at += short + (n < shorts ? 0 : 1)));
    blocks.push({ data, check: remainder(data, divisor) });
  }
  const out = [];
  for (let n = 0; n <= short; n++) for (const { data } of blocks) if (n < data.length) out.push(data[n]);
  for (let n = 0; n < correction; n++) for (const { check } of blocks) out.push(check[n]);
  return out;
}

function generator(degree) {
  const result = Array(degree).fill(0);
  result[degree - 1] = 1;
  let root = 1;
  for (let n = 0; n < degree; n++) {
    for (let i = 0; i < degree; i++) result[i] = multiply(result[i], root) ^ (result[i + 1] ?? 0);
    root = multiply(root, 2);
  }
  return result;
}

function remainder(data, divisor) {
  const result = Array(divisor.length).fill(0);
  for (const byte of data) {
    const factor = byte ^ result.shift();
    result.push(0);
    divisor.forEach((coefficient, index) => (result[index] ^= multiply(coefficient, factor)));
  }
  return result;
}

/** In GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1. */
function multiply(x, y) {
  let product = 0;
  for (let n = 7; n >= 0; n--) {
    product = (product << 1) ^ ((product >>> 7) * 0x11d);
    product ^= ((y >>> n) & 1) * x;
  }
  return product;
}
