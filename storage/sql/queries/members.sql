-- Users who may use a session that is not theirs.

-- name: members
-- The members of a session, in the order of their names. $1 session.
SELECT user_id, role, added_by, added_at FROM session_members WHERE session_id = $1 ORDER BY user_id

-- name: put_member
-- Makes a user a member, or gives him another role; `before` is the role that he had. No row means that the session was deleted, or has
-- as many members as it may. Under the session's lock, so that nobody becomes a member of one that is being deleted.
-- $1 session, $2 user, $3 role, $4 by whom, $5 now, $6 most members.
WITH s AS MATERIALIZED (
       SELECT session_id FROM sessions WHERE session_id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE
     ),
     b AS (SELECT role FROM session_members WHERE session_id = $1 AND user_id = $2),
     p AS (
       INSERT INTO session_members (session_id, user_id, role, added_by, added_at)
       SELECT session_id, $2, $3, $4, $5 FROM s
        WHERE EXISTS (SELECT FROM b) OR (SELECT count(*) FROM session_members WHERE session_id = $1) < $6::bigint
           ON CONFLICT (session_id, user_id) DO UPDATE SET role = EXCLUDED.role
       RETURNING user_id, role, added_by, added_at
     )
SELECT p.*, (SELECT role FROM b) AS before FROM p

-- name: remove_member
-- Takes a member out; no row means that he was none. $1 session, $2 user.
DELETE FROM session_members WHERE session_id = $1 AND user_id = $2 RETURNING user_id

-- name: role_in_session
-- A user's role in a session that was not deleted; no row for those who have none. $1 user, $2 session.
SELECT CASE WHEN s.owner = $1 THEN 'owner' ELSE m.role END AS role
  FROM sessions s LEFT JOIN session_members m ON m.session_id = s.session_id AND m.user_id = $1
 WHERE s.session_id = $2 AND s.deleted_at IS NULL AND (s.owner = $1 OR m.role IS NOT NULL)

-- name: memberships
-- All members of some sessions. $1 sessions.
SELECT session_id, user_id, role FROM session_members WHERE session_id = ANY($1::uuid[])
