"""How greenlets share the event loop: time slices, a greenlet pool, deadlines, and io_uring."""
