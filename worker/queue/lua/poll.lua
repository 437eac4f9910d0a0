-- One poll of a worker: remove the jobs that ended, then pick as many as there is room for.
-- KEYS: the queue, its wake list, the key that names the queue's store.
-- ARGV: the caller's store ("<id> <name>", or "" to ask no questions), milliseconds that the queue stays this
-- store's, the latest due time, milliseconds that a picked job stays ours, milliseconds that an ended id stays used
-- up, who we are, the room, the number of ended ids, the ended ids, the running ids.
-- Returns id, body, id, body ...

local queue, wake = KEYS[1], KEYS[2]
local due, ttl, keep, me = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local room, ended = tonumber(ARGV[7]), tonumber(ARGV[8])
local first = 9

local function remove(id)
    redis.call('ZREM', queue, id)
    redis.call('DEL', 'arq:job:' .. id)
    if keep > 0 then
        redis.call('SET', 'arq:in-progress:' .. id, 'done', 'PX', keep)
    else
        redis.call('DEL', 'arq:in-progress:' .. id)
    end
end

local mine, theirs = ARGV[1], redis.call('GET', KEYS[3]) or ''
if mine ~= '' and theirs ~= '' and string.match(theirs, '^%S*') ~= string.match(mine, '^%S*') then
    return redis.error_reply('OTHERSTORE ' .. string.sub(theirs, 1, 300))
end
-- A write even when there is nothing to do, and one that takes memory: a server that has become read-only, or is
-- full, must show in every poll.
redis.call('SET', KEYS[3], mine ~= '' and mine or theirs, 'PX', ARGV[2])

local running = {}
for i = first, #ARGV do
    if i < first + ended then remove(ARGV[i]) else running[ARGV[i]] = true end
end

local picked, seen = {}, 0
while room > 0 do
    local ids = redis.call('ZRANGEBYSCORE', queue, '-inf', due, 'LIMIT', seen, 100)
    for _, id in ipairs(ids) do
        seen = seen + 1
        local holder = redis.pcall('GET', 'arq:in-progress:' .. id)
        if holder == 'done' then
            remove(id)
            seen = seen - 1
        elseif (not holder or holder == me or type(holder) == 'table') and not running[id] and room > 0 then
            -- Held by me and not running: the answer to an earlier poll got lost.
            redis.call('SET', 'arq:in-progress:' .. id, me, 'PX', ttl)
            local body = redis.pcall('GETRANGE', 'arq:job:' .. id, 0, 4095)
            picked[#picked + 1] = id
            picked[#picked + 1] = type(body) == 'string' and body or ''
            room = room - 1
        end
    end
    if #ids < 100 then
        if room > 0 then redis.call('DEL', wake) end
        break
    end
end
return picked
