"""What is kept: PostgreSQL behind asyncpg, one module an aggregate, every command one statement."""
