-- The fixed window as the reference implementation keeps it. Twin of reference_window.py, which says why and what for.
--
-- Stored: the number of hits in decimal, under the key that `place_of` gives; it need not be one of KEYS, so not in a Cluster.
-- Expiry: W after the end. It frees memory and decides nothing.

local ReferenceWindow = {}
ReferenceWindow.__index = ReferenceWindow
ReferenceWindow.CHECK_NEEDS = 0
ReferenceWindow.budget = true

local MOST = 9007199254740991
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min

-- place_of(key, now us, window us) -> the key of the window that now is in
function ReferenceWindow.place_of(key, now, window)
  return string.match(key, '^.*_') .. string.format('%.0f', floor(now / window) * window / 1000000)
end

-- open(stored, now us, window us, place) -> the window as it stands now; nil if stored is no whole number
function ReferenceWindow.open(stored, now, window, place)
  local total = 0
  if stored then
    if #stored > 20 or not string.find(stored, '^-?%d+$') then return nil end
    total = max(min(tonumber(stored), MOST), 0)
  end
  return setmetatable({place = place, window = window, starts = floor(now / window) * window, total = total},
                      ReferenceWindow)
end

function ReferenceWindow:share(window)
  self.window = max(self.window, window)
end

function ReferenceWindow:room(limit)
  return limit - self.total
end

function ReferenceWindow:add(hits)
  self.total = min(self.total + hits, MOST)
end

function ReferenceWindow:give_back(hits, charged_at)
  if charged_at and floor(charged_at / self.window) * self.window ~= self.starts then return false end
  local left = min(hits, self.total)
  self.total = self.total - left
  return left > 0
end

function ReferenceWindow:mark()
  return false
end

function ReferenceWindow:until_empty(now)
  return self.starts + self.window - now
end

function ReferenceWindow:until_fits(now, limit, hits)
  if self.total + hits <= limit then return 0 end
  return self.starts + self.window - now
end

-- save(key, now us): its place is not the charge's key
function ReferenceWindow:save(_, now)
  local expiry_ms = ceil((self.starts + 2 * self.window - now) / 1000)
  return redis.call('SET', self.place, string.format('%.0f', self.total), 'PX', string.format('%.0f', expiry_ms))
end
