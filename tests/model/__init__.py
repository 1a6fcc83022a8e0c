"""An exhaustive check of the protocol on a small model: one name, a few processes, every interleaving.

``python -m tests.model [-v] [--long] [WORD ...]`` prints a table; ``tests/test_model.py`` holds the results.

================ ==============================================================================================
``state``        what the processes share, and what one step does to it
``processes``    who takes steps: reconcilers, writers behind the storage's back
``mutators``     who saves and deletes
``readers``      who reads, and by which rule
``designs``      what is compared: the design that is built, from ``core.steps``, and those that fail
``monitors``     what may never happen: REG, LIN (CONV is judged by ``explore`` where everything has stopped)
``explore``      the search: breadth first, so that a counter-example is a shortest one
``scenarios``    which processes meet, on which files, with which faults; processes of two phases
``expectations`` what the search must find, mistakes put into the built design included
``limits``       what the built design does not promise
================ ==============================================================================================

The grain is one system call or one S3 request. Not modelled: several names, torn system calls, network filesystems,
power loss, colliding stamps.
"""
