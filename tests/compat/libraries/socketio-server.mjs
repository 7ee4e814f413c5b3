// Socket.IO's own server, for clients 2, 3 and 4, with what callbox's profile "relay" does: the yardstick
// of the same tests.

import { createServer } from 'node:http';
import { Server } from 'socket.io';

const http = createServer();
const io = new Server(http, { allowEIO3: true, cors: { origin: true, credentials: true } });

io.on('connection', (socket) => {
  let room;
  const leave = () => {
    if (room) socket.to(room).emit('user-left', socket.id);
    room = undefined;
  };
  socket.on('join', async (name, reply) => {
    room = name;
    const peers = [...(io.sockets.adapter.rooms.get(room) ?? [])];
    await socket.join(room);
    if (typeof reply === 'function') reply({ ok: true, id: socket.id, peers });
    socket.emit('room-users', peers);
    socket.to(room).emit('user-connected', socket.id);
    socket.to(room).emit('user-joined', { id: socket.id });
  });
  socket.on('disconnecting', leave);
  socket.onAny((name, ...rest) => {
    if (name === 'join' || !room) return;
    const reply = typeof rest.at(-1) === 'function' ? rest.pop() : undefined;
    const first = rest.find((x) => x && typeof x === 'object' && !Array.isArray(x) && !Buffer.isBuffer(x));
    const to = first?.to ?? room;
    if (first) Object.assign(first, { from: socket.id, sender: socket.id });
    else rest.push(socket.id);
    socket.to(to).emit(name, ...rest);
    reply?.({ ok: true });
  });
});

const port = Number(process.env.PORT ?? 0);
http.listen(port, '127.0.0.1', () => console.log(`port ${http.address().port}`));
process.on('SIGTERM', () => {
  io.close();
  setTimeout(() => process.exit(0), 500);
});
