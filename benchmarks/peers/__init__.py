"""What people would otherwise use: one small module for each library.

A contestant is a function ``contestant(weight, threads, copies)``: it takes a float32 matrix
(outputs, inputs) and returns ``bind``; ``bind(x)`` returns one call without arguments for
each copy of the weight. Copies lie in distinct memory, so that calls in turn read more than
the cache holds. It stands at a module's top, as it runs in a process of its own, where it may
crash; a library that is not installed raises ``ImportError``, a shape it can not do ``ValueError``.
"""
