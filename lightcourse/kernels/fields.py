"""The places of a job of a program, behind those that a product's job has."""

from enum import IntEnum

from lightcourse.kernels.jobs import LENGTH


class Field(IntEnum):
    """What cores between products, and the program itself, need to know.

    HELD, TIMES: how many positions the cache holds of each text, and how many are new; a
    program sets both, and ROWS, in all its jobs. WIDTH: numbers of a row. NUMBER: where one
    float32 stands. HEADS of SIZE numbers; GROUP: queries' heads for each head of keys.
    CACHE, OTHER: a layer's keys and values; CAPACITY: positions that there is room for. PADDING:
    where the first position of each text is that is not padding; ENDS: where each text ends.
    COS, SIN: WINDOW rows each.
    """

    HELD, TIMES, WIDTH, NUMBER, HEADS, SIZE, GROUP = range(LENGTH, LENGTH + 7)
    CACHE, OTHER, CAPACITY, PADDING, COS, SIN, WINDOW, ENDS = range(LENGTH + 7, LENGTH + 15)


FIELDS = LENGTH + 15
