-- node, id, what: which other nodes there are, and whether a new epoch has begun.
epoch()
append(math.huge, HOUR, #ARGV[4] + 200, 'kind', 'revoke', 'channel', '', 'node', ARGV[2], 'id', ARGV[3], 'what', ARGV[4])
local others = {}
for _, node in ipairs(call('ZRANGE', 'nodes', 0, -1)) do
    if node ~= ARGV[2] then others[#others + 1] = node end
end
return { renewed, others }
