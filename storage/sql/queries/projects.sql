-- Projects, and their agents.

-- name: create_project
-- A project; no row when the owner has as many as he may. $1 id, $2 owner, $3 alias, $4 name, $5 description, $6 now, $7 most.
INSERT INTO projects (project_id, owner, alias, name, description, created_at, updated_at)
SELECT $1::uuid, $2, $3, $4, $5, $6::timestamptz, $6
 WHERE (SELECT count(*) FROM projects WHERE owner = $2 AND deleted_at IS NULL) < $7
RETURNING project_id, owner, alias, name, description, created_at, updated_at

-- name: find_project
-- One project of an owner by id, or else by the owner's own name for it. $1 owner, $2 id, $3 alias.
SELECT project_id, owner, alias, name, description, created_at, updated_at
  FROM projects
 WHERE owner = $1 AND deleted_at IS NULL AND (project_id = $2 OR alias = $3)
 ORDER BY project_id = $2 DESC NULLS LAST
 LIMIT 1

-- name: project_page
-- An owner's projects in the order in which they were made, with how many there are in all. $1 owner, $2 after this id, $3 limit.
SELECT project_id, owner, alias, name, description, created_at, updated_at,
       (SELECT count(*) FROM projects WHERE owner = $1 AND deleted_at IS NULL) AS total
  FROM projects
 WHERE owner = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR project_id > $2)
 ORDER BY project_id
 LIMIT $3

-- name: update_project
-- Another name or description, where given; an empty description takes it away. $1 owner, $2 id, $3 name, $4 description, $5 now.
UPDATE projects
   SET name = coalesce($3, name), description = nullif(coalesce($4, description), ''), updated_at = $5
 WHERE owner = $1 AND project_id = $2 AND deleted_at IS NULL
RETURNING project_id, owner, alias, name, description, created_at, updated_at

-- name: delete_project
-- Takes a project and its name away. $1 owner, $2 id, $3 now.
UPDATE projects SET deleted_at = $3, alias = NULL WHERE owner = $1 AND project_id = $2 AND deleted_at IS NULL RETURNING project_id

-- name: empty_project
-- Removes the agents of a deleted project, and lets its sessions go on without it. $1 id.
WITH p AS MATERIALIZED (SELECT project_id FROM projects WHERE project_id = $1 AND deleted_at IS NOT NULL),
     a AS (DELETE FROM project_agents WHERE project_id = (SELECT project_id FROM p))
UPDATE sessions SET project_id = NULL WHERE project_id = (SELECT project_id FROM p)

-- name: create_project_agent
-- An agent of a project; no row when the project is gone or has as many as it may. $1 project, $2 type, $3 definition, $4 now, $5 most.
INSERT INTO project_agents (project_id, agent_type, definition, created_at, updated_at)
SELECT p.project_id, $2, $3::bytea, $4::timestamptz, $4
  FROM projects p
 WHERE p.project_id = $1 AND p.deleted_at IS NULL AND (SELECT count(*) FROM project_agents WHERE project_id = $1) < $5
RETURNING agent_type, definition, created_at, updated_at

-- name: replace_project_agent
-- Another definition of an agent. $1 project, $2 type, $3 definition, $4 now.
UPDATE project_agents SET definition = $3, updated_at = $4
 WHERE project_id = $1 AND agent_type = $2
RETURNING agent_type, definition, created_at, updated_at

-- name: delete_project_agent
-- Takes an agent away. $1 project, $2 type.
DELETE FROM project_agents WHERE project_id = $1 AND agent_type = $2 RETURNING agent_type

-- name: project_agents
-- The agents of a project, by type. $1 project.
SELECT agent_type, definition, created_at, updated_at FROM project_agents WHERE project_id = $1 ORDER BY agent_type

-- name: session_project_agents
-- The agents of the project that a session belongs to. $1 session.
SELECT project_id, agent_type, definition
  FROM project_agents
 WHERE project_id = (SELECT project_id FROM sessions WHERE session_id = $1)
 ORDER BY agent_type
