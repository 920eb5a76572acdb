// Contestants on Node's socket.io. "usual": express, a map of user to socket ids, an emit and a log line for each socket.
// "lean": bare http, a room for each user, one emit for all users, no log.
const http = require('http');
const { Server } = require('socket.io');
const jwt = require('jsonwebtoken');

const mode = process.argv[2];
const port = Number(process.env.PORT);
const secret = process.env.JWT_SECRET;
const key = 'Bearer ' + process.env.API_KEYS;
const options = { pingInterval: Number(process.env.PING_INTERVAL || 25) * 1000, pingTimeout: 60000, cors: { origin: '*' } };
const users = new Map();

function broadcast({ userIds, notification }, io) {
  let deliveredTo = 0;
  let totalSockets = 0;
  if (mode === 'lean') {
    const rooms = [];
    for (const id of userIds) {
      const sockets = users.get(id);
      if (sockets) { rooms.push(id); deliveredTo += 1; totalSockets += sockets.size; }
    }
    if (rooms.length) io.to(rooms).emit('notification', notification);
  } else {
    for (const id of userIds) {
      const sockets = users.get(id);
      if (!sockets) continue;
      deliveredTo += 1;
      for (const sid of sockets) {
        io.to(sid).emit('notification', notification);
        console.log(`[Broadcast] sent ${notification.actionKey} to user ${id} on socket ${sid}`);
        totalSockets += 1;
      }
    }
  }
  return { success: true, deliveredTo, totalSockets, requestedUsers: userIds.length };
}

let io;
let server;
if (mode === 'lean') {
  server = http.createServer((req, res) => {
    if (req.method !== 'POST' || req.url !== '/broadcast') return res.end('{}');
    if (req.headers.authorization !== key) { res.statusCode = 401; return res.end('{}'); }
    let body = '';
    req.setEncoding('utf8');
    req.on('data', (chunk) => { body += chunk; });
    req.on('end', () => {
      const answer = JSON.stringify(broadcast(JSON.parse(body), io));
      res.setHeader('Content-Type', 'application/json');
      res.setHeader('Content-Length', Buffer.byteLength(answer));
      res.end(answer);
    });
  });
} else {
  const express = require('express');
  const app = express();
  app.use(express.json({ limit: '1mb' }));
  app.get('/health', (req, res) => res.json({ status: 'healthy' }));
  app.post('/broadcast', (req, res) => {
    if (req.headers.authorization !== key) return res.status(401).json({ error: 'Unauthorized' });
    return res.json(broadcast(req.body, io));
  });
  server = http.createServer(app);
}
server.keepAliveTimeout = 75000;
io = new Server(server, options);
io.on('connection', (socket) => {
  let id;
  try {
    id = String(jwt.verify(socket.handshake.auth.token, secret).id);
  } catch (error) {
    socket.emit('auth_error', { message: 'Invalid or expired JWT' });
    return socket.disconnect(true);
  }
  let sockets = users.get(id);
  if (!sockets) users.set(id, sockets = new Set());
  sockets.add(socket.id);
  if (mode === 'lean') socket.join(id);
  else console.log(`[Socket.IO] user ${id} connected on ${socket.id}`);
  socket.on('disconnect', () => { sockets.delete(socket.id); if (!sockets.size) users.delete(id); });
  socket.emit('auth_success', { userId: id });
});
process.on('SIGINT', () => process.exit(0));
server.listen({ port, host: '127.0.0.1', backlog: 4096 });
