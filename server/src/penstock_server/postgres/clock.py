"""The time in SQL: that of the database, the one clock that all servers share."""

# In ms since 1970, as it is when it is asked for: not that of the transaction's beginning.
NOW_MS = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
