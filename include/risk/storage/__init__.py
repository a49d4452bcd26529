"""PostgreSQL: the embedded server or the one named by a setting, its schema, and bulk copies."""
