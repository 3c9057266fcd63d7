-- The same text for every kind of pgtend.dev; why it answers as it does is told in the README two folders up.
-- Conformant to kstatus: reads Ready, Stalled and Complete alone, and nothing of an older generation.
local status = obj.status
if status == nil or status.conditions == nil then
  return {status = "Progressing", message = "Waiting for the operator's first look"}
end

local generation = obj.metadata.generation
local function stale(seen)
  return generation ~= nil and seen ~= nil and seen ~= generation
end
if stale(status.observedGeneration) then
  return {status = "Progressing", message = "The operator has not seen the last change of the spec yet"}
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  if not stale(condition.observedGeneration) then
    conditions[condition.type] = condition
  end
end
local ready, stalled, complete = conditions.Ready, conditions.Stalled, conditions.Complete

local function says(condition)
  if condition.message ~= nil and condition.message ~= "" then
    return condition.reason .. ": " .. condition.message
  end
  return condition.reason
end

if stalled ~= nil and stalled.status == "True" then
  if ready ~= nil and ready.status ~= "True" and ready.message ~= stalled.message then
    return {status = "Degraded", message = says(ready) .. ": " .. (stalled.message or stalled.reason)}
  end
  return {status = "Degraded", message = says(stalled)}
end
if ready == nil then
  return {status = "Progressing", message = "Waiting for the operator to judge the spec"}
end
if ready.status == "True" then
  if ready.reason == "Suspended" then
    return {status = "Suspended", message = says(ready)}
  end
  return {status = "Healthy", message = says(ready)}
end
if complete ~= nil and complete.status ~= "True" then
  return {status = "Progressing", message = says(complete)}
end
if ready.status == "False" then
  return {status = "Degraded", message = says(ready)}
end
return {status = "Progressing", message = says(ready)}
