"""The dual-write protocol: what one operation on one file does, step by step. No Django.

The order of the steps is the proof; see docs/protocol.rst, :mod:`django_dualstorage.core.steps` and tests/model.
"""
