"""How greenlets share the event loop: time slices, greenlet pools, deadlines, file descriptors and io_uring."""
