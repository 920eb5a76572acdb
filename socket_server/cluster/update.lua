-- Renew a node's lease and store what has changed on it.
--
-- Keys, all after the prefix:
--   nodes               a sorted set: each node, and the end of its lease (milliseconds)
--   users               a hash: the number of users of each node
--   updates             a hash: the number of each node's last update
--   signed-out          a sorted set: users who were signed out within a day, and when
--   node:<n>            a hash: the connections of a node, sid -> user
--   connections:<user>  a hash: a user's connections, sid -> MessagePack [node, since, pid, transport, address, user agent]
--   online              the number of users with a connection
--   addresses:<n>       a hash: a node's connections by client address, if they are limited
--   news:<n>            a node's control stream; the field `kind` says what an entry asks for or reports
--
-- Arguments after those of common.lua:
local lease = tonumber(ARGV[3])         -- milliseconds
local max_per_user = tonumber(ARGV[4])  -- connections of one user; above it the oldest are closed
local users = ARGV[5]                   -- the number of users of this node
local update = ARGV[6]                  -- the number of this update
local changed = tonumber(ARGV[7])       -- the number of connections that have changed; each has 7 arguments from 9 on:
                                        -- user, sid, pid, age in milliseconds ('': it has ended), transport, address, agent
local failed = tonumber(ARGV[8])        -- the number of addresses with failed authentications; each has 2 arguments after
                                        -- those: address, count. The rest are pairs: address, connections of this node from it
-- Returns {the number of the update before (-1: the node was not known), now in milliseconds, the number of the node's
-- connections in Redis, the nodes whose lease has ended}.

local newest = tonumber(redis.call('ZRANGE', nodes, -1, -1, 'WITHSCORES')[2])
if newest and (newest < now + lease / 2 or newest > now + lease) then
  -- No node could renew for half a lease: Redis was away or stalled, or its clock has changed. That says nothing about the
  -- nodes, so all get a new lease.
  for _, each in ipairs(redis.call('ZRANGE', nodes, 0, -1)) do
    redis.call('ZADD', nodes, now + lease, each)
  end
end
local before = redis.call('ZSCORE', nodes, node) and tonumber(redis.call('HGET', prefix .. 'updates', node)) or -1
redis.call('ZADD', nodes, now + lease, node)
redis.call('HSET', prefix .. 'users', node, users)
redis.call('HSET', prefix .. 'updates', node, update)

local function put(user, sid, pid, since, transport, address, agent)
  local connections = prefix .. 'connections:' .. user
  local known, all = redis.call('HGETALL', connections), {{sid = sid, owner = node, since = since}}
  for at = 1, #known, 2 do
    if known[at] ~= sid then
      local owner, other_since, other_pid = unpack(cmsgpack.unpack(known[at + 1]))
      if other_pid ~= pid then
        all[#all + 1] = {sid = known[at], owner = owner, since = other_since}
      elseif other_since > since then
        -- The same client has a newer connection already: this update is late, and its connection is half-open.
        drop(node, user, sid)
        tell(node, 'end', 'why', 'replaced', 'user', user, 'sid', sid)
        return
      else
        drop(owner, user, known[at])
        tell(owner, 'end', 'why', 'replaced', 'user', user, 'sid', known[at])
      end
    end
  end
  if redis.call('EXISTS', connections) == 0 then
    redis.call('INCR', prefix .. 'online')
  end
  redis.call('HSET', connections, sid, cmsgpack.pack({node, since, pid, transport, address, agent}))
  redis.call('HSET', prefix .. 'node:' .. node, sid, user)
  table.sort(all, function(one, other) return one.since < other.since end)
  for at = 1, #all - max_per_user do
    local oldest = all[at]
    drop(oldest.owner, user, oldest.sid)
    tell(oldest.owner, 'end', 'why', 'crowded out', 'user', user, 'sid', oldest.sid)
  end
end

local at = 9
for _ = 1, changed do
  local user, sid, age = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 3])
  if age then
    put(user, sid, ARGV[at + 2], time[1] * 1000 + time[2] / 1000 - age, ARGV[at + 4], ARGV[at + 5], ARGV[at + 6])
  else
    local known = redis.call('HGET', prefix .. 'connections:' .. user, sid)
    if known and cmsgpack.unpack(known)[1] == node then
      drop(node, user, sid)
    end
  end
  at = at + 7
end
for _ = 1, failed do
  tell_all('failed', 'node', node, 'address', ARGV[at], 'count', ARGV[at + 1])
  at = at + 2
end
while at < #ARGV do
  if ARGV[at + 1] ~= '0' then
    redis.call('HSET', prefix .. 'addresses:' .. node, ARGV[at], ARGV[at + 1])
  else
    redis.call('HDEL', prefix .. 'addresses:' .. node, ARGV[at])
  end
  tell_all('address', 'node', node, 'address', ARGV[at], 'count', ARGV[at + 1])
  at = at + 2
end

local ended = redis.call('ZRANGEBYSCORE', nodes, '-inf', '(' .. string.format('%.0f', now))
return {before, now, redis.call('HLEN', prefix .. 'node:' .. node), ended}
