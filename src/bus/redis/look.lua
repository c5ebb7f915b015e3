-- channel ...: the last number, and of each channel its subscribers; of the first also the members, with their connections.
local answer = { redis.call('GET', P .. 'sequence') or '0' }
local counts = {}
for i = 2, #ARGV do counts[#counts + 1] = subscribers(ARGV[i]) end
answer[2] = counts
answer[3] = redis.call('HGETALL', P .. 'members:' .. (ARGV[2] or ''))
return answer
