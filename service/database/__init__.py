"""What the service remembers: tables, the engine, and how older databases become newer ones."""
