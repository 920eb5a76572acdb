"""Who are you: tokens (verify them), credentials (find them in a handshake), keys of back ends."""
