const { io } = require('socket.io-client');

const socket = io('http://localhost:3001');
socket.emit('auth', {userId: '123', jwt: 'bearer …'});
socket.on('auth_success', () => console.log('Connected!'));
socket.on('notification', n => console.log(n.title.he));
