"""The protocol's world, small enough to be searched: real clients' spools and sessions, real servers' cursors and
flushes, and between them a network, a database and a clock that do what a test tells them, one step at a time.

    clockwork.py    the event loop: it runs until nothing more can happen, and its time is told
    database.py     PostgreSQL as far as the promise rests on it: locks, transactions, answers that do not arrive
    replica.py      a server: the product's ingest and its stream handler over that database
    network.py      a connection: messages on their way, which may get lost
    process.py      a client: the product's spool and session, and what its sender decides
    wrong.py        the same world with one thing in it that is wrong
"""
