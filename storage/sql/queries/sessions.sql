-- Sessions and their aliases.

-- name: create_session
-- A session and, when given, its alias; no row when the owner has as many as he may. They are counted as they were when this began:
-- some that are made at the same time may be too many. $1 id, $2 owner, $3 epoch, $4 agent, $5 title, $6 now, $7 alias, $8 project,
-- $9 agent whose thread it is, $10 most.
WITH s AS (
       INSERT INTO sessions (session_id, owner, epoch, current_agent, title, created_at, last_activity, project_id, thread_agent)
       SELECT $1::uuid, $2, $3, $4, $5, $6::timestamptz, $6, $8::uuid, $9
        WHERE $10::bigint IS NULL
           OR (SELECT count(*) FROM (SELECT FROM sessions WHERE owner = $2 AND deleted_at IS NULL LIMIT $10) AS mine) < $10
       RETURNING *
     ),
     a AS (
       INSERT INTO session_aliases (owner, alias, session_id)
       SELECT $2, $7, session_id FROM s WHERE $7::text IS NOT NULL
       RETURNING alias
     )
SELECT s.*, a.alias FROM s LEFT JOIN a ON true

-- name: session_by_id
-- One session of an owner, or of which the user is a member until it is deleted; the alias is its owner's affair. $1 user, $2 id.
SELECT s.*, CASE WHEN s.owner = $1 THEN 'owner' ELSE m.role END AS session_role,
       (SELECT min(a.alias) FROM session_aliases a WHERE a.session_id = s.session_id AND s.owner = $1) AS alias
  FROM sessions s LEFT JOIN session_members m ON m.session_id = s.session_id AND m.user_id = $1
 WHERE s.session_id = $2 AND (s.owner = $1 OR m.role IS NOT NULL)

-- name: session_by_alias
-- One session of an owner. $1 owner, $2 alias.
SELECT s.*, a.alias
  FROM session_aliases a JOIN sessions s USING (session_id)
 WHERE a.owner = $1 AND a.alias = $2

-- name: list_sessions
-- An owner's sessions, the latest activity first, with how many there are in all. $1 owner, $2 limit, $3 offset, $4 only those not deleted,
-- $5 only those of this project. The alias and the count stand outside of the page, so that they are not asked for each session of the owner.
SELECT page.*, (SELECT min(a.alias) FROM session_aliases a WHERE a.session_id = page.session_id) AS alias,
       (SELECT count(*) FROM sessions
         WHERE owner = $1 AND (NOT $4 OR deleted_at IS NULL) AND ($5::uuid IS NULL OR project_id = $5)) AS total
  FROM (SELECT * FROM sessions
         WHERE owner = $1 AND (NOT $4 OR deleted_at IS NULL) AND ($5::uuid IS NULL OR project_id = $5)
         ORDER BY last_activity DESC, session_id DESC
         LIMIT $2 OFFSET $3) AS page
 ORDER BY page.last_activity DESC, page.session_id DESC

-- name: count_sessions
-- How many sessions an owner has: asked when the page is empty. $1 owner, $2 only those not deleted,
-- $3 only those of this project.
SELECT count(*) FROM sessions WHERE owner = $1 AND (NOT $2 OR deleted_at IS NULL) AND ($3::uuid IS NULL OR project_id = $3)

-- name: shared_sessions
-- Sessions of others of which a user is a member, the latest activity first, with how many there are in all. One row at least, as the
-- total is that of an empty page too. $1 user, $2 limit, $3 offset.
WITH mine AS MATERIALIZED (
       SELECT s.session_id, s.last_activity, m.role AS session_role
         FROM session_members m JOIN sessions s USING (session_id)
        WHERE m.user_id = $1 AND s.deleted_at IS NULL
     ),
     page AS (SELECT * FROM mine ORDER BY last_activity DESC, session_id DESC LIMIT $2 OFFSET $3)
SELECT s.*, NULL::text AS alias, page.session_role, totals.total
  FROM (SELECT count(*) AS total FROM mine) AS totals
  LEFT JOIN page ON true
  LEFT JOIN sessions s ON s.session_id = page.session_id
 ORDER BY page.last_activity DESC, page.session_id DESC

-- name: search_sessions
-- A page of an owner's sessions in which a text is found, the latest activity first: in the title, the aliases, the start of the id, or
-- in messages. Those are read newest session first, newest message first, up to a count and a size; `complete` says whether that was
-- all. Each session comes with the alias that was found, else any, and with where the text was found: in its newest such message, cut out
-- around it. $1 owner, $2 limit, $3 offset, $4 only those not deleted, $5 LIKE pattern of the text, $6 LIKE pattern of an id, $7 the text,
-- $8 most messages, $9 most bytes, $10 only those of this project.
WITH mine AS MATERIALIZED (
       SELECT session_id, last_activity,
              sum(message_count) OVER (ORDER BY last_activity DESC, session_id DESC) - message_count AS earlier,
              CASE WHEN title ILIKE $5 THEN 'title' WHEN session_id::text LIKE $6 THEN 'id' END AS field
         FROM sessions
        WHERE owner = $1 AND (NOT $4 OR deleted_at IS NULL) AND ($10::uuid IS NULL OR project_id = $10)
     ),
     named AS MATERIALIZED (
       SELECT session_id, min(alias) AS alias FROM session_aliases WHERE owner = $1 AND alias ILIKE $5 GROUP BY session_id
     ),
     sized AS MATERIALIZED (
       SELECT mine.session_id, m.seq, m.bytes,
              count(*) OVER w - 1 AS earlier, sum(m.bytes) OVER w - m.bytes AS earlier_bytes
         FROM mine CROSS JOIN LATERAL (
                SELECT seq, octet_length(content) AS bytes FROM messages
                 WHERE messages.session_id = mine.session_id
                 ORDER BY seq DESC LIMIT $8 + 1) AS m
        WHERE mine.earlier <= $8
       WINDOW w AS (ORDER BY mine.last_activity DESC, mine.session_id DESC, m.seq DESC)
     ),
     said AS MATERIALIZED (
       SELECT reach.session_id, m.seq
         FROM (SELECT session_id, min(seq) AS first FROM sized
                WHERE earlier < $8 AND earlier_bytes < $9::bigint GROUP BY session_id) AS reach
        CROSS JOIN LATERAL (
                SELECT seq FROM messages
                 WHERE messages.session_id = reach.session_id AND messages.seq >= reach.first AND messages.content ILIKE $5
                 ORDER BY seq DESC LIMIT 1) AS m
     ),
     found AS MATERIALIZED (
       SELECT mine.session_id, mine.last_activity, named.alias, said.seq,
              coalesce(mine.field, CASE WHEN named.alias IS NOT NULL THEN 'alias' ELSE 'message' END) AS field
         FROM mine LEFT JOIN named USING (session_id) LEFT JOIN said USING (session_id)
        WHERE mine.field IS NOT NULL OR named.alias IS NOT NULL OR said.seq IS NOT NULL
     ),
     page AS (SELECT * FROM found ORDER BY last_activity DESC, session_id DESC LIMIT $2 OFFSET $3)
SELECT s.*, coalesce(page.alias, (SELECT min(a.alias) FROM session_aliases a WHERE a.session_id = s.session_id)) AS alias,
       page.field, m.message_id, m.role, substr(m.content, cut.start, 200) AS excerpt,
       cut.start > 1 AS cut_before, char_length(m.content) >= cut.start + 200 AS cut_after, totals.total, totals.complete
  FROM (SELECT (SELECT count(*) FROM found) AS total,
               coalesce((SELECT max(earlier) FROM mine) <= $8, true)
               AND NOT EXISTS (SELECT FROM sized WHERE earlier >= $8 OR earlier_bytes >= $9) AS complete) AS totals
  LEFT JOIN page ON true
  LEFT JOIN sessions s ON s.session_id = page.session_id
  LEFT JOIN messages m ON m.session_id = page.session_id AND m.seq = page.seq
  LEFT JOIN LATERAL (SELECT greatest(1, strpos(lower(m.content), lower($7)) - 40) AS start) AS cut ON true
 ORDER BY page.last_activity DESC, page.session_id DESC

-- name: update_session
-- Another title or description, where given, with the event that says so; an empty description takes it away. $1 session, $2 owner,
-- $3 title, $4 description, $5 now, $6 type of the event, $7 its body.
WITH s AS (
       UPDATE sessions SET title = coalesce($3, title), description = nullif(coalesce($4, description), ''), seq = seq + 1
        WHERE session_id = $1 AND owner = $2 AND deleted_at IS NULL
       RETURNING *
     ),
     e AS (
       INSERT INTO events (session_id, seq, event_type, created_at, body)
       SELECT session_id, seq, $6, $5::timestamptz, $7::bytea FROM s
     )
SELECT s.*, (SELECT min(a.alias) FROM session_aliases a WHERE a.session_id = s.session_id) AS alias FROM s

-- name: delete_session
-- Leaves a session's tombstone, and notes that its owner wanted so: nothing is written to it any more. No row means that it was one
-- before. $1 owner, $2 id, $3 now.
WITH s AS (
       UPDATE sessions
          SET deleted_at = $3, active_turn = NULL, queued = 0, title = NULL, description = NULL
        WHERE owner = $1 AND session_id = $2 AND deleted_at IS NULL
       RETURNING session_id
     ),
     noted AS (
       INSERT INTO audit (at, owner, session_id, event_type, user_id) SELECT $3, $1, session_id, 'session_deleted', $1 FROM s
     )
SELECT session_id FROM s

-- name: empty_session
-- Removes all that a deleted session held, but what it cost and who decided what; a turn that still runs finds its step gone. In the
-- tombstone's transaction, but a statement of its own: one snapshot for both would miss what was committed while the first waited for
-- the session. $1 id.
WITH s AS MATERIALIZED (SELECT session_id FROM sessions WHERE session_id = $1 AND deleted_at IS NOT NULL),
     d1 AS (DELETE FROM events USING s WHERE events.session_id = s.session_id),
     d2 AS (DELETE FROM messages USING s WHERE messages.session_id = s.session_id),
     d3 AS (DELETE FROM commands USING s WHERE commands.session_id = s.session_id),
     d4 AS (DELETE FROM queue USING s WHERE queue.session_id = s.session_id),
     d5 AS (DELETE FROM tool_calls USING s WHERE tool_calls.session_id = s.session_id),
     d6 AS (
       DELETE FROM turns USING s
        WHERE turns.session_id = s.session_id
          AND turns.turn_id IN (SELECT messages.turn_id FROM messages JOIN s USING (session_id) WHERE messages.role = 'user')
     ),
     d7 AS (DELETE FROM command_numbers USING s WHERE command_numbers.session_id = s.session_id),
     d8 AS (DELETE FROM session_members USING s WHERE session_members.session_id = s.session_id),
     d9 AS (DELETE FROM approvals USING s WHERE approvals.session_id = s.session_id),
     d10 AS (DELETE FROM approval_rules USING s WHERE approval_rules.session_id = s.session_id),
     d11 AS (DELETE FROM agent_switches USING s WHERE agent_switches.session_id = s.session_id),
     d12 AS (DELETE FROM presence USING s WHERE presence.session_id = s.session_id)
SELECT session_id FROM s

-- name: session_heads
-- The number of the last event of each session that was not deleted. $1 sessions.
SELECT session_id, seq FROM sessions WHERE session_id = ANY($1::uuid[]) AND deleted_at IS NULL
