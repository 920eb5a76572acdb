"""The wire: HTTP connections, Engine.IO sessions and the Socket.IO server. Codecs are pure; sockets are outside them.

The upstream Engine.IO and Socket.IO servers are subclassed in this package and nowhere else.
"""
