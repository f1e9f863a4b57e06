"""The commands, one a file: SUMMARY, `add_arguments` and `run`, whose heavy imports wait until it is called.

    export     a run becomes a bundle
    archive    a bundle becomes a .mar
    serve      answers over REST and gRPC, by one server or several behind a balancer
    rollout    a new version takes over on running servers, or not at all
    predict    answers for texts, or for a file of rows
    evaluate   how good a bundle is on rows with labels
    explain    how much each word spoke for an answer
    playground a page to try models on
    profile    how long a worker takes for a bundle's batches
    plan       how many workers a load needs, by simulation
    autoscale  keeps the workers of running servers at what their load needs
    load_test  makes a load, checks the answers, says whether a latency goal is met

`suffuse fit` is Lightning's command line, in `training.fit`.
"""
