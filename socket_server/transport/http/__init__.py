"""HTTP/1.1: parsing, one connection's life, and the handover of connections between workers."""
