-- the epoch of the log in which somebody has read what these scripts have not written: whether a new one has begun.
if epoch() == ARGV[2] then renew() end
return renewed
