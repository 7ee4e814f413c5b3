// Socket.IO's own server with rooms by event, as its documentation shows them: every event goes to all
// others in the sender's room, with the sender's id in it.
import { createServer } from 'node:http';
import { Server } from 'socket.io';

const [host, port] = process.argv.slice(2);
const http = createServer();
const io = new Server(http, { transports: ['websocket'], serveClient: false });

io.on('connection', (socket) => {
  let room;
  socket.on('join', (name) => {
    room = name;
    const others = [...(io.sockets.adapter.rooms.get(room) ?? [])];
    socket.join(room);
    socket.emit('room-users', others);
    socket.to(room).emit('user-joined', { id: socket.id });
  });
  socket.on('message', (message) => {
    message.from = socket.id;
    socket.to(room).emit('message', message);
  });
  socket.on('disconnecting', () => socket.to(room).emit('user-left', socket.id));
});

http.listen(Number(port), host);
