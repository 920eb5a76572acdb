"""The wire: bytes in, bytes out. Pure codecs (frames, packets) below; sockets, sessions of Engine.IO and the Socket.IO
server above them. The upstream Engine.IO and Socket.IO servers are subclassed here and nowhere else."""
