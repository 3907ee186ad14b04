-- Processes that talk to each other.

-- name: notify
-- Say things to whoever listens, in this order. $1 channels, $2 payloads.
SELECT pg_notify(said.channel, said.payload)
  FROM (SELECT channel, payload FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS n (channel, payload, place) ORDER BY place) AS said

-- name: other_workers
-- The live workers beside this one: while there is none, nobody needs to be told anything. $1 worker.
SELECT worker_id FROM workers WHERE lease_until >= clock_timestamp() AND worker_id <> $1
