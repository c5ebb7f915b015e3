-- channel ...: the last number, and of each channel its subscribers; of the first also the members, with their connections.
local counts = {}
for i = 2, #ARGV do counts[#counts + 1] = subscribers(ARGV[i]) end
return { count_of('sequence') or 0, counts, call('HGETALL', 'members:' .. (ARGV[2] or '')) }
