"""The core: what a notification is, and getting it to its users."""
