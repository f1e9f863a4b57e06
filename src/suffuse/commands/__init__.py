"""The larger commands, one a file: SUMMARY, `add_arguments` and `run`, whose heavy imports wait until it is called.

profile   how long a worker takes for a bundle's batches
plan      how many workers a load needs, by simulation
"""
