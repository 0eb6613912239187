"""What remembers: all SQL, and everything that knows asyncpg. README.md beside this file says how."""
