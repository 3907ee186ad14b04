-- One-time tickets, and logins.

-- name: issue_ticket
-- Keeps a new ticket, and forgets some that have expired. No row means that its user has as many open ones as he may.
-- $1 digest, $2 user, $3 scope, $4 session or none, $5 origin or none, $6 expires, $7 when what it opens ends or none, $8 now,
-- $9 most of a user, $10 most that are forgotten at once.
WITH old AS (
       DELETE FROM tickets WHERE digest = ANY(ARRAY(
         SELECT digest FROM tickets WHERE expires_at <= $8 ORDER BY expires_at LIMIT $10 FOR UPDATE SKIP LOCKED))
     )
INSERT INTO tickets (digest, user_id, scope, session_id, origin, expires_at, until)
SELECT $1, $2, $3, $4, $5, $6, $7
 WHERE (SELECT count(*) FROM (SELECT FROM tickets WHERE user_id = $2 AND expires_at > $8 LIMIT $9) AS open) < $9::bigint
RETURNING expires_at

-- name: redeem_ticket
-- Uses a ticket up, whatever becomes of it then. $1 digest, $2 now.
DELETE FROM tickets WHERE digest = $1
RETURNING user_id, scope, session_id, origin, until, expires_at > $2 AS valid

-- name: keep_login
-- Keeps a new login, forgets some that have expired, and the oldest of the user beyond the most that he may have.
-- $1 digest, $2 user, $3 scope, $4 credential or none, $5 expires, $6 now, $7 most of a user beside this one, $8 most that are forgotten
-- at once.
WITH old AS (
       DELETE FROM logins WHERE digest = ANY(ARRAY(
         SELECT digest FROM logins WHERE expires_at <= $6 ORDER BY expires_at LIMIT $8 FOR UPDATE SKIP LOCKED))
     ),
     beyond AS (
       DELETE FROM logins WHERE digest = ANY(ARRAY(
         SELECT digest FROM logins WHERE user_id = $2 AND expires_at > $6 ORDER BY expires_at DESC OFFSET $7
            FOR UPDATE SKIP LOCKED))
     )
INSERT INTO logins (digest, user_id, scope, credential, expires_at) VALUES ($1, $2, $3, $4, $5)
RETURNING expires_at

-- name: login
-- What a cookie stands for, while it is good. $1 digest, $2 now.
SELECT user_id, scope, credential, expires_at FROM logins WHERE digest = $1 AND expires_at > $2

-- name: forget_login
-- Ends a login. $1 digest.
DELETE FROM logins WHERE digest = $1 RETURNING user_id
