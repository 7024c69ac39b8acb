"""The broker's store in a database, one noun per module; `adapters.store_sql` opens it."""
