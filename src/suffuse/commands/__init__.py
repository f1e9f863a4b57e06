"""The commands, one a file: SUMMARY, `add_arguments` and `run`, whose heavy imports wait until it is called.

    export     a run becomes a bundle
    archive    a bundle becomes a .mar
    serve      answers over REST and gRPC
    predict    answers for texts, or for a file of rows
    evaluate   how good a bundle is on rows with labels
    profile    how long a worker takes for a bundle's batches
    plan       how many workers a load needs, by simulation

`suffuse fit` is Lightning's command line, in `training.fit`.
"""
