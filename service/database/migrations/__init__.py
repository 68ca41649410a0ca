"""How older databases become newer ones: alembic's scripts."""
