"""The same requests to MLflow's own server and to ours, and what differs in the answers.

acts.py makes the requests, sides.py sends them, answers.py compares, differences.py has those that are meant.
"""
