"""The endpoint: the pools of a job behind HTTP, on Ray Serve.

    HTTP -> Api (any number) -> Renderer (one, owns the pools) -> the stages of a batch run -> committed clips

What was accepted is stored before it is answered, and committed by the same ledger as in batch runs, so that
processes may die as they like.
"""
