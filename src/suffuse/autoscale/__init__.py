"""How many workers a load needs: planned before it comes, and kept while it does.

    policy         signals of a server -> how many workers it should have; pure
    rules          rivals of the policy: a fixed number, and two rules as Kubernetes has them
    queueing       how long requests wait for a free worker, by formula
    arrivals       when requests come and how long they are: from a trace or drawn
    service_time   how long a worker takes for a batch; the file that `suffuse profile` writes
    profile        measures that for a bundle
    simulator      requests, queue, batches and workers, event by event
    planning       every rule on the same load: what `suffuse plan` tells
    plot           the same as a picture
    scrape         numbers out of what TorchServe and HAProxy export for Prometheus
    signals        what the policy is told, from servers alone or from a balancer before them
    meter          how long a worker takes for a request, from their counters
    controller     read, decide, act: the loop
    leases         one controller a model and server
    log            its decisions as JSON lines
    exporter       the same as metrics for Prometheus
    run            `suffuse autoscale`: all of these until it is interrupted
    beside         the same as a child of the process that serves

Nothing is imported here: policy, rules and queueing need the standard library alone.
"""
