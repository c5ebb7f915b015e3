-- What stands before each of the scripts. ARGV[1] is an epoch that there never was, for where one is to begin.
local P = '{mod_websocket}:'
local LOG = P .. 'log'
local MINUTE = 60000
local HOUR = 3600000
local SILENCE = 15000
-- Whole numbers up to here are exact.
local LARGEST = 9007199254740991
-- A new epoch has begun, since something was there that these scripts have not written.
local renewed = 0

-- A whole number, not below 0; nil for anything else.
local function whole(text)
    local number = tonumber(text)
    return number and number >= 0 and number <= LARGEST and number == math.floor(number) and number or nil
end

-- What is under a key, as a whole number: 0 for nothing, nil for anything else.
local function count_of(key)
    local text = redis.pcall('GET', P .. key)
    if type(text) == 'table' then return nil end
    return whole(text or '0')
end

-- A command on one of the keys. What is there and is not these scripts' is taken away.
local function call(command, key, ...)
    local answer = redis.pcall(command, P .. key, ...)
    if type(answer) ~= 'table' or not answer.err then return answer end
    for _, sign in ipairs({ 'WRONGTYPE', 'not an integer', 'overflow' }) do
        if string.find(answer.err, sign, 1, true) then redis.call('DEL', P .. key) end
    end
    -- Whatever else it was, it fails once more, and with its code.
    return redis.call(command, P .. key, ...)
end

-- All begins anew: for when something is there that these scripts have not written.
local function renew()
    local last = string.format('%.0f', count_of('sequence') or 0)
    redis.call('SET', P .. 'epoch', ARGV[1])
    redis.call('DEL', LOG, P .. 'bytes')
    redis.call('SET', P .. 'sequence', last)
    redis.call('SET', P .. 'gone', last)
    renewed = 1
end

local function epoch()
    redis.call('SET', P .. 'epoch', ARGV[1], 'NX')
    local known = redis.pcall('GET', P .. 'epoch')
    -- It goes into ids as it is.
    if type(known) ~= 'string' or #known > 64 or not string.match(known, '^%w+$') then
        renew()
        return ARGV[1]
    end
    return known
end

local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Adds an entry with the next number, which it returns; nil where the log is not these scripts' alone.
local function add(...)
    local last = count_of('sequence')
    if not last or last == LARGEST then return nil end
    local added = redis.pcall('XADD', LOG, string.format('%.0f-0', last + 1), ...)
    if type(added) == 'table' then
        for _, sign in ipairs({ 'equal or smaller', 'WRONGTYPE', 'exhausted' }) do
            if string.find(added.err, sign, 1, true) then return nil end
        end
        redis.call('XADD', LOG, string.format('%.0f-0', last + 1), ...)
    end
    redis.call('SET', P .. 'sequence', string.format('%.0f', last + 1))
    return last + 1
end

-- Appends to the log, and takes what is too old or too much off its front. Who reads has a minute.
local function append(budget, keep, size, ...)
    local at = now()
    local till = string.format('%.0f', at + math.max(keep, MINUTE))
    local fields = { 'till', till, 'size', size, 'at', string.format('%.0f', at), ... }
    local number = add(unpack(fields))
    if not number then
        renew()
        number = add(unpack(fields))
    end
    local latest = string.format('%.0f-0', number)
    local bytes = call('INCRBY', 'bytes', size)
    while true do
        local first = redis.call('XRANGE', LOG, '-', '+', 'COUNT', 1)[1]
        if not first or first[1] == latest then break end
        local ends, length = whole(first[2][2]), whole(first[2][4])
        if bytes <= budget and ends and length and ends > at then break end
        redis.call('XDEL', LOG, first[1])
        redis.call('SET', P .. 'gone', string.match(first[1], '^%d+'))
        bytes = call('DECRBY', 'bytes', string.format('%.0f', length or 0))
    end
    return number
end

-- False when there is what these scripts have not written: numbers that are none, entries above the last number.
local function is_sound()
    local last, gone = count_of('sequence'), count_of('gone')
    if not last or not gone or gone > last then return false end
    local above = redis.pcall('XRANGE', LOG, string.format('%.0f-1', last), '+', 'COUNT', 1)
    return not above.err and #above == 0
end

-- The log has gone back behind an entry that somebody has read: what has its number now, or will, is another.
local function fell_back(number, time)
    if number > count_of('sequence') then return true end
    if time == '0' or number <= count_of('gone') then return false end
    local id = string.format('%.0f-0', number)
    local entry = redis.call('XRANGE', LOG, id, id)[1]
    return not entry or entry[2][6] ~= time
end

local function subscribers(channel)
    local count = 0
    for _, of_node in ipairs(call('HVALS', 'subscribers:' .. channel)) do count = count + (whole(of_node) or 0) end
    return math.min(count, LARGEST)
end

-- A node has so many connections of that member now.
local function be(node, channel, member, count)
    local field = node .. ' ' .. member
    local here, members = 'here:' .. channel, 'members:' .. channel
    local before = whole(call('HGET', here, field)) or 0
    if count == before then return end
    if count == 0 then call('HDEL', here, field) else call('HSET', here, field, count) end
    local others = math.max((whole(call('HGET', members, member)) or 0) - before, 0)
    local total = others + count
    if total > 0 then call('HSET', members, member, total) else call('HDEL', members, member) end
    if total == 0 or total == count - before then
        local joined = total > 0 and '1' or '0'
        append(math.huge, 0, 200, 'kind', 'presence', 'channel', channel, 'member', member, 'joined', joined)
    end
end

-- A node has so many connections in that channel now.
local function count(node, channel, number)
    local key = 'subscribers:' .. channel
    if number == 0 then
        call('HDEL', key, node)
        call('SREM', 'of:' .. node, channel)
    else
        call('HSET', key, node, number)
        call('SADD', 'of:' .. node, channel)
    end
    if redis.call('EXISTS', P .. key) == 1 then
        call('ZADD', 'channels', 0, channel)
    else
        call('ZREM', 'channels', channel)
    end
end

-- A node is no more.
local function bury(node)
    for _, channel in ipairs(call('SMEMBERS', 'of:' .. node)) do
        local fields = call('HKEYS', 'here:' .. channel)
        for _, field in ipairs(fields) do
            if string.sub(field, 1, #node + 1) == node .. ' ' then be(node, channel, string.sub(field, #node + 2), 0) end
        end
        count(node, channel, 0)
    end
    redis.call('DEL', P .. 'of:' .. node)
    call('ZREM', 'nodes', node)
end

