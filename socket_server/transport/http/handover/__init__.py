"""Handover: a request that reaches a worker without its session goes to the worker that has it, with its connection.

A session's id ends in the tag of its worker, and each worker listens on a Unix socket whose name contains its tag. The
sender passes the connection itself (its file descriptor, SCM_RIGHTS) and the request that it has read, already parsed. The
receiver continues as if it had accepted the connection; the sender closes its copy.

The socket names are abstract (unix(7)): they leave no file, need no writable directory, and vanish with their process. Any
process on the machine may connect to one or take one, so both ends ask the kernel for the other's user and accept only
their own.
"""
