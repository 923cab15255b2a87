-- Take a batch: lines of charges, each line n times the same request, all or nothing each time. Twin of batch.py, which
-- has the rules. The algorithms stand above this part in the same script; `algorithms` maps their letters to them.
--
-- KEYS      the windows of all charges of all lines, in order; a key may occur more than once
-- ARGV[1]   now in us, or 0 to ask Redis: one clock for every replica (a time is given by tests only)
-- ARGV[2i]  n of line i
-- ARGV[2i+1] its charges, CHARGE bytes each: algorithm (letter), role (0 gate, 1 shadow), then as little-endian doubles
--           limit, window (us), slices, hits
-- returns   integers: now, then for each line granted (-1: a key holds something else; nothing follows) and for each of
--           its charges remaining, until empty (us), until it fits (us; 0 if it fits or was charged)
--
-- Redis does not roll a script back, so every key is read, by pcall, and every line decided before the first write.

local GATE, CHARGE = 0, 34
local floor, max, min = math.floor, math.max, math.min

local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local opened, changed, change_of, reply = {}, {}, {}, {now}

local function note_change(key, window)
  if not change_of[key] then
    change_of[key] = window
    changed[#changed + 1] = key
  end
end

-- the window of a charge as it stands now; false if the key holds something else
local function open(key, charge)
  local window = opened[key]
  if window == nil then
    local stored = redis.pcall('GET', key)
    if type(stored) == 'table' then
      window = false
    else
      window = algorithms[charge.algorithm].open(stored, now, charge.window, charge.slices) or false
    end
    opened[key] = window
    if window and window.must_save then note_change(key, window) end
  end
  return window
end

-- the line's charges, each with its window; nil if a key is bad
local function charges_of(spec, first_key)
  local charges = {}
  local sound = true
  for at = 1, #spec, CHARGE do
    local algorithm, role, limit, length, slices, hits = struct.unpack('<c1Bdddd', spec, at)
    local charge = {algorithm = algorithm, role = role, limit = limit, window = length, slices = slices, hits = hits,
                    key = KEYS[first_key + #charges]}
    charge.state = open(charge.key, charge)
    sound = sound and charge.state
    charges[#charges + 1] = charge
  end
  return charges, sound
end

local function how_many(charges, n)
  for i = 1, #charges do charges[i].state.asked = 0 end
  local granted = n
  for i = 1, #charges do
    local charge = charges[i]
    if charge.role == GATE then
      local window = charge.state
      local room = window:room(charge.limit) - window.asked
      if room < max(charge.hits, 1) then
        granted = 0
      elseif charge.hits > 0 then
        granted = min(granted, floor(room / charge.hits))
      end
      window.asked = window.asked + charge.hits
    end
  end
  return granted
end

local function charge_line(charges, n, granted)
  for i = 1, #charges do charges[i].state.asked = 0 end
  for i = 1, #charges do
    local charge = charges[i]
    local window = charge.state
    local charged = granted > 0
      and (charge.role == GATE or window:room(charge.limit) >= max(charge.hits, 1))
    if charged and charge.hits > 0 then
      window:add(granted * charge.hits)
      note_change(charge.key, window)
    end
    local fits_in = 0
    if granted < n or not charged then
      fits_in = window:until_fits(now, charge.limit, window.asked + max(charge.hits, 1))
      window.asked = window.asked + charge.hits
    end
    local at = #reply
    reply[at + 1] = max(window:room(charge.limit), 0)
    reply[at + 2] = window:until_empty(now)
    reply[at + 3] = fits_in
  end
end

local next_key = 1
for argument = 2, #ARGV, 2 do
  local n = tonumber(ARGV[argument])
  local charges, sound = charges_of(ARGV[argument + 1], next_key)
  next_key = next_key + #charges
  if sound then
    local granted = how_many(charges, n)
    reply[#reply + 1] = granted
    charge_line(charges, n, granted)
  else
    reply[#reply + 1] = -1
  end
end

for i = 1, #changed do change_of[changed[i]]:save(changed[i], now) end
return reply
