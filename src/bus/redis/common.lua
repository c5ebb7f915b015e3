-- What stands before each of the scripts. ARGV[1] is an epoch for where there is none yet.
local P = '{mod_websocket}:'
local MINUTE = 60000
local SILENCE = 15000

local function epoch()
    redis.call('SET', P .. 'epoch', ARGV[1], 'NX')
    return redis.call('GET', P .. 'epoch')
end

local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Appends to the log, and takes what is too old or too much off its front. Who reads has a minute.
local function append(budget, keep, size, ...)
    local at = now()
    local number = redis.call('INCR', P .. 'sequence')
    local latest = string.format('%.0f-0', number)
    local till = string.format('%.0f', at + math.max(keep, MINUTE))
    redis.call('XADD', P .. 'log', latest, 'till', till, 'size', size, 'at', string.format('%.0f', at), ...)
    local bytes = redis.call('INCRBY', P .. 'bytes', size)
    while true do
        local first = redis.call('XRANGE', P .. 'log', '-', '+', 'COUNT', 1)[1]
        if not first or first[1] == latest then break end
        local fields = first[2]
        if bytes <= budget and tonumber(fields[2]) > at then break end
        redis.call('XDEL', P .. 'log', first[1])
        redis.call('SET', P .. 'gone', string.match(first[1], '^%d+'))
        bytes = redis.call('DECRBY', P .. 'bytes', fields[4])
    end
    return number
end

local function subscribers(channel)
    local count = 0
    for _, of_node in ipairs(redis.call('HVALS', P .. 'subscribers:' .. channel)) do count = count + of_node end
    return count
end

-- A node has so many connections of that member now.
local function be(node, channel, member, count)
    local field = node .. ' ' .. member
    local here = P .. 'here:' .. channel
    local before = tonumber(redis.call('HGET', here, field) or '0')
    if count == before then return end
    if count == 0 then redis.call('HDEL', here, field) else redis.call('HSET', here, field, count) end
    local total = redis.call('HINCRBY', P .. 'members:' .. channel, member, count - before)
    if total <= 0 then redis.call('HDEL', P .. 'members:' .. channel, member) end
    if total <= 0 or total == count - before then
        local joined = total > 0 and '1' or '0'
        append(math.huge, 0, 200, 'kind', 'presence', 'channel', channel, 'member', member, 'joined', joined)
    end
end

-- A node has so many connections in that channel now.
local function count(node, channel, number)
    local key = P .. 'subscribers:' .. channel
    if number == 0 then
        redis.call('HDEL', key, node)
        redis.call('SREM', P .. 'of:' .. node, channel)
    else
        redis.call('HSET', key, node, number)
        redis.call('SADD', P .. 'of:' .. node, channel)
    end
    if redis.call('EXISTS', key) == 1 then
        redis.call('ZADD', P .. 'channels', 0, channel)
    else
        redis.call('ZREM', P .. 'channels', channel)
    end
end

-- A node is no more.
local function bury(node)
    for _, channel in ipairs(redis.call('SMEMBERS', P .. 'of:' .. node)) do
        local fields = redis.call('HKEYS', P .. 'here:' .. channel)
        for _, field in ipairs(fields) do
            if string.sub(field, 1, #node + 1) == node .. ' ' then be(node, channel, string.sub(field, #node + 2), 0) end
        end
        count(node, channel, 0)
    end
    redis.call('DEL', P .. 'of:' .. node)
    redis.call('ZREM', P .. 'nodes', node)
end

