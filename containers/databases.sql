-- Prefect keeps its tables apart from edgeloop's: both count their migrations in a table of the same name.
CREATE DATABASE prefect;
