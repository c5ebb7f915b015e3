-- node: channel and member, in pairs, of all that it has said that it has; '' for no member.
local answer = {}
for _, channel in ipairs(call('SMEMBERS', 'of:' .. ARGV[2])) do
    answer[#answer + 1] = channel
    answer[#answer + 1] = ''
    for _, field in ipairs(call('HKEYS', 'here:' .. channel)) do
        if string.sub(field, 1, #ARGV[2] + 1) == ARGV[2] .. ' ' then
            answer[#answer + 1] = channel
            answer[#answer + 1] = string.sub(field, #ARGV[2] + 2)
        end
    end
end
return answer
