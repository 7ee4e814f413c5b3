// The reference of the library as Markdown, made of its declarations: each exported name, its members and what their
// comments say.

/** Sections in the order in which a reader meets them; what is not named here comes last. */
const ORDER = ['join', 'JoinOptions', 'Room', 'RoomEvents', 'Peer', 'PeerEvents', 'Path', 'Publication', 'PublishOptions', 'Channel', 'ChannelOptions', 'OutgoingFile', 'IncomingFile', 'FileEvents', 'Recording', 'RecordOptions', 'EncryptionOptions', 'register', 'RegisterOptions', 'Phone', 'PhoneEvents', 'Call', 'CallOptions', 'CallEvents', 'Signal', 'SignalOptions', 'RequestOptions', 'SignalEvents', 'Frames', 'Closed', 'Link', 'LinkOptions', 'CallboxError', 'verifyHook', 'VerifyHookOptions'];

/** Gives the text of the reference for the text of the declarations. */
export function reference(declarations) {
  const entries = parse(declarations.split('\n'));
  const rank = ({ name }) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);
  const sorted = entries.map((entry, n) => ({ entry, n })).sort((a, b) => rank(a.entry) - rank(b.entry) || a.n - b.n);
  const head = '# The client library: reference\n\nMade of `sdk/js/src` by `npm run build`; [sdk.md](sdk.md) is the way in.\n';
  return head + sorted.map(({ entry }) => section(entry)).join('');
}

function parse(lines) {
  const entries = [];
  let comment = '';
  for (let n = 0; n < lines.length; n++) {
    const line = lines[n];
    if (/^\s*\/\*\*/.test(line)) {
      const from = n;
      while (!lines[n].includes('*/')) n++;
      comment = words(lines.slice(from, n + 1));
    } else if (line.startsWith('export ') && !/^export (\{|as )/.test(line)) {
      const [, kind, name] = /^export (?:declare )?(class|interface|type|function|const) (\w+)/.exec(line);
      const body = [line];
      while (depth(body) > 0 || !/[;}]\s*$/.test(body.at(-1))) body.push(lines[++n]);
      entries.push({ kind, name, comment, body });
      comment = '';
    } else if (line.trim()) {
      comment = '';
    }
  }
  return entries;
}

const depth = (lines) => [...lines.join('\n').replace(/=>/g, '')].reduce((sum, letter) => sum + (letter === '{' ? 1 : letter === '}' ? -1 : 0), 0);

/** A comment without its frame, as one paragraph; code in it stays as it is. */
function words(lines) {
  const text = lines.map((line) => line.replace(/^\s*\/?\*+\/?\s?/, '').replace(/\s*\*\/\s*$/, ''));
  const code = text.findIndex((line) => line.startsWith('```'));
  const prose = (code < 0 ? text : text.slice(0, code)).join(' ').replace(/\s+/g, ' ').trim();
  const example = code < 0 ? '' : `\n\n${text.slice(code, text.lastIndexOf('```') + 1).join('\n')}`;
  return prose + example;
}

function section({ kind, name, comment, body }) {
  const title = `\n## \`${name}\`\n\n${comment ? `${comment}\n\n` : ''}`;
  if (kind === 'type' || kind === 'function' || kind === 'const') return `${title}\`\`\`ts\n${body.join('\n').replace(/^export (declare )?/, '')}\n\`\`\`\n`;
  const extending = / (extends .*?) ?\{$/.exec(body[0]);
  const rows = members(body.slice(1, -1)).map(({ text, comment }) => `| \`${text.replace(/\|/g, '\\|')}\` | ${comment.replace(/\|/g, '\\|')} |\n`);
  const table = rows.length ? `| member | what |\n| --- | --- |\n${rows.join('')}` : '';
  return `${title}${extending ? `\`${extending[1]}\`\n\n` : ''}${table}`;
}

function members(lines) {
  const found = [];
  let comment = '';
  for (let n = 0; n < lines.length; n++) {
    const line = lines[n].trim();
    if (line.startsWith('/**')) {
      const from = n;
      while (!lines[n].includes('*/')) n++;
      comment = words(lines.slice(from, n + 1));
    } else if (line && !line.startsWith('#private') && !line.startsWith('private ')) {
      const body = [line];
      while (depth(body) > 0 || !/[;}]\s*$/.test(body.at(-1))) body.push(lines[++n].trim());
      const text = body.join(' ').replace(/;$/, '');
      if (!/@internal/.test(comment)) found.push({ text, comment });
      comment = '';
    }
  }
  return found;
}
