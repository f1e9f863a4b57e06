"""Several TorchServe instances behind one HAProxy: one address, and no request lost when one of them is.

    config       what the balancer is to do, as HAProxy's configuration; haproxy.cfg.j2 is its template
    haproxy      HAProxy as a child process: checked, started, reloaded, stopped
    admin        HAProxy's admin socket: counters, states, weights
    drain        one instance taken out of the traffic, and put back
    instances    N servers of one machine: their names, ports and folders, and each kept running
    stack        all of it started, watched, repaired and stopped
    record       where a running stack is, for programs that look at it or change it
    run          `suffuse serve --instances N`
    rollout      a new version of a model on all instances, or none: `suffuse rollout`
    fleet        the instances that a roll-out changes
    canary       whether the new version may take over
    watch        the traffic that it judges by
    model_store  the archives, changed so that a restarted instance comes back with the right version

Nothing is imported here: config needs jinja2 and the standard library alone.
"""
