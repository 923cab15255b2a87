-- The token bucket: `limit` hits at once, and then `rate` a W, evenly. Twin of token_bucket.py, which says why.
--
-- Stored: one string a key,
--   byte 1      format version (1)
--   byte 2      1 if it is a budget, else 0
--   bytes 3-26  at (us), total (hits), part (W-ths of a hit): doubles, little endian
-- Expiry: 2 W after it is empty; of a budget an hour later. It frees memory and decides nothing.

local TokenBucket = {}
TokenBucket.__index = TokenBucket
TokenBucket.CHECK_NEEDS = 1

local VERSION, SIZE = 1, 26
local LONGEST = 315360000000000
local EXACT = 9007199254740992
local KEEP_BUDGET = 3600000000
local floor, ceil, min = math.floor, math.ceil, math.min
local pack, unpack_at = struct.pack, struct.unpack

local function bucket_of(at, total, part, window, rate, budget)
  return setmetatable({at = at, total = total, part = part, window = window, rate = rate, budget = budget},
                      TokenBucket)
end

-- quotient and rest of a * b / c, exact while 15 b + 16 c and the quotient are below 2^53 (of b and c one is a W, below 2^49,
-- the other a rate, below 2^32); beyond, the quotient is only large. Where the product itself is not exact, a is taken in
-- digits of 16, as one divides on paper.
local function mul_div(a, b, c)
  local product = a * b
  if product < EXACT then
    local quotient = floor(product / c)
    return quotient, product - quotient * c
  end
  local quotient, rest, scale = 0, 0, 1
  while scale * 16 <= a do scale = scale * 16 end
  while scale >= 1 do
    local digit = floor(a / scale)
    a = a - digit * scale
    local sum = rest * 16 + digit * b
    local whole = floor(sum / c)
    rest = sum - whole * c
    quotient = quotient * 16 + whole
    scale = scale / 16
  end
  return quotient, rest
end

-- whether a number can be a count or a time of ours; NaN is not
local function sound(number)
  return number >= 0 and number < EXACT
end

-- open(stored, now us, window us, rate) -> the bucket as it stands now; nil if stored is not one of ours
function TokenBucket.open(stored, now, window, rate)
  if not stored then return bucket_of(now, 0, 0, window, rate, false) end
  if #stored ~= SIZE or string.byte(stored) ~= VERSION then return nil end
  local flags, at, total, part = unpack_at('<Bddd', stored, 2)
  if not (sound(at) and sound(total) and sound(part) and part < window) then return nil end
  local budget = flags == 1
  local ahead = at - now
  if ahead > window then
    local state = bucket_of(now, total, part, window, rate, budget)
    state.must_save = true
    return state
  end
  if ahead < 0 then
    local drained, rest = mul_div(-ahead, rate, window)
    at, total, part = now, total - drained, part - rest
    if part < 0 then total, part = total - 1, part + window end
    if total < 0 then total, part = 0, 0 end
  end
  local state = bucket_of(at, total, part, window, rate, budget)
  state.unmoved = -ahead < window
  return state
end

function TokenBucket:room(limit)
  return limit - self.total - (self.part > 0 and 1 or 0)
end

function TokenBucket:add(hits)
  self.total = self.total + hits
end

function TokenBucket:give_back(hits, charged_at)
  local drained, part = 0, 0
  if charged_at then
    if charged_at > self.at then return false end
    drained, part = mul_div(self.at - charged_at, self.rate, self.window)
  end
  if hits <= drained or (self.total == 0 and self.part == 0) then return false end
  local total = self.total + drained - hits
  part = self.part + part
  if part >= self.window then total, part = total + 1, part - self.window end
  if total < 0 then total, part = 0, 0 end
  self.total, self.part = total, part
  return true
end

function TokenBucket:mark()
  local stored = self.budget and self.unmoved
  self.budget = true
  return not stored
end

local function until_drained(self, now, hits, part)
  if hits == 0 and part == 0 then return 0 end
  if self.rate == 0 then return self.window end
  local time, rest = mul_div(hits, self.window, self.rate)
  return min(self.at - now + time + ceil((rest + part) / self.rate), LONGEST)
end

function TokenBucket:until_empty(now)
  return until_drained(self, now, self.total, self.part)
end

function TokenBucket:until_fits(now, limit, hits)
  if hits > limit then return self.window end
  local excess = self.total + hits - limit
  if excess < 0 then return 0 end
  return until_drained(self, now, excess, self.part)
end

-- save(key, now us)
function TokenBucket:save(key, now)
  local expiry_ms = ceil((self:until_empty(self.at) + 2 * self.window + self.at + (self.budget and KEEP_BUDGET or 0) - now) / 1000)
  return redis.call('SET', key,
    pack('<BBddd', VERSION, self.budget and 1 or 0, self.at, self.total, self.part),
    'PX', string.format('%.0f', expiry_ms))
end
