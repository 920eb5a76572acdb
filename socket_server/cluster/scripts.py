"""What Redis does in one step for the registry, as Lua scripts. Under the inbox's prefix:

    nodes               a sorted set: each node, and until when its lease runs (milliseconds, by Redis's clock)
    users               a hash: how many users each node has
    updates             a hash: the number of each node's last update
    signed-out          a sorted set: users who were signed out in the last day, and when
    node:<n>            a hash: the connections of a node, sid -> user
    connections:<user>  a hash: a user's connections, sid -> MessagePack [node, since, pid, transport, address, user agent]
    online              how many users have a connection
    addresses:<n>       a hash: how many connections a node has from each address, where that is limited
    news:<n>            a stream: what a node is to do, or to know; the field `kind` says what it is

No clock but Redis's own decides who is alive. Every step has its effect once however often it is repeated.
"""

from socket_server.inbox.redis.scripts import PREFIX

NODES = PREFIX + "nodes"
NODE = PREFIX + "node:"
CONNECTIONS = PREFIX + "connections:"
ADDRESSES = PREFIX + "addresses:"
NEWS = PREFIX + "news:"
SIGNED_OUT = PREFIX + "signed-out"

# A node that does not read its news for so long that more than these have gathered has other troubles.
_NEWS_LENGTH = 100_000

# A node that was away for longer does not end the connections of those who were signed out meanwhile.
_SIGNED_OUT_MS = 86_400_000

_PRELUDE = f"""
local prefix, node = ARGV[1], ARGV[2]
local nodes = prefix .. 'nodes'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function tell(whom, ...)
  if redis.call('ZSCORE', nodes, whom) then
    redis.call('XADD', prefix .. 'news:' .. whom, 'MAXLEN', '~', {_NEWS_LENGTH}, '*', 'kind', ...)
  end
end

local function tell_all(...)
  for _, each in ipairs(redis.call('ZRANGE', nodes, 0, -1)) do
    tell(each, ...)
  end
end

-- Forget a connection, which is known to be this node's.
local function drop(owner, user, sid)
  local connections = prefix .. 'connections:' .. user
  if redis.call('HDEL', connections, sid) == 1 and redis.call('EXISTS', connections) == 0 then
    redis.call('DECR', prefix .. 'online')
  end
  redis.call('HDEL', prefix .. 'node:' .. owner, sid)
end
"""

# Renews a node's lease, and makes known what has changed. Arguments: the lease in milliseconds, how many connections a user
# may have, how many users the node has, the number of this update, how many connections have changed, from how many
# addresses authentication failed; then for each changed connection user, sid, pid, its age in milliseconds ('': it has
# ended), transport, address, user agent; for each of those addresses itself and how often; then addresses, and how many
# connections the node has from each. Returns the number of the update before (-1: the node was not known), the time in
# milliseconds, how many connections of it are known, and the nodes whose lease is over.
UPDATE = (
    _PRELUDE
    + """
local lease, most = tonumber(ARGV[3]), tonumber(ARGV[4])
local newest = tonumber(redis.call('ZRANGE', nodes, -1, -1, 'WITHSCORES')[2])
if newest and (newest < now + lease / 2 or newest > now + lease) then
  -- For half a lease nobody was able to renew: Redis was away, or stood still, or its clock is another now. That says
  -- nothing of the nodes.
  for _, each in ipairs(redis.call('ZRANGE', nodes, 0, -1)) do
    redis.call('ZADD', nodes, now + lease, each)
  end
end
local before = redis.call('ZSCORE', nodes, node) and tonumber(redis.call('HGET', prefix .. 'updates', node)) or -1
redis.call('ZADD', nodes, now + lease, node)
redis.call('HSET', prefix .. 'users', node, ARGV[5])
redis.call('HSET', prefix .. 'updates', node, ARGV[6])

local function put(user, sid, pid, since, transport, address, agent)
  local connections = prefix .. 'connections:' .. user
  local known, all = redis.call('HGETALL', connections), {{sid = sid, owner = node, since = since}}
  for at = 1, #known, 2 do
    if known[at] ~= sid then
      local owner, other_since, other_pid = unpack(cmsgpack.unpack(known[at + 1]))
      if other_pid ~= pid then
        all[#all + 1] = {sid = known[at], owner = owner, since = other_since}
      elseif other_since > since then
        -- This one is what its client has left; the word of it comes late.
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
  for at = 1, #all - most do
    local oldest = all[at]
    drop(oldest.owner, user, oldest.sid)
    tell(oldest.owner, 'end', 'why', 'crowded out', 'user', user, 'sid', oldest.sid)
  end
end

local at = 9
for _ = 1, ARGV[7] do
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
for _ = 1, ARGV[8] do
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

local dead = redis.call('ZRANGEBYSCORE', nodes, '-inf', '(' .. string.format('%.0f', now))
return {before, now, redis.call('HLEN', prefix .. 'node:' .. node), dead}
"""
)

# Forgets some of the connections of a node, and the node with the last. Arguments: how many at once, and whether it says so
# itself; another one is forgotten only if its lease is over. Returns whether there are more.
FORGET_NODE = (
    _PRELUDE
    + """
local lease = redis.call('ZSCORE', nodes, node)
if not lease or (ARGV[4] == '' and tonumber(lease) >= now) then
  return 0
end
local known = redis.call('HRANDFIELD', prefix .. 'node:' .. node, ARGV[3], 'WITHVALUES')
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
"""
)

# Forgets a user's connections and tells all nodes to end those they have. Returns how many there were.
SIGN_OUT = (
    _PRELUDE
    + f"""
redis.call('ZADD', prefix .. 'signed-out', now, ARGV[3])
redis.call('ZREMRANGEBYSCORE', prefix .. 'signed-out', '-inf', now - {_SIGNED_OUT_MS})
"""
    + """
local user, count = ARGV[3], 0
local known = redis.call('HGETALL', prefix .. 'connections:' .. user)
for at = 1, #known, 2 do
  drop(cmsgpack.unpack(known[at + 1])[1], user, known[at])
  count = count + 1
end
tell_all('sign out', 'user', user, 'at', now)
return count
"""
)

# Returns how many users are online, then for each node its name, users and connections.
STATS = (
    _PRELUDE
    + """
local found = {tonumber(redis.call('GET', prefix .. 'online') or 0)}
for _, each in ipairs(redis.call('ZRANGE', nodes, 0, -1)) do
  found[#found + 1] = {
    each,
    tonumber(redis.call('HGET', prefix .. 'users', each) or 0),
    redis.call('HLEN', prefix .. 'node:' .. each),
  }
end
return found
"""
)
