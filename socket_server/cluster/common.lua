-- The start of every script of the registry. Only Redis's clock decides which node is alive. Each script has its effect once,
-- however often it is repeated.
--
-- Arguments 1 and 2:
local prefix = ARGV[1]  -- of all keys
local node = ARGV[2]    -- the node that calls, or that is concerned

local MAX_CONTROL_LENGTH = 100000  -- entries in a node's control stream; a node with more has stopped reading

local nodes = prefix .. 'nodes'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)  -- milliseconds

-- Add an entry to a node's control stream: its kind, then further fields and values.
local function tell(node_name, ...)
  if redis.call('ZSCORE', nodes, node_name) then
    redis.call('XADD', prefix .. 'news:' .. node_name, 'MAXLEN', '~', MAX_CONTROL_LENGTH, '*', 'kind', ...)
  end
end

local function tell_all(...)
  for _, each in ipairs(redis.call('ZRANGE', nodes, 0, -1)) do
    tell(each, ...)
  end
end

-- Remove a connection that is known to belong to the node `owner`.
local function drop(owner, user, sid)
  local connections = prefix .. 'connections:' .. user
  if redis.call('HDEL', connections, sid) == 1 and redis.call('EXISTS', connections) == 0 then
    redis.call('DECR', prefix .. 'online')
  end
  redis.call('HDEL', prefix .. 'node:' .. owner, sid)
end
