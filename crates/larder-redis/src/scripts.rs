//! The Lua scripts, and how a script is named to the server.
//!
//! Each one is a single atomic step on the server and is called by its hash (`EVALSHA`); the sources are loaded when a
//! connection is made, and sent along when the server has forgotten them (`client.rs`). Scripts take each other's view
//! of what lies under a name from one function, `kind`, which reads 21 bytes and never a body.
//!
//! All but [`MARKS`], [`INVALIDATE`] and [`REMOVE_MANY`] touch one key. What those three are told lies in one slot: the
//! sequence and the tags of a namespace always do (`layout.rs`), and removals are split by slot.

use std::sync::LazyLock;

/// A script and its hash.
pub(crate) struct Script {
    pub(crate) source: String,
    pub(crate) hash: String,
}

impl Script {
    fn new(body: &str) -> Self {
        let source = format!("{PRELUDE}{body}");
        let hash = redis::Script::new(&source).get_hash().to_owned();
        Script { source, hash }
    }
}

/// Every script there is.
pub(crate) fn all() -> [&'static Script; 8] {
    [&PUT, &REPLACE, &REMOVE_MANY, &TOUCH, &ADD, &REMAINING, &MARKS, &INVALIDATE]
        .map(|script| &**script)
}

// What lies under a name: an `entry`, a `counter`, a `fill` or `pass` marker, or nil for nothing, something foreign or
// another type.
const PRELUDE: &str = r"
local function kind(key)
  local start = redis.pcall('GETRANGE', key, 0, 20)
  if type(start) ~= 'string' or start == '' then return nil end
  if string.sub(start, 1, 5) == 'LRDR\1' then
    return ({'entry', 'fill', 'pass'})[string.byte(start, 6)]
  end
  if start == '0' then return 'counter' end
  local sign, digits = string.match(start, '^(%-?)([1-9]%d*)$')
  if not digits or #digits > 19 then return nil end
  local limit = sign == '' and '9223372036854775807' or '9223372036854775808'
  if #digits == 19 and digits > limit then return nil end
  return 'counter'
end
local function store(key, value, px)
  if px == '' then redis.call('SET', key, value)
  elseif px == '0' then redis.call('UNLINK', key)
  else redis.call('SET', key, value, 'PX', px) end
end
";

/// Stores a value (or removes: lifetime `0`) if a condition holds.
///
/// Name; condition, what to compare with, value, lifetime. 1 when it did. A refused `absent` answers with the start of
/// what is there, at most [`EVIDENCE`] bytes, so that damaged bytes are not taken for an entry.
pub(crate) static PUT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local key, condition = KEYS[1], ARGV[1]
local there = kind(key)
local entry = there == 'entry' or there == 'counter'
local holds = false
if condition == 'absent' then
  if entry then return redis.call('GETRANGE', key, 0, 4095) end
  holds = true
elseif condition == 'present' then
  holds = entry
elseif condition == 'revision' then
  if there == 'entry' then holds = redis.call('GETRANGE', key, 48, 63) == ARGV[2] end
elseif condition == 'marker' then
  holds = (there == 'fill' or there == 'pass') and redis.call('GETRANGE', key, 0, 23) == ARGV[2]
end
if not holds then return 0 end
store(key, ARGV[3], ARGV[4])
return 1
",
    )
});

/// How much of what is there a refused `absent` shows.
pub(crate) const EVIDENCE: usize = 4096;

/// Stores a value in place of bytes that are no record of ours, if they are still the same: name; their start, value,
/// lifetime. 1 when it did. An empty start stands for another type.
pub(crate) static REPLACE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local start = redis.pcall('GETRANGE', KEYS[1], 0, 4095)
if type(start) ~= 'string' then start = '' end
if start ~= ARGV[1] then return 0 end
store(KEYS[1], ARGV[2], ARGV[3])
return 1
",
    )
});

/// Removes names; how many of them were entries.
pub(crate) static REMOVE_MANY: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local count = 0
for _, key in ipairs(KEYS) do
  local there = kind(key)
  if there == 'entry' or there == 'counter' then count = count + 1 end
  redis.call('UNLINK', key)
end
return count
",
    )
});

/// Gives an entry other times: name; the block of times, lifetime. 1 when there was one.
pub(crate) static TOUCH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local key, px = KEYS[1], ARGV[2]
local there = kind(key)
if there ~= 'entry' and there ~= 'counter' then return 0 end
if px == '0' then
  redis.call('UNLINK', key)
  return 1
end
if there == 'entry' then redis.call('SETRANGE', key, 8, ARGV[1]) end
if px == '' then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, px) end
return 1
",
    )
});

/// Adds to a counter: name; delta, how an absent one starts (its first value, `overflow`, or nothing), its lifetime.
///
/// The new value as text (a number would pass through a float), nil when there is none, -1 when it is no counter or the
/// sum does not fit.
pub(crate) static ADD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local key = KEYS[1]
local there = kind(key)
if there == 'entry' then return -1 end
if there == 'counter' then
  local sum = redis.pcall('INCRBY', key, ARGV[1])
  if type(sum) == 'table' then
    if string.find(sum.err, 'overflow', 1, true) then return -1 end
    return sum
  end
  return redis.call('GET', key)
end
if ARGV[2] == '' then return false end
if ARGV[2] == 'overflow' then return -1 end
store(key, ARGV[2], ARGV[3])
return ARGV[2]
",
    )
});

/// An entry's remaining milliseconds: -2 when there is none, -1 when it has no end.
pub(crate) static REMAINING: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local there = kind(KEYS[1])
if there ~= 'entry' and there ~= 'counter' then return -2 end
return redis.call('PTTL', KEYS[1])
",
    )
});

// The namespace's sequence as it stands; made anew when it is lost or not one. All numbers have 19 digits, so they
// compare as text; the first nine are the epoch.
const SEQUENCE: &str = r"
local life = ARGV[2]
local function keep(key)
  if life == '' then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, life) end
end
local function number(key)
  local text = redis.pcall('GET', key)
  if type(text) == 'string' and #text == 19 and string.find(text, '^[1-9]%d+$') then return text end
  return nil
end
local function sequence(key)
  local now = number(key)
  if now then
    keep(key)
    return now
  end
  store(key, ARGV[1], life)
  return ARGV[1]
end
";

/// The sequence and the marks of tags, missing ones made: names of sequence and tags; the first number of a new epoch,
/// the lifetime of the records. All of them as text.
pub(crate) static MARKS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        r"{SEQUENCE}
local now = sequence(KEYS[1])
local found = {{now}}
for i = 2, #KEYS do
  local mark = number(KEYS[i])
  if mark and string.sub(mark, 1, 9) == string.sub(now, 1, 9) then
    keep(KEYS[i])
  else
    mark = now
    store(KEYS[i], mark, life)
  end
  found[i] = mark
end
return found
"
    ))
});

/// Takes the sequence's next number and records it for tags where theirs is smaller or of another epoch. Arguments as
/// [`MARKS`]; the number as text.
pub(crate) static INVALIDATE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        r"{SEQUENCE}
sequence(KEYS[1])
redis.call('INCR', KEYS[1])
local next = redis.call('GET', KEYS[1])
for i = 2, #KEYS do
  local mark = number(KEYS[i])
  if mark and string.sub(mark, 1, 9) == string.sub(next, 1, 9) and mark > next then
    keep(KEYS[i])
  else
    store(KEYS[i], next, life)
  end
end
return next
"
    ))
});
