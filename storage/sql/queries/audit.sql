-- Who did what.

-- name: audit_of_owner
-- What was noted of an owner's affairs, the latest first. $1 owner, $2 only this type, $3 before this entry, $4 limit.
SELECT audit_id, at, session_id, event_type, user_id, client_id, transport, turn_id, call_id, tool, decision, cause, arguments,
       executed, feedback, rule
  FROM audit
 WHERE owner = $1 AND ($2::text IS NULL OR event_type = $2) AND ($3::bigint IS NULL OR audit_id < $3)
 ORDER BY audit_id DESC
 LIMIT $4

-- name: audit_of_session
-- The same of one of his sessions. $1 owner, $2 only this type, $3 before this entry, $4 limit, $5 session.
SELECT audit_id, at, session_id, event_type, user_id, client_id, transport, turn_id, call_id, tool, decision, cause, arguments,
       executed, feedback, rule
  FROM audit
 WHERE session_id = $5 AND owner = $1 AND ($2::text IS NULL OR event_type = $2) AND ($3::bigint IS NULL OR audit_id < $3)
 ORDER BY audit_id DESC
 LIMIT $4

-- name: add_audit
-- Notes what somebody did. $1 time, $2 owner, $3 session, $4 type, $5 user, $6 transport, $7 rule.
INSERT INTO audit (at, owner, session_id, event_type, user_id, transport, rule) VALUES ($1, $2, $3, $4, $5, $6, $7)
