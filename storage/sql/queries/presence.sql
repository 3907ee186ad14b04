-- Who is on which session, at which process. A row whose process is gone, or that has `left_at`, is nobody who is here.
-- Whether calls are open is asked by a scalar subquery: EXISTS might be answered by reading all open calls there are.
-- Rows are locked in the order of their key, so that processes which change many at once do not wait for each other in circles.

-- name: presence_join
-- Clients are here, at this process; what a client registered shortly before, here or at another process, it has again.
-- Returns for each whether it was here already at some process, whether another user has its name, how many others are here, whether
-- calls of clients are open in its session, and its tools. $1 worker, $2 sessions, $3 clients, $4 users, $5 roles, $6 transports, $7 grace in seconds.
WITH live AS MATERIALIZED (SELECT worker_id FROM workers WHERE lease_until >= clock_timestamp() OR worker_id = $1),
     asked AS MATERIALIZED (
       SELECT * FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[]) AS a (session_id, client_id, user_id, role, transport)
     ),
     known AS MATERIALIZED (
       SELECT asked.session_id, asked.client_id,
              bool_or(p.left_at IS NULL AND p.worker_id IN (SELECT worker_id FROM live)) AS here,
              bool_or(p.user_id <> asked.user_id) AS taken,
              max(p.tools_at) AS tools_at
         FROM asked JOIN presence p USING (session_id, client_id)
        WHERE p.left_at IS NULL OR p.left_at > clock_timestamp() - make_interval(secs => $7)
        GROUP BY asked.session_id, asked.client_id
     ),
     welcome AS (
       INSERT INTO presence (session_id, client_id, worker_id, user_id, role, transport, joined_at, tools_at, tools, names)
       SELECT asked.session_id, asked.client_id, $1, asked.user_id, asked.role, asked.transport, clock_timestamp(),
              kept.tools_at, kept.tools, coalesce(kept.names, '{}')
         FROM asked
         LEFT JOIN known USING (session_id, client_id)
         LEFT JOIN LATERAL (
              SELECT p.tools_at, p.tools, p.names FROM presence p
               WHERE p.session_id = asked.session_id AND p.client_id = asked.client_id AND p.tools_at = known.tools_at
               LIMIT 1) AS kept ON true
        WHERE known.taken IS NOT TRUE
        ORDER BY asked.session_id, asked.client_id
           ON CONFLICT (session_id, client_id, worker_id) DO UPDATE
          SET user_id = EXCLUDED.user_id, role = EXCLUDED.role, transport = EXCLUDED.transport, left_at = NULL,
              joined_at = CASE WHEN presence.left_at IS NULL THEN presence.joined_at ELSE EXCLUDED.joined_at END,
              tools_at = CASE WHEN presence.left_at IS NULL THEN presence.tools_at ELSE EXCLUDED.tools_at END,
              tools = CASE WHEN presence.left_at IS NULL THEN presence.tools ELSE EXCLUDED.tools END,
              names = CASE WHEN presence.left_at IS NULL THEN presence.names ELSE EXCLUDED.names END
       RETURNING session_id, client_id, tools_at, tools, names
     )
SELECT asked.session_id, asked.client_id, asked.role, asked.transport, coalesce(known.here, false) AS here, coalesce(known.taken, false) AS taken,
       (SELECT count(DISTINCT p.client_id) FROM presence p
         WHERE p.session_id = asked.session_id AND p.left_at IS NULL AND p.worker_id IN (SELECT worker_id FROM live)) AS clients,
       (SELECT true FROM tool_calls c
                WHERE c.session_id = asked.session_id AND c.finished_at IS NULL AND c.executor = 'client' LIMIT 1) IS NOT NULL AS awaited,
       welcome.tools_at, welcome.tools, coalesce(welcome.names, '{}') AS names
  FROM asked LEFT JOIN known USING (session_id, client_id) LEFT JOIN welcome USING (session_id, client_id)

-- name: presence_leave
-- The last connections of clients to this process have ended. Returns for each whether it is at no other process, as in `presence_join`.
-- All rows of a client are locked: of two processes that it leaves at the same moment one is the last. $1 worker, $2 sessions, $3 clients.
WITH live AS MATERIALIZED (SELECT worker_id FROM workers WHERE lease_until >= clock_timestamp()),
     rows AS MATERIALIZED (
       SELECT p.*
         FROM unnest($2::uuid[], $3::text[]) AS a (session_id, client_id) JOIN presence p USING (session_id, client_id)
        ORDER BY p.session_id, p.client_id, p.worker_id
          FOR UPDATE OF p
     ),
     gone AS (
       UPDATE presence SET left_at = clock_timestamp()
         FROM rows
        WHERE rows.worker_id = $1 AND rows.left_at IS NULL
          AND presence.session_id = rows.session_id AND presence.client_id = rows.client_id AND presence.worker_id = $1
       RETURNING presence.session_id, presence.client_id, presence.role, presence.transport, presence.names
     )
SELECT gone.session_id, gone.client_id, gone.role, gone.transport, gone.names,
       EXISTS (SELECT FROM rows r
                WHERE r.session_id = gone.session_id AND r.client_id = gone.client_id AND r.worker_id <> $1 AND r.left_at IS NULL
                  AND r.worker_id IN (SELECT worker_id FROM live)) AS here,
       (SELECT count(DISTINCT p.client_id) FROM presence p
         WHERE p.session_id = gone.session_id AND p.left_at IS NULL AND p.worker_id IN (SELECT worker_id FROM live)
           AND (p.session_id, p.client_id) NOT IN (SELECT g.session_id, g.client_id FROM gone g)) AS clients,
       (SELECT true FROM tool_calls c
                WHERE c.session_id = gone.session_id AND c.finished_at IS NULL AND c.executor = 'client' LIMIT 1) IS NOT NULL AS awaited
  FROM gone

-- name: presence_bury
-- Clients whose process is gone have left; the processes in the table are found one by one, as there are few of them. Returns as
-- `presence_leave`. $1 most at a time.
WITH RECURSIVE
     live AS MATERIALIZED (SELECT worker_id FROM workers WHERE lease_until >= clock_timestamp()),
     known AS (
       (SELECT worker_id FROM presence
         WHERE left_at IS NULL AND worker_id >= '00000000-0000-0000-0000-000000000000' ORDER BY worker_id LIMIT 1)
       UNION ALL
       SELECT (SELECT p.worker_id FROM presence p WHERE p.left_at IS NULL AND p.worker_id > known.worker_id ORDER BY p.worker_id LIMIT 1)
         FROM known
        WHERE known.worker_id IS NOT NULL
     ),
     dead AS MATERIALIZED (
       SELECT p.session_id, p.client_id, p.worker_id
         FROM known JOIN presence p USING (worker_id)
        WHERE p.left_at IS NULL AND known.worker_id NOT IN (SELECT worker_id FROM live)
        ORDER BY p.session_id, p.client_id, p.worker_id
        LIMIT $1
          FOR UPDATE OF p SKIP LOCKED
     ),
     gone AS (
       UPDATE presence SET left_at = clock_timestamp()
         FROM dead
        WHERE presence.session_id = dead.session_id AND presence.client_id = dead.client_id AND presence.worker_id = dead.worker_id
          AND presence.left_at IS NULL
       RETURNING presence.session_id, presence.client_id, presence.worker_id, presence.role, presence.transport, presence.names
     )
SELECT DISTINCT ON (gone.session_id, gone.client_id) gone.session_id, gone.client_id, gone.role, gone.transport, gone.names,
       EXISTS (SELECT FROM presence p
                WHERE p.session_id = gone.session_id AND p.client_id = gone.client_id AND p.left_at IS NULL
                  AND p.worker_id IN (SELECT worker_id FROM live)) AS here,
       (SELECT count(DISTINCT p.client_id) FROM presence p
         WHERE p.session_id = gone.session_id AND p.left_at IS NULL AND p.worker_id IN (SELECT worker_id FROM live)) AS clients,
       (SELECT true FROM tool_calls c
                WHERE c.session_id = gone.session_id AND c.finished_at IS NULL AND c.executor = 'client' LIMIT 1) IS NOT NULL AS awaited
  FROM gone

-- name: presence_purge
-- Who left so long ago that it is not coming back. $1 grace in seconds.
DELETE FROM presence WHERE left_at < now() - make_interval(secs => $1)

-- name: presence_mine
-- How many are here at this process, as the table has it, and when the last of them registered tools. $1 worker.
SELECT count(*) AS clients, max(tools_at) AS tools_at FROM presence WHERE worker_id = $1 AND left_at IS NULL

-- name: presence_my_tools
-- Tools of clients at this process that registered them after a moment, which they may have done at another process. $1 worker, $2 moment.
SELECT session_id, client_id, tools_at, tools, names
  FROM presence
 WHERE worker_id = $1 AND left_at IS NULL AND ($2::timestamptz IS NULL OR tools_at > $2)

-- name: presence_register
-- A client offers these tools from now on, at whatever process it is. No row means that it is at none. $1 session, $2 client, $3 user,
-- $4 tools, $5 their names.
UPDATE presence SET tools = $4, names = $5, tools_at = clock_timestamp()
 WHERE session_id = $1 AND client_id = $2 AND user_id = $3 AND left_at IS NULL
   AND worker_id IN (SELECT worker_id FROM workers WHERE lease_until >= clock_timestamp())
RETURNING worker_id, role, transport, tools_at,
          (SELECT count(DISTINCT p.client_id) FROM presence p
            WHERE p.session_id = $1 AND p.left_at IS NULL
              AND p.worker_id IN (SELECT worker_id FROM workers WHERE lease_until >= clock_timestamp())) AS clients

-- name: presence_here
-- Who is on sessions, at which process ever, or was a moment ago (`here` tells): each client once. $1 sessions, $2 grace in seconds.
SELECT DISTINCT ON (p.session_id, p.client_id) p.session_id, p.client_id, p.user_id, p.role, p.transport, p.names,
       p.left_at IS NULL AND p.worker_id IN (SELECT worker_id FROM workers WHERE lease_until >= clock_timestamp()) AS here
  FROM presence p
 WHERE p.session_id = ANY($1::uuid[]) AND (p.left_at IS NULL OR p.left_at > clock_timestamp() - make_interval(secs => $2))
 ORDER BY p.session_id, p.client_id, here DESC, p.tools_at DESC NULLS LAST, p.joined_at

-- name: presence_offers
-- The tools that clients offer on a session, the latest registration first. $1 session.
SELECT client_id, tools_at, tools
  FROM (SELECT DISTINCT ON (p.client_id) p.client_id, p.tools_at, p.tools
          FROM presence p
         WHERE p.session_id = $1 AND p.left_at IS NULL AND p.tools_at IS NOT NULL
           AND p.worker_id IN (SELECT worker_id FROM workers WHERE lease_until >= clock_timestamp())
         ORDER BY p.client_id, p.tools_at DESC) AS each_client
 ORDER BY tools_at DESC
