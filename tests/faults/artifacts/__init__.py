"""Faults of artifacts: whatever fails under an upload, what is seen is whole, and nothing is left lying about.

    ledger     what was uploaded where and when, and so what may be seen
    onlooker   one who looks all the time
    accounts   tables and store, which must be the same;  sweep: what makes them so
    sender     a client that is told what to do, step by step;  player: the real one, in a process that can be killed
    trainer    a process that logs files to its run
    crew       those who upload in a campaign
    depots     the stores;  wire: what is between server and S3
    scene      all of these together, and the record of what was struck
    acts       the campaigns;  program: all of them, with their sizes;  report: their table in docs/reliability.md

`python -m campaign` plays them after those of `campaign`, whose ground and network they share.
"""

import penstock  # noqa: F401  # before gRPC: it reads what Penstock sets, and else does not live through a fork
