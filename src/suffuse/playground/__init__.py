"""A page to try models on: an answer, why, and how long it took; two models side by side; a server's workers live.

    models      what can be asked: a bundle in this process, or a model of a server
    question    one row asked of one model: answer, explanation, times, or what went wrong
    cards       the same as HTML
    workers     how a server stands, read again and again
    examples    rows to begin with
    page        the page, made with Gradio
    run         `suffuse playground`

Nothing is imported here: page and run need the extra ``playground``.
"""
