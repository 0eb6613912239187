"""Fault campaigns: real processes stream, are harmed many times, heal, and what PostgreSQL has is counted.

    values     what each value says of where it comes from
    journal    what a writing process has done, in a file that outlives it
    writer     the program that logs;  crowd: one that forks, with threads and signals
    troupe     the writing processes of a campaign, life after life
    proxy      the network between
    ground     PostgreSQL, and harm to it
    stage      all of these together, and the record of what was struck
    points     what PostgreSQL has;  count: whether that is what was logged
    servers_fall, networks_fail, writers_fall, disks_fail: the campaigns
    report     the table of docs/reliability.md

`python -m campaign` plays them all at length.
"""
