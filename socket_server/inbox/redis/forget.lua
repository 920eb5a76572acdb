-- Delete a user's notifications.
--
-- Arguments after those of common.lua:
local list = prefix .. 'user:' .. ARGV[5]  -- the user id
-- Returns {head, the number of notifications that were still retained}.

store_head()
local gone, count = {}, 0
for _, element in ipairs(redis.call('LRANGE', list, 0, -1)) do
  local offset, expires, mark, inside = parse(element)
  if not mark then
    gone[offset] = not inside and 1 or nil
    if offset >= now - ttl and (not expires or expires > now) then
      count = count + 1
    end
  end
end
release_bodies(gone)
redis.call('DEL', list)
redis.call('RPUSH', list, 'd' .. text(head))
redis.call('PEXPIRE', list, text(milliseconds(head - now + ttl)))
return {text(head), count}
