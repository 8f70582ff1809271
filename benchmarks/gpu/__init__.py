"""calm on one GPU: losses beside a processor's, the paper's model beside `calm plan`, hours, photographs a second.

    make gpu            # or: python -m benchmarks.gpu [--seconds 450]

Needs no network and no data: weights of the paper's shapes are drawn on the card, samples are made of the grammar's
texts. Each row stands alone: one that runs out of memory or time, or fails, says so and the others go on. Figures go
into docs/benchmarks/gpu.json as they are found, and from there onto docs/benchmarks/gpu.md. Without a GPU the card's
rows hold the plan's figures and "not run", and the same code runs with tiny shapes on the processor.
"""
