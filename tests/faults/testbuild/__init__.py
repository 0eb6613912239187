"""A build of the server, or of the client, that is broken on purpose: by a mutant, or by faults at chosen points.

Nothing of this is in the product, and the product knows nothing of it. `python -m testbuild` patches the product's
functions and then runs the product's own `main` (__main__.py):

    mutants.py      what a wrong server or client would do
    failpoints.py   where a process can be made to die, or its connection to PostgreSQL
    process.py      such a server, for tests
"""
