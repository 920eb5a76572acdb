-- Read a page of a user's notifications: the list from its end, as far back as asked for, and only the bodies of the page.
--
-- Arguments after those of common.lua:
local list = prefix .. 'user:' .. ARGV[5]  -- the user id
local after = tonumber(ARGV[6])            -- offsets in after < offset <= last are read
local last = tonumber(ARGV[7])
local limit = tonumber(ARGV[8])            -- notifications on the page at most
local max_bytes = tonumber(ARGV[9])        -- of their bodies; the first one is returned whatever its size
-- Returns {head, 1 if that head is not stored, the lowest offset after which nothing is missing, the number of notifications
-- in the range, 1 if a body was missing, {offset, body, offset, body, ...}}.

local complete_after = math.max(began, now - ttl)
local first = math.max(after + 1, now - ttl)
local found, inside = {}, {}  -- newest first: offsets, and the elements that contain their notification
local to, size, ended = -1, 32, false
while not ended do
  local elements = redis.call('LRANGE', list, to - size + 1, to)
  for at = #elements, 1, -1 do
    local offset, expires, mark, begins = parse(elements[at])
    if mark then
      complete_after = math.max(complete_after, offset)
    elseif offset < first then
      ended = true
      break
    elseif offset <= last and (not expires or expires > now) then
      found[#found + 1] = offset
      inside[#found] = begins and elements[at] or false
    end
  end
  ended = ended or #elements < size
  to, size = to - size, 256
end

local page, bytes, total, missing = {}, 0, #found, 0
for at = #found, 1, -1 do
  if #page >= 2 * limit then
    break
  end
  local key, body = prefix .. 'body:' .. text(found[at]), inside[at]
  local length
  if body then
    body = string.sub(body, string.find(body, ' ', 1, true) + 1)
    length = #body
  else
    length = redis.call('STRLEN', key) - 8
  end
  if length < 0 then
    total, missing = total - 1, 1  -- evicted by Redis; maxmemory-policy should be noeviction
  else
    bytes = bytes + length
    if #page > 0 and bytes > max_bytes then
      break
    end
    page[#page + 1] = text(found[at])
    page[#page + 1] = body or redis.call('GETRANGE', key, 8, -1)
  end
end
return {text(head), anew and 1 or 0, text(complete_after), total, missing, page}
