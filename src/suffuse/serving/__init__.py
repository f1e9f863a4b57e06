"""The only place that knows TorchServe.

    client       ask a server for answers; needs only what `pip install suffuse` brings
    transports   REST and gRPC, as the client uses them
    keys         the keys that TorchServe asks for
    replies      what its refusals mean, as errors of suffuse
    management   models, workers and queues of a running server
    archive      a bundle packed as a .mar
    server       start TorchServe, watch it, stop it
    settings     what a server serves and where; config.properties
    state        a server's private folder: locked, and cleared of what an earlier one left behind
    process      Java as a child that cannot be orphaned
    run          `suffuse serve`

Nothing is imported here: archive, server, settings, state, process and run need the extra ``serve``, and a client does
not.
"""
