-- Remove a user's connections and ask all nodes to end those that they have.
--
-- Arguments after those of common.lua:
local user = ARGV[3]
-- Returns the number of the user's connections.

-- Milliseconds. A node that was unreachable for longer does not end the connections of users signed out in that time.
local KEPT_MS = 86400000

redis.call('ZADD', prefix .. 'signed-out', now, user)
redis.call('ZREMRANGEBYSCORE', prefix .. 'signed-out', '-inf', now - KEPT_MS)
local count = 0
local known = redis.call('HGETALL', prefix .. 'connections:' .. user)
for at = 1, #known, 2 do
  drop(cmsgpack.unpack(known[at + 1])[1], user, known[at])
  count = count + 1
end
tell_all('sign out', 'user', user, 'at', now)
return count
