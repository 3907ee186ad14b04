-- What people are asked to decide, and the rules that they made of their decisions.

-- name: open_approvals
-- The approvals of a session that nobody has decided, the oldest first. $1 session.
{approvals_with_call}
 WHERE a.session_id = $1 AND a.state = 'pending'
 ORDER BY a.approval_id

-- name: open_approvals_of_owner
-- A page of those of all sessions of an owner, the oldest first. $1 owner, $2 most, $3 after this one.
{approvals_with_call}
 WHERE a.owner = $1 AND a.state = 'pending' AND ($3::uuid IS NULL OR a.approval_id > $3)
 ORDER BY a.approval_id
 LIMIT $2

-- name: find_approval
-- One approval, decided or not, with what was asked for and what will have run. $1 approval.
SELECT a.approval_id, a.session_id, a.owner, a.turn_id, a.call_id, a.agent_type, a.name, k.arguments, k.final_arguments, a.arguments_hash,
       a.allowed_decisions, a.rule, a.reason, a.parameters, a.created_at, a.expires_at, a.state, a.decided_at, a.decided_by,
       a.client_id, a.feedback
  FROM approvals a JOIN tool_calls k ON k.call_id = a.call_id
 WHERE a.approval_id = $1

-- name: rules_in_force
-- The rules that hold in a session, the oldest first: its own, and its owner's for all his sessions. $1 owner, $2 session, $3 most.
SELECT rule_id, owner, session_id, scope, tool, arguments, effect, created_at, created_by, call_id
  FROM approval_rules
 WHERE owner = $1 AND revoked_at IS NULL AND (session_id IS NULL OR session_id = $2)
 ORDER BY rule_id
 LIMIT $3

-- name: list_rules
-- The rules of an owner that were not revoked, the oldest first. $1 owner, $2 only those of this session, $3 most.
SELECT rule_id, owner, session_id, scope, tool, arguments, effect, created_at, created_by, call_id
  FROM approval_rules
 WHERE owner = $1 AND revoked_at IS NULL AND ($2::uuid IS NULL OR session_id = $2)
 ORDER BY rule_id
 LIMIT $3

-- name: revoke_rule
-- Ends a rule, and notes who did. No row means that the owner has none such. $1 owner, $2 rule, $3 who, $4 now.
WITH r AS (
       UPDATE approval_rules SET revoked_at = $4, revoked_by = $3
        WHERE owner = $1 AND rule_id = $2 AND revoked_at IS NULL
       RETURNING *
     ),
     new_audit AS (
       INSERT INTO audit (at, owner, session_id, event_type, user_id, call_id, tool, decision, rule)
       SELECT $4, owner, session_id, 'rule_revoked', $3, call_id, tool, effect, rule_id::text FROM r
     )
SELECT rule_id FROM r
