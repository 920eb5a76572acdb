-- Count users and connections.
--
-- Returns {users online, {node, users, connections}, {node, users, connections}, ...}.

local found = {tonumber(redis.call('GET', prefix .. 'online') or 0)}
for _, each in ipairs(redis.call('ZRANGE', nodes, 0, -1)) do
  found[#found + 1] = {
    each,
    tonumber(redis.call('HGET', prefix .. 'users', each) or 0),
    redis.call('HLEN', prefix .. 'node:' .. each),
  }
end
return found
