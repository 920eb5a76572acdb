-- The start of every script of the inbox.
--
-- Arguments 1 to 4:
local prefix = ARGV[1]           -- of all keys
local now = tonumber(ARGV[2])    -- the time in microseconds since 1970; '': Redis's own clock
local lower = tonumber(ARGV[3])  -- the newest offset that the calling process knows
local ttl = tonumber(ARGV[4])    -- retention by age, microseconds

if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local head = tonumber(redis.call('GET', prefix .. 'head'))
local began = tonumber(redis.call('GET', prefix .. 'began'))

-- Redis may hold less than this process knows: it was flushed, it is another one, or it is a replica that was promoted before
-- it had everything. Then what lies before is incomplete, and the store begins anew. Offsets keep growing even if the clock
-- of the new Redis is behind.
local anew = not head or not began or head < lower
if anew then
  if not head or not began then
    lower = math.max(now, lower, head or 0)
  else
    lower = lower + 1  -- other nodes may have stored up to `lower`: a client that got to it has not got everything
  end
  began, head = lower, lower
end

local function text(offset)  -- tostring() would write an exponent
  return string.format('%d', offset)
end

local function milliseconds(microseconds)  -- one second later than due: scripts decide what is over, expiry only cleans up
  return math.ceil(microseconds / 1000) + 1000
end

-- Parse an element of a user's list. Return its offset, its own expiry, whether it marks what was dropped, and the position
-- of the notification in it.
local function parse(element)
  if string.byte(element) == 100 then  -- 'd'
    return tonumber(string.sub(element, 2)), nil, true
  end
  local _, to, offset, expires = string.find(element, '^(%d+):?(%d*)')
  return tonumber(offset), tonumber(expires), false, to < #element and to + 2
end

-- Store the head. If Redis is full or read-only, the first write of a script fails and nothing is done, provided that this
-- write needs memory, as this one does. Redis never refuses later writes of the same script.
local function store_head()
  redis.call('SET', prefix .. 'head', text(head))
  if anew then
    redis.call('SET', prefix .. 'began', text(began))
    anew = false
  end
end

-- Take notifications off lists and delete those that are on no list any more.
-- gone: offset -> the number of lists it was taken off; only notifications with a body of their own.
local function release_bodies(gone)
  for offset, times in pairs(gone) do
    local key = prefix .. 'body:' .. text(offset)
    local lists = tonumber(redis.call('GETRANGE', key, 0, 7))
    if lists and lists <= times then
      redis.call('DEL', key)
    elseif lists then
      redis.call('SETRANGE', key, 0, string.format('%08d', lists - times))
    end
  end
end
