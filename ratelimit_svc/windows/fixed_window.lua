-- The fixed window: counts from one boundary to the next. Twin of fixed_window.py, which says why and what for.
--
-- Stored: one string a key,
--   byte 1      format version (1)
--   byte 2      1 if it is a budget, else 0
--   bytes 3-18  ends (us), total: doubles, little endian
-- Expiry: W after the end; of a budget an hour later. It frees memory and decides nothing.

local FixedWindow = {}
FixedWindow.__index = FixedWindow
FixedWindow.CHECK_NEEDS = 0

local VERSION, SIZE, TOTAL_AT = 1, 18, 10
local BEGIN_AT_EPOCH, BEGIN_AT_FIRST_HIT, BEGIN_ON_MONDAY = 0, -1, -2
local DAY = 86400000000
local MONDAY = 4 * DAY
local KEEP_BUDGET = 3600000000
local floor, ceil, min = math.floor, math.ceil, math.min
local pack, unpack_at = struct.pack, struct.unpack

local function window_of(ends, total, window, shape, anew, budget)
  return setmetatable({ends = ends, total = total, window = window, shape = shape, anew = anew, budget = budget},
                      FixedWindow)
end

local function month_of(days)
  local day = days + 719468
  local era = floor(day / 146097)
  day = day - era * 146097
  local year = floor((day - floor(day / 1460) + floor(day / 36524) - floor(day / 146096)) / 365)
  day = day - (365 * year + floor(year / 4) - floor(year / 100))
  local month = floor((5 * day + 2) / 153)
  return (era * 400 + year) * 12 + month + 2
end

local function month_begins(month)
  local from_march = month - 2
  local year = floor(from_march / 12)
  local era = floor(year / 400)
  local year_of_era = year - era * 400
  local day = floor((153 * (from_march - year * 12) + 2) / 5)
  return era * 146097 + 365 * year_of_era + floor(year_of_era / 4) - floor(year_of_era / 100) + day - 719468
end

local function end_of(now, window, shape)
  if shape == BEGIN_AT_FIRST_HIT then return now + window end
  if shape == BEGIN_AT_EPOCH then return (floor(now / window) + 1) * window end
  if shape == BEGIN_ON_MONDAY then return (floor((now - MONDAY) / window) + 1) * window + MONDAY end
  return month_begins((floor(month_of(floor(now / DAY)) / shape) + 1) * shape) * DAY
end

-- whether a number can be a count or a time of ours; NaN is not
local function sound(number)
  return number >= 0 and number < 9007199254740992
end

-- open(stored, now us, window us, shape) -> the window as it stands now; nil if stored is not one of ours
function FixedWindow.open(stored, now, window, shape)
  local anew = end_of(now, window, shape)
  if not stored then return window_of(anew, 0, window, shape, anew, false) end
  if #stored ~= SIZE or string.byte(stored) ~= VERSION then return nil end
  local flags, stored_ends, total = unpack_at('<Bdd', stored, 2)
  if not (sound(stored_ends) and sound(total)) then return nil end
  local budget = flags == 1
  if stored_ends - now > 2 * window then
    local state = window_of(anew, total, window, shape, anew, budget)
    state.must_save = true
    return state
  end
  if (stored_ends <= now or total == 0) and stored_ends ~= anew then
    return window_of(anew, 0, window, shape, anew, budget)
  end
  local state = window_of(stored_ends, total, window, shape, anew, budget)
  state.unmoved = true
  return state
end

function FixedWindow:room(limit)
  return limit - self.total
end

function FixedWindow:add(hits)
  self.total = self.total + hits
end

function FixedWindow:give_back(hits, charged_at)
  if charged_at and not (charged_at < self.ends and self.ends <= end_of(charged_at, self.window, self.shape)) then
    return false
  end
  local left = min(hits, self.total)
  self.total = self.total - left
  if self.total == 0 and self.ends ~= self.anew then
    self.ends, self.unmoved = self.anew, false
  end
  return left > 0
end

function FixedWindow:mark()
  local stored = self.budget and self.unmoved
  self.budget = true
  self.unmoved = stored
  return not stored
end

function FixedWindow:until_empty(now)
  if self.shape == BEGIN_AT_FIRST_HIT and self.total == 0 then return 0 end
  return self.ends - now
end

function FixedWindow:until_fits(now, limit, hits)
  if self.total + hits <= limit then return 0 end
  return self.ends - now
end

-- save(key, now us): within a window only the total changes, and the expiry stands
function FixedWindow:save(key, now)
  if self.unmoved then return redis.call('SETRANGE', key, TOTAL_AT, pack('<d', self.total)) end
  local expiry_ms = ceil((self.ends + self.window + (self.budget and KEEP_BUDGET or 0) - now) / 1000)
  return redis.call('SET', key, pack('<BBdd', VERSION, self.budget and 1 or 0, self.ends, self.total),
    'PX', string.format('%.0f', expiry_ms))
end
