-- Take a batch: lines of charges, each line n times the same request, all or nothing each time. Twin of batch.py, which
-- has the rules. The algorithms stand above this part in the same script; `algorithms` maps their letters to them.
--
-- KEYS      the windows of all charges of all lines, in order; a key may occur more than once
-- ARGV[1]   now in us, or 0 to ask Redis: one clock for every replica (a time is given by tests only)
-- ARGV[2i]  n of line i
-- ARGV[2i+1] its charges, CHARGE bytes each: algorithm (letter), role (0 gate, 1 shadow, 2 quota), kind (0 positive,
--           1 check, 2 refund), overdraft (0 never, 1 auto, 2 always), then as little-endian doubles limit, window (us),
--           shape, hits
-- returns   integers: now, then for each line granted (-1: a key holds something else; nothing follows; -2: 1, and
--           overdrawn) and for each of its charges remaining, until empty (us), until it fits (us; 0 if it fits or was
--           charged)
--
-- Redis does not roll a script back, so every key is read, by pcall, and every line decided before the first write.

local CHARGE = 36
local GATE, SHADOW, QUOTA = 0, 1, 2
local REFUND = 2
local AUTO, ALWAYS = 1, 2
local NOT, FITS, OVERDRAWN = 0, 1, 2
local BAD_KEY, ONE_OVERDRAWN = -1, -2
local floor, max, min = math.floor, math.max, math.min
local unpack_at = struct.unpack

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
local function open(key, algorithm, length, shape)
  local window = opened[key]
  if window == nil then
    local stored = redis.pcall('GET', key)
    if type(stored) == 'table' then
      window = false
    else
      window = algorithms[algorithm].open(stored, now, length, shape) or false
    end
    opened[key] = window
    if window and window.must_save then note_change(key, window) end
  end
  return window
end

-- the line's charges, each with its window, and whether all keys are sound
local function charges_of(spec, first_key)
  local charges = {}
  local sound = true
  for at = 1, #spec, CHARGE do
    local algorithm, role, kind, overdraft, limit, length, shape, hits = unpack_at('<c1BBBdddd', spec, at)
    local key = KEYS[first_key + #charges]
    local window = open(key, algorithm, length, shape)
    sound = sound and window
    charges[#charges + 1] = {
      key = key, state = window, role = role, kind = kind, overdraft = overdraft, limit = limit, hits = hits,
      need = hits > 0 and hits or (window and window.CHECK_NEEDS),
      -- whether it fits whatever the window holds
      always = kind == REFUND or (hits > 0 and overdraft == ALWAYS),
    }
  end
  return charges, sound
end

local function fit(charge, room)
  if charge.always or room >= charge.need then return FITS end
  if charge.hits > 0 and charge.overdraft == AUTO and charge.state.budget
     and max(room, charge.state:room(charge.limit)) > 0 then
    return OVERDRAWN
  end
  return NOT
end

local function how_many(charges, n)
  for i = 1, #charges do charges[i].state.asked = 0 end
  local granted = n
  local quotas, quotas_that_fit = 0, 0
  for i = 1, #charges do
    local charge = charges[i]
    local window = charge.state
    if charge.kind == REFUND then
      window.asked = window.asked - min(charge.hits, window.total + window.asked)
      charge.fit = FITS
    else
      local room = window:room(charge.limit) - window.asked
      charge.fit = fit(charge, room)
      if charge.fit ~= NOT then window.asked = window.asked + charge.hits end
      if charge.fit == FITS and charge.hits > 0 and n > 1 then granted = min(granted, floor(room / charge.hits)) end
      if charge.role == QUOTA then
        quotas = quotas + 1
        if charge.fit ~= NOT then quotas_that_fit = quotas_that_fit + 1 end
      elseif charge.role == GATE and charge.fit == NOT then
        granted = 0
      end
    end
  end
  if quotas > 0 and quotas_that_fit == 0 then granted = 0 end
  return granted
end

-- charge what was granted; true if the window has to be stored
local function apply(charge, granted)
  local window = charge.state
  if charge.kind == REFUND then
    return window:give_back(charge.hits)
  end
  if charge.hits > 0 then
    window:add(granted * charge.hits)
    return true
  end
  return charge.overdraft == AUTO and window:mark()
end

local function take(charges, n)
  local granted, overdrawn = how_many(charges, n), false
  local place = #reply + 1
  reply[place] = granted
  for i = 1, #charges do charges[i].state.asked = 0 end
  for i = 1, #charges do
    local charge = charges[i]
    local window = charge.state
    local charged = granted > 0 and charge.fit ~= NOT
    if charged and apply(charge, granted) then note_change(charge.key, window) end
    local fits_in = 0
    if not charge.always and (not charged or granted < n or charge.fit == OVERDRAWN) then
      fits_in = window:until_fits(now, charge.limit, window.asked + charge.need)
    end
    if charged and charge.fit == OVERDRAWN and charge.role ~= SHADOW then overdrawn = true end
    if charge.kind ~= REFUND and not (charged and granted == n) then window.asked = window.asked + charge.hits end
    local at = #reply
    reply[at + 1] = max(window:room(charge.limit), 0)
    reply[at + 2] = window:until_empty(now)
    reply[at + 3] = fits_in
  end
  if overdrawn then reply[place] = ONE_OVERDRAWN end
end

local next_key = 1
for argument = 2, #ARGV, 2 do
  local n = tonumber(ARGV[argument])
  local charges, sound = charges_of(ARGV[argument + 1], next_key)
  next_key = next_key + #charges
  if sound then
    take(charges, n)
  else
    reply[#reply + 1] = BAD_KEY
  end
end

for i = 1, #changed do change_of[changed[i]]:save(changed[i], now) end
return reply
