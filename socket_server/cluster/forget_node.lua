-- Remove a batch of a node's connections, and the node after the last.
--
-- Arguments after those of common.lua:
local batch = ARGV[3]        -- connections that are removed at once
local by_itself = ARGV[4]    -- not '': the node itself leaves; '': only if its lease has ended
-- Returns 1 if there are more connections, else 0.

local lease = redis.call('ZSCORE', nodes, node)
if not lease or (by_itself == '' and tonumber(lease) >= now) then
  return 0
end
local known = redis.call('HRANDFIELD', prefix .. 'node:' .. node, batch, 'WITHVALUES')
for at = 1, #known, 2 do
  local sid, user = known[at], known[at + 1]
  local connection = redis.call('HGET', prefix .. 'connections:' .. user, sid)
  if connection and cmsgpack.unpack(connection)[1] == node then
    drop(node, user, sid)
  else
    redis.call('HDEL', prefix .. 'node:' .. node, sid)
  end
end
if redis.call('EXISTS', prefix .. 'node:' .. node) == 1 then
  return 1
end
redis.call('ZREM', nodes, node)
redis.call('HDEL', prefix .. 'users', node)
redis.call('HDEL', prefix .. 'updates', node)
redis.call('DEL', prefix .. 'news:' .. node, prefix .. 'addresses:' .. node)
tell_all('gone', 'node', node)
return 0
