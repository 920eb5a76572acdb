"""Engine.IO protocol 4: the server, its sessions, and what admits and limits them."""
