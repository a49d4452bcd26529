"""The whole job on one machine: PostgreSQL and Airflow's processes, started, watched, used and ended.

1. `commands.up` starts the embedded servers (`risk.storage.server`), migrates both databases (`prepare`), starts
   Airflow's four processes (`processes`) in the environment of `environment`, and waits until they are healthy (`api`).
2. `commands.run` and `commands.backfill` ask Airflow's REST API for sessions and tell how they go.
3. `commands.down` ends every process that `up` started, and the database server.

Nothing here imports Airflow: it is spoken to as any client would.
"""
