-- Take a batch: lines of charges, each line n times the same request, all or nothing each time. Twin of batch.py, which
-- has the rules. The algorithms stand above this part in the same script; `algorithms` maps their letters to them.
--
-- KEYS      the windows of all charges of all lines, in order; a key may occur more than once; last the receipt
-- ARGV[1]   one packed string, little endian:
--             now in us (double), or 0 to ask Redis: one clock for every replica (a time is given by tests only);
--             not_after in us (double): later than that nobody waits for the answer, and nothing is charged; 0: never too late;
--             the number of this batch (double), which the receipt keeps if the batch changed anything: whoever lost the answer
--             sees there whether it was taken; 0: there is no receipt, whatever the last key is
--             then for each line n (4 bytes), the number of its charges (1 byte), and its charges, CHARGE bytes each:
--               algorithm (letter), role (0 gate, 1 shadow, 2 quota), kind (0 positive, 1 check, 2 look, 3 refund,
--               4 undo), overdraft (0 never, 1 auto, 2 always), then as doubles limit (of an undo: when was charged what it
--               takes back), window (us), shape, hits
-- returns   one packed string of integers, 8 bytes each, little endian: now (alone if it is past not_after), then for each line
--           granted (-1: a key holds something else, and zeros follow; -2: 1, and overdrawn) and for each of its charges
--           remaining (below 0 where it was overdrawn), until empty (us), until it fits (us; 0 if it fits or was charged)
--
-- Redis does not roll a script back, so every key is read, by pcall, and every line decided before the first write.
-- All of this runs in every call: a function costs some 50 ns where it is made, so what few lines need is made when one does.

local HEAD, CHARGE = 5, 36
local KEEP_RECEIPT = 60000
local GATE, SHADOW, QUOTA = 0, 1, 2
local LOOK, REFUND, UNDO = 2, 3, 4
local AUTO, ALWAYS = 1, 2
local REFERENCE = 'r'
local floor, max, min = math.floor, math.max, math.min
local unpack_at = struct.unpack

local spec = ARGV[1]
local now, not_after, number = unpack_at('<ddd', spec)
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

if not_after > 0 and now > not_after then return struct.pack('<i8', now) end

local opened, changed, reply = {}, {}, {now}

local function note_change(key, window)
  if not window.key then
    window.key = key
    changed[#changed + 1] = window
  end
end

-- the window of a charge as it stands now; false if the key holds something else
local function open(key, algorithm, length, shape)
  if algorithm == REFERENCE then  -- its key has the window's start, and may be that of a charge with another period
    key = algorithms[algorithm].place_of(key, now, length)
    shape = key
    if opened[key] then opened[key]:share(length) end
  end
  local window = opened[key]
  if window == nil then
    local stored = redis.pcall('GET', key)
    window = type(stored) ~= 'table' and algorithms[algorithm].open(stored, now, length, shape) or false
    opened[key] = window
    if window and window.must_save then note_change(key, window) end
  end
  return window
end

-- take_mixed(at, count, first_key, n): a line of any kind
local function make_take_mixed()
  local NOT, FITS, OVERDRAWN = 0, 1, 2
  local BAD_KEY, ONE_OVERDRAWN = -1, -2

  -- the line's charges, each with its window, and whether all keys are sound
  local function charges_of(at, count, first_key)
    local charges, sound = {}, true
    for i = 1, count do
      local algorithm, role, kind, overdraft, limit, length, shape, hits = unpack_at('<c1BBBdddd', spec, at)
      local key = KEYS[first_key + i]
      local window = open(key, algorithm, length, shape)
      sound = sound and window
      charges[i] = {
        key = key, state = window, role = role, kind = kind, overdraft = overdraft, limit = limit, hits = hits,
        need = hits > 0 and hits or (window and window.CHECK_NEEDS),
        -- whether it fits whatever the window holds
        always = kind >= REFUND or (hits > 0 and overdraft == ALWAYS),
      }
      at = at + CHARGE
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
      if charge.kind >= REFUND then
        if charge.kind == REFUND then
          window.asked = window.asked - min(charge.hits, window.total + window.asked)
        end
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
    if charge.kind >= REFUND then
      return window:give_back(charge.hits, charge.kind == UNDO and charge.limit or nil)
    end
    if charge.kind == LOOK then return false end
    if charge.hits > 0 then
      window:add(granted * charge.hits)
      return true
    end
    return charge.overdraft == AUTO and window:mark()
  end

  return function(at, count, first_key, n)
    local charges, sound = charges_of(at, count, first_key)
    local place = #reply + 1
    if not sound then
      for i = place, place + 3 * count do reply[i] = 0 end
      reply[place] = BAD_KEY
      return
    end
    local granted, overdrawn = how_many(charges, n), false
    reply[place] = granted
    for i = 1, count do charges[i].state.asked = 0 end
    for i = 1, count do
      local charge = charges[i]
      local window = charge.state
      local charged = granted > 0 and charge.fit ~= NOT
      if charged and apply(charge, granted) then note_change(charge.key, window) end
      local fits_in = 0
      if not charge.always and (not charged or granted < n or charge.fit == OVERDRAWN) then
        fits_in = window:until_fits(now, charge.limit, window.asked + charge.need)
      end
      if charged and charge.fit == OVERDRAWN and charge.role ~= SHADOW then overdrawn = true end
      local counted = charged and granted == n and charge.kind ~= LOOK
      if charge.kind < REFUND and not counted then window.asked = window.asked + charge.hits end
      local last = #reply
      local room = window:room(charge.limit)
      reply[last + 1] = charged and charge.fit == OVERDRAWN and room or max(room, 0)
      reply[last + 2] = window:until_empty(now)
      reply[last + 3] = fits_in
    end
    if overdrawn then reply[place] = ONE_OVERDRAWN end
  end
end

-- of the line that is looked at, while it is plain: one of each for each of its charges
local windows, limits, asks, rooms = {}, {}, {}, {}

local function plain(at, count, first_key)
  for i = 1, count do
    local algorithm, role, kind, overdraft, limit, length, shape, hits = unpack_at('<c1BBBdddd', spec, at)
    if role ~= GATE or kind >= LOOK or hits == 0 or overdraft == ALWAYS then return false end
    local window = open(KEYS[first_key + i], algorithm, length, shape)
    if not window or (overdraft == AUTO and hits > 1 and window.budget) or window.line == first_key then return false end
    window.line = first_key
    windows[i], limits[i], asks[i], rooms[i] = window, limit, hits, window:room(limit)
    at = at + CHARGE
  end
  return true
end

local function take_plain(count, first_key, n)
  local granted = n
  for i = 1, count do
    if rooms[i] < granted * asks[i] then granted = max(floor(rooms[i] / asks[i]), 0) end
  end
  local last = #reply + 1
  reply[last] = granted
  for i = 1, count do
    local window, hits = windows[i], asks[i]
    if granted > 0 then
      window:add(granted * hits)
      note_change(KEYS[first_key + i], window)
    end
    reply[last + 1] = max(rooms[i] - granted * hits, 0)
    reply[last + 2] = window:until_empty(now)
    reply[last + 3] = granted < n and window:until_fits(now, limits[i], hits) or 0
    last = last + 3
  end
end

local at, first_key, take_mixed = 25, 0, nil
while at < #spec do
  local n, count = unpack_at('<IB', spec, at)
  at = at + HEAD
  if plain(at, count, first_key) then
    take_plain(count, first_key, n)
  else
    take_mixed = take_mixed or make_take_mixed()
    take_mixed(at, count, first_key, n)
  end
  at, first_key = at + count * CHARGE, first_key + count
end

for i = 1, #changed do changed[i]:save(changed[i].key, now) end
if #changed > 0 and number > 0 then redis.call('SET', KEYS[#KEYS], string.format('%.0f', number), 'PX', KEEP_RECEIPT) end
return struct.pack('<' .. string.rep('i8', #reply), unpack(reply))
