// The pages of a folder in front of a box, for trying a change to them.

import { readFileSync } from 'node:fs';
import { createServer, request as call } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';

/** Serves the pages of $CALLBOX_WEB in place of the embedded ones, so that a change to them needs no build. */
export async function servePages(box, folder) {
  const target = new URL(box.url);
  const types = { js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml', html: 'text/html; charset=utf-8' };
  const named = { '/': 'web/index.html', '/check': 'web/check.html', '/admin': 'web/admin.html', '/sdk/v1/callbox.js': 'sdk/js/dist/callbox.mjs' };
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, target);
    const file = named[pathname] ?? (pathname.startsWith('/assets/') ? `web/${pathname.slice(8)}` : null);
    if (file) return response.writeHead(200, { 'Content-Type': types[file.split('.').at(-1).replace('mjs', 'js')] }).end(readFileSync(join(folder, file)));
    const { method, headers } = request;
    const upstream = call({ host: target.hostname, port: target.port, path: request.url, method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      // Events may come much later than the head of their answer.
      response.flushHeaders();
      answer.pipe(response);
    });
    upstream.on('error', () => response.destroy());
    request.pipe(upstream);
  });
  server.on('upgrade', (request, socket) => {
    const upstream = connect(target.port, target.hostname, () => {
      upstream.write(`GET ${request.url} HTTP/1.1\r\n${Object.entries(request.headers).map(([name, value]) => `${name}: ${value}`).join('\r\n')}\r\n\r\n`);
      upstream.pipe(socket).pipe(upstream);
    });
    for (const end of [socket, upstream]) end.on('error', () => (socket.destroy(), upstream.destroy()));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  // A test that fails does not come to `stop`, and has to end all the same.
  server.unref();
  return { url: `http://127.0.0.1:${server.address().port}/`, stop: () => (server.close(), box.stop()), pid: box.pid };
}
