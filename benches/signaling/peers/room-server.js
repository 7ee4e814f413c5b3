// A plain room server as one writes it with `ws` in an afternoon: rooms by URL, every message
// parsed, stamped with its sender and sent to one or all others. No limits, no resume, no tokens.
import { randomUUID } from 'node:crypto';
import { WebSocketServer } from 'ws';

const [host, port] = process.argv.slice(2);
const rooms = new Map();

new WebSocketServer({ host, port: Number(port) }).on('connection', (socket, request) => {
  const name = new URL(request.url, 'http://localhost').searchParams.get('room');
  const id = randomUUID();
  const room = rooms.get(name) ?? new Map();
  rooms.set(name, room);

  const toOthers = (message) => {
    const text = JSON.stringify(message);
    for (const [other, member] of room) {
      if (other !== id) member.send(text);
    }
  };

  socket.send(JSON.stringify({ type: 'joined', id, peers: [...room.keys()] }));
  toOthers({ type: 'peer-joined', id });
  room.set(id, socket);

  socket.on('message', (data) => {
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return socket.send(JSON.stringify({ type: 'error', code: 'invalid-json' }));
    }
    message.from = id;
    if (message.to === undefined) return toOthers(message);
    room.get(message.to)?.send(JSON.stringify(message));
  });

  socket.on('close', () => {
    room.delete(id);
    if (room.size === 0) rooms.delete(name);
    toOthers({ type: 'peer-left', id });
  });
});
