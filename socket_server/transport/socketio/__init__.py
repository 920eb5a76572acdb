"""Socket.IO protocol 5: the server, its connections and rooms, packets, and the fan-out to many connections."""
