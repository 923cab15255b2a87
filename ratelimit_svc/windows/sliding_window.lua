-- The sliding window: in no interval of length W are more than L hits admitted. Twin of sliding_window.py, which says why.
--
-- Stored: one string a key,
--   byte 1      format version (1)
--   byte 2      1 if it is a budget, else 0
--   bytes 3-34  width (us), head (slice number), total, here: doubles, little endian
--   then        (slice, hits) pairs of doubles, oldest first: the older slices that hold something
-- Expiry: 2 W after the head's start, set when the head moves; of a budget an hour later. It frees memory and decides nothing.
-- Numbers: integers below 2^53 in doubles; text is written with %.0f, because Lua's own way keeps 14 digits.

local SlidingWindow = {}
SlidingWindow.__index = SlidingWindow
SlidingWindow.CHECK_NEEDS = 1

local VERSION, HEADER, PAIR, TOTAL_AT = 1, 34, 16, 18
local KEEP_BUDGET = 3600000000
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local pack, unpack_at = struct.pack, struct.unpack

local function window_of(width, head, total, here, older, window, slices, budget)
  return setmetatable({width = width, head = head, total = total, here = here, older = older,
                       window = window, slices = slices, budget = budget}, SlidingWindow)
end

-- the pairs of an older width, each whole in the new slice that holds its last microsecond
local function cut_anew(older, width, new_width, present)
  local pairs_anew, last, count = {}, nil, 0
  for at = 1, #older, PAIR do
    local number, hits = unpack_at('<dd', older, at)
    local cut = min(floor(((number + 1) * width - 1) / new_width), present)
    if cut ~= last then
      if last then pairs_anew[#pairs_anew + 1] = pack('<dd', last, count) end
      last, count = cut, 0
    end
    count = count + hits
  end
  if last then pairs_anew[#pairs_anew + 1] = pack('<dd', last, count) end
  return table.concat(pairs_anew)
end

-- the window that holds those of the counts (all older than present, or present) that have not left it
local function window_from(counts, total, width, present, window, slices, budget)
  local from = 1
  while from < #counts do
    local number, hits = unpack_at('<dd', counts, from)
    if number >= present - slices then break end
    total, from = total - hits, from + PAIR
  end
  local till, here = #counts, 0
  if from < till then
    local number, hits = unpack_at('<dd', counts, till - PAIR + 1)
    if number == present then till, here = till - PAIR, hits end
  end
  return window_of(width, present, total, here, string.sub(counts, from, till), window, slices, budget)
end

-- whether a number can be a count or a slice of ours; NaN is not
local function sound(number)
  return number >= 0 and number < 9007199254740992
end

-- open(stored, now us, window us, slices) -> the window as it stands now; nil if stored is not one of ours
function SlidingWindow.open(stored, now, window, slices)
  local width = ceil(window / slices)
  if not stored then
    return window_of(width, floor(now / width), 0, 0, '', window, slices, false)
  end
  if #stored < HEADER or (#stored - HEADER) % PAIR ~= 0 or string.byte(stored) ~= VERSION then return nil end
  local flags, stored_width, head, total, here = unpack_at('<Bdddd', stored, 2)
  local budget = flags == 1
  if not (stored_width >= 1 and sound(stored_width) and sound(head) and sound(total) and sound(here)) then return nil end
  if #stored == HEADER and total ~= here then return nil end
  local ahead = head * stored_width - now
  if ahead > window then
    local state = window_of(width, floor(now / width), total, total, '', window, slices, budget)
    state.must_save = true
    return state
  end
  local present = floor(max(now, now + ahead) / width)
  if stored_width == width and head == present then
    local state = window_of(width, head, total, here, string.sub(stored, HEADER + 1), window, slices, budget)
    state.unmoved = true
    return state
  end
  local counts = string.sub(stored, HEADER + 1)
  if here > 0 then counts = counts .. pack('<dd', head, here) end
  if stored_width ~= width then counts = cut_anew(counts, stored_width, width, present) end
  local state = window_from(counts, total, width, present, window, slices, budget)
  return sound(state.total) and sound(state.here) and state or nil
end

function SlidingWindow:room(limit)
  return limit - self.total
end

function SlidingWindow:add(hits)
  self.total = self.total + hits
  self.here = self.here + hits
end

function SlidingWindow:give_back(hits, charged_at)
  local only = charged_at and (charged_at - charged_at % self.width) / self.width  -- floor would cost every call
  local left, kept = hits, {}
  for at = 1, #self.older, PAIR do
    local number, count = unpack_at('<dd', self.older, at)
    local cut = (not only or number == only) and min(count, left) or 0
    left = left - cut
    if count > cut then kept[#kept + 1] = pack('<dd', number, count - cut) end
  end
  if not only or only == self.head then
    local cut = min(self.here, left)
    left = left - cut
    self.here = self.here - cut
  end
  if left == hits then return false end
  self.total = self.total - (hits - left)
  self.older, self.unmoved = table.concat(kept), false
  return true
end

function SlidingWindow:mark()
  local stored = self.budget and self.unmoved
  self.budget = true
  self.unmoved = stored
  return not stored
end

local function leaves(self, number)
  return (number + self.slices + 1) * self.width
end

function SlidingWindow:until_empty(now)
  if self.here == 0 and self.older == '' then return 0 end
  local newest = self.head
  if self.here == 0 then newest = unpack_at('<d', self.older, #self.older - PAIR + 1) end
  return leaves(self, newest) - now
end

function SlidingWindow:until_fits(now, limit, hits)
  if hits > limit then return self.window end
  local excess = self.total + hits - limit
  if excess <= 0 then return 0 end
  for at = 1, #self.older, PAIR do
    local number, count = unpack_at('<dd', self.older, at)
    excess = excess - count
    if excess <= 0 then return leaves(self, number) - now end
  end
  return leaves(self, self.head) - now
end

-- save(key, now us): within a slice only the two counts change, and the expiry set by the head's last move stands
function SlidingWindow:save(key, now)
  if self.unmoved then
    return redis.call('SETRANGE', key, TOTAL_AT, pack('<dd', self.total, self.here))
  end
  local expiry_ms = ceil((self.head * self.width + 2 * self.window + (self.budget and KEEP_BUDGET or 0) - now) / 1000)
  return redis.call('SET', key,
    pack('<BBdddd', VERSION, self.budget and 1 or 0, self.width, self.head, self.total, self.here) .. self.older,
    'PX', string.format('%.0f', expiry_ms))
end
