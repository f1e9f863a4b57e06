"""How many workers a load needs: decided while serving, and planned beforehand.

    policy         signals of a server -> how many workers it should have; pure
    rules          rivals of the policy: a fixed number, and two rules as Kubernetes has them
    queueing       how long requests wait for a free worker, by formula
    controller     asks a rule and acts on running servers: `suffuse autoscale`
    signals        what a rule is shown, from the counters of TorchServe and HAProxy
    exporter       what it decided: metrics, and a log of JSON lines
    leases         one controller a model and server
    beside         the controller in the server's own process: `suffuse serve --autoscale`
    arrivals       when requests come and how long they are: from a trace or drawn
    service_time   how long a worker takes for a batch; the file that `suffuse profile` writes
    profile        measures that for a bundle
    simulator      requests, queue, batches and workers, event by event
    planning       every rule on the same load: what `suffuse plan` tells
    plot           the same as a picture

Nothing is imported here: policy, rules and queueing need the standard library alone.
"""
