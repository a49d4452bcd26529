"""The risk job's domain: everything between a market close and published numbers, without Airflow."""
