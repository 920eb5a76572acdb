"""One HTTP connection: its codec, its life, and its handover to another worker."""
