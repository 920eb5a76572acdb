"""What the Redis inbox and the cluster share: connections to Redis, the names of its keys, Lua scripts, and error texts."""
