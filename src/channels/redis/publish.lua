-- budget, messages, seconds, text, content type, payload, channel ...: whether a new epoch has begun since there was what
-- these scripts have not written; the epoch; offset and subscribers of each.
epoch()
local answer = { 0, '' }
local budget, messages, seconds = tonumber(ARGV[2]), ARGV[3], ARGV[4]
for i = 8, #ARGV do
    local channel = ARGV[i]
    local keep = tonumber(messages) > 0 and tonumber(seconds) * 1000 or 0
    local number = append(budget, keep, #ARGV[7] + #channel + 200, 'kind', 'message', 'channel', channel,
        'messages', messages, 'seconds', seconds, 'text', ARGV[5], 'type', ARGV[6], 'payload', ARGV[7])
    answer[#answer + 1] = number
    answer[#answer + 1] = subscribers(channel)
end
answer[1], answer[2] = renewed, epoch()
return answer
