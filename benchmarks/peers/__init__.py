"""What people would otherwise use: one small module for each library.

A contestant is a function ``contestant(weight, threads, copies)``: it takes a float32 matrix
(outputs, inputs) and returns ``bind``; ``bind(x)`` returns one call without arguments for
each copy of the weight. Copies lie in distinct memory, so that calls in turn read more than
the cache holds. A library that is not installed raises ``ImportError``.
"""
